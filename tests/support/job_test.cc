#include "tests/support/job.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "transport/bootstrap/launch_environment.h"

namespace sumac::test_support {
namespace {

using std::chrono::seconds;

TEST(ForkedJobTest, RanksMeetAtTheServer) {
  ForkedJob job(3, [](const transport::BootstrapOptions& options) {
    auto bootstrap = transport::Bootstrap::Join(options);
    ASSERT_TRUE(bootstrap.ok()) << bootstrap.status();
    const auto values =
        (*bootstrap)->Exchange("names", std::to_string(options.rank * 10), absl::Seconds(20));
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_THAT(*values, testing::ElementsAre("0", "10", "20"));
  });
  job.ExpectAllOk(seconds(60));
}

TEST(ForkedJobTest, RanksSeeWhatALauncherWouldSet) {
  ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    const auto launch = transport::ReadLaunchEnvironment();
    ASSERT_TRUE(launch.ok()) << launch.status();
    EXPECT_EQ(launch->bootstrap.rank, options.rank);
    EXPECT_EQ(launch->bootstrap.size, 2);
    EXPECT_EQ(launch->bootstrap.server, options.server);
    EXPECT_EQ(launch->bootstrap.job, options.job);
    EXPECT_EQ(launch->origin, "sumac run");
  });
  job.ExpectAllOk(seconds(60));
}

TEST(ForkedJobTest, AKilledRankIsNamedToTheOthers) {
  ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    auto bootstrap = transport::Bootstrap::Join(options);
    ASSERT_TRUE(bootstrap.ok()) << bootstrap.status();
    std::puts("joined");
    std::fflush(stdout);
    const auto never = (*bootstrap)->Lookup("never published", absl::Seconds(40));
    EXPECT_EQ(transport::FailedRankOf(never.status()), 1) << never.status();
  });
  ASSERT_TRUE(job.ranks().WaitForOutput(1, "joined", seconds(30)));
  job.ranks().Kill(1);
  EXPECT_TRUE(job.ranks().WaitFor(0, seconds(60)).ok()) << job.ranks().output(0);
}

}  // namespace
}  // namespace sumac::test_support
