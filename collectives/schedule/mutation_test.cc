// Can a schedule be subtly wrong? Breaks right schedules at random and counts what the checker
// misses.
//
// Whether a mutant is really broken is decided by an interpreter that shares nothing with the
// checker: it runs the steps with random numbers and compares what the ranks end with. Some mutants
// are harmless (a swap of steps that don't depend on each other): those are not counted.
#include <cstdio>
#include <deque>
#include <map>
#include <random>

#include "gtest/gtest.h"

#include "collectives/schedule/algorithms.h"
#include "collectives/schedule/checker.h"

namespace sumac::collectives {
namespace {

constexpr uint64_t kPoison = 0x6b6b6b6b6b6b6b6b;

uint64_t FinalizedValue(uint64_t x) { return x * 0x9e3779b97f4a7c15 + 1; }

// Runs a schedule with one number a block.
class Interpreter {
 public:
  Interpreter(const Schedule& s, bool in_place, uint64_t seed) : s_(s), in_place_(in_place) {
    std::mt19937_64 random(seed);
    for (int rank = 0; rank < s.ranks; ++rank) {
      memory_.emplace_back(2 * s.blocks + s.temp_slots, kPoison);
      original_.emplace_back(s.blocks);
      for (int block = 0; block < s.blocks; ++block) {
        // Barrier: one bit a rank, joined by or.
        original_[rank][block] =
            s.collective == Collective::kBarrier ? uint64_t{1} << rank : random();
        if (HasInput(s.collective, rank, s.root, block)) {
          memory_[rank][block] = original_[rank][block];
        }
      }
    }
  }

  // Do all ranks end, with the right bytes?
  bool Right() {
    std::vector<size_t> next(s_.ranks);
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < s_.ranks; ++rank) {
        while (next[rank] < s_.programs[rank].size() && Do(rank, s_.programs[rank][next[rank]])) {
          ++next[rank];
          moved = true;
        }
      }
    }
    for (int rank = 0; rank < s_.ranks; ++rank) {
      if (next[rank] != s_.programs[rank].size()) return false;  // hangs
      if (!MemoryRight(rank)) return false;
    }
    for (const auto& [pair, fifo] : fifos_) {
      if (!fifo.empty()) return false;  // spoils the next operation
    }
    return true;
  }

 private:
  uint64_t& At(int rank, int block, Place place) {
    if (place.buffer == Buffer::kTemp) return memory_[rank][2 * s_.blocks + place.slot];
    const bool same = in_place_ && HasInput(s_.collective, rank, s_.root, block);
    return memory_[rank][place.buffer == Buffer::kInput || same ? block : s_.blocks + block];
  }

  bool Do(int rank, const Step& step) {
    uint64_t incoming = 0;
    if (Receives(step.kind)) {
      auto& fifo = fifos_[{step.peer, rank}];
      if (fifo.empty()) return false;
      incoming = fifo.front();
      fifo.pop_front();
    }
    switch (step.kind) {
      case StepKind::kSend:
        fifos_[{rank, step.peer}].push_back(At(rank, step.block, step.from));
        break;
      case StepKind::kReceive:
        At(rank, step.block, step.to) = incoming;
        break;
      case StepKind::kReceiveReduce: {
        const uint64_t local = At(rank, step.block, step.from);
        At(rank, step.block, step.to) =
            s_.collective == Collective::kBarrier ? (local | incoming) : local + incoming;
        break;
      }
      case StepKind::kCopy:
        At(rank, step.block, step.to) = At(rank, step.block, step.from);
        break;
      case StepKind::kFinalize:
        At(rank, step.block, step.to) = FinalizedValue(At(rank, step.block, step.to));
        break;
    }
    return true;
  }

  uint64_t Promised(int block) const {
    if (s_.collective == Collective::kAllGather) return original_[block][block];
    if (s_.collective == Collective::kBroadcast) return original_[s_.root][block];
    uint64_t all = 0;
    for (int rank = 0; rank < s_.ranks; ++rank) all += original_[rank][block];
    return s_.collective == Collective::kBarrier ? all : FinalizedValue(all);
  }

  bool MemoryRight(int rank) {
    for (int block = 0; block < s_.blocks; ++block) {
      if (HasOutput(s_.collective, rank, block) && At(rank, block, kOutput) != Promised(block)) {
        return false;
      }
      if (!in_place_ && HasInput(s_.collective, rank, s_.root, block) &&
          At(rank, block, kInput) != original_[rank][block]) {
        return false;
      }
    }
    return true;
  }

  const Schedule& s_;
  const bool in_place_;
  std::vector<std::vector<uint64_t>> memory_;  // per rank: Input, Output, Temp
  std::vector<std::vector<uint64_t>> original_;
  std::map<std::pair<int, int>, std::deque<uint64_t>> fifos_;
};

bool ReallyRight(const Schedule& schedule) {
  return Interpreter(schedule, false, 1).Right() && Interpreter(schedule, true, 2).Right();
}

int Below(std::mt19937_64& random, size_t bound) { return static_cast<int>(random() % bound); }

Place RandomPlace(std::mt19937_64& random, const Schedule& s) {
  const int which = Below(random, 2 + s.temp_slots);
  return which == 0 ? kInput : which == 1 ? kOutput : Temp(which - 2);
}

// Changes one thing; returns what it did.
const char* Mutate(Schedule& s, std::mt19937_64& random) {
  Program& program = s.programs[Below(random, s.ranks)];
  if (program.empty()) return "none";
  const int at = Below(random, program.size());
  Step& step = program[at];
  switch (Below(random, 9)) {
    case 0:
      program.erase(program.begin() + at);
      return "drop";
    case 1:
      program.insert(program.begin() + at, Step(step));
      return "duplicate";
    case 2:
      std::swap(step, program[Below(random, program.size())]);
      return "swap";
    case 3:
      if (at + 1 < std::ssize(program)) std::swap(step, program[at + 1]);
      return "swap neighbours";
    case 4:
      if (step.peer >= 0) step.peer = Below(random, s.ranks);
      return "peer";
    case 5:
      step.block = Below(random, s.blocks);
      return "block";
    case 6:
      if (ReadsFrom(step.kind)) step.from = RandomPlace(random, s);
      return "source";
    case 7:
      if (WritesTo(step.kind)) step.to = RandomPlace(random, s);
      return "target";
    default:
      if (Receives(step.kind)) {
        step.kind = step.kind == StepKind::kReceive ? StepKind::kReceiveReduce : StepKind::kReceive;
      }
      return "kind";
  }
}

TEST(Mutation, TheCheckerMissesNoBrokenSchedule) {
  constexpr int kMutantsEach = 400;
  std::mt19937_64 random(20260101);
  int broken = 0, caught = 0, harmless = 0, strict = 0;
  for (const Algorithm& algorithm : Algorithms()) {
    for (int ranks = 2; ranks <= 9; ++ranks) {
      const Schedule right = BuildSchedule(algorithm, ranks, ranks - 1);
      ASSERT_TRUE(ReallyRight(right)) << algorithm.name << " " << ranks;
      for (int i = 0; i < kMutantsEach; ++i) {
        Schedule mutant = right;
        const char* what = Mutate(mutant, random);
        if (mutant.programs == right.programs) continue;
        const bool refused = !CheckSchedule(mutant).ok();
        if (ReallyRight(mutant)) {
          ++harmless;
          strict += refused ? 1 : 0;
          continue;
        }
        ++broken;
        caught += refused ? 1 : 0;
        EXPECT_TRUE(refused) << NameOf(algorithm.collective) << " " << algorithm.name << " with "
                             << ranks << " ranks: missed a mutant (" << what << ")";
      }
    }
  }
  std::printf("mutants that change the outcome: %d, caught: %d (%.3f %%)\n", broken, caught,
              100.0 * caught / broken);
  std::printf("harmless mutants: %d, of which refused all the same: %d\n", harmless, strict);
  EXPECT_GT(broken, 10'000);
  EXPECT_GE(caught, broken * 0.99);
}

TEST(Mutation, TheInterpreterAgreesThatAlgorithmsAreRight) {
  for (const Algorithm& algorithm : Algorithms()) {
    for (int ranks = 1; ranks <= 33; ++ranks) {
      EXPECT_TRUE(ReallyRight(BuildSchedule(algorithm, ranks, ranks / 2)))
          << algorithm.name << " " << ranks;
    }
  }
}

}  // namespace
}  // namespace sumac::collectives
