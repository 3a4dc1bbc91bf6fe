// How many bytes a queue pair may have in flight: additive increase, multiplicative decrease.
//
// Go-back-N collapses when a sender overruns the receiver's socket buffer (about 208 KiB in a
// container, shared by all its peers), so each queue pair keeps a window over what it sends and
// over the READ responses it asks for. Slow start up to the threshold, then about one packet per
// window; half on a loss, one packet on a timeout. Called by the requester; owner-only; time is
// passed in; no allocation.
//
// Congestion notifications cut it as DCQCN cuts a rate (Zhu et al., SIGCOMM 2015, section 3): by
// alpha / 2, where alpha follows the share of the time in which notifications come: one raises it,
// each interval without one lowers it. A window and not a rate, because acknowledgements pace the
// sender already, and a process has no timer fine enough to pace single packets.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace sumac::soft_nic {

struct CongestionOptions {
  uint32_t window_bytes_initial = 64 << 10;
  uint32_t window_bytes_max = 128 << 10;
  // What a packet costs besides its payload: headers, and the kernel's book-keeping around it.
  uint32_t packet_overhead_bytes = 512;
  // A longer READ goes out as several requests, because its responses arrive with no window of the
  // responder's.
  uint32_t read_chunk_bytes = 32 << 10;
  // An acknowledgement is asked for at least this often inside a long message.
  uint32_t ack_interval_packets = 16;
  // Silence after which the last packet goes out once more, so that a lost tail is found long
  // before the ACK timeout (as TCP's tail loss probe, RFC 8985 section 7). Doubles while silence
  // lasts; no retry is spent. 0: never.
  uint32_t tail_probe_us = 1000;
};

class CongestionWindow {
 public:
  void Reset(const CongestionOptions& options, uint32_t packet_bytes) {
    floor_ = packet_bytes;
    max_ = std::max<uint64_t>(options.window_bytes_max, floor_);
    window_ = std::clamp<uint64_t>(options.window_bytes_initial, floor_, max_);
    threshold_ = max_;
    credit_ = 0;
    alpha_ = 1;
    notified_ = false;
  }

  uint64_t bytes() const { return window_; }

  // `in_flight` is what was out when the acknowledgement came: an idle sender's window does not
  // grow.
  void OnAck(uint64_t acked_bytes, uint64_t in_flight) {
    if (window_ >= max_ || in_flight * 2 < window_) return;
    if (window_ < threshold_) {
      window_ = std::min(window_ + acked_bytes, max_);
      return;
    }
    credit_ += acked_bytes;
    while (credit_ >= window_ && window_ < max_) {
      credit_ -= window_;
      window_ = std::min(window_ + floor_, max_);
    }
  }

  // A gap: the caller says so once per window of data.
  void OnLoss() {
    threshold_ = std::max(window_ / 2, 2 * floor_);
    window_ = std::min(threshold_, max_);
    credit_ = 0;
  }

  // At most one cut per interval, however many come.
  void OnNotification(std::chrono::steady_clock::time_point now) {
    if (notified_) {
      const auto quiet = (now - notified_at_) / kInterval;
      if (quiet == 0) return;
      for (auto i = std::min<int64_t>(quiet - 1, kIntervalsMax); i > 0; --i) alpha_ *= 1 - kGain;
    }
    notified_ = true;
    notified_at_ = now;
    window_ =
        std::max(static_cast<uint64_t>(static_cast<double>(window_) * (1 - alpha_ / 2)), floor_);
    threshold_ = window_;
    credit_ = 0;
    alpha_ = (1 - kGain) * alpha_ + kGain;
  }

  void OnTimeout() {
    threshold_ = std::max(window_ / 2, 2 * floor_);
    window_ = floor_;
    credit_ = 0;
  }

 private:
  uint64_t window_ = 0;
  uint64_t floor_ = 1;
  uint64_t max_ = 0;
  uint64_t threshold_ = 0;
  uint64_t credit_ = 0;

  // DCQCN's g and its alpha update interval.
  static constexpr double kGain = 1.0 / 16;
  static constexpr std::chrono::microseconds kInterval{55};
  static constexpr int64_t kIntervalsMax = 200;  // alpha is next to nothing by then
  double alpha_ = 1;
  bool notified_ = false;
  std::chrono::steady_clock::time_point notified_at_{};
};

}  // namespace sumac::soft_nic
