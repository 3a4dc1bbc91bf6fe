// Sizes as the perf programs take them on the command line.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace sumac::cli {

// "8", "64K", "1M", "2G": binary. InvalidArgument says what is wrong with the text.
absl::StatusOr<uint64_t> ParseSize(const std::string& text);

}  // namespace sumac::cli
