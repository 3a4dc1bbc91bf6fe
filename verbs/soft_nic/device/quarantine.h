// Numbers that name something over the network (keys, QPNs), drawn so that nobody can guess them,
// and not given again soon: a packet for what is gone must not reach what comes after it.
//
// Control path; one thread at a time (whoever owns the engine). Allocates only when constructed.
#pragma once

#include <sys/random.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"

namespace sumac::soft_nic {

// 32 bits from the kernel's generator; nothing when it fails.
inline std::optional<uint32_t> DrawNumber() {
  uint32_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) return std::nullopt;
  return number;
}

// The last `size` numbers that were given back.
class Quarantine {
 public:
  explicit Quarantine(size_t size) : ring_(size) { held_.reserve(size + 1); }

  void Add(uint32_t number) {
    if (added_ >= ring_.size()) held_.erase(ring_[added_ % ring_.size()]);
    ring_[added_++ % ring_.size()] = number;
    held_.insert(number);
  }
  bool Holds(uint32_t number) const { return held_.contains(number); }

 private:
  std::vector<uint32_t> ring_;
  size_t added_ = 0;
  absl::flat_hash_set<uint32_t> held_;
};

}  // namespace sumac::soft_nic
