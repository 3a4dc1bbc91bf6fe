#include "transport/worker_limits.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "verbs/device.h"

namespace sumac::transport {
namespace {

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("WorkerOptions::", field, " is ", value, "; allowed is ", least, " to ", most));
}

template <typename T>
absl::Status CheckPath(absl::string_view field, const std::optional<T>& value, Range range) {
  if (!value.has_value()) return absl::OkStatus();
  return CheckRange(field, *value, range.least, range.most);
}

// Part of a key in the bootstrap's store, so: no separators.
bool IsNameCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.' ||
         c == ':';
}

}  // namespace

absl::Status ValidateOptions(const WorkerOptions& options) {
  if (options.name.empty() || options.name.size() > kWorkerNameBytesMax ||
      !std::all_of(options.name.begin(), options.name.end(), IsNameCharacter)) {
    return absl::InvalidArgumentError(
        absl::StrCat("WorkerOptions::name is '", absl::CEscape(options.name.substr(0, 200)),
                     "'; allowed are 1 to ", kWorkerNameBytesMax, " of letters, digits and _-.:"));
  }
  const uint32_t mtu_bytes = options.path_mtu_bytes.value_or(0);
  if (mtu_bytes != 0 && !verbs::MtuOf(mtu_bytes).ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "WorkerOptions::path_mtu_bytes is ", mtu_bytes,
        "; allowed are 256, 512, 1024, 2048, 4096, and 0 for the largest that both ports allow"));
  }
  absl::Status status;
  status.Update(CheckPath("gid_index", options.gid_index, kGidIndexRange));
  status.Update(CheckPath("service_level", options.service_level, kServiceLevelRange));
  status.Update(CheckPath("timeout", options.timeout, kAckTimeoutRange));
  status.Update(CheckPath("retry_count", options.retry_count, kRetryRange));
  status.Update(CheckPath("rnr_retry", options.rnr_retry, kRetryRange));
  status.Update(CheckRange("send_depth", options.send_depth, kSendDepthMin, kSendDepthMax));
  status.Update(
      CheckRange("receive_depth", options.receive_depth, kReceiveDepthMin, kReceiveDepthMax));
  status.Update(
      CheckRange("eager_bytes_max", options.eager_bytes_max, kEagerBytesMin, kEagerBytesMax));
  if (options.connect_timeout <= absl::ZeroDuration()) {
    status.Update(absl::InvalidArgumentError("WorkerOptions::connect_timeout must be positive"));
  }
  if (options.spin < absl::ZeroDuration()) {
    status.Update(absl::InvalidArgumentError("WorkerOptions::spin must not be negative"));
  }
  return status;
}

}  // namespace sumac::transport
