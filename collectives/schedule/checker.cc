#include "collectives/schedule/checker.h"

#include "absl/strings/str_cat.h"

#include "collectives/schedule/checker_phases.h"

namespace sumac::collectives {
namespace internal {

absl::Status StepError(const Schedule& schedule, int rank, size_t step, absl::string_view what) {
  std::string where;
  if (step < schedule.programs[rank].size()) {
    where = absl::StrCat(", step ", step, " (", ToString(schedule.programs[rank][step]), ")");
  }
  return absl::InternalError(absl::StrCat(NameOf(schedule.collective), " ", schedule.algorithm,
                                          " with ", schedule.ranks, " ranks, root ", schedule.root,
                                          ": rank ", rank, where, ": ", what));
}

namespace {

absl::Status CheckPlace(const Schedule& schedule, int rank, size_t index, const Place& place) {
  const Step& step = schedule.programs[rank][index];
  switch (place.buffer) {
    case Buffer::kInput:
      if (!HasInput(schedule.collective, rank, schedule.root, step.block)) {
        return StepError(schedule, rank, index, "this rank has no such input");
      }
      break;
    case Buffer::kOutput:
      if (!HasOutput(schedule.collective, rank, step.block)) {
        return StepError(schedule, rank, index, "this rank has no such output");
      }
      break;
    case Buffer::kTemp:
      if (place.slot < 0 || place.slot >= schedule.temp_slots) {
        return StepError(schedule, rank, index, "there is no such temp slot");
      }
      break;
  }
  return absl::OkStatus();
}

absl::Status CheckStep(const Schedule& schedule, int rank, size_t index) {
  const Step& step = schedule.programs[rank][index];
  if (step.block < 0 || step.block >= schedule.blocks) {
    return StepError(schedule, rank, index, "there is no such block");
  }
  if (step.kind == StepKind::kSend || Receives(step.kind)) {
    if (step.peer < 0 || step.peer >= schedule.ranks || step.peer == rank) {
      return StepError(schedule, rank, index, "there is no such peer");
    }
  }
  if (ReadsFrom(step.kind)) {
    if (absl::Status status = CheckPlace(schedule, rank, index, step.from); !status.ok()) {
      return status;
    }
  }
  if (WritesTo(step.kind)) {
    if (step.to.buffer == Buffer::kInput) {
      return StepError(schedule, rank, index, "writes the input");
    }
    return CheckPlace(schedule, rank, index, step.to);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStructure(const Schedule& schedule) {
  const bool block_per_rank = schedule.collective == Collective::kAllGather ||
                              schedule.collective == Collective::kReduceScatter;
  if (schedule.ranks < 1 || schedule.blocks < 1 || schedule.temp_slots < 0 || schedule.root < 0 ||
      schedule.root >= schedule.ranks || std::ssize(schedule.programs) != schedule.ranks ||
      (block_per_rank && schedule.blocks != schedule.ranks)) {
    return absl::InternalError(absl::StrCat(
        NameOf(schedule.collective), " ", schedule.algorithm, ": malformed: ", schedule.ranks,
        " ranks, root ", schedule.root, ", ", schedule.blocks, " blocks, ", schedule.temp_slots,
        " temp slots, ", schedule.programs.size(), " programs"));
  }
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    for (size_t i = 0; i < schedule.programs[rank].size(); ++i) {
      if (absl::Status status = CheckStep(schedule, rank, i); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace internal

absl::Status CheckSchedule(const Schedule& schedule) {
  if (absl::Status status = internal::CheckStructure(schedule); !status.ok()) return status;
  for (const bool in_place : {false, true}) {
    absl::Status status = internal::CheckOutcome(schedule, in_place);
    if (!status.ok()) return status;
  }
  return internal::CheckOverlap(schedule);
}

uint64_t CheckCost(int ranks, int blocks, int temp_slots, uint64_t steps) {
  const uint64_t words = (static_cast<uint64_t>(ranks) + 63) / 64;
  const uint64_t places = static_cast<uint64_t>(ranks) *
                          (2 * static_cast<uint64_t>(blocks) + static_cast<uint64_t>(temp_slots));
  return (steps + places) * (words + 4);
}

}  // namespace sumac::collectives
