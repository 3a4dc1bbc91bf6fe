// Bruck's all-gather (Bruck et al., 1997): before the round with distance d, a rank holds the d
// blocks ending with its own; it passes them d ranks on. Blocks are addressed by number, so the
// final rotation of the original is not needed.
#include <algorithm>

#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

Program BruckAllGather(int ranks, int rank, int /*root*/) {
  const auto wrap = [&](int r) { return (r % ranks + ranks) % ranks; };
  Program program = {Copy(rank, kInput, kOutput)};
  for (int distance = 1; distance < ranks; distance *= 2) {
    const int blocks = std::min(distance, ranks - distance);
    for (int i = 0; i < blocks; ++i) {
      program.push_back(Send(wrap(rank + distance), wrap(rank - i), i == 0 ? kInput : kOutput));
    }
    for (int i = 0; i < blocks; ++i) {
      program.push_back(Receive(wrap(rank - distance), wrap(rank - distance - i), kOutput));
    }
  }
  return program;
}

}  // namespace sumac::collectives
