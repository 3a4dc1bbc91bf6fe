#include "collectives/schedule/schedule.h"

#include "absl/strings/str_cat.h"

namespace sumac::collectives {
namespace {

std::string ToString(const Place& place) {
  switch (place.buffer) {
    case Buffer::kInput:
      return "input";
    case Buffer::kOutput:
      return "output";
    case Buffer::kTemp:
      return absl::StrCat("temp ", place.slot);
  }
  return "?";
}

}  // namespace

const char* NameOf(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "allreduce";
    case Collective::kReduceScatter:
      return "reduce-scatter";
    case Collective::kAllGather:
      return "all-gather";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kBarrier:
      return "barrier";
  }
  return "?";
}

std::string ToString(const Step& step) {
  switch (step.kind) {
    case StepKind::kSend:
      return absl::StrCat("send block ", step.block, " from ", ToString(step.from), " to rank ",
                          step.peer);
    case StepKind::kReceive:
      return absl::StrCat("receive block ", step.block, " from rank ", step.peer, " into ",
                          ToString(step.to));
    case StepKind::kReceiveReduce:
      return absl::StrCat("receive block ", step.block, " from rank ", step.peer,
                          ", reduce it with ", ToString(step.from), " into ", ToString(step.to));
    case StepKind::kCopy:
      return absl::StrCat("copy block ", step.block, " from ", ToString(step.from), " to ",
                          ToString(step.to));
    case StepKind::kFinalize:
      return absl::StrCat("finalize block ", step.block, " in ", ToString(step.to));
  }
  return "?";
}

bool HasInput(Collective collective, int rank, int root, int block) {
  if (collective == Collective::kAllGather) return block == rank;
  if (collective == Collective::kBroadcast) return rank == root;
  return true;
}

bool HasOutput(Collective collective, int rank, int block) {
  return collective != Collective::kReduceScatter || block == rank;
}

}  // namespace sumac::collectives
