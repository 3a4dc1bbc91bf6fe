// Runs seeds. `simulation_test --seed=N` replays one; `--first=N --count=M` runs a range.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/simulation/seed_run.h"

namespace sumac::soft_nic::simulation {
namespace {

uint64_t first_seed = 1;
uint64_t seed_count = 100;
bool verbose = false;

std::string Summary(const RunResult& run) {
  char text[400];
  std::snprintf(
      text, sizeof(text),
      "trace %016lx, %lu events, %.3f s of virtual time, %lu packets (%lu lost, %lu twice, "
      "%lu late, %lu damaged), %lu sent again, %lu timeouts",
      run.trace, run.events, std::chrono::duration<double>(run.virtual_time).count(),
      run.network.sent, run.network.lost, run.network.duplicated, run.network.reordered,
      run.network.corrupted, run.engines.retransmitted_packets, run.engines.timeouts);
  return text;
}

TEST(Simulation, EverySeedKeepsThePromises) {
  QueuePairCounters all;
  for (uint64_t seed = first_seed; seed < first_seed + seed_count; ++seed) {
    const RunResult run = RunSeed(seed);
    Accumulate(&all, run.engines);
    if (verbose)
      std::printf("seed %lu: %s\n  %s\n", seed, run.configuration.c_str(), Summary(run).c_str());
    EXPECT_EQ(run.complaints, "") << "replay: simulation_test --seed=" << seed << "\n"
                                  << run.configuration << "\n"
                                  << Summary(run);
  }
  // A run of many seeds that never met a fault tests nothing.
  if (seed_count >= 100) {
    EXPECT_GT(all.retransmitted_packets, 0u);
    EXPECT_GT(all.timeouts, 0u);
    EXPECT_GT(all.sequence_naks_sent, 0u);
    EXPECT_GT(all.sequence_naks_received, 0u);
    EXPECT_GT(all.rnr_naks_sent, 0u);
    EXPECT_GT(all.access_naks_sent, 0u);
    EXPECT_GT(all.invalid_request_naks_sent, 0u);
    EXPECT_GT(all.duplicates_received, 0u);
  }
}

TEST(Simulation, SameSeedSameTrace) {
  for (uint64_t seed = first_seed; seed < first_seed + 3; ++seed) {
    const RunResult once = RunSeed(seed);
    const RunResult again = RunSeed(seed);
    EXPECT_EQ(once.trace, again.trace) << "seed " << seed;
    EXPECT_EQ(once.events, again.events);
    EXPECT_NE(once.trace, RunSeed(seed + 1).trace);
  }
}

}  // namespace
}  // namespace sumac::soft_nic::simulation

int main(int argc, char** argv) {
  using namespace sumac::soft_nic::simulation;
  testing::InitGoogleTest(&argc, argv);
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
    } else if (flag == "--verbose") {
      verbose = true;
    } else {
      std::fprintf(stderr, "usage: %s [--seed=N | --first=N --count=M] [--verbose]\n", argv[0]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
