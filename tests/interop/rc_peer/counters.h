// What a device counted that must not happen between two correct devices on a clean link.
//
// rxe counts in sysfs (drivers/infiniband/sw/rxe/rxe_hw_counters.c), the soft NIC in its own
// counters. Control path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "verbs/device.h"

namespace sumac::interop {

struct Counter {
  std::string name;
  uint64_t value = 0;
};

// Empty for a device that is neither.
std::vector<Counter> UnwelcomeEvents(verbs::Device& device);
// "name=2 …" of those that grew from `before` to `after`; empty when none did.
std::string Growth(const std::vector<Counter>& before, const std::vector<Counter>& after);

}  // namespace sumac::interop
