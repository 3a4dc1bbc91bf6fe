// One simulated run: the seed draws the whole configuration (seed_plan.h), the run plays it, and
// the verdict says what went wrong.
//
// Two phases: while faults last, nothing may be wrong; after they stop, everything must finish.
#pragma once

#include <cstdint>
#include <string>

#include "tests/simulation/virtual_network.h"
#include "verbs/soft_nic/engine/queue_pair.h"

namespace sumac::soft_nic::simulation {

struct RunResult {
  std::string configuration;
  std::string complaints;  // empty: all is well
  uint64_t trace = 0;
  uint64_t events = 0;
  uint64_t nodes = 0;
  uint64_t messages = 0;     // work requests that completed
  uint64_t connections = 0;  // that must not be wrong, whatever comes, but may break
  uint64_t broken = 0;       // of those, said "retries exceeded"
  Duration virtual_time{};
  NetworkCounters network;
  QueuePairCounters engines;  // summed over all queue pairs
};

RunResult RunSeed(uint64_t seed);

// Adds every count of `more` to `sum`.
void Accumulate(QueuePairCounters* sum, const QueuePairCounters& more);
void Accumulate(NetworkCounters* sum, const NetworkCounters& more);

}  // namespace sumac::soft_nic::simulation
