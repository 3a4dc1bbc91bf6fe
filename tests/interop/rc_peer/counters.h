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
  bool by_probes = false;  // tail probes make it grow, too
};

// Empty for a device that is neither.
std::vector<Counter> UnwelcomeEvents(verbs::Device& device);
// The one of this name; 0 if there is none.
uint64_t CounterOf(verbs::Device& device, const std::string& name);
// How often the device answered that there is no receive.
uint64_t RnrNaksSent(verbs::Device& device);
// The sum of everything that the kernel counts for a device in software.
uint64_t AllKernelCounters(verbs::Device& device);
// How often the device asked after a tail that nobody had answered for a while: that costs a
// duplicate and proves no loss. 0 for all but the soft NIC.
uint64_t TailProbes(verbs::Device& device);
// "name=2 …" of those that grew from `before` to `after`; empty when none did. `probed`: one of
// both devices has sent tail probes.
std::string Growth(const std::vector<Counter>& before, const std::vector<Counter>& after,
                   bool probed);

}  // namespace sumac::interop
