// How the data of private buffers get to the other ranks: through the stages, or by the kernel's
// copies from process to process.
//
// Which is faster depends on how far the CPUs are from each other, on the size and on the kernel,
// so both are tried: of every kPeriod calls of a size class the first kTrials go by the one, the
// next by the other, and the rest by the faster. All ranks must take the same way: each holds a
// MethodChooser, but rank 0's measures and decides. It announces at a call what the next one of
// such a size does, which all have read by then.
//
// Owned by HostSession; its thread. Pure: times are passed in. Nothing allocates.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "collectives/communicator.h"

namespace sumac::collectives {

enum class HostMethod : uint32_t { kStage = 0, kCopy = 1 };

class MethodChooser {
 public:
  using Duration = std::chrono::nanoseconds;
  static constexpr uint32_t kTrials = 4;  // the first is not counted
  static constexpr uint32_t kPeriod = 1024;

  // kMeasured and kAlways only where the kernel copies (HostGroup::can_copy).
  explicit MethodChooser(HostCopies copies) : copies_(copies) {}

  // Of the coming call of `bytes`.
  HostMethod current(size_t bytes) const { return ClassOf(bytes).current; }
  // Rank 0: whether OnCall wants to know how long it takes; what to announce at it.
  bool measures(size_t bytes) const {
    return copies_ == HostCopies::kMeasured && ClassOf(bytes).calls < 2 * kTrials;
  }
  HostMethod Next(size_t bytes) const {
    const SizeClass& c = ClassOf(bytes);
    const uint32_t next = (c.calls + 1) % kPeriod;
    if (copies_ == HostCopies::kAlways) return HostMethod::kCopy;
    if (copies_ == HostCopies::kNever || next < kTrials) return HostMethod::kStage;
    if (next < 2 * kTrials) return HostMethod::kCopy;
    return c.best[1] < c.best[0] ? HostMethod::kCopy : HostMethod::kStage;
  }
  // After a call: what rank 0 announced at it, and, on rank 0, how long it took.
  void OnCall(size_t bytes, HostMethod next, Duration took) {
    SizeClass& c = classes_[IndexOf(bytes)];
    Duration& best = c.best[c.current == HostMethod::kCopy ? 1 : 0];
    const uint32_t trial = c.calls % kTrials;
    if (c.calls < 2 * kTrials) best = trial == 0 ? Duration::max() : std::min(best, took);
    c.calls = (c.calls + 1) % kPeriod;
    c.current = next == HostMethod::kCopy ? next : HostMethod::kStage;
  }

 private:
  struct SizeClass {
    HostMethod current = HostMethod::kStage;
    uint32_t calls = 0;  // of this period
    std::array<Duration, 2> best = {Duration::max(), Duration::max()};
  };
  static size_t IndexOf(size_t bytes) { return static_cast<size_t>(std::bit_width(bytes)); }
  const SizeClass& ClassOf(size_t bytes) const { return classes_[IndexOf(bytes)]; }

  const HostCopies copies_;
  std::array<SizeClass, std::numeric_limits<size_t>::digits + 1> classes_;
};

}  // namespace sumac::collectives
