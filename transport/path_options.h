// The path of a worker's connections, from the environment: GID, MTU, traffic class, timeouts.
//
// What the program set counts, else the SUMAC_ variable, else its NCCL_ alias, else the default.
// Used by Worker::Create, `sumac devices` and the programs' flags. Pure function of its arguments;
// docs/environment.md lists the variables.
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "transport/bootstrap/launch_environment.h"
#include "transport/worker.h"

namespace sumac::transport {

// Fills the path fields of `options` that are not set. The result says of each where its value is
// from: "gid_index 3 (SUMAC_GID_INDEX), traffic_class 106 (NCCL_IB_TC), timeout 16 (default) ...".
// InvalidArgument names the variable, its value and what is allowed; `options` is half filled then.
absl::StatusOr<std::string> FillPathOptions(const EnvironmentLookup& lookup,
                                            WorkerOptions& options);

}  // namespace sumac::transport
