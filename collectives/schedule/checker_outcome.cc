// Symbolic execution: what does every rank end with?
#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

#include "collectives/schedule/checker_phases.h"

namespace sumac::collectives::internal {
namespace {

// What a place holds: `block` reduced over the ranks in `contributors`. block < 0: never written.
struct Value {
  int block = -1;
  bool finalized = false;
  std::vector<uint64_t> contributors;

  bool known() const { return block >= 0; }
};

Value ContributionOf(int rank, int ranks, int block) {
  Value value{block, false, std::vector<uint64_t>((ranks + 63) / 64)};
  value.contributors[rank / 64] = uint64_t{1} << (rank % 64);
  return value;
}

Value ContributionOfAll(int ranks, int block, bool finalized) {
  Value value{block, finalized, std::vector<uint64_t>((ranks + 63) / 64, ~uint64_t{0})};
  if (ranks % 64 != 0) value.contributors.back() = (uint64_t{1} << (ranks % 64)) - 1;
  return value;
}

std::string ToString(const Value& value, int ranks) {
  if (!value.known()) return "nothing";
  std::string who;
  for (int rank = 0; rank < ranks; ++rank) {
    if ((value.contributors[rank / 64] >> (rank % 64) & 1) != 0) {
      absl::StrAppend(&who, who.empty() ? "" : " ", rank);
    }
  }
  return absl::StrCat("block ", value.block, " of ranks {", who, "}",
                      value.finalized ? ", finalized" : "");
}

class Execution {
 public:
  Execution(const Schedule& schedule, bool in_place) : schedule_(schedule), in_place_(in_place) {
    const int places = 2 * schedule.blocks + schedule.temp_slots;
    for (int rank = 0; rank < schedule.ranks; ++rank) {
      places_.emplace_back(places);
      for (int block = 0; block < schedule.blocks; ++block) {
        if (!HasInput(schedule.collective, rank, schedule.root, block)) continue;
        At(rank, block, kInput) = ContributionOf(rank, schedule.ranks, block);
      }
    }
    next_.resize(schedule.ranks);
  }

  // Each rank runs until it lacks a message; a message may have unblocked an earlier rank, so round
  // and round until nothing moves.
  absl::Status Run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < schedule_.ranks; ++rank) {
        while (next_[rank] < schedule_.programs[rank].size()) {
          const Step& step = schedule_.programs[rank][next_[rank]];
          if (Receives(step.kind) && fifos_[{step.peer, rank}].empty()) break;
          if (absl::Status status = Do(rank, step); !status.ok()) return status;
          ++next_[rank];
          moved = true;
        }
      }
    }
    return CheckEnd();
  }

 private:
  Value& At(int rank, int block, const Place& place) {
    size_t index = block;
    if (place.buffer == Buffer::kTemp) {
      index = 2 * schedule_.blocks + place.slot;
    } else if (place.buffer == Buffer::kOutput &&
               !(in_place_ && HasInput(schedule_.collective, rank, schedule_.root, block))) {
      index = schedule_.blocks + block;
    }
    return places_[rank][index];
  }

  absl::Status Error(int rank, absl::string_view what) {
    return StepError(schedule_, rank, next_[rank],
                     absl::StrCat(what, in_place_ ? " (in place)" : ""));
  }

  absl::Status Do(int rank, const Step& step) {
    Value value;
    if (ReadsFrom(step.kind)) {
      value = At(rank, step.block, step.from);
      if (!value.known()) return Error(rank, "reads what was never written");
      if (value.block != step.block) {
        return Error(rank, absl::StrCat("finds block ", value.block, " there"));
      }
    }
    if (step.kind == StepKind::kSend) {
      fifos_[{rank, step.peer}].push_back(std::move(value));
      return absl::OkStatus();
    }
    if (Receives(step.kind)) {
      auto& fifo = fifos_[{step.peer, rank}];
      Value incoming = std::move(fifo.front());
      fifo.pop_front();
      if (incoming.block != step.block) {
        return Error(rank, absl::StrCat("the peer sends block ", incoming.block));
      }
      if (step.kind == StepKind::kReceiveReduce) {
        if (absl::Status status = Join(rank, incoming, value); !status.ok()) return status;
      }
      value = std::move(incoming);
    }
    if (step.kind == StepKind::kFinalize) {
      value = At(rank, step.block, step.to);
      const Value all = ContributionOfAll(schedule_.ranks, step.block, false);
      if (value.block != all.block || value.finalized || value.contributors != all.contributors) {
        return Error(rank, absl::StrCat("finalizes ", ToString(value, schedule_.ranks)));
      }
      value.finalized = true;
    }
    At(rank, step.block, step.to) = std::move(value);
    return absl::OkStatus();
  }

  absl::Status Join(int rank, Value& into, const Value& operand) {
    if (into.finalized || operand.finalized) return Error(rank, "reduces a finalized value");
    for (size_t i = 0; i < into.contributors.size(); ++i) {
      const bool twice = (into.contributors[i] & operand.contributors[i]) != 0;
      if (twice && schedule_.collective != Collective::kBarrier) {
        return Error(rank,
                     absl::StrCat("a contribution counts twice: ", ToString(into, schedule_.ranks),
                                  " with ", ToString(operand, schedule_.ranks)));
      }
      into.contributors[i] |= operand.contributors[i];
    }
    return absl::OkStatus();
  }

  Value Promised(int block) const {
    switch (schedule_.collective) {
      case Collective::kAllGather:
        return ContributionOf(block, schedule_.ranks, block);
      case Collective::kBroadcast:
        return ContributionOf(schedule_.root, schedule_.ranks, block);
      case Collective::kBarrier:
        return ContributionOfAll(schedule_.ranks, block, false);
      case Collective::kAllReduce:
      case Collective::kReduceScatter:
        break;
    }
    return ContributionOfAll(schedule_.ranks, block, true);
  }

  absl::Status CheckEnd() {
    for (int rank = 0; rank < schedule_.ranks; ++rank) {
      if (next_[rank] < schedule_.programs[rank].size()) {
        return Error(rank, "waits for a message that nobody sends");
      }
    }
    for (const auto& [pair, fifo] : fifos_) {
      if (fifo.empty()) continue;
      return Error(pair.second, absl::StrCat("at the end, ", fifo.size(), " messages from rank ",
                                             pair.first, " were not received"));
    }
    for (int rank = 0; rank < schedule_.ranks; ++rank) {
      for (int block = 0; block < schedule_.blocks; ++block) {
        if (!HasOutput(schedule_.collective, rank, block)) continue;
        const Value& value = At(rank, block, kOutput);
        const Value promised = Promised(block);
        if (value.block != promised.block || value.finalized != promised.finalized ||
            value.contributors != promised.contributors) {
          return Error(rank, absl::StrCat("at the end, output block ", block, " holds ",
                                          ToString(value, schedule_.ranks), " instead of ",
                                          ToString(promised, schedule_.ranks)));
        }
      }
    }
    return absl::OkStatus();
  }

  const Schedule& schedule_;
  const bool in_place_;
  std::vector<std::vector<Value>> places_;  // per rank: Input blocks, Output blocks, Temp slots
  std::vector<size_t> next_;                // step of each rank
  std::map<std::pair<int, int>, std::deque<Value>> fifos_;  // (from, to)
};

}  // namespace

absl::Status CheckOutcome(const Schedule& schedule, bool in_place) {
  return Execution(schedule, in_place).Run();
}

}  // namespace sumac::collectives::internal
