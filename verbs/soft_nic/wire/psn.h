// Packet sequence numbers: 24 bits, compared modulo 2^24 (IBTA vol. 1, 9.7.1).
//
// Pure functions, no state. A PSN is always held masked in a uint32_t.
#pragma once

#include <cstdint>

namespace sumac::soft_nic {

inline constexpr uint32_t kPsnMask = 0xffffff;

constexpr uint32_t PsnAdd(uint32_t psn, uint32_t n) { return (psn + n) & kPsnMask; }

// Signed distance from `b` to `a`, in [-2^23, 2^23): negative when `a` comes before `b`.
constexpr int32_t PsnDiff(uint32_t a, uint32_t b) {
  return static_cast<int32_t>((a - b) << 8) >> 8;
}

}  // namespace sumac::soft_nic
