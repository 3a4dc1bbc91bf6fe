// Samples of a latency and what a report says about them.
//
// Memory is taken once, in the constructor; Add allocates nothing, so it may stand in a timed loop.
// Beyond the capacity a sample replaces a random earlier one (reservoir sampling), so percentiles
// stay unbiased; count, least, greatest, mean and deviation are of all. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace sumac::cli {

struct LatencySummary {
  uint64_t count = 0;
  double min_us = 0, max_us = 0;
  double typical_us = 0;  // the median
  double average_us = 0, deviation_us = 0;
  // Not given where there are too few samples to have any beyond: 100 and 1000.
  std::optional<double> p99_us, p99_9_us;
};

class LatencySamples {
 public:
  static constexpr size_t kCapacity = size_t{1} << 20;
  explicit LatencySamples(size_t capacity = kCapacity) : capacity_(capacity) {
    kept_ns_.reserve(capacity);
  }
  void Clear();
  void Add(double ns) {
    ++count_;
    // Welford: no cancellation between large sums.
    const double delta = ns - mean_ns_;
    mean_ns_ += delta / static_cast<double>(count_);
    squares_ += delta * (ns - mean_ns_);
    if (count_ == 1 || ns < min_ns_) min_ns_ = ns;
    if (count_ == 1 || ns > max_ns_) max_ns_ = ns;
    if (kept_ns_.size() < capacity_) {
      kept_ns_.push_back(static_cast<float>(ns));
    } else {
      Replace(ns);
    }
  }
  uint64_t count() const { return count_; }
  LatencySummary Summarize();  // sorts what is kept

 private:
  void Replace(double ns);

  const size_t capacity_;
  std::vector<float> kept_ns_;
  uint64_t count_ = 0;
  double mean_ns_ = 0, squares_ = 0, min_ns_ = 0, max_ns_ = 0;
  uint64_t random_ = 0x9e3779b97f4a7c15;
};

// The smallest sample that at least this share of all do not exceed (nearest rank). `sorted` is not
// empty, `share` in (0, 1].
double Percentile(const std::vector<float>& sorted, double share);

// Operations completed over time, in up to ten parts: for the fastest part ("peak") beside the
// average.
struct RatePart {
  uint64_t operations = 0;
  double seconds = 0;
};
struct RateSummary {
  uint64_t operations = 0;
  double seconds = 0;
  double average = 0, peak = 0, median = 0;  // operations a second
};
RateSummary SummarizeRate(const std::vector<RatePart>& parts);

}  // namespace sumac::cli
