// Dissemination barrier (Hensgen, Finkel and Manber, 1988): in round k every rank tells the rank
// 2^k after it what it has heard so far; after ceil(log2 n) rounds everybody has heard of
// everybody. The data is a token of one element, reduced with max: hearing of a rank twice does no
// harm.
#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

Program DisseminationBarrier(int ranks, int rank, int /*root*/) {
  Program program = {Copy(0, kInput, kOutput)};
  for (int distance = 1; distance < ranks; distance *= 2) {
    program.push_back(Send((rank + distance) % ranks, 0, kOutput));
    program.push_back(
        ReceiveReduce((rank - distance % ranks + ranks) % ranks, 0, kOutput, kOutput));
  }
  return program;
}

}  // namespace sumac::collectives
