#include "collectives/communicator_options.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "collectives/executor/execution.h"
#include "collectives/host/host_runner.h"
#include "collectives/tuner/tuner.h"

namespace sumac::collectives {
namespace {

constexpr double kTimeoutSecondsMax = 24 * 3600;

}  // namespace

absl::StatusOr<CommunicatorOptions> ResolveOptions(CommunicatorOptions options,
                                                   const transport::EnvironmentLookup& lookup) {
  const CommunicatorOptions defaults;
  const char* algorithm = lookup("SUMAC_ALGO");
  const bool from_environment = options.algorithm.empty() && algorithm != nullptr;
  if (from_environment) options.algorithm = algorithm;
  if (!options.algorithm.empty() && options.algorithm != kHostAlgorithm) {
    absl::Status status = CheckAlgorithmName(options.algorithm);
    if (!status.ok()) {
      return Annotate(status, from_environment ? "SUMAC_ALGO" : "option algorithm");
    }
  }
  if (const char* host = lookup("SUMAC_HOST_MEMORY"); host != nullptr && *host != '\0') {
    const absl::string_view value = host;
    if (value != "0" && value != "1") {
      return absl::InvalidArgumentError(absl::StrCat(
          "SUMAC_HOST_MEMORY=\"", value, "\": expected 1 (default), or 0 to turn it off"));
    }
    if (value == "0") options.host_memory = false;
  }
  if (const char* copies = lookup("SUMAC_HOST_COPIES"); copies != nullptr && *copies != '\0') {
    const absl::string_view value = copies;
    if (value != "auto" && value != "always" && value != "never") {
      return absl::InvalidArgumentError(absl::StrCat(
          "SUMAC_HOST_COPIES=\"", value, "\": expected auto (default), always or never"));
    }
    if (options.host_copies == defaults.host_copies && value != "auto") {
      options.host_copies = value == "always" ? HostCopies::kAlways : HostCopies::kNever;
    }
  }
  if (const char* seconds = lookup("SUMAC_TIMEOUT");
      seconds != nullptr && options.timeout == defaults.timeout) {
    double value = 0;
    if (!absl::SimpleAtod(seconds, &value) || !(value > 0 && value <= kTimeoutSecondsMax)) {
      return absl::InvalidArgumentError(absl::StrCat("SUMAC_TIMEOUT=\"", seconds,
                                                     "\": expected seconds, more than 0 and up to ",
                                                     kTimeoutSecondsMax));
    }
    options.timeout = absl::Seconds(value);
  }
  if (options.timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "option timeout ", absl::FormatDuration(options.timeout), ": expected more than 0"));
  }
  if (options.name.empty() || options.name.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("option name \"", options.name, "\": expected a name without '/'"));
  }
  return options;
}

}  // namespace sumac::collectives
