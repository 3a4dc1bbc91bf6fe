#include "collectives/schedule/hazards.h"

#include <algorithm>
#include <utility>

namespace sumac::collectives {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// Who touched a storage since its last write, that write included.
struct Storage {
  uint32_t writer = kNone;
  std::vector<uint32_t> readers;
};

LaneKind LaneKindOf(StepKind kind) {
  if (kind == StepKind::kSend) return LaneKind::kSend;
  return Receives(kind) ? LaneKind::kReceive : LaneKind::kLocal;
}

uint32_t LaneOf(std::vector<Lane>& lanes, const Step& step) {
  const LaneKind kind = LaneKindOf(step.kind);
  const int32_t peer = kind == LaneKind::kLocal ? -1 : step.peer;
  for (uint32_t i = 0; i < lanes.size(); ++i) {
    if (lanes[i].kind == kind && lanes[i].peer == peer) return i;
  }
  lanes.push_back({kind, peer, {}});
  return static_cast<uint32_t>(lanes.size() - 1);
}

class Builder {
 public:
  explicit Builder(ReadyProgram& program) : program_(program) {
    storages_.resize(program.blocks + program.temp_slots);
    // Of these, each block is as large as the others, whatever the count.
    equal_blocks_ = program.collective == Collective::kAllGather ||
                    program.collective == Collective::kReduceScatter;
  }

  void Run() {
    for (uint32_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      const uint32_t lane = LaneOf(program_.lanes, step);
      program_.lanes[lane].steps.push_back(i);
      lane_of_.push_back(lane);
      program_.waits_begin.push_back(static_cast<uint32_t>(program_.waits.size()));
      if (ReadsFrom(step.kind)) AddWait(i, At(step.block, step.from).writer);
      if (WritesTo(step.kind)) {
        Storage& to = At(step.block, step.to);
        AddWait(i, to.writer);
        for (const uint32_t reader : to.readers) AddWait(i, reader);
      }
      Note(i, step);
    }
    program_.waits_begin.push_back(static_cast<uint32_t>(program_.waits.size()));
  }

 private:
  Storage& At(int block, const Place& place) {
    return storages_[place.buffer == Buffer::kTemp ? program_.blocks + place.slot : block];
  }

  void AddWait(uint32_t step, uint32_t on) {
    if (on == kNone || lane_of_[on] == lane_of_[step]) return;  // a lane keeps its own order
    const bool whole = !equal_blocks_ && program_.steps[on].block != program_.steps[step].block;
    const auto begin = program_.waits.begin() + program_.waits_begin[step];
    const auto same = std::find_if(begin, program_.waits.end(),
                                   [on](const Wait& wait) { return wait.step == on; });
    if (same == program_.waits.end()) program_.waits.push_back({on, whole});
  }

  void Note(uint32_t i, const Step& step) {
    if (ReadsFrom(step.kind)) At(step.block, step.from).readers.push_back(i);
    if (WritesTo(step.kind)) {
      Storage& to = At(step.block, step.to);
      to.writer = i;
      to.readers.clear();
    }
  }

  ReadyProgram& program_;
  bool equal_blocks_ = false;
  std::vector<Storage> storages_;
  std::vector<uint32_t> lane_of_;
};

}  // namespace

ReadyProgram MakeReady(Program program, Collective collective, const char* algorithm, int ranks,
                       int rank, int root, int blocks, int temp_slots) {
  ReadyProgram ready;
  ready.collective = collective;
  ready.algorithm = algorithm;
  ready.ranks = ranks;
  ready.rank = rank;
  ready.root = root;
  ready.blocks = blocks;
  ready.temp_slots = temp_slots;
  ready.steps = std::move(program);
  Builder(ready).Run();
  return ready;
}

}  // namespace sumac::collectives
