// Element types and reduction operations of the collectives.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sumac::collectives {

enum class DataType : uint8_t { kFloat32, kFloat64, kFloat16, kBfloat16, kInt32, kInt64 };
enum class ReduceOp : uint8_t { kSum, kProd, kMin, kMax, kAvg };

size_t SizeOf(DataType type);  // bytes an element
const char* NameOf(
    DataType type);  // nccl-tests' names: "float", "double", "half", "bfloat16", "int32", "int64"
const char* NameOf(ReduceOp op);  // "sum", "prod", "min", "max", "avg"
absl::StatusOr<DataType> ParseDataType(
    absl::string_view name);  // also f32 f64 f16 bf16 i32 i64; lists the names it knows
absl::StatusOr<ReduceOp> ParseReduceOp(absl::string_view name);

}  // namespace sumac::collectives
