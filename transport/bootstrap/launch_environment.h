// Who am I in the job: rank, size and where the bootstrap server is, read from whatever launcher
// started us.
//
// Order of preference: explicit SUMAC_* (set by `sumac run`), torchrun, Open MPI, PMI / PMIx, Slurm
// (last: its values go stale inside salloc). Pure function of the environment, so tests pass their
// own lookup.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {

struct LaunchEnvironment {
  BootstrapOptions bootstrap;  // rank, size, server, job, serve
  int local_rank = 0;          // among the ranks of this host
  int local_size = 1;
  std::string
      origin;  // "sumac run", "torchrun", "Open MPI", "PMI", "PMIx", "Slurm", "single process"
};

// A variable's value, or null when it is not set.
using EnvironmentLookup = std::function<const char*(const char* name)>;

// No launcher's variables at all means a job of one. Half a set, or a value out of range, is
// InvalidArgument naming the variable, its value and what is expected.
absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment(const EnvironmentLookup& lookup);
absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment();  // from getenv

}  // namespace sumac::transport
