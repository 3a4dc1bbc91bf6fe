// How received bytes go into memory that another thread or process may be watching.
//
// Programs spin on the last byte of a WRITE (perftest's ib_write_lat, every put-with-signal), so
// the last byte must never be seen before the others: all but the tail first, then the tail as one
// store with release order. The tail is the longest naturally aligned word that ends where the data
// ends, so an aligned 8-, 4- or 2-byte flag is written whole. Pure function; no allocation.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "verbs/soft_nic/engine/dma.h"

namespace sumac::soft_nic {

namespace internal {

template <typename Word>
inline void PlaceTail(std::byte* end, const std::byte* source_end) {
  Word word;
  std::memcpy(&word, source_end - sizeof(Word), sizeof(Word));
  std::atomic_ref<Word>(*reinterpret_cast<Word*>(end - sizeof(Word)))
      .store(word, std::memory_order_release);
}

}  // namespace internal

inline void PlaceBytes(std::byte* to, const std::byte* from, size_t length) {
  if (length == 0) return;
  const ScopedDma dma;
  std::byte* const end = to + length;
  const auto address = reinterpret_cast<uintptr_t>(end);
  const size_t tail = address % 8 == 0 && length >= 8   ? 8
                      : address % 4 == 0 && length >= 4 ? 4
                      : address % 2 == 0 && length >= 2 ? 2
                                                        : 1;
  std::memcpy(to, from, length - tail);
  const std::byte* const from_end = from + length;
  switch (tail) {
    case 8:
      internal::PlaceTail<uint64_t>(end, from_end);
      break;
    case 4:
      internal::PlaceTail<uint32_t>(end, from_end);
      break;
    case 2:
      internal::PlaceTail<uint16_t>(end, from_end);
      break;
    default:
      internal::PlaceTail<uint8_t>(end, from_end);
  }
}

}  // namespace sumac::soft_nic
