#include "collectives/executor/execution.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

#include "collectives/reduce/reduce.h"

namespace sumac::collectives {

absl::Status Annotate(const absl::Status& status, absl::string_view operation) {
  if (status.ok()) return status;
  absl::Status out(status.code(), absl::StrCat(operation, ": ", status.message()));
  status.ForEachPayload(
      [&out](absl::string_view url, const absl::Cord& payload) { out.SetPayload(url, payload); });
  return out;
}

absl::Status Execution::Start(const ReadyProgram& program, const Arguments& arguments) {
  program_ = &program;
  arguments_ = arguments;
  partition_ = Partition(arguments.count, program.blocks);
  element_bytes_ = SizeOf(arguments.type);
  piece_elements_ = std::max<size_t>(1, transport_.piece_bytes_max() / element_bytes_);
  progress_.assign(program.steps.size(), {});
  lanes_.resize(program.lanes.size());
  for (LaneState& lane : lanes_) lane.next = lane.sent = lane.released = 0;
  unfinished_ = 0;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const size_t elements = partition_.Size(program.steps[i].block);
    progress_[i].pieces = elements / piece_elements_ + (elements % piece_elements_ != 0 ? 1 : 0);
    if (progress_[i].pieces != 0) ++unfinished_;
  }
  temp_ = nullptr;
  if (program.temp_slots > 0) {
    constexpr size_t kCacheLine = 64;
    temp_stride_ = (partition_.LargestSize() * element_bytes_ / kCacheLine + 1) * kCacheLine;
    absl::StatusOr<std::byte*> temp = transport_.TempMemory(temp_stride_ * program.temp_slots);
    if (!temp.ok()) return Annotate(temp.status(), "memory for partial results");
    temp_ = *temp;
  }
  return AttachSources();
}

absl::Status Execution::AttachSources() {
  bool input = false;
  bool output = false;
  const size_t copied_elements = transport_.copied_bytes_max() / element_bytes_;
  for (const Step& step : program_->steps) {
    const size_t largest = std::min(partition_.Size(step.block), piece_elements_);
    if (step.kind != StepKind::kSend || largest <= copied_elements) continue;
    input |= step.from.buffer == Buffer::kInput;
    output |= step.from.buffer == Buffer::kOutput;
  }
  const size_t whole = arguments_.count * element_bytes_;
  const size_t share = partition_.Size(program_->rank % program_->blocks) * element_bytes_;
  if (output) {
    const size_t bytes = program_->collective == Collective::kReduceScatter ? share : whole;
    absl::Status status = transport_.Attach(Buffer::kOutput, arguments_.output, bytes);
    if (!status.ok()) return Annotate(status, "registering the receive buffer");
  }
  if (input) {
    const size_t bytes = program_->collective == Collective::kAllGather ? share : whole;
    absl::Status status = transport_.Attach(Buffer::kInput, arguments_.input, bytes);
    if (!status.ok()) return Annotate(status, "registering the send buffer");
  }
  return absl::OkStatus();
}

absl::Status Execution::Advance() {
  if (absl::Status status = transport_.Poll(); !status.ok()) return status;
  for (bool moved = true; moved && unfinished_ != 0;) {
    moved = false;
    for (size_t i = 0; i < lanes_.size(); ++i) {
      const Lane& lane = program_->lanes[i];
      absl::StatusOr<bool> lane_moved = false;
      switch (lane.kind) {
        case LaneKind::kSend:
          lane_moved = AdvanceSends(lane, lanes_[i]);
          break;
        case LaneKind::kReceive:
          lane_moved = AdvanceReceive(lane, lanes_[i]);
          break;
        case LaneKind::kLocal:
          lane_moved = AdvanceLocal(lane, lanes_[i]);
          break;
      }
      if (!lane_moved.ok()) return lane_moved.status();
      moved |= *lane_moved;
    }
  }
  return absl::OkStatus();
}

const Step* Execution::Current(const Lane& lane, LaneState& state, uint32_t* index) {
  while (state.next < lane.steps.size()) {
    *index = lane.steps[state.next];
    if (progress_[*index].started < progress_[*index].pieces) return &program_->steps[*index];
    ++state.next;
  }
  return nullptr;
}

bool Execution::MayRun(uint32_t index) const {
  const size_t piece = progress_[index].started;
  for (const Wait& wait : program_->WaitsOf(index)) {
    const Progress& on = progress_[wait.step];
    if (on.finished < (wait.whole ? on.pieces : std::min(piece + 1, on.pieces))) return false;
  }
  return true;
}

void Execution::Finish(uint32_t index) {
  if (++progress_[index].finished == progress_[index].pieces) --unfinished_;
}

Execution::Piece Execution::PieceOf(uint32_t index) const {
  const size_t offset = progress_[index].started * piece_elements_;
  const size_t size = partition_.Size(program_->steps[index].block);
  return {offset, std::min(piece_elements_, size - offset)};
}

std::byte* Execution::Address(const Step& step, const Place& place, size_t offset) const {
  const Collective collective = program_->collective;
  size_t element = partition_.Begin(step.block) + offset;
  switch (place.buffer) {
    case Buffer::kInput:
      if (collective == Collective::kAllGather) element -= partition_.Begin(program_->rank);
      // Only ever read (the checker saw to it).
      return static_cast<std::byte*>(const_cast<void*>(arguments_.input)) +
             element * element_bytes_;
    case Buffer::kOutput:
      if (collective == Collective::kReduceScatter) element -= partition_.Begin(program_->rank);
      return static_cast<std::byte*>(arguments_.output) + element * element_bytes_;
    case Buffer::kTemp:
      break;
  }
  return temp_ + place.slot * temp_stride_ + offset * element_bytes_;
}

bool Execution::ReleaseSends(const Lane& lane, LaneState& state) {
  bool moved = false;
  while (state.released < state.sent) {
    const InFlight& oldest = state.in_flight[state.released % kInFlightMax];
    if (!transport_.Released(lane.peer, oldest.ticket)) break;
    Finish(oldest.step);
    ++state.released;
    moved = true;
  }
  return moved;
}

absl::StatusOr<bool> Execution::AdvanceSends(const Lane& lane, LaneState& state) {
  bool moved = ReleaseSends(lane, state);
  uint32_t index = 0;
  while (const Step* step = Current(lane, state, &index)) {
    if (state.sent - state.released == kInFlightMax || !MayRun(index)) break;
    const absl::StatusOr<bool> room = transport_.CanSend(lane.peer);
    if (!room.ok()) return Failed(room.status(), index);
    if (!*room) break;
    const Piece piece = PieceOf(index);
    const absl::StatusOr<uint64_t> ticket =
        transport_.Send(lane.peer, step->from.buffer, Address(*step, step->from, piece.offset),
                        piece.count * element_bytes_);
    if (!ticket.ok()) return Failed(ticket.status(), index);
    state.in_flight[state.sent++ % kInFlightMax] = {index, *ticket};
    ++progress_[index].started;
    moved = true;
  }
  return ReleaseSends(lane, state) || moved;
}

absl::StatusOr<bool> Execution::AdvanceReceive(const Lane& lane, LaneState& state) {
  uint32_t index = 0;
  const Step* step = Current(lane, state, &index);
  if (step == nullptr || !MayRun(index)) return false;
  const std::byte* incoming = transport_.Front(lane.peer);
  if (incoming == nullptr) return false;
  const Piece piece = PieceOf(index);
  std::byte* to = Address(*step, step->to, piece.offset);
  if (step->kind == StepKind::kReceiveReduce) {
    Reduce(to, Address(*step, step->from, piece.offset), incoming, piece.count, arguments_.type,
           arguments_.op);
  } else {
    std::memcpy(to, incoming, piece.count * element_bytes_);
  }
  ++progress_[index].started;
  Finish(index);
  const absl::Status status = transport_.Pop(lane.peer);
  if (!status.ok()) return Failed(status, index);
  return true;
}

bool Execution::AdvanceLocal(const Lane& lane, LaneState& state) {
  uint32_t index = 0;
  const Step* step = Current(lane, state, &index);
  if (step == nullptr || !MayRun(index)) return false;
  const Piece piece = PieceOf(index);
  std::byte* to = Address(*step, step->to, piece.offset);
  if (step->kind == StepKind::kCopy) {
    const std::byte* from = Address(*step, step->from, piece.offset);
    if (from != to) std::memcpy(to, from, piece.count * element_bytes_);
  } else {
    FinalizeReduction(to, piece.count, arguments_.type, arguments_.op, program_->ranks);
  }
  ++progress_[index].started;
  Finish(index);
  return true;
}

std::string Execution::DescribeStep(uint32_t index) const {
  return absl::StrCat("step ", index + 1, " of ", program_->steps.size(), " (",
                      ToString(program_->steps[index]), "), piece ",
                      std::min(progress_[index].started + 1, progress_[index].pieces), " of ",
                      progress_[index].pieces);
}

absl::Status Execution::Failed(const absl::Status& status, uint32_t index) const {
  return Annotate(status, DescribeStep(index));
}

std::string Execution::HeldUpBy(const Lane& lane, LaneState& state) {
  uint32_t index = 0;
  if (Current(lane, state, &index) == nullptr || !MayRun(index)) {
    if (state.released == state.sent) return "";
    return absl::StrCat("waits for rank ", lane.peer, " to acknowledge: ",
                        DescribeStep(state.in_flight[state.released % kInFlightMax].step));
  }
  if (lane.kind == LaneKind::kReceive && transport_.Front(lane.peer) == nullptr) {
    return absl::StrCat("waits for rank ", lane.peer, ": ", DescribeStep(index));
  }
  if (lane.kind == LaneKind::kSend) {
    const absl::StatusOr<bool> room = transport_.CanSend(lane.peer);
    if (!room.ok() || !*room) {
      return absl::StrCat("waits for rank ", lane.peer,
                          " to take what it was sent: ", DescribeStep(index));
    }
  }
  return "";
}

std::string Execution::Describe() {
  if (program_ == nullptr || done()) return "waits for nobody";
  // A missing piece says more than a full FIFO: the peer may be stuck for the same reason.
  for (const LaneKind kind : {LaneKind::kReceive, LaneKind::kSend}) {
    for (size_t i = 0; i < lanes_.size(); ++i) {
      if (program_->lanes[i].kind != kind) continue;
      std::string why = HeldUpBy(program_->lanes[i], lanes_[i]);
      if (!why.empty()) return why;
    }
  }
  return "has work it could do";
}

}  // namespace sumac::collectives
