// The values in force of a communicator's options: those given, else SUMAC_ALGO and SUMAC_TIMEOUT,
// else the defaults. Pure function of its arguments.
#pragma once

#include "absl/status/statusor.h"

#include "collectives/communicator.h"
#include "transport/bootstrap/launch_environment.h"

namespace sumac::collectives {

// An option that differs from its default counts as given. InvalidArgument names the option or
// variable, its value and what is expected.
absl::StatusOr<CommunicatorOptions> ResolveOptions(CommunicatorOptions options,
                                                   const transport::EnvironmentLookup& lookup);

}  // namespace sumac::collectives
