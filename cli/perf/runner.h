// The one program behind all_reduce_perf, all_gather_perf, reduce_scatter_perf and broadcast_perf.
#pragma once

#include "cli/perf/options.h"

namespace sumac::cli {

// Joins the job of the environment, runs the sweep, prints on rank 0. The exit code: 0; 1 when an
// operation failed or a value was wrong (on every rank); 2 for bad options.
int PerfMain(Collective collective, int argc, char** argv);

}  // namespace sumac::cli
