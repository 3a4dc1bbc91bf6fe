// Chooses the algorithm of one call, and can say why.
//
// Called by Runner for every operation: a walk over a short table, no allocation. By size
// thresholds for now (docs/performance.md has the figures behind them); the same on all ranks, as
// it depends only on what all ranks pass alike. Pure; any thread.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

struct Choice {
  const Algorithm* algorithm = nullptr;  // never null
  const char* reason = "";               // "small: few rounds count", ...
};

// `bytes`: of the whole virtual vector. `forced`: an algorithm's name, or empty. A collective that
// has no algorithm of that name is chosen for by size (so "ring" may be forced for a whole
// program).
Choice ChooseAlgorithm(Collective collective, size_t bytes, int ranks, absl::string_view forced);

// InvalidArgument, with the names there are, when no collective has an algorithm of that name.
absl::Status CheckAlgorithmName(absl::string_view name);

}  // namespace sumac::collectives
