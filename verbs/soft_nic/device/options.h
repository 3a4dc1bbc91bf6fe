// The soft NIC's options: one table with name, default and help, read from the environment when a
// device is opened.
//
// Bad values are InvalidArgument that names the variable, its value and what is expected.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/udp_link.h"

namespace sumac::soft_nic {

struct OptionHelp {
  const char* variable;
  const char* unit;
  const char* default_value;
  const char* range;
  const char* help;
};
std::span<const OptionHelp> DeviceOptionTable();

// A variable's value, or null when it is not set.
using EnvironmentLookup = std::function<const char*(const char* name)>;

struct DeviceOptions {
  UdpLinkOptions link;
  bool local = true;        // processes of one user and host share memory
  uint64_t send_quota = 0;  // bytes per second; 0: no limit
};
absl::StatusOr<DeviceOptions> ReadDeviceOptions(const EnvironmentLookup& lookup);

}  // namespace sumac::soft_nic
