#include "collectives/data_type.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace sumac::collectives {
namespace {

struct TypeRow {
  DataType type;
  size_t bytes;
  const char* name;
  const char* short_name;
};
constexpr TypeRow kTypes[] = {
    {DataType::kFloat32, 4, "float", "f32"}, {DataType::kFloat64, 8, "double", "f64"},
    {DataType::kFloat16, 2, "half", "f16"},  {DataType::kBfloat16, 2, "bfloat16", "bf16"},
    {DataType::kInt32, 4, "int32", "i32"},   {DataType::kInt64, 8, "int64", "i64"},
};

struct OpRow {
  ReduceOp op;
  const char* name;
};
constexpr OpRow kOps[] = {{ReduceOp::kSum, "sum"},
                          {ReduceOp::kProd, "prod"},
                          {ReduceOp::kMin, "min"},
                          {ReduceOp::kMax, "max"},
                          {ReduceOp::kAvg, "avg"}};

}  // namespace

size_t SizeOf(DataType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.bytes;
  }
  return 0;
}

const char* NameOf(DataType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.name;
  }
  return "?";
}

const char* NameOf(ReduceOp op) {
  for (const OpRow& row : kOps) {
    if (row.op == op) return row.name;
  }
  return "?";
}

absl::StatusOr<DataType> ParseDataType(absl::string_view name) {
  std::string known;
  for (const TypeRow& row : kTypes) {
    if (name == row.name || name == row.short_name) return row.type;
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name, " (", row.short_name, ")");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown data type \"", name, "\"; known: ", known));
}

absl::StatusOr<ReduceOp> ParseReduceOp(absl::string_view name) {
  std::string known;
  for (const OpRow& row : kOps) {
    if (name == row.name) return row.op;
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown reduction \"", name, "\"; known: ", known));
}

}  // namespace sumac::collectives
