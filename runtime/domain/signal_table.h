// The signals of one domain: a counter for each signal and rank.
//
// Owned and used by Domain; one thread at a time. Create allocates; Raise and Value do not. What
// comes off the wire may name anything: an unknown signal, an unknown rank or an increment of 0 is
// dropped and counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace sumac::runtime {

// A raise travels as the immediate of a write: signal id << 16 | increment.
inline constexpr uint32_t kSignalsMax = 1u << 16;

constexpr uint32_t EncodeRaise(uint32_t id, uint16_t increment) { return id << 16 | increment; }

class SignalTable {
 public:
  explicit SignalTable(int ranks) : ranks_(static_cast<size_t>(ranks)) {}

  absl::StatusOr<uint32_t> Create() {
    if (count_ == kSignalsMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a domain has at most ", kSignalsMax, " signals; use them again"));
    }
    values_.resize((count_ + 1) * ranks_);
    return count_++;
  }

  bool Has(uint32_t id, int rank) const {
    return id < count_ && rank >= 0 && static_cast<size_t>(rank) < ranks_;
  }

  void Raise(int from_rank, uint32_t immediate) {
    const uint32_t id = immediate >> 16;
    const uint32_t increment = immediate & 0xffff;
    if (!Has(id, from_rank) || increment == 0) {
      ++dropped_;
      return;
    }
    values_[id * ranks_ + static_cast<size_t>(from_rank)] += increment;
  }

  // 0 for what is not there.
  uint64_t Value(uint32_t id, int rank) const {
    return Has(id, rank) ? values_[id * ranks_ + static_cast<size_t>(rank)] : 0;
  }

  uint64_t dropped() const { return dropped_; }

 private:
  size_t ranks_;
  uint32_t count_ = 0;
  std::vector<uint64_t> values_;  // [id][rank]
  uint64_t dropped_ = 0;
};

}  // namespace sumac::runtime
