#include "cli/perf/pair/report.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

template <typename Summary>
std::string Printed(PairReport& report, const Summary& summary, uint64_t wrong) {
  testing::internal::CaptureStdout();
  report.Row(4096, summary, wrong);
  return testing::internal::GetCapturedStdout();
}

TEST(PairReport, WrongDataHaveNoFigure) {
  const PairOptions options;
  PairReport report(options);
  LatencySummary latency;
  latency.count = 1000;
  latency.typical_us = 12.25;
  const std::string line = Printed(report, latency, 3);
  EXPECT_THAT(line, HasSubstr("WRONG DATA: 3 bytes"));
  EXPECT_THAT(line, Not(HasSubstr("12.25")));
  RateSummary rate;
  rate.operations = 10;
  rate.average = rate.peak = 777;
  EXPECT_THAT(Printed(report, rate, 1), Not(HasSubstr("777")));
  EXPECT_EQ(report.wrong(), 4u);
}

TEST(PairReport, WrongDataHaveNoFigureInJsonEither) {
  PairOptions options;
  options.json = true;
  PairReport report(options);
  LatencySummary latency;
  latency.typical_us = 12.25;
  EXPECT_EQ(Printed(report, latency, 3), "");
  testing::internal::CaptureStdout();
  ASSERT_TRUE(report.End().ok());
  const auto json = nlohmann::json::parse(testing::internal::GetCapturedStdout());
  EXPECT_EQ(json["wrong"], 3);
  EXPECT_FALSE(json["results"][0].contains("t_typical_us"));
}

TEST(PairReport, PercentilesThatThereAreNotEnoughSamplesForAreLeftOpen) {
  const PairOptions options;
  PairReport report(options);
  LatencySummary latency;
  latency.count = 500;
  latency.p99_us = 44.5;
  EXPECT_THAT(Printed(report, latency, 0), testing::ContainsRegex("44.50 +-\n"));
}

TEST(PairReport, UnitsOfBandwidth) {
  PairOptions options;
  options.measure = PairMeasure::kBandwidth;
  RateSummary rate;
  rate.operations = 100;
  rate.average = rate.peak = rate.median = 256e3;  // of 4 KiB: 1000 MiB/s
  PairReport mebi(options);
  EXPECT_THAT(Printed(mebi, rate, 0), HasSubstr("1000.00 "));
  options.gigabits = true;
  PairReport gigabits(options);
  EXPECT_THAT(Printed(gigabits, rate, 0), HasSubstr("8.39 "));
}

TEST(PairReport, AFileThatCanNotBeWrittenIsAnError) {
  PairOptions options;
  options.json_file = "/nonexistent/folder/report.json";
  PairReport report(options);
  EXPECT_FALSE(report.End().ok());
}

}  // namespace
}  // namespace sumac::cli
