// Options of perftest that `sumac perf` does not have: each is refused with the reason and, where
// there is one, what to use instead.
#pragma once

#include "CLI/CLI.hpp"

namespace sumac::cli {

void AddRefusedOptions(CLI::App& command);

}  // namespace sumac::cli
