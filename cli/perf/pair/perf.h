// `sumac perf`: put, get, send and atomic between two ranks, with perftest's manners.
#pragma once

#include "cli/perf/pair/options.h"

namespace sumac::cli {

// Meets the other side (the launcher's job, HOST, a client that comes, or a rank started here),
// measures, prints at the initiator. `arguments`: those after `sumac perf`, for --local. The exit
// code: 0; 1 when something failed or data were wrong.
int RunPairPerf(const PairOptions& options, const std::vector<std::string>& arguments);

}  // namespace sumac::cli
