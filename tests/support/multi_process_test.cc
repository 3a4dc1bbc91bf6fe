#include "tests/support/multi_process.h"

#include <unistd.h>

#include <cstdio>
#include <stdexcept>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::test_support {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

TEST(ForkedRanksTest, EachRankIsAProcessOfItsOwn) {
  ForkedRanks ranks(3, [](int rank) { std::printf("rank %d is %d\n", rank, getpid()); });
  const std::vector<RankOutcome> outcomes = ranks.Wait(seconds(20));
  ASSERT_EQ(outcomes.size(), 3u);
  for (int rank = 0; rank < 3; ++rank) {
    const RankOutcome& outcome = outcomes[static_cast<size_t>(rank)];
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
    EXPECT_THAT(outcome.output, HasSubstr("rank " + std::to_string(rank) + " is " +
                                          std::to_string(ranks.pid(rank))));
  }
}

TEST(ForkedRanksTest, AFailedCheckAndAnExceptionAreExitCodes) {
  ForkedRanks ranks(3, [](int rank) {
    if (rank == 1) ADD_FAILURE() << "as it should";
    if (rank == 2) throw std::runtime_error("thrown as it should");
  });
  const std::vector<RankOutcome> outcomes = ranks.Wait(seconds(20));
  EXPECT_EQ(outcomes[0].exit_code, 0);
  EXPECT_EQ(outcomes[1].exit_code, 1);
  EXPECT_THAT(outcomes[1].output, HasSubstr("as it should"));
  EXPECT_EQ(outcomes[2].exit_code, 3);
  EXPECT_THAT(outcomes[2].ToString(), HasSubstr("thrown as it should"));
}

TEST(ForkedRanksTest, ARankPastItsDeadlineIsKilledAndMarked) {
  ForkedRanks ranks(2, [](int rank) {
    if (rank == 1) pause();
  });
  EXPECT_TRUE(ranks.WaitFor(0, seconds(20)).ok());
  const RankOutcome late = ranks.WaitFor(1, milliseconds(1));
  EXPECT_TRUE(late.timed_out);
  EXPECT_EQ(late.signal, 9);
  EXPECT_EQ(late.exit_code, -1);
}

TEST(ForkedRanksTest, KillsOneWhenItHasSaidItsWord) {
  ForkedRanks ranks(2, [](int rank) {
    if (rank == 1) {
      std::puts("ready");
      std::fflush(stdout);
      pause();
    }
  });
  EXPECT_TRUE(ranks.WaitForOutput(1, "ready", seconds(20)));
  EXPECT_FALSE(ranks.WaitForOutput(0, "never said", seconds(20)));
  ranks.Kill(1);
  const std::vector<RankOutcome> outcomes = ranks.Wait(seconds(20));
  EXPECT_EQ(outcomes[1].signal, 9);
  EXPECT_FALSE(outcomes[1].timed_out);
}

}  // namespace
}  // namespace sumac::test_support
