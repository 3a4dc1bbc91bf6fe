// One phase of a latency test, at either side.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/perf/pair/statistics.h"
#include "cli/perf/pair/work.h"

namespace sumac::cli {

// The number of operations that this rank did. The initiator adds a sample for each to `samples`
// (half of a round trip in a ping-pong) unless it is null.
absl::StatusOr<uint64_t> RunLatency(Session& session, const PairOptions& options, Work& work,
                                    const Phase& phase, LatencySamples* samples);

}  // namespace sumac::cli
