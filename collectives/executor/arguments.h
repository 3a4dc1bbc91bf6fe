// Are the arguments of a collective call sound? Sizes that don't overflow, pointers that are there,
// buffers that are apart or in place by the rule. Pure; allocates only when it fails.
#pragma once

#include "absl/status/status.h"

#include "collectives/executor/execution.h"
#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

// `count` as the caller gave it (of all-gather and reduce-scatter: one rank's share). On success
// `arguments.count` is that of the virtual vector.
absl::Status CheckArguments(Collective collective, int rank, int size, int root, size_t count,
                            Arguments& arguments);

}  // namespace sumac::collectives
