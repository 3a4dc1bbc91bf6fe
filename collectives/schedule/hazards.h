// Makes one rank's program ready to overlap: splits it into lanes and finds which steps must wait
// for which.
//
// A lane is what runs in order by itself: the sends to one peer, the receives from one peer, the
// local steps. Between lanes a step waits only for earlier steps that touch the same storage in a
// conflicting way (read after write, write after read, write after write). Input and Output of one
// block count as one storage, because in place they are.
//
// A block moves in pieces. A wait is piece by piece: piece p of a step may run once every step it
// waits for has finished its piece p (or all its pieces, if it has fewer). A send has finished a
// piece when its local bytes may be reused. Only where Temp changes from one block to another of
// another size is the wait for the whole step; blocks then differ in how many pieces they have.
//
// Plain data, made once per program, immutable after; shared by all operations of that schedule.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

struct Wait {
  uint32_t step = 0;
  bool whole = false;  // for all pieces of that step

  friend bool operator==(const Wait&, const Wait&) = default;
};

enum class LaneKind : uint8_t { kSend, kReceive, kLocal };

struct Lane {
  LaneKind kind = LaneKind::kLocal;
  int32_t peer = -1;
  std::vector<uint32_t> steps;  // in program order
};

struct ReadyProgram {
  Collective collective = Collective::kAllReduce;
  const char* algorithm = "";
  int ranks = 1;
  int rank = 0;
  int root = 0;
  int blocks = 1;
  int temp_slots = 0;
  Program steps;
  std::vector<Lane> lanes;
  std::vector<Wait> waits;            // of all steps, one after the other
  std::vector<uint32_t> waits_begin;  // per step, and one more

  std::span<const Wait> WaitsOf(uint32_t step) const {
    return std::span(waits).subspan(waits_begin[step], waits_begin[step + 1] - waits_begin[step]);
  }
};

// `program` keeps the rules of schedule.h for peers, blocks and slots.
ReadyProgram MakeReady(Program program, Collective collective, const char* algorithm, int ranks,
                       int rank, int root, int blocks, int temp_slots);
inline ReadyProgram MakeReady(const Schedule& s, int rank) {
  return MakeReady(s.programs[rank], s.collective, s.algorithm.c_str(), s.ranks, rank, s.root,
                   s.blocks, s.temp_slots);
}

}  // namespace sumac::collectives
