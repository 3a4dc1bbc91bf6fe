// Ring algorithms: every rank sends to its right neighbour and receives from its left one.
// Each block travels once round the ring, so every link carries (n-1)/n of the data a phase
// (Patarasuk and Yuan, 2009). A block is reduced at one rank only: all ranks end with the same
// bits.
#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {
namespace {

struct Ring {
  Ring(int ranks_, int rank) : ranks(ranks_), right((rank + 1) % ranks), left(Wrap(rank - 1)) {}
  int Wrap(int block) const { return (block % ranks + ranks) % ranks; }

  int ranks;
  int right;
  int left;
};

}  // namespace

// Reduces round the ring until rank r holds block r+1 complete, then passes the complete blocks on.
Program RingAllReduce(int ranks, int rank, int /*root*/) {
  if (ranks == 1) return {Copy(0, kInput, kOutput), Finalize(0, kOutput)};
  const Ring ring(ranks, rank);
  Program program;
  for (int s = 0; s < ranks - 1; ++s) {
    program.push_back(Send(ring.right, ring.Wrap(rank - s), s == 0 ? kInput : kOutput));
    program.push_back(ReceiveReduce(ring.left, ring.Wrap(rank - s - 1), kInput, kOutput));
  }
  program.push_back(Finalize(ring.Wrap(rank + 1), kOutput));
  for (int s = 0; s < ranks - 1; ++s) {
    program.push_back(Send(ring.right, ring.Wrap(rank + 1 - s), kOutput));
    program.push_back(Receive(ring.left, ring.Wrap(rank - s), kOutput));
  }
  return program;
}

// As the first phase above, shifted so that rank r ends with block r. Partial sums wait in Temp,
// two in turn: one being sent while the next comes in.
Program RingReduceScatter(int ranks, int rank, int /*root*/) {
  if (ranks == 1) return {Copy(0, kInput, kOutput), Finalize(0, kOutput)};
  const Ring ring(ranks, rank);
  Program program;
  Place partial = kInput;
  for (int s = 0; s < ranks - 1; ++s) {
    const bool last = s == ranks - 2;
    program.push_back(Send(ring.right, ring.Wrap(rank - s - 1), partial));
    partial = last ? kOutput : Temp(s % 2);
    program.push_back(ReceiveReduce(ring.left, ring.Wrap(rank - s - 2), kInput, partial));
  }
  program.push_back(Finalize(rank, kOutput));
  return program;
}

Program RingAllGather(int ranks, int rank, int /*root*/) {
  const Ring ring(ranks, rank);
  Program program;
  for (int s = 0; s < ranks - 1; ++s) {
    program.push_back(Send(ring.right, ring.Wrap(rank - s), s == 0 ? kInput : kOutput));
    program.push_back(Receive(ring.left, ring.Wrap(rank - s - 1), kOutput));
  }
  program.push_back(Copy(rank, kInput, kOutput));
  return program;
}

}  // namespace sumac::collectives
