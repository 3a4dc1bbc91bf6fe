#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {
namespace {

constexpr absl::string_view kPayloadUrl = "sumac/failed_rank";

}  // namespace

int FailedRankOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  int rank = -1;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &rank)) return -1;
  return rank;
}

absl::Status WithFailedRank(absl::Status status, int rank) {
  if (!status.ok()) status.SetPayload(kPayloadUrl, absl::Cord(absl::StrCat(rank)));
  return status;
}

}  // namespace sumac::transport
