// The soft NIC's counters under the names that /sys/class/infiniband has for them
// (Documentation/ABI/stable/sysfs-class-infiniband of the kernel; mlx5's names in hw_counters).
//
// A pure function; any thread.
#pragma once

#include <vector>

#include "verbs/port_counters.h"
#include "verbs/soft_nic/device/counters.h"

namespace sumac::soft_nic {

// By group and name.
std::vector<verbs::PortCounter> PortCountersOf(const DeviceCounters& counters);

}  // namespace sumac::soft_nic
