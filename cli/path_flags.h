// The flags that choose device and path, the same for `sumac run` and the perf programs. Each
// stands for an environment variable of docs/environment.md and is checked as that is.
//
// Pure but for SetVariables.
#pragma once

#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace sumac::cli {

enum class PathFlagNames {
  kOurs,          // --device, --gid-index ...
  kWithPerftest,  // beside them those of ib_write_bw and its kin: -d, --ib-dev, -x, -m, --mtu ...
};

// Adds the flags to `app`. Parsing appends "NAME=value" to `variables`, which must outlive it, for
// each flag that is given.
void AddPathFlags(CLI::App& app, std::vector<std::string>* variables,
                  PathFlagNames names = PathFlagNames::kOurs);

// Puts "NAME=value" texts into this process's environment.
void SetVariables(const std::vector<std::string>& variables);

}  // namespace sumac::cli
