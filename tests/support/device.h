// Which device a test of the floors from transport/ up runs on.
//
// The soft NIC, so that a machine with RDMA hardware runs the same tests as one without; or what
// SUMAC_TEST_DEVICE names, one device or several with commas between them: rank i takes number i
// modulo their count. The lab (tests/rxe) runs the same programs on kernel soft-RoCE this way.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace sumac::test_support {

inline std::string TestDevice(int rank) {
  const char* named = std::getenv("SUMAC_TEST_DEVICE");
  if (named == nullptr || *named == '\0') return "soft0";
  const std::vector<std::string> devices = absl::StrSplit(named, ',');
  return devices[static_cast<size_t>(rank) % devices.size()];
}

}  // namespace sumac::test_support
