// Shows that the simulator finds mistakes: an engine with a mistake planted in it
// (engine/planted_bug.h) must fail within a number of seeds, and the same seeds must pass without.
//
//   simulation_planted_bug_test --bug=1 --seeds=100
//
// Built from the simulator, the few engine sources that have such mistakes, compiled with
// SUMAC_PLANTED_BUGS, and the rest of the engine as everybody has it.
#include "verbs/soft_nic/engine/planted_bug.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/simulation/seed_run.h"

namespace sumac::soft_nic::simulation {
namespace {

uint64_t bug = 1;
uint64_t seeds_max = 100;

TEST(PlantedBug, IsFound) {
  for (uint64_t seed = 1; seed <= seeds_max; ++seed) {
    planted_bug = static_cast<PlantedBug>(bug);
    const RunResult run = RunSeed(seed);
    if (run.complaints.empty()) continue;
    std::printf("planted bug %lu: found by seed %lu:\n%s", bug, seed, run.complaints.c_str());
    planted_bug = PlantedBug::kNone;
    EXPECT_EQ(RunSeed(seed).complaints, "") << "seed " << seed << " fails without the bug, too";
    return;
  }
  FAIL() << "planted bug " << bug << " was not found by seeds 1 to " << seeds_max
         << ": what would have met it is no longer drawn, or no longer checked";
}

}  // namespace
}  // namespace sumac::soft_nic::simulation

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag.starts_with("--bug=")) {
      sumac::soft_nic::simulation::bug = std::strtoull(argv[i] + 6, nullptr, 10);
    } else if (flag.starts_with("--seeds=")) {
      sumac::soft_nic::simulation::seeds_max = std::strtoull(argv[i] + 8, nullptr, 10);
    } else {
      std::fprintf(stderr, "usage: %s [--bug=1|2|3] [--seeds=N]\n", argv[0]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
