#include "cli/perf/pair/statistics.h"

#include <algorithm>
#include <cmath>

namespace sumac::cli {

void LatencySamples::Clear() {
  kept_ns_.clear();
  count_ = 0;
  mean_ns_ = squares_ = min_ns_ = max_ns_ = 0;
}

void LatencySamples::Replace(double ns) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const uint64_t place = random_ % count_;
  if (place < kept_ns_.size()) kept_ns_[place] = static_cast<float>(ns);
}

double Percentile(const std::vector<float>& sorted, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

LatencySummary LatencySamples::Summarize() {
  LatencySummary summary;
  summary.count = count_;
  if (count_ == 0) return summary;
  std::sort(kept_ns_.begin(), kept_ns_.end());
  constexpr double kUs = 1e-3;
  summary.min_us = min_ns_ * kUs;
  summary.max_us = max_ns_ * kUs;
  summary.typical_us = Percentile(kept_ns_, 0.5) * kUs;
  summary.average_us = mean_ns_ * kUs;
  summary.deviation_us =
      count_ > 1 ? std::sqrt(squares_ / static_cast<double>(count_ - 1)) * kUs : 0;
  if (count_ >= 100) summary.p99_us = Percentile(kept_ns_, 0.99) * kUs;
  if (count_ >= 1000) summary.p99_9_us = Percentile(kept_ns_, 0.999) * kUs;
  return summary;
}

RateSummary SummarizeRate(const std::vector<RatePart>& parts) {
  RateSummary summary;
  std::vector<double> rates;
  for (const RatePart& part : parts) {
    summary.operations += part.operations;
    summary.seconds += part.seconds;
    if (part.seconds > 0) rates.push_back(static_cast<double>(part.operations) / part.seconds);
  }
  if (rates.empty()) return summary;
  std::sort(rates.begin(), rates.end());
  summary.average = static_cast<double>(summary.operations) / summary.seconds;
  summary.peak = rates.back();
  const size_t middle = rates.size() / 2;
  summary.median = rates.size() % 2 == 1 ? rates[middle] : (rates[middle - 1] + rates[middle]) / 2;
  return summary;
}

}  // namespace sumac::cli
