// Direct exchange: everyone sends to everyone in one round. Each rank starts with the rank after
// it, so that no receiver is met by all senders at once.
#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

Program DirectAllGather(int ranks, int rank, int /*root*/) {
  Program program;
  for (int d = 1; d < ranks; ++d) program.push_back(Send((rank + d) % ranks, rank, kInput));
  program.push_back(Copy(rank, kInput, kOutput));
  for (int d = 1; d < ranks; ++d) {
    const int peer = (rank - d + ranks) % ranks;
    program.push_back(Receive(peer, peer, kOutput));
  }
  return program;
}

Program DirectReduceScatter(int ranks, int rank, int /*root*/) {
  if (ranks == 1) return {Copy(0, kInput, kOutput), Finalize(0, kOutput)};
  Program program;
  for (int d = 1; d < ranks; ++d) {
    const int peer = (rank + d) % ranks;
    program.push_back(Send(peer, peer, kInput));
  }
  for (int d = 1; d < ranks; ++d) {
    const int peer = (rank - d + ranks) % ranks;
    program.push_back(ReceiveReduce(peer, rank, d == 1 ? kInput : kOutput, kOutput));
  }
  program.push_back(Finalize(rank, kOutput));
  return program;
}

}  // namespace sumac::collectives
