// Piece by piece simulation of overlapping lanes, with the least room there can be.
//
// The executor's rules, played adversarially: a FIFO holds one piece, and a send lets go of its
// source only when a lane waits for that and nothing else in the job can move. Storage counts its
// reads and writes; before each access the counts must be what the sequential meaning says they
// are.
#include <algorithm>
#include <utility>

#include "collectives/schedule/checker_phases.h"
#include "collectives/schedule/hazards.h"

namespace sumac::collectives::internal {
namespace {

constexpr uint32_t kPieces = 2;

// Accesses of one storage (of one piece of it, while running).
struct Counts {
  uint32_t reads = 0;
  uint32_t writes = 0;
};

struct Rank {
  ReadyProgram program;
  // Sequential meaning: what was done to each step's operands before it.
  std::vector<Counts> expected_from;
  std::vector<Counts> expected_to;
  // State.
  std::vector<Counts> counts;     // per storage and piece
  std::vector<uint32_t> started;  // pieces, per step
  std::vector<uint32_t> done;     // pieces, per step
  std::vector<size_t> lane_next;  // per lane, index into its steps

  size_t StorageOf(int block, const Place& place) const {
    return place.buffer == Buffer::kTemp ? program.blocks + place.slot : block;
  }
  Counts& CountsOf(int block, const Place& place, uint32_t piece) {
    return counts[StorageOf(block, place) * kPieces + piece];
  }
};

class Simulation {
 public:
  Simulation(const Schedule& schedule, std::vector<ReadyProgram> programs)
      : schedule_(schedule), fifos_(static_cast<size_t>(schedule.ranks) * schedule.ranks) {
    for (ReadyProgram& program : programs) ranks_.push_back(Prepare(std::move(program)));
  }

  absl::Status Run() {
    do {
      for (bool moved = true; moved;) {
        moved = false;
        for (int r = 0; r < schedule_.ranks; ++r) {
          for (size_t lane = 0; lane < ranks_[r].program.lanes.size(); ++lane) {
            while (TryPiece(r, lane)) moved = true;
            if (!status_.ok()) return status_;
          }
        }
      }
    } while (ReleaseWaitedFor() || ReleaseAll());
    return status_.ok() ? CheckFinished() : status_;
  }

 private:
  Rank Prepare(ReadyProgram program) {
    Rank rank;
    rank.program = std::move(program);
    const Program& steps = rank.program.steps;
    std::vector<Counts> seen(schedule_.blocks + schedule_.temp_slots);
    for (const Step& step : steps) {
      Counts& from = seen[rank.StorageOf(step.block, step.from)];
      Counts& to = seen[rank.StorageOf(step.block, step.to)];
      rank.expected_from.push_back(from);
      rank.expected_to.push_back(to);
      if (ReadsFrom(step.kind)) ++from.reads;
      if (WritesTo(step.kind)) ++to.writes;
    }
    rank.counts.resize(seen.size() * kPieces);
    rank.started.resize(steps.size());
    rank.done.resize(steps.size());
    rank.lane_next.resize(rank.program.lanes.size());
    return rank;
  }

  uint32_t& Fifo(int from, int to) {
    return fifos_[static_cast<size_t>(from) * schedule_.ranks + to];
  }

  bool MayRun(const Rank& rank, uint32_t step) const {
    for (const Wait& wait : rank.program.WaitsOf(step)) {
      if (rank.done[wait.step] < (wait.whole ? kPieces : rank.started[step] + 1)) return false;
    }
    return true;
  }

  // Runs the next piece of a lane, if it can.
  bool TryPiece(int r, size_t lane) {
    Rank& rank = ranks_[r];
    const Lane& l = rank.program.lanes[lane];
    if (rank.lane_next[lane] == l.steps.size()) return false;
    const uint32_t index = l.steps[rank.lane_next[lane]];
    const Step& step = rank.program.steps[index];
    if (step.kind == StepKind::kSend && Fifo(r, step.peer) != 0) return false;
    if (Receives(step.kind) && Fifo(step.peer, r) == 0) return false;
    if (!MayRun(rank, index)) return false;

    const uint32_t piece = rank.started[index]++;
    CheckAccess(r, index, piece);
    if (step.kind == StepKind::kSend) {
      ++Fifo(r, step.peer);
    } else {
      if (Receives(step.kind)) --Fifo(step.peer, r);
      Finish(rank, index, piece);
    }
    if (rank.started[index] == kPieces) ++rank.lane_next[lane];
    return status_.ok();
  }

  void Finish(Rank& rank, uint32_t index, uint32_t piece) {
    const Step& step = rank.program.steps[index];
    if (ReadsFrom(step.kind)) ++rank.CountsOf(step.block, step.from, piece).reads;
    if (WritesTo(step.kind)) ++rank.CountsOf(step.block, step.to, piece).writes;
    ++rank.done[index];
  }

  void CheckAccess(int r, uint32_t index, uint32_t piece) {
    Rank& rank = ranks_[r];
    const Step& step = rank.program.steps[index];
    if (ReadsFrom(step.kind) &&
        rank.CountsOf(step.block, step.from, piece).writes != rank.expected_from[index].writes) {
      status_ = StepError(schedule_, r, index, "its source is not what it was to be");
    }
    if (WritesTo(step.kind)) {
      const Counts& to = rank.CountsOf(step.block, step.to, piece);
      if (to.writes != rank.expected_to[index].writes ||
          to.reads != rank.expected_to[index].reads) {
        status_ = StepError(schedule_, r, index, "its target is still in use");
      }
    }
  }

  void Release(int r, uint32_t send) {
    const uint32_t piece = ranks_[r].done[send];
    CheckAccess(r, send, piece);
    Finish(ranks_[r], send, piece);
  }

  // Lets go of the pieces that a lane's next piece waits for; false if there are none.
  bool ReleaseWaitedFor() {
    bool released = false;
    for (int r = 0; r < schedule_.ranks && status_.ok(); ++r) {
      Rank& rank = ranks_[r];
      for (size_t i = 0; i < rank.program.lanes.size(); ++i) {
        const Lane& lane = rank.program.lanes[i];
        if (rank.lane_next[i] == lane.steps.size()) continue;
        const uint32_t next = lane.steps[rank.lane_next[i]];
        for (const Wait& wait : rank.program.WaitsOf(next)) {
          const uint32_t needed = wait.whole ? kPieces : rank.started[next] + 1;
          while (rank.done[wait.step] < std::min(needed, rank.started[wait.step])) {
            Release(r, wait.step);
            released = true;
          }
        }
      }
    }
    return released && status_.ok();
  }

  bool ReleaseAll() {
    bool released = false;
    for (int r = 0; r < schedule_.ranks && status_.ok(); ++r) {
      for (uint32_t i = 0; i < ranks_[r].done.size(); ++i) {
        while (ranks_[r].done[i] < ranks_[r].started[i]) {
          Release(r, i);
          released = true;
        }
      }
    }
    return released && status_.ok();
  }

  absl::Status CheckFinished() const {
    for (int r = 0; r < schedule_.ranks; ++r) {
      const Rank& rank = ranks_[r];
      for (uint32_t i = 0; i < rank.done.size(); ++i) {
        if (rank.done[i] < kPieces) {
          return StepError(schedule_, r, i, "deadlock: this step can never end");
        }
      }
    }
    return absl::OkStatus();
  }

  const Schedule& schedule_;
  std::vector<uint32_t> fifos_;  // pieces under way, [from * ranks + to]
  std::vector<Rank> ranks_;
  absl::Status status_;
};

}  // namespace

absl::Status CheckOverlap(const Schedule& schedule) {
  std::vector<ReadyProgram> programs;
  for (int r = 0; r < schedule.ranks; ++r) programs.push_back(MakeReady(schedule, r));
  return CheckOverlap(schedule, std::move(programs));
}

absl::Status CheckOverlap(const Schedule& schedule, std::vector<ReadyProgram> programs) {
  return Simulation(schedule, std::move(programs)).Run();
}

}  // namespace sumac::collectives::internal
