// Runs seeds. `simulation_test --seed=N` replays one; `--first=N --count=M` runs a range, no longer
// than `--seconds=S`. `--totals` ends with one line of JSON for scripts/soak.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/simulation/seed_run.h"
#include "tests/support/crash_note.h"

namespace sumac::soft_nic::simulation {
namespace {

uint64_t first_seed = 1;
uint64_t seed_count = 100;
uint64_t seconds_max = 0;  // 0: no limit
bool verbose = false;
bool print_totals = false;

struct Totals {
  uint64_t seeds = 0;
  uint64_t messages = 0;
  uint64_t connections = 0;
  uint64_t broken = 0;
  NetworkCounters network;
  QueuePairCounters engines;
  std::vector<uint64_t> failed;

  void Add(uint64_t seed, const RunResult& run) {
    ++seeds;
    messages += run.messages;
    connections += run.connections;
    broken += run.broken;
    Accumulate(&network, run.network);
    Accumulate(&engines, run.engines);
    if (!run.complaints.empty()) failed.push_back(seed);
  }

  void Print() const {
    std::printf(
        "totals: {\"seeds\": %lu, \"packets\": %lu, \"messages\": %lu, \"lost\": %lu, "
        "\"blacked_out\": %lu, \"too_long\": %lu, \"queue_lost\": %lu, \"duplicated\": %lu, "
        "\"reordered\": %lu, \"corrupted\": %lu, \"marked\": %lu, \"rnr_naks\": %lu, "
        "\"sent_again\": %lu, \"timeouts\": %lu, \"harsh_connections\": %lu, \"broken\": %lu, "
        "\"failed\": [",
        seeds, network.sent, messages, network.lost, network.blacked_out, network.too_long,
        network.queue_lost, network.duplicated, network.reordered, network.corrupted,
        network.marked, engines.rnr_naks_sent, engines.retransmitted_packets, engines.timeouts,
        connections, broken);
    for (size_t i = 0; i < failed.size(); ++i) std::printf("%s%lu", i == 0 ? "" : ", ", failed[i]);
    std::printf("]}\n");
  }
};

std::string Summary(const RunResult& run) {
  char text[400];
  std::snprintf(
      text, sizeof(text),
      "trace %016lx, %lu events, %.3f s of virtual time, %lu packets (%lu lost, %lu twice, "
      "%lu late, %lu damaged), %lu sent again, %lu timeouts, %lu of %lu connections broken",
      run.trace, run.events, std::chrono::duration<double>(run.virtual_time).count(),
      run.network.sent, run.network.lost, run.network.duplicated, run.network.reordered,
      run.network.corrupted, run.engines.retransmitted_packets, run.engines.timeouts, run.broken,
      run.connections);
  return text;
}

// A run of many seeds that never met a fault tests nothing.
void ExpectEverythingHappened(const Totals& totals) {
  EXPECT_GT(totals.network.lost, 0u);
  EXPECT_GT(totals.network.blacked_out, 0u);
  EXPECT_GT(totals.network.too_long, 0u);
  EXPECT_GT(totals.network.queue_lost, 0u);
  EXPECT_GT(totals.network.duplicated, 0u);
  EXPECT_GT(totals.network.reordered, 0u);
  EXPECT_GT(totals.network.corrupted, 0u);
  EXPECT_GT(totals.network.marked, 0u);
  EXPECT_GT(totals.engines.cnps_received, 0u);
  EXPECT_GT(totals.engines.retransmitted_packets, 0u);
  EXPECT_GT(totals.engines.timeouts, 0u);
  EXPECT_GT(totals.engines.sequence_naks_sent, 0u);
  EXPECT_GT(totals.engines.sequence_naks_received, 0u);
  EXPECT_GT(totals.engines.rnr_naks_sent, 0u);
  EXPECT_GT(totals.engines.access_naks_sent, 0u);
  EXPECT_GT(totals.engines.invalid_request_naks_sent, 0u);
  EXPECT_GT(totals.engines.duplicates_received, 0u);
  EXPECT_GT(totals.engines.dropped_no_receive, 0u);
  EXPECT_GT(totals.engines.dropped_bad_qkey, 0u);
  EXPECT_GT(totals.engines.messages_cut_short, 0u);
  EXPECT_GT(totals.engines.unsent_too_long, 0u);
  // Harsh weather that broke every connection would leave nothing to check.
  EXPECT_GT(totals.broken, 0u);
  EXPECT_LT(totals.broken, totals.connections / 2);
}

TEST(Simulation, EverySeedKeepsThePromises) {
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  for (uint64_t seed = first_seed; seed < first_seed + seed_count; ++seed) {
    if (seconds_max != 0 &&
        std::chrono::steady_clock::now() - start >= std::chrono::seconds(seconds_max)) {
      break;
    }
    sumac::testing::SetCrashNote("died at: simulation_test --seed=%lu\n", seed);
    const RunResult run = RunSeed(seed);
    totals.Add(seed, run);
    if (verbose) {
      std::printf("seed %lu: %s\n  %s\n", seed, run.configuration.c_str(), Summary(run).c_str());
    }
    EXPECT_EQ(run.complaints, "") << "replay: simulation_test --seed=" << seed << "\n"
                                  << run.configuration << "\n"
                                  << Summary(run);
  }
  if (seed_count >= 300 && seconds_max == 0) ExpectEverythingHappened(totals);
  if (print_totals) totals.Print();
}

TEST(Simulation, SameSeedSameTrace) {
  for (uint64_t seed = first_seed; seed < first_seed + 3; ++seed) {
    const RunResult once = RunSeed(seed);
    const RunResult again = RunSeed(seed);
    EXPECT_EQ(once.trace, again.trace) << "seed " << seed;
    EXPECT_EQ(once.events, again.events);
    EXPECT_EQ(once.virtual_time, again.virtual_time);
    EXPECT_NE(once.trace, RunSeed(seed + 1).trace);
  }
}

}  // namespace
}  // namespace sumac::soft_nic::simulation

int main(int argc, char** argv) {
  using namespace sumac::soft_nic::simulation;
  ::testing::InitGoogleTest(&argc, argv);
  sumac::testing::PrintCrashNoteOnDeath();
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const size_t equals = flag.find('=');
    const std::string name = flag.substr(0, equals);
    const char* const text = equals == std::string::npos ? "" : argv[i] + equals + 1;
    char* end = nullptr;
    const uint64_t value = std::strtoull(text, &end, 0);
    const bool number = *text != '\0' && *end == '\0';
    if (name == "--seed" && number) {
      first_seed = value;
      seed_count = 1;
      verbose = true;
    } else if (name == "--first" && number) {
      first_seed = value;
    } else if (name == "--count" && number) {
      seed_count = value;
    } else if (name == "--seconds" && number) {
      seconds_max = value;
    } else if (flag == "--verbose") {
      verbose = true;
    } else if (flag == "--totals") {
      print_totals = true;
    } else {
      std::fprintf(
          stderr,
          "usage: %s [--seed=N | --first=N --count=M [--seconds=S]] [--verbose] [--totals]\n",
          argv[0]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
