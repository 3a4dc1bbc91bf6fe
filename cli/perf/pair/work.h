// One row of `sumac perf`: its memory laid out, prepared and verified, whatever is measured in it.
//
// Small operations go over slots of a page, a cache line apart, as in perftest; a larger one has
// one slot. Slots lie at the same offsets at both sides.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/perf/pair/pattern.h"
#include "cli/perf/pair/session.h"

namespace sumac::cli {

// A phase: warm-up or the timed one.
struct Phase {
  uint64_t row = 0;
  bool timed = false;
  uint64_t iterations = 0;  // a lane; counts unless there is a duration
  double duration_s = 0;
  bool by_time() const { return timed && duration_s > 0; }
};

class Work {
 public:
  Work(Session& session, const PairOptions& options, uint64_t bytes)
      : session_(session), options_(options), bytes_(bytes) {}

  uint64_t bytes() const { return bytes_; }
  size_t slots() const { return slots_; }
  size_t OffsetOf(uint64_t number) const { return (number % slots_) * stride_; }
  // Posts operation `number` of a lane: put, get or atomic (results go to the outgoing window).
  absl::StatusOr<transport::Ticket> Post(Lane& lane, uint64_t number);

  // Writes what the phase moves, wipes where it goes.
  void Prepare(const Phase& phase);
  // How many bytes (or counters) are not what `phase` must have left, at both sides together.
  // `done`: the operations that this rank did, a lane; both ranks call it.
  absl::StatusOr<uint64_t> Verify(const Phase& phase, const std::vector<uint64_t>& done);

  // A put's last byte in a ping-pong tells which one it is.
  static std::byte FlagOf(uint64_t number) { return std::byte(1 + number % 255); }

 private:
  // Whether this rank's bytes move in this test, and whether some come to it.
  bool SourceIsHere() const;
  bool DestinationIsHere() const;
  std::span<std::byte> Source(const Lane& lane) const;
  std::span<std::byte> Destination(const Lane& lane) const;
  uint64_t CountWrongIn(const Phase& phase, size_t lane, uint64_t done, uint64_t peer_done);
  Salt SaltOf(const Phase& phase, int writer, size_t lane, size_t slot) const {
    return {phase.row, phase.timed ? 1 : 0, writer, lane, slot};
  }

  Session& session_;
  const PairOptions& options_;
  const uint64_t bytes_;
  static constexpr size_t kPage = 4096, kLine = 64;
  const size_t stride_ = (bytes_ + kLine - 1) / kLine * kLine;
  const bool one_slot_ = options_.latency() || options_.operation == PairOperation::kAtomic;
  const size_t slots_ = one_slot_ || stride_ >= kPage ? 1 : kPage / stride_;
};

}  // namespace sumac::cli
