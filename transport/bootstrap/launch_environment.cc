#include "transport/bootstrap/launch_environment.h"

#include <array>
#include <cstdlib>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sumac::transport {
namespace {

// How one launcher names things. A null name: this launcher does not say.
struct Launcher {
  const char* name;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

// In order of preference. Open MPI sets PMIx variables too, so it comes first; Slurm's go stale in
// an salloc shell.
constexpr std::array<Launcher, 6> kLaunchers = {{
    {"sumac run", "SUMAC_RANK", "SUMAC_SIZE", "SUMAC_LOCAL_RANK", "SUMAC_LOCAL_SIZE"},
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"PMIx", "PMIX_RANK", "PMIX_SIZE", nullptr, nullptr},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr},
}};

constexpr int kRanksMax = 1 << 20;
constexpr uint32_t kPortsFirst = 20000;  // for jobs on one host whose launcher gives no address
constexpr uint32_t kPortsCount = 12000;

const char* Value(const EnvironmentLookup& lookup, const char* name) {
  if (name == nullptr) return nullptr;
  const char* value = lookup(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

absl::StatusOr<int> Number(const EnvironmentLookup& lookup, const char* name, int low, int high) {
  const char* text = Value(lookup, name);
  int number = 0;
  if (text == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is not set, though the launcher's other variables are"));
  }
  if (!absl::SimpleAtoi(text, &number) || number < low || number > high) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, "='", text, "': must be a number from ", low, " to ", high));
  }
  return number;
}

const Launcher* FindLauncher(const EnvironmentLookup& lookup) {
  for (const Launcher& launcher : kLaunchers) {
    if (Value(lookup, launcher.rank) != nullptr || Value(lookup, launcher.size) != nullptr) {
      // An salloc shell has Slurm's size but no rank: that is no job of ranks. And PMIx has a rank,
      // but standardizes no variable for the size: its launcher (prterun, srun --mpi=pmix) says
      // more.
      const bool slurm = absl::StartsWith(launcher.rank, "SLURM");
      const bool pmix = absl::StartsWith(launcher.rank, "PMIX");
      if (slurm && Value(lookup, launcher.rank) == nullptr) continue;
      if (pmix && Value(lookup, launcher.size) == nullptr &&
          Value(lookup, kLaunchers.back().size) != nullptr) {
        continue;
      }
      return &launcher;
    }
  }
  return nullptr;
}

absl::Status CheckAddress(const std::string& name, const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, "='", address, "': must be host:port with a port from 1 to 65535"));
  }
  return absl::OkStatus();
}

// What tells this job from others, when the launcher has an id for it.
std::string JobName(const EnvironmentLookup& lookup) {
  for (const char* name : {"SUMAC_JOB", "TORCHELASTIC_RUN_ID", "PMIX_NAMESPACE",
                           "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "SLURM_JOB_ID"}) {
    if (const char* value = Value(lookup, name)) return value;
  }
  return "sumac";
}

uint32_t PortOf(const std::string& job) {
  uint32_t hash = 2166136261u;  // FNV-1a: the same on every rank
  for (const char c : job) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return kPortsFirst + hash % kPortsCount;
}

absl::Status FindServer(const EnvironmentLookup& lookup, const Launcher& launcher,
                        LaunchEnvironment& found) {
  BootstrapOptions& bootstrap = found.bootstrap;
  const bool ours = launcher.rank == kLaunchers.front().rank;
  if (const char* server = Value(lookup, "SUMAC_BOOTSTRAP")) {
    bootstrap.server = server;
    // Under `sumac run` the launcher serves, unless it says otherwise; under others rank 0 does.
    const char* serve = Value(lookup, "SUMAC_BOOTSTRAP_SERVE");
    if (serve != nullptr && std::string(serve) != "0" && std::string(serve) != "1") {
      return absl::InvalidArgumentError(absl::StrCat("SUMAC_BOOTSTRAP_SERVE='", serve,
                                                     "': must be 1 (rank 0 runs the server) or 0"));
    }
    const bool rank0_serves = serve != nullptr ? *serve == '1' : !ours;
    bootstrap.serve = rank0_serves && bootstrap.rank == 0;
    return CheckAddress("SUMAC_BOOTSTRAP", bootstrap.server);
  }
  bootstrap.serve = bootstrap.rank == 0;
  if (const char* host = Value(lookup, "MASTER_ADDR")) {
    // torchrun's own store holds MASTER_PORT, so the next one is ours.
    auto port = Number(lookup, "MASTER_PORT", 1, 65534);
    if (!port.ok()) return port.status();
    bootstrap.server = absl::StrCat(host, ":", *port + 1);
    return absl::OkStatus();
  }
  if (found.local_size == bootstrap.size) {
    bootstrap.server = absl::StrCat("127.0.0.1:", PortOf(bootstrap.job));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(launcher.name, " started ", bootstrap.size,
                   " ranks on several hosts and says no address to meet at: set "
                   "SUMAC_BOOTSTRAP=host:port to an address of rank 0's host"));
}

}  // namespace

absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment(const EnvironmentLookup& lookup) {
  LaunchEnvironment found;
  const Launcher* launcher = FindLauncher(lookup);
  if (launcher == nullptr) {
    found.origin = "single process";
    found.bootstrap.serve = true;
    found.bootstrap.server = "127.0.0.1:0";
    found.bootstrap.job = "single";
    return found;
  }
  found.origin = launcher->name;
  auto size = Number(lookup, launcher->size, 1, kRanksMax);
  if (!size.ok()) return size.status();
  auto rank = Number(lookup, launcher->rank, 0, *size - 1);
  if (!rank.ok()) return rank.status();
  found.bootstrap.rank = *rank;
  found.bootstrap.size = *size;
  found.bootstrap.job = JobName(lookup);
  found.local_rank = *rank;
  found.local_size = *size;
  if (Value(lookup, launcher->local_size) != nullptr) {
    auto local_size = Number(lookup, launcher->local_size, 1, *size);
    if (!local_size.ok()) return local_size.status();
    found.local_size = *local_size;
  } else if (const char* nodes = Value(lookup, "SLURM_NNODES");
             nodes != nullptr && std::string(nodes) != "1") {
    found.local_size = 1;  // not known; several hosts
  }
  if (Value(lookup, launcher->local_rank) != nullptr) {
    auto local_rank = Number(lookup, launcher->local_rank, 0, *size - 1);
    if (!local_rank.ok()) return local_rank.status();
    found.local_rank = *local_rank;
  }
  if (auto server = FindServer(lookup, *launcher, found); !server.ok()) return server;
  return found;
}

absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment() {
  return ReadLaunchEnvironment([](const char* name) { return std::getenv(name); });
}

}  // namespace sumac::transport
