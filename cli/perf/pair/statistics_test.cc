#include "cli/perf/pair/statistics.h"

#include <cmath>

#include "gtest/gtest.h"

namespace sumac::cli {
namespace {

TEST(LatencySamples, SaysNothingOfNothing) {
  LatencySamples samples(8);
  EXPECT_EQ(samples.Summarize().count, 0u);
  EXPECT_FALSE(samples.Summarize().p99_us.has_value());
}

TEST(LatencySamples, OneSampleIsEverything) {
  LatencySamples samples(8);
  samples.Add(2500);
  const LatencySummary summary = samples.Summarize();
  EXPECT_DOUBLE_EQ(summary.min_us, 2.5);
  EXPECT_DOUBLE_EQ(summary.max_us, 2.5);
  EXPECT_DOUBLE_EQ(summary.typical_us, 2.5);
  EXPECT_DOUBLE_EQ(summary.average_us, 2.5);
  EXPECT_DOUBLE_EQ(summary.deviation_us, 0);
}

TEST(LatencySamples, OneToAThousand) {
  LatencySamples samples;
  for (int i = 1000; i >= 1; --i) samples.Add(i * 1000.0);
  const LatencySummary summary = samples.Summarize();
  EXPECT_EQ(summary.count, 1000u);
  EXPECT_DOUBLE_EQ(summary.min_us, 1);
  EXPECT_DOUBLE_EQ(summary.max_us, 1000);
  EXPECT_DOUBLE_EQ(summary.typical_us, 500);
  EXPECT_NEAR(summary.average_us, 500.5, 1e-9);
  EXPECT_NEAR(summary.deviation_us, std::sqrt(1000.0 * 1001 / 12), 1e-9);
  EXPECT_DOUBLE_EQ(*summary.p99_us, 990);
  EXPECT_DOUBLE_EQ(*summary.p99_9_us, 999);
}

TEST(LatencySamples, TooFewForHighPercentiles) {
  LatencySamples samples;
  for (int i = 0; i < 999; ++i) samples.Add(1);
  EXPECT_TRUE(samples.Summarize().p99_us.has_value());
  EXPECT_FALSE(samples.Summarize().p99_9_us.has_value());
  samples.Clear();
  for (int i = 0; i < 99; ++i) samples.Add(1);
  EXPECT_FALSE(samples.Summarize().p99_us.has_value());
}

TEST(LatencySamples, BeyondItsCapacityPercentilesStayUnbiased) {
  LatencySamples samples(2000);
  for (int i = 1; i <= 200'000; ++i) samples.Add(i);
  const LatencySummary summary = samples.Summarize();
  EXPECT_EQ(summary.count, 200'000u);
  EXPECT_DOUBLE_EQ(summary.max_us, 200);
  EXPECT_NEAR(summary.average_us, 100, 0.01);
  EXPECT_NEAR(summary.typical_us, 100, 15);  // about six standard errors
  EXPECT_NEAR(*summary.p99_us, 198, 3);
}

TEST(Rate, PeakIsTheFastestPartAndTheAverageIsOfAll) {
  const RateSummary summary = SummarizeRate({{100, 1.0}, {100, 0.5}, {100, 2.0}, {0, 0}});
  EXPECT_EQ(summary.operations, 300u);
  EXPECT_DOUBLE_EQ(summary.average, 300 / 3.5);
  EXPECT_DOUBLE_EQ(summary.peak, 200);
  EXPECT_DOUBLE_EQ(summary.median, 100);
}

TEST(Rate, OfNothingIsNothing) { EXPECT_EQ(SummarizeRate({}).average, 0); }

}  // namespace
}  // namespace sumac::cli
