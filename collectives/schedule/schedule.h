// A schedule: what every rank does in one collective operation, as plain data.
//
// Emitted by the generators in this folder (algorithms.h), proved right by checker.h, made ready to
// run by hazards.h and run by executor/. It knows no count, no type and no address, so one schedule
// serves every size.
//
// The data is a virtual vector cut into `blocks` blocks (Partition maps a block to its elements for
// an actual count; blocks may be empty). A rank has three buffers, each addressed by block:
//   Input   the caller's send buffer. All-gather: only block == rank. Broadcast: only at the root.
//   Output  the caller's receive buffer. Reduce-scatter: only block == rank.
//   Temp    `temp_slots` places that hold one block each.
// A program is a list of steps with *sequential* meaning: as if each step ran to its end before the
// next began. The executor overlaps whatever that meaning allows. The k-th Send from rank a to rank
// b matches b's k-th Receive from a.
//
// Rules that the checker holds every schedule to: Input is never written; a schedule is right when
// Input and Output are apart and also when they are the same storage (in place).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sumac::collectives {

enum class Collective : uint8_t { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kBarrier };
inline constexpr Collective kCollectives[] = {Collective::kAllReduce, Collective::kReduceScatter,
                                              Collective::kAllGather, Collective::kBroadcast,
                                              Collective::kBarrier};
const char* NameOf(Collective collective);  // "allreduce", "reduce-scatter", ...

enum class Buffer : uint8_t { kInput, kOutput, kTemp };

// Where a block lies.
struct Place {
  Buffer buffer = Buffer::kOutput;
  int32_t slot = 0;  // of Temp; Input and Output are addressed by the step's block

  friend bool operator==(const Place&, const Place&) = default;
};
inline constexpr Place kInput{Buffer::kInput, 0};
inline constexpr Place kOutput{Buffer::kOutput, 0};
constexpr Place Temp(int slot) { return Place{Buffer::kTemp, slot}; }

enum class StepKind : uint8_t {
  kSend,           // `from` goes to `peer`: a put with signal
  kReceive,        // what `peer` sent goes to `to`
  kReceiveReduce,  // `to` = reduce(`from`, what `peer` sent)
  kCopy,           // `to` = `from`
  kFinalize,       // what an average does last to a complete sum in `to`: divide by the ranks
};

struct Step {
  StepKind kind = StepKind::kCopy;
  int32_t peer = -1;
  int32_t block = 0;
  Place from = {};
  Place to = {};

  friend bool operator==(const Step&, const Step&) = default;
};

inline Step Send(int peer, int block, Place from) {
  return {StepKind::kSend, peer, block, from, {}};
}
inline Step Receive(int peer, int block, Place to) {
  return {StepKind::kReceive, peer, block, {}, to};
}
inline Step ReceiveReduce(int peer, int block, Place operand, Place to) {
  return {StepKind::kReceiveReduce, peer, block, operand, to};
}
inline Step Copy(int block, Place from, Place to) { return {StepKind::kCopy, -1, block, from, to}; }
inline Step Finalize(int block, Place in) { return {StepKind::kFinalize, -1, block, {}, in}; }

constexpr bool Receives(StepKind kind) {
  return kind == StepKind::kReceive || kind == StepKind::kReceiveReduce;
}
// Does a step read its `from` / write its `to`? Finalize reads what it writes.
constexpr bool ReadsFrom(StepKind kind) {
  return kind == StepKind::kSend || kind == StepKind::kReceiveReduce || kind == StepKind::kCopy;
}
constexpr bool WritesTo(StepKind kind) { return kind != StepKind::kSend; }

using Program = std::vector<Step>;

struct Schedule {
  Collective collective = Collective::kAllReduce;
  std::string algorithm;
  int ranks = 1;
  int root = 0;  // of a broadcast
  int blocks = 1;
  int temp_slots = 0;
  std::vector<Program> programs;  // indexed by rank
};

// "receive block 3 from rank 1 into output"
std::string ToString(const Step& step);

// Does `rank` have this block in its Input / Output?
bool HasInput(Collective collective, int rank, int root, int block);
bool HasOutput(Collective collective, int rank, int block);

// The elements of each block: sizes differ by at most one, the larger ones first.
class Partition {
 public:
  Partition(size_t count, int blocks)
      : count_(count), each_(count / blocks), larger_(count % blocks) {}
  size_t Begin(int block) const {
    const auto b = static_cast<size_t>(block);
    return b * each_ + std::min(b, larger_);
  }
  size_t Size(int block) const { return each_ + (static_cast<size_t>(block) < larger_ ? 1 : 0); }
  size_t LargestSize() const { return Size(0); }
  size_t count() const { return count_; }

 private:
  size_t count_;
  size_t each_;
  size_t larger_;
};

}  // namespace sumac::collectives
