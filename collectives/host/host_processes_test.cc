// Collectives in shared memory among real processes, with a real bootstrap.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "collectives/communicator.h"
#include "collectives/host/random_calls.h"
#include "tests/support/job.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;
using test_support::ForkedJob;
using transport::BootstrapOptions;

constexpr size_t kFloats = 1 << 20;

std::unique_ptr<Communicator> Join(const CommunicatorOptions& options = {}) {
  auto communicator = Communicator::FromEnvironment(options);
  if (!communicator.ok()) throw std::runtime_error(communicator.status().ToString());
  return std::move(*communicator);
}

void Say(const std::string& text) {
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

class Processes : public ::testing::TestWithParam<int> {};

TEST_P(Processes, RandomCallsAreRight) {
  ForkedJob job(GetParam(), [](const BootstrapOptions& launch) {
    auto communicator = Join();
    ASSERT_TRUE(communicator->uses_host_memory());
    ASSERT_EQ(MakeRandomCalls(*communicator, 7, 4000 / launch.size, 1 << 20), "");
    ASSERT_EQ(MakeRandomCalls(*communicator, 8, 5, 40 << 20), "");
    EXPECT_TRUE(communicator->Barrier().ok());
  });
  job.ExpectAllOk(100s);
}

TEST_P(Processes, RandomCallsAreRightByCopies) {
  ForkedJob job(GetParam(), [](const BootstrapOptions& launch) {
    CommunicatorOptions options;
    options.host_copies = HostCopies::kAlways;
    auto communicator = Join(options);
    ASSERT_EQ(MakeRandomCalls(*communicator, 9, 800 / launch.size, 1 << 20), "");
    ASSERT_EQ(MakeRandomCalls(*communicator, 10, 2, 40 << 20), "");
    EXPECT_TRUE(communicator->Barrier().ok());
  });
  job.ExpectAllOk(100s);
}

INSTANTIATE_TEST_SUITE_P(Numbers, Processes, ::testing::Values(1, 2, 3, 4, 5, 8));

// Kill -9 one of four, in small calls and in large ones, with buffers of both kinds.
class Deaths : public ::testing::TestWithParam<std::tuple<size_t, HostCopies>> {};

TEST_P(Deaths, SurvivorsNameTheRankThatDied) {
  static constexpr int kVictim = 2;
  ForkedJob job(4, [](const BootstrapOptions& launch) {
    const auto [count, copies] = GetParam();
    CommunicatorOptions options;
    options.host_copies = copies;
    auto communicator = Join(options);
    ASSERT_TRUE(communicator->uses_host_memory());
    auto registered = communicator->Allocate(kFloats * sizeof(float));
    ASSERT_TRUE(registered.ok()) << registered.status();
    std::vector<float> heap(kFloats);
    auto* const data =
        launch.rank % 2 == 0 ? reinterpret_cast<float*>(registered->data()) : heap.data();
    absl::Status status;
    for (int i = 0; status.ok(); ++i) {
      status = communicator->AllReduce(data, data, count, DataType::kFloat32, ReduceOp::kMax);
      if (i == 2) Say("running");
    }
    Say(status.ToString());
    EXPECT_NE(launch.rank, kVictim);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(transport::FailedRankOf(status), kVictim) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("allreduce (host, "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 2"));
    EXPECT_EQ(communicator->Barrier(), status);  // it stays failed
  });
  for (int r = 0; r < 4; ++r) ASSERT_TRUE(job.ranks().WaitForOutput(r, "running", 60s));
  const absl::Time killed = absl::Now();
  job.ranks().Kill(kVictim);
  for (int r = 0; r < 4; ++r) {
    if (r == kVictim) continue;
    EXPECT_TRUE(job.ranks().WaitForOutput(r, "UNAVAILABLE", 2s)) << "rank " << r;
  }
  EXPECT_LT(absl::Now() - killed, absl::Seconds(2));  // what we promise, not a race
  const auto outcomes = job.ranks().Wait(20s);
  for (const auto& outcome : outcomes) {
    EXPECT_TRUE(outcome.ok() || outcome.rank == kVictim) << outcome.ToString();
  }
  EXPECT_EQ(outcomes[kVictim].signal, 9);
}

INSTANTIATE_TEST_SUITE_P(Counts, Deaths,
                         ::testing::Combine(::testing::Values(2, 5000, kFloats),
                                            ::testing::Values(HostCopies::kNever,
                                                              HostCopies::kAlways)));

// A rank that is stopped is not dead: the others wait, and name it at their deadline.
TEST(HostProcesses, AStoppedRankIsNamedAtTheDeadline) {
  ForkedJob job(3, [](const BootstrapOptions& launch) {
    CommunicatorOptions options;
    options.timeout = absl::Seconds(3);
    auto communicator = Join(options);
    int32_t one = 1;
    absl::Status status;
    Say("running");
    while (status.ok()) {
      status = communicator->AllReduce(&one, &one, 1, DataType::kInt32, ReduceOp::kMin);
    }
    if (launch.rank == 1) return;  // was stopped, and finds the others gone
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("waits for rank 1"));
    Say("told");
  });
  for (int r = 0; r < 3; ++r) ASSERT_TRUE(job.ranks().WaitForOutput(r, "running", 60s));
  job.ranks().Kill(1, SIGSTOP);
  for (const int r : {0, 2}) EXPECT_TRUE(job.ranks().WaitForOutput(r, "told", 20s));
  job.ranks().Kill(1, SIGCONT);
  job.ExpectAllOk(60s);
}

TEST(HostProcesses, TurnedOffOnOneRankAllGoOverTheDomain) {
  ForkedJob job(3, [](const BootstrapOptions& launch) {
    if (launch.rank == 1) setenv("SUMAC_HOST_MEMORY", "0", 1);
    auto communicator = Join();
    EXPECT_FALSE(communicator->uses_host_memory());
    // Buffers of the communicator work there, too, without registering on each call.
    ASSERT_EQ(MakeRandomCalls(*communicator, 3, 60, 1 << 20), "");
    EXPECT_TRUE(communicator->Barrier().ok());
  });
  job.ExpectAllOk(100s);
}

TEST(HostProcesses, AnAlgorithmForcedKeepsTheDomain) {
  ForkedJob job(2, [](const BootstrapOptions&) {
    setenv("SUMAC_ALGO", "ring", 1);
    EXPECT_FALSE(Join()->uses_host_memory());
  });
  job.ExpectAllOk(100s);
}

TEST(HostProcesses, ForcedWhereItCannotBeIsAnError) {
  ForkedJob job(2, [](const BootstrapOptions& launch) {
    setenv("SUMAC_ALGO", "host", 1);
    if (launch.rank == 0) setenv("SUMAC_HOST_MEMORY", "0", 1);
    const auto communicator = Communicator::FromEnvironment();
    EXPECT_EQ(communicator.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(communicator.status().ToString(), HasSubstr("rank 0: host memory is turned off"));
  });
  job.ExpectAllOk(100s);
}

}  // namespace
}  // namespace sumac::collectives
