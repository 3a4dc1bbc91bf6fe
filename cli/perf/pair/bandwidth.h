// One phase of a bandwidth test, at either side.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/perf/pair/statistics.h"
#include "cli/perf/pair/work.h"

namespace sumac::cli {

struct BandwidthRun {
  std::vector<uint64_t> done;   // operations of this rank, a lane
  std::vector<RatePart> parts;  // of this rank; empty where it did not initiate any
};

absl::StatusOr<BandwidthRun> RunBandwidth(Session& session, const PairOptions& options, Work& work,
                                          const Phase& phase);

}  // namespace sumac::cli
