// Between absl::Status and grpc::Status, with the failed rank carried along. Internal to this
// folder.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {

// Abseil's codes are gRPC's.
inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const int rank = FailedRankOf(status);
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
          rank >= 0 ? absl::StrCat(rank) : ""};
}

inline absl::Status FromGrpc(const grpc::Status& status, const std::string& context) {
  if (status.ok()) return absl::OkStatus();
  absl::Status converted(static_cast<absl::StatusCode>(status.error_code()),
                         absl::StrCat(context, ": ", status.error_message()));
  int rank = -1;
  if (absl::SimpleAtoi(status.error_details(), &rank)) return WithFailedRank(converted, rank);
  return converted;
}

}  // namespace sumac::transport
