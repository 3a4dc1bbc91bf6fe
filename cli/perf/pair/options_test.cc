#include "cli/perf/pair/options.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Parsed {
  PairOptions options;
  std::string error;  // empty: fine
};

Parsed Parse(const std::vector<std::string>& words) {
  Parsed parsed;
  CLI::App app("perf", "perf");
  AddPairOptions(app, &parsed.options);
  std::vector<std::string> reversed(words.rbegin(), words.rend());
  try {
    app.parse(reversed);
    CheckPairOptions(parsed.options);
  } catch (const CLI::ParseError& error) {
    parsed.error = error.what();
  }
  return parsed;
}

TEST(PairOptions, DefaultsArePerftests) {
  const PairOptions latency = Parse({"put_lat"}).options;
  EXPECT_STREQ(latency.test(), "put_lat");
  EXPECT_THAT(latency.sizes(), ElementsAre(2));
  EXPECT_EQ(latency.IterationsOf(2), 1000u);
  EXPECT_FALSE(latency.ping_pong());
  const PairOptions bandwidth = Parse({"get_bw"}).options;
  EXPECT_THAT(bandwidth.sizes(), ElementsAre(65536));
  EXPECT_EQ(bandwidth.IterationsOf(65536), 5000u);
  EXPECT_EQ(bandwidth.tx_depth, 128u);
  EXPECT_EQ(bandwidth.port, 18515);
}

TEST(PairOptions, PerftestsLettersAndNames) {
  const Parsed parsed = Parse(
      {"put_bw",         "-s", "1M",    "-n", "50", "-q", "4",    "-b", "-t", "16",   "-D", "2",
       "--report_gbits", "-d", "soft0", "-x", "0",  "-m", "1024", "-F", "-p", "7000", "-c", "x",
       "node7"});
  EXPECT_THAT(parsed.error, HasSubstr("RC"));  // -c
  const PairOptions options = Parse({"put_bw",
                                     "-s",
                                     "1M",
                                     "-n",
                                     "50",
                                     "-q",
                                     "4",
                                     "-b",
                                     "-t",
                                     "16",
                                     "-D",
                                     "2",
                                     "--report_gbits",
                                     "-d",
                                     "soft0",
                                     "-x",
                                     "0",
                                     "-m",
                                     "1024",
                                     "-F",
                                     "-p",
                                     "7000",
                                     "node7"})
                                  .options;
  EXPECT_THAT(options.sizes(), ElementsAre(1 << 20));
  EXPECT_EQ(options.iterations, 50u);
  EXPECT_EQ(options.queue_pairs, 4);
  EXPECT_TRUE(options.bidirectional);
  EXPECT_EQ(options.tx_depth, 16u);
  EXPECT_DOUBLE_EQ(options.duration_s, 2);
  EXPECT_TRUE(options.gigabits);
  EXPECT_EQ(options.port, 7000);
  EXPECT_EQ(options.host, "node7");
  EXPECT_THAT(options.path_variables,
              testing::UnorderedElementsAre("SUMAC_DEVICE=soft0", "SUMAC_GID_INDEX=0",
                                            "SUMAC_PATH_MTU=1024"));
}

TEST(PairOptions, AllSizes) {
  const std::vector<uint64_t> sizes = Parse({"put_lat", "-a"}).options.sizes();
  ASSERT_EQ(sizes.size(), 23u);
  EXPECT_EQ(sizes.front(), 2u);
  EXPECT_EQ(sizes.back(), 8u << 20);
}

TEST(PairOptions, LargeSizesAreRepeatedLess) {
  const PairOptions options = Parse({"put_bw"}).options;
  EXPECT_EQ(options.IterationsOf(8 << 20), 128u);
  EXPECT_EQ(options.IterationsOf(1 << 30), 20u);
  EXPECT_EQ(Parse({"put_bw", "-n", "7"}).options.IterationsOf(1 << 30), 7u);
}

TEST(PairOptions, EveryTestHasItsName) {
  for (const char* name : {"put_lat", "put_bw", "get_lat", "get_bw", "send_lat", "send_bw",
                           "atomic_lat", "atomic_bw"}) {
    EXPECT_STREQ(Parse({name}).options.test(), name);
  }
  EXPECT_THAT(Parse({"write_bw"}).error, HasSubstr("put_bw"));
  EXPECT_FALSE(Parse({}).error.empty());
}

TEST(PairOptions, WhatDoesNotGoTogether) {
  const std::vector<std::pair<std::vector<std::string>, const char*>> cases = {
      {{"get_lat", "--ping-pong"}, "--ping-pong"},
      {{"put_bw", "--signal"}, "--signal"},
      {{"atomic_lat", "-s", "16"}, "8 bytes"},
      {{"atomic_bw", "-a"}, "8 bytes"},
      {{"put_lat", "-A", "CMP_AND_SWAP"}, "--atomic_type"},
      {{"put_lat", "-q", "2"}, "--qp"},
      {{"put_lat", "-b"}, "--bidirectional"},
      {{"send_bw", "-b"}, "put_bw -b"},
      {{"send_lat", "--passive-target"}, "--passive-target"},
      {{"put_lat", "-a", "-s", "8"}, "--size"},
      {{"put_lat", "--local", "node7"}, "--local"},
      {{"put_lat", "-s", "0"}, "--size"},
      {{"put_lat", "-s", "2G"}, "--size"},
      {{"put_lat", "-s", "-1"}, ""},
      {{"put_lat", "-n", "4"}, "--iters"},
      {{"put_bw", "-t", "0"}, "--tx-depth"},
      {{"put_bw", "-m", "1500"}, "--mtu"},
      {{"put_lat", "--cpus", "0"}, "--cpus"},
      {{"put_lat", "--nonsense"}, "--nonsense"},
  };
  for (const auto& [words, named] : cases) {
    const std::string error = Parse(words).error;
    EXPECT_FALSE(error.empty()) << words[1];
    EXPECT_THAT(error, HasSubstr(named));
  }
}

TEST(PairOptions, WhatPerftestHasAndWeDoNotIsRefusedWithTheReason) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"put_bw", "-I", "64"},
                                             {"put_bw", "-e"},
                                             {"put_bw", "--cq-mod", "4"},
                                             {"send_bw", "-r", "8"},
                                             {"put_lat", "-H"},
                                             {"put_bw", "--run_infinitely"},
                                             {"put_bw", "-N"}}) {
    EXPECT_THAT(Parse(words).error, HasSubstr("not here")) << words[1];
  }
}

TEST(PairOptions, BothSidesAgreeInWhatMatters) {
  EXPECT_EQ(Parse({"put_lat", "-n", "5"}).options.Agreement(),
            Parse({"put_lat", "--json", "host"}).options.Agreement());
  EXPECT_NE(Parse({"put_lat", "-s", "4"}).options.Agreement(),
            Parse({"put_lat", "-s", "8"}).options.Agreement());
}

}  // namespace
}  // namespace sumac::cli
