// How a rank's registered buffers are announced to the ranks of its host: the table at the head of
// its area, and references to its entries.
//
// Written by the owner, read by peers who were told of an entry in the course of an operation in
// which the owner takes part. Fields are atomics because a rank that misbehaves may change them at
// any time; what is read is checked when the memory is mapped (peer_memory.h).
#pragma once

#include <atomic>
#include <cstdint>

namespace sumac::runtime {

inline constexpr uint32_t kRegionsMax = 256;  // a rank

// A region by its entry; the generation tells it from others that had the entry before. Plain value
// that goes between ranks.
struct RegionRef {
  uint32_t slot = 0;
  uint32_t generation = 0;  // 0: none

  bool valid() const { return generation != 0; }
};

struct RegionRecord {
  std::atomic<uint32_t> generation{0};  // 0: free
  std::atomic<int32_t> fd{-1};
  std::atomic<uint64_t> device{0};
  std::atomic<uint64_t> inode{0};
  std::atomic<uint64_t> bytes{0};
};

}  // namespace sumac::runtime
