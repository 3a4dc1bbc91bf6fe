// The algorithms: each is a function that writes one rank's program.
//
// To add one: write a generator in a file of its own, list it in algorithms.cc; the checker's tests
// then run it for every number of ranks, and the executor's tests with real values. Pure functions;
// any thread. A generator is total: every ranks >= 1, every rank and root in range.
#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

struct Algorithm {
  Collective collective;
  const char* name;     // what SUMAC_ALGO says
  const char* summary;  // when it is good
  int temp_slots;
  bool block_per_rank;  // else the vector is one block
  Program (*program)(int ranks, int rank, int root);

  int Blocks(int ranks) const { return block_per_rank ? ranks : 1; }
};

std::span<const Algorithm> Algorithms();
// Null when there is none of that name.
const Algorithm* FindAlgorithm(Collective collective, absl::string_view name);
// Names for messages, of one collective or of all: "ring, direct".
std::string KnownAlgorithms(Collective collective);
std::string KnownAlgorithms();

// Every rank's program.
Schedule BuildSchedule(const Algorithm& algorithm, int ranks, int root);

// --- Generators
Program RingAllReduce(int ranks, int rank, int root);
Program RingReduceScatter(int ranks, int rank, int root);
Program RingAllGather(int ranks, int rank, int root);
Program RecursiveDoublingAllReduce(int ranks, int rank, int root);
Program DirectReduceScatter(int ranks, int rank, int root);
Program DirectAllGather(int ranks, int rank, int root);
Program BruckAllGather(int ranks, int rank, int root);
Program TreeBroadcast(int ranks, int rank, int root);
Program ChainBroadcast(int ranks, int rank, int root);
Program DisseminationBarrier(int ranks, int rank, int root);

}  // namespace sumac::collectives
