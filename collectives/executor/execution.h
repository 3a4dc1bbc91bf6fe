// Runs one rank's program once: a state machine that moves pieces and never blocks.
//
// Owned by the communicator and used over and over. Start, then Advance each time the network may
// have moved, until done() or an error. It overlaps all that the program's lanes and waits allow
// (schedule/hazards.h); steps with empty blocks send nothing.
//
// Memory: `program` and the caller's buffers must stay until done() or Stop(). When done, every
// source may be written again. Threads: the communicator's. Failure: statuses that name operation,
// step and peer; then call Stop. Hot path: Advance allocates nothing and formats no string unless
// it fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "collectives/data_type.h"
#include "collectives/executor/piece_transport.h"
#include "collectives/schedule/hazards.h"

namespace sumac::collectives {

// One call of a collective. `count` is the length of the virtual vector of schedule.h: of a whole
// all-gather or reduce-scatter, not of one rank's share. count * SizeOf(type) fits a size_t.
struct Arguments {
  const void* input = nullptr;
  void* output = nullptr;
  size_t count = 0;
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
};

// "OPERATION: MESSAGE", with code and payloads kept.
absl::Status Annotate(const absl::Status& status, absl::string_view operation);

class Execution {
 public:
  explicit Execution(PieceTransport& transport) : transport_(transport) {}

  absl::Status Start(const ReadyProgram& program, const Arguments& arguments);
  absl::Status Advance();
  bool done() const { return unfinished_ == 0; }
  // Forgets the buffers; also after a failure.
  void Stop() { transport_.Detach(); }

  // What it is held up by: "waits for rank 2: step 5 of 12 (receive ...), piece 2 of 4". For
  // errors.
  std::string Describe();

 private:
  struct Progress {
    size_t pieces = 0;
    size_t started = 0;
    size_t finished = 0;
  };
  struct InFlight {
    uint32_t step = 0;
    uint64_t ticket = 0;
  };
  static constexpr uint32_t kInFlightMax = 64;  // pieces of one lane that are not yet released
  struct LaneState {
    size_t next = 0;                   // index into the lane's steps
    uint64_t sent = 0, released = 0;   // pieces; send lanes only
    InFlight in_flight[kInFlightMax];  // by number modulo kInFlightMax
  };
  struct Piece {
    size_t offset = 0;  // elements, from the start of the block
    size_t count = 0;
  };

  absl::Status AttachSources();
  // Each returns whether it moved something.
  absl::StatusOr<bool> AdvanceSends(const Lane& lane, LaneState& state);
  absl::StatusOr<bool> AdvanceReceive(const Lane& lane, LaneState& state);
  bool AdvanceLocal(const Lane& lane, LaneState& state);
  bool ReleaseSends(const Lane& lane, LaneState& state);
  // The lane's current step, after steps without pieces left; or null at its end.
  const Step* Current(const Lane& lane, LaneState& state, uint32_t* index);
  bool MayRun(uint32_t index) const;
  void Finish(uint32_t index);
  Piece PieceOf(uint32_t index) const;
  std::byte* Address(const Step& step, const Place& place, size_t offset) const;
  absl::Status Failed(const absl::Status& status, uint32_t index) const;
  std::string DescribeStep(uint32_t index) const;
  // What holds up a lane whose current step is `index`; empty: another lane.
  std::string HeldUpBy(const Lane& lane, LaneState& state);

  PieceTransport& transport_;
  const ReadyProgram* program_ = nullptr;
  Arguments arguments_;
  Partition partition_{0, 1};
  size_t element_bytes_ = 1;
  size_t piece_elements_ = 1;
  size_t temp_stride_ = 0;  // bytes
  std::byte* temp_ = nullptr;
  std::vector<Progress> progress_;  // per step
  std::vector<LaneState> lanes_;
  size_t unfinished_ = 0;  // steps
};

}  // namespace sumac::collectives
