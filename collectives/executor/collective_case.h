// One collective operation with made-up values, and what must come out of it; for tests.
//
// Values are chosen so that every order of reduction gives the same bits (small integers for sums,
// powers of two for products). Works for one rank at a time (each process of
// a multi-process test) and for all of them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "collectives/executor/execution.h"
#include "collectives/reduce/reduce.h"

namespace sumac::collectives {

struct CollectiveCase {
  Collective collective = Collective::kAllReduce;
  int ranks = 1;
  int root = 0;
  size_t count = 0;  // of the virtual vector
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  bool in_place = false;
  uint64_t seed = 1;

  std::string ToString() const {
    return absl::StrCat(NameOf(collective), " n=", ranks, " root=", root, " count=", count, " ",
                        NameOf(type), " ", NameOf(op), in_place ? " in place" : "", " seed=", seed);
  }
  size_t element() const { return SizeOf(type); }
  size_t share() const { return count / ranks * element(); }
  size_t input_bytes() const {
    return collective == Collective::kAllGather ? share() : count * element();
  }
  size_t output_bytes() const {
    return collective == Collective::kReduceScatter ? share() : count * element();
  }
};

inline void PutElement(std::byte* at, DataType type, int value, int power) {
  const double scaled = std::ldexp(value, power);
  const auto as_float = static_cast<float>(scaled);
  switch (type) {
    case DataType::kFloat32:
      std::memcpy(at, &as_float, 4);
      break;
    case DataType::kFloat64:
      std::memcpy(at, &scaled, 8);
      break;
    case DataType::kFloat16: {
      // Exact for these values: the float's exponent rebiased, the top ten bits of its fraction.
      const auto bits = std::bit_cast<uint32_t>(as_float);
      const uint32_t magnitude = bits & 0x7fffffff;
      const auto half = static_cast<uint16_t>(
          (bits >> 16 & 0x8000) | (magnitude == 0 ? 0 : (magnitude >> 13) - (112 << 10)));
      std::memcpy(at, &half, 2);
      break;
    }
    case DataType::kBfloat16:
      std::memcpy(at, reinterpret_cast<const std::byte*>(&as_float) + 2, 2);  // little endian
      break;
    case DataType::kInt32:
    case DataType::kInt64:
      break;
  }
}

// What `rank` gives: the whole vector (of an all-gather: its share).
inline std::vector<std::byte> InputOf(const CollectiveCase& c, int rank) {
  uint64_t state = c.seed * 1'000'003 + static_cast<uint64_t>(rank) * 7919;
  std::vector<std::byte> bytes(c.input_bytes());
  const bool integer = c.type == DataType::kInt32 || c.type == DataType::kInt64;
  for (size_t i = 0; i < bytes.size(); i += c.element()) {
    // splitmix64 (Steele, Lea and Flood, 2014)
    uint64_t bits = state += 0x9e3779b97f4a7c15;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
    bits ^= bits >> 31;
    if (integer) {
      std::memcpy(&bytes[i], &bits, c.element());
    } else if (c.op == ReduceOp::kProd) {
      PutElement(&bytes[i], c.type, bits % 2 != 0 ? 1 : -1, static_cast<int>(bits / 2 % 3) - 1);
    } else {
      PutElement(&bytes[i], c.type, static_cast<int>(bits % 27) - 13, 0);
    }
  }
  return bytes;
}

// The result, of all ranks together for a reduce-scatter.
inline std::vector<std::byte> ExpectedResult(const CollectiveCase& c) {
  if (c.collective == Collective::kBroadcast) return InputOf(c, c.root);
  std::vector<std::byte> result = InputOf(c, 0);
  for (int r = 1; r < c.ranks; ++r) {
    const std::vector<std::byte> other = InputOf(c, r);
    if (c.collective == Collective::kAllGather) {
      result.insert(result.end(), other.begin(), other.end());
    } else {
      Reduce(result.data(), result.data(), other.data(), c.count, c.type, c.op);
    }
  }
  if (c.collective != Collective::kAllGather) {
    FinalizeReduction(result.data(), c.count, c.type, c.op, c.ranks);
  }
  return result;
}

// The buffers of one rank, with guard bytes around them.
class CaseBuffers {
 public:
  CaseBuffers(const CollectiveCase& c, int rank)
      : case_(c), rank_(rank), original_(InputOf(c, rank)) {
    const bool has_input = c.collective != Collective::kBroadcast || rank == c.root;
    if (c.in_place) {
      // One buffer; the smaller of the two lies at this rank's share of the larger.
      const size_t larger = std::max(c.input_bytes(), c.output_bytes());
      output_.assign(larger + 2 * kGuard, kFill);
      const size_t shift = c.share() * rank;
      input_at_ = kGuard + (c.input_bytes() < larger ? shift : 0);
      output_at_ = kGuard + (c.output_bytes() < larger ? shift : 0);
      if (has_input) std::copy(original_.begin(), original_.end(), output_.begin() + input_at_);
    } else {
      input_ = original_;
      output_.assign(c.output_bytes() + 2 * kGuard, kFill);
      output_at_ = kGuard;
    }
  }

  const void* input() const { return case_.in_place ? output_.data() + input_at_ : input_.data(); }
  void* output() { return output_.data() + output_at_; }
  Arguments arguments() { return {input(), output(), case_.count, case_.type, case_.op}; }

  const CollectiveCase& collective_case() const { return case_; }
  bool WroteOutside() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (output_[i] != kFill || output_[output_.size() - 1 - i] != kFill) return true;
    }
    return false;
  }
  // Empty: all as it must be. `result`: ExpectedResult of the case.
  std::string Wrong(const std::vector<std::byte>& result) const {
    const bool part = case_.collective == Collective::kReduceScatter;
    const std::byte* want = result.data() + (part ? case_.share() * rank_ : 0);
    const std::byte* got = output_.data() + output_at_;
    for (size_t i = 0; i < case_.output_bytes(); i += case_.element()) {
      if (std::memcmp(got + i, want + i, case_.element()) != 0) {
        return absl::StrCat(case_.ToString(), ": rank ", rank_, " has a wrong element ",
                            i / case_.element());
      }
    }
    if (WroteOutside()) {
      return absl::StrCat(case_.ToString(), ": rank ", rank_, " wrote outside its buffer");
    }
    if (!case_.in_place && input_ != original_) {
      return absl::StrCat(case_.ToString(), ": rank ", rank_, " changed its input");
    }
    return "";
  }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr std::byte kFill{0xa5};
  const CollectiveCase case_;
  const int rank_;
  const std::vector<std::byte> original_;
  std::vector<std::byte> input_;
  std::vector<std::byte> output_;
  size_t input_at_ = 0, output_at_ = 0;
};

// The call of a Runner or Communicator that the case stands for.
template <class Caller>
absl::Status RunWith(Caller& caller, const CollectiveCase& c, CaseBuffers& buffers) {
  const size_t share = c.count / c.ranks;
  switch (c.collective) {
    case Collective::kAllReduce:
      return caller.AllReduce(buffers.input(), buffers.output(), c.count, c.type, c.op);
    case Collective::kReduceScatter:
      return caller.ReduceScatter(buffers.input(), buffers.output(), share, c.type, c.op);
    case Collective::kAllGather:
      return caller.AllGather(buffers.input(), buffers.output(), share, c.type);
    case Collective::kBroadcast:
      return caller.Broadcast(buffers.input(), buffers.output(), c.count, c.type, c.root);
    case Collective::kBarrier:
      break;
  }
  return caller.Barrier();
}

}  // namespace sumac::collectives
