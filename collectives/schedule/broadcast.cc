// Broadcasts: a binomial tree (few rounds) and a chain (every link carries the data once; the
// executor moves a block piece by piece, so the pieces flow down the chain as a pipeline).
#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

Program TreeBroadcast(int ranks, int rank, int root) {
  const int place = (rank - root + ranks) % ranks;  // in a tree whose root is 0
  const auto rank_of = [&](int p) { return (p + root) % ranks; };
  Program program;
  int reach = 1;
  while (reach < ranks && (place & reach) == 0) reach *= 2;
  if (place != 0) program.push_back(Receive(rank_of(place - reach), 0, kOutput));
  for (int step = reach / 2; step > 0; step /= 2) {
    if (place + step < ranks) {
      program.push_back(Send(rank_of(place + step), 0, place == 0 ? kInput : kOutput));
    }
  }
  if (place == 0) program.push_back(Copy(0, kInput, kOutput));
  return program;
}

Program ChainBroadcast(int ranks, int rank, int root) {
  const int place = (rank - root + ranks) % ranks;
  Program program;
  if (place != 0) program.push_back(Receive((rank - 1 + ranks) % ranks, 0, kOutput));
  if (place != ranks - 1) {
    program.push_back(Send((rank + 1) % ranks, 0, place == 0 ? kInput : kOutput));
  }
  if (place == 0) program.push_back(Copy(0, kInput, kOutput));
  return program;
}

}  // namespace sumac::collectives
