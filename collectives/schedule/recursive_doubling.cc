// Recursive doubling: in round k, ranks that differ in bit k exchange all they have (Thakur,
// Rabenseifner and Gropp, 2005). With ranks that are no power of two, the first few pairs fold into
// one member each before, and unfold after. Both partners compute the same pair of operands, so all
// ranks end with the same bits (the operations are commutative).
#include <bit>

#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

Program RecursiveDoublingAllReduce(int ranks, int rank, int /*root*/) {
  const int members = static_cast<int>(std::bit_floor(static_cast<unsigned>(ranks)));
  const int folded = ranks - members;  // of ranks 0 ... 2*folded-1, the even ones sit out
  const bool in_pair = rank < 2 * folded;
  if (in_pair && rank % 2 == 0) {
    return {Send(rank + 1, 0, kInput), Receive(rank + 1, 0, kOutput)};
  }
  const int member = in_pair ? rank / 2 : rank - folded;
  const auto rank_of = [&](int m) { return m < folded ? 2 * m + 1 : m + folded; };

  int receives = in_pair ? 1 : 0;
  for (int bit = 1; bit < members; bit *= 2) ++receives;
  if (receives == 0) return {Copy(0, kInput, kOutput), Finalize(0, kOutput)};

  // The running result alternates between Temp and Output, so that a round's receive need not wait
  // until its send has left; the last one is Output.
  Program program;
  Place current = kInput;
  const auto reduce_from = [&](int peer) {
    const Place next = --receives % 2 == 0 ? kOutput : Temp(0);
    program.push_back(ReceiveReduce(peer, 0, current, next));
    current = next;
  };
  if (in_pair) reduce_from(rank - 1);
  for (int bit = 1; bit < members; bit *= 2) {
    const int peer = rank_of(member ^ bit);
    program.push_back(Send(peer, 0, current));
    reduce_from(peer);
  }
  program.push_back(Finalize(0, kOutput));
  if (in_pair) program.push_back(Send(rank - 1, 0, kOutput));
  return program;
}

}  // namespace sumac::collectives
