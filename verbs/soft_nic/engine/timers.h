// The two waits of a requester: for an acknowledgement, and for a receiver that is not ready.
//
// Pure functions from the codes of the verbs and the wire to durations.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

// Local ACK timeout: 4.096 us * 2^code (IBTA vol. 1, 9.7.6.1.3); 0 waits for ever. The
// specification lets a device take up to four times that; we take it as it stands. Codes have five
// bits.
constexpr Duration AckTimeout(uint8_t code) {
  if (code == 0) return Duration::max();
  return Duration(int64_t{4096} << (code & 31));
}

// RNR NAK timer codes (IBTA vol. 1, table 45). Code 0 is the longest wait.
constexpr Duration RnrWait(uint8_t code) {
  constexpr std::array<int32_t, 32> kHundredthsOfMs = {
      65536, 1,    2,    3,    4,    6,     8,     12,    16,    24,   32,
      48,    64,   96,   128,  192,  256,   384,   512,   768,   1024, 1536,
      2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152};
  return std::chrono::microseconds(10 * kHundredthsOfMs[code & 31]);
}

}  // namespace sumac::soft_nic
