// What a measurement was made on: every report says it, so that figures can be compared like with
// like.
//
// Core distance is how long a cache line takes from one CPU to another, one way. On virtual
// machines it changes by itself (the host moves CPUs between core complexes), and latencies through
// shared memory change with it; so it is measured with every run. Control path; a few milliseconds.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace sumac::cli {

struct Machine {
  std::string cpu_model;
  int cpus = 0;  // online
  std::string kernel;
  int cpu_a = -1, cpu_b = -1;  // those that the distance is between
  double core_one_way_ns = 0;  // 0: not measured
  double clock_read_ns = 0;    // what reading the clock once adds to a sample

  // "AMD EPYC, 2 CPUs, Linux 6.18.5; CPUs 0 and 1: 65 ns core to core one way; ..."
  std::string ToText() const;
  nlohmann::ordered_json ToJson() const;
};

// Without the distance.
Machine ReadMachine();

// Measured between two threads that this call starts and pins: the median of several short rounds.
// FailedPrecondition: the same CPU twice, or one that this process may not use.
absl::StatusOr<double> CoreOneWayNs(int cpu_a, int cpu_b);

// Fills in the distance between `cpu_a` and `cpu_b`, if it can be measured.
void MeasureDistance(Machine& machine, int cpu_a, int cpu_b);

// The first two CPUs that this process may use; -1 for the second when there is only one.
struct CpuPair {
  int first = -1, second = -1;
};
CpuPair AllowedCpus();

}  // namespace sumac::cli
