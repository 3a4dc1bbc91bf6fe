// Spreads packets over time: no more than a rate, but for short bursts.
//
// A virtual clock instead of a bucket of tokens: `due_` is when everything sent so far would have
// left at the rate. Idle time counts for at most kBurst, so that a late timer (they come some ten
// microseconds late) costs no throughput, and a pause is not followed by a flood. Owner-only; time
// is passed in; no allocation.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

class Pacer {
 public:
  static constexpr Duration kBurst = std::chrono::microseconds(200);

  // 0: as fast as it goes. A change holds from the next packet on.
  void SetRate(uint64_t bytes_per_second) {
    nanoseconds_per_byte_ = bytes_per_second == 0 ? 0 : 1e9 / static_cast<double>(bytes_per_second);
  }
  bool paced() const { return nanoseconds_per_byte_ != 0; }
  bool MaySend(Time now) const { return !paced() || due_ <= now; }
  void OnSent(uint64_t bytes, Time now) {
    if (!paced()) return;
    const double cost = static_cast<double>(bytes) * nanoseconds_per_byte_;
    due_ = std::max(due_, now - kBurst) + Duration(static_cast<int64_t>(cost));
  }
  // When to ask MaySend again after it said no: late enough for several packets, early enough to
  // lose no throughput.
  Time next() const { return due_ + kBurst / 2; }

 private:
  double nanoseconds_per_byte_ = 0;
  Time due_{};
};

// What a packet takes of a rate: its IP packet.
inline uint64_t BytesOnWire(const OutgoingPacket& packet) {
  constexpr uint64_t kIpAndUdp = 20 + 8;
  uint64_t bytes = kIpAndUdp + HeaderBytes(packet.header.opcode) + kIcrcBytes;
  for (const iovec& piece : packet.payload) bytes += piece.iov_len;
  return bytes;
}

// Hands packets on until the pacer says stop, which looks like a full link from above.
class PacedSink : public TransmitSink {
 public:
  PacedSink(TransmitSink& sink, Pacer& pacer, Time now) : sink_(sink), pacer_(pacer), now_(now) {}
  bool Transmit(const OutgoingPacket& packet) override {
    held_back_ = !pacer_.MaySend(now_);
    if (held_back_ || !sink_.Transmit(packet)) return false;
    pacer_.OnSent(BytesOnWire(packet), now_);
    return true;
  }
  // The last packet that did not go out waits for the pacer, not for the link.
  bool held_back() const { return held_back_; }

 private:
  TransmitSink& sink_;
  Pacer& pacer_;
  const Time now_;
  bool held_back_ = false;
};

}  // namespace sumac::soft_nic
