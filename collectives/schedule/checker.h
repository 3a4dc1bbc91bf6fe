// Proves a schedule right, or says which rank, step and block is wrong.
//
// Called by the tests for every algorithm and many numbers of ranks, and by the communicator before
// it first runs a schedule. What it proves:
//   1. Structure: peers, blocks and slots exist; Input is never written.
//   2. Outcome, by symbolic execution of all ranks: each place holds {block, which ranks'
//      contributions, finalized}. A reduction must join values of one block with disjoint
//      contributions (in a barrier they may overlap); nothing is read before it was written; a
//      message is of the block that the receiver expects; no message is left over; every Output
//      ends with what the collective promises. Done twice: Input and Output apart, and in place.
//   3. Overlap: no deadlock when the executor overlaps steps (hazards.h) with a FIFO of one piece a
//      pair of ranks, and each piece is read and written in the order that the sequential meaning
//      asks for; a send keeps its source for as long as it can.
//
// Why one piece of room and two pieces a block are the worst case of (3): what waits for what is a
// fixed graph over (step, piece), as nothing depends on timing, and a deadlock is a cycle in it. A
// FIFO of C pieces only adds edges that a FIFO of one has by transitivity. Mapping piece p to
// min(p, 1) maps every edge of a graph with more pieces onto an edge or a node of the graph with
// two; a block of one piece (or none) maps onto the pair taken whole (or skipped), which lanes
// order. So a cycle at any size gives a cycle here.
//
// Pure; any thread. Time: O(all steps * ranks / 64); CheckCost says how much before it is spent.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

// OK, or Internal naming algorithm, rank, step and block.
absl::Status CheckSchedule(const Schedule& schedule);

// Words of memory that a check touches, roughly, for `steps` steps of all ranks together. A
// communicator skips checks above kCheckCostMax (about a tenth of a second) and relies on the
// generators' tests.
uint64_t CheckCost(int ranks, int blocks, int temp_slots, uint64_t steps);
inline constexpr uint64_t kCheckCostMax = 1'000'000;

}  // namespace sumac::collectives
