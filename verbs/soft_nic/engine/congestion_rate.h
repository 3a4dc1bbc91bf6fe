// How fast a sender that nobody acknowledges (UC) may go: a rate that congestion notifications cut
// and time restores, after DCQCN (Zhu et al., SIGCOMM 2015, section 3.1).
//
// There is no rate until the first notification: then it is cut from what was sent lately. Recovery
// has DCQCN's three stages: halfway back to the former rate at each step, then a little above it,
// then faster and faster, until the rate is beyond any link and ends. Reliable connections have a
// window instead (congestion_window.h). Owner-only; time is passed in; no allocation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

class CongestionRate {
 public:
  // Bytes per second; 0: no limit.
  uint64_t Current(Time now) {
    if (rate_ == 0) return 0;
    for (; rate_ != 0 && now - stepped_ >= kStep; stepped_ += kStep) StepUp();
    return static_cast<uint64_t>(rate_);
  }

  // `sent_lately` is the rate of the last while, in bytes per second. Several notifications within
  // a step cut once.
  void OnNotification(uint64_t sent_lately, Time now) {
    const double before = rate_ != 0 ? rate_ : static_cast<double>(sent_lately);
    if (rate_ != 0 && now - cut_ < kStep) return;
    const auto quiet = rate_ != 0 ? (now - cut_) / kStep - 1 : 0;
    for (auto i = std::min<int64_t>(quiet, kStepsMax); i > 0; --i) alpha_ *= 1 - kGain;
    target_ = std::max(before, kRateMin);
    rate_ = std::max(before * (1 - alpha_ / 2), kRateMin);
    alpha_ = (1 - kGain) * alpha_ + kGain;
    cut_ = stepped_ = now;
    steps_ = 0;
  }

 private:
  static constexpr double kGain = 1.0 / 16;
  static constexpr Duration kStep = std::chrono::microseconds(55);
  static constexpr int64_t kStepsMax = 200;      // alpha is next to nothing by then
  static constexpr int kFastRecoverySteps = 5;   // DCQCN's F
  static constexpr double kIncrease = 40e6 / 8;  // DCQCN's R_AI: 40 Mbit/s
  static constexpr double kRateMin = 10e6 / 8;   // never slower than 10 Mbit/s
  static constexpr double kRateMax = 400e9 / 8;  // faster than any port: free again

  void StepUp() {
    if (++steps_ > kFastRecoverySteps) target_ += kIncrease * (steps_ - kFastRecoverySteps);
    rate_ = (rate_ + target_) / 2;
    if (rate_ < kRateMax) return;
    rate_ = 0;
    alpha_ = 1;
  }

  double rate_ = 0;
  double target_ = 0;
  double alpha_ = 1;
  int steps_ = 0;  // since the last cut
  Time cut_{};
  Time stepped_{};
};

}  // namespace sumac::soft_nic
