// Real ranks, real bootstrap, real NIC (soft0 where there is no other).
#include "collectives/communicator.h"

#include <cstdio>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "collectives/executor/collective_case.h"
#include "collectives/schedule/algorithms.h"
#include "tests/support/job.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;
using test_support::ForkedJob;
using transport::BootstrapOptions;

// Over the domain: what is tested here are the schedules. collectives/host has tests of its own.
std::unique_ptr<Communicator> Join(CommunicatorOptions options = {}) {
  options.host_memory = false;
  auto communicator = Communicator::FromEnvironment(options);
  if (!communicator.ok()) throw std::runtime_error(communicator.status().ToString());
  return std::move(*communicator);
}

// Runs a case on this rank and compares with the reference.
void Check(Communicator& communicator, const CollectiveCase& c) {
  CaseBuffers buffers(c, communicator.rank());
  const absl::Status status = RunWith(communicator, c, buffers);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(buffers.Wrong(ExpectedResult(c)), "");
}

void CheckEverything(Communicator& communicator) {
  const int n = communicator.size();
  uint64_t seed = 0;
  for (const Collective collective : {Collective::kAllReduce, Collective::kReduceScatter,
                                      Collective::kAllGather, Collective::kBroadcast}) {
    for (const DataType type : {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16,
                                DataType::kBfloat16, DataType::kInt32, DataType::kInt64}) {
      for (const ReduceOp op :
           {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kAvg}) {
        for (const int count : {0, 1, 3, n + 1, 1000, 30'011}) {
          ++seed;
          const bool shared =
              collective == Collective::kAllGather || collective == Collective::kReduceScatter;
          const auto total = static_cast<size_t>(shared ? count * n : count);
          Check(communicator,
                {collective, n, static_cast<int>(seed % n), total, type, op, seed % 2 != 0, seed});
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

class Ranks : public ::testing::TestWithParam<int> {};

TEST_P(Ranks, EveryOperationGivesTheReferencesBits) {
  ForkedJob job(GetParam(), [](const BootstrapOptions&) {
    auto communicator = Join();
    CheckEverything(*communicator);
    EXPECT_TRUE(communicator->Barrier().ok());
  });
  job.ExpectAllOk(100s);
}

INSTANTIATE_TEST_SUITE_P(Numbers, Ranks, ::testing::Values(1, 2, 3, 4, 5));

TEST(Communicator, EveryAlgorithmAndLargeVectors) {
  ForkedJob job(3, [](const BootstrapOptions&) {
    auto world = Join();
    for (const char* name : {"ring", "recursive_doubling", "direct", "bruck", "tree", "chain"}) {
      CommunicatorOptions options;
      options.name = name;
      options.algorithm = name;
      options.slot_bytes = 64 * 1024;
      auto created = Communicator::Create(world->domain(), options);
      ASSERT_TRUE(created.ok()) << created.status();
      Communicator* communicator = created->get();
      for (const Collective collective : {Collective::kAllReduce, Collective::kReduceScatter,
                                          Collective::kAllGather, Collective::kBroadcast}) {
        Check(*communicator, {collective, 3, 1, 3 * 400'007, DataType::kFloat32, ReduceOp::kAvg});
      }
      EXPECT_TRUE(communicator->Barrier().ok());
    }
  });
  job.ExpectAllOk(100s);
}

TEST(Communicator, TwoOverOneDomain) {
  ForkedJob job(2, [](const BootstrapOptions&) {
    auto first = Join();
    CommunicatorOptions options;
    options.name = "second";
    options.host_memory = false;
    options.slots_per_peer = 1;
    auto second = Communicator::Create(first->domain(), options);
    ASSERT_TRUE(second.ok()) << second.status();
    for (uint64_t seed = 1; seed < 20; ++seed) {
      const CollectiveCase c{Collective::kAllReduce, 2,     0,   seed * 1000, DataType::kInt32,
                             ReduceOp::kSum,         false, seed};
      Check(seed % 3 != 0 ? *first : **second, c);
    }
    EXPECT_TRUE((*second)->Barrier().ok());
  });
  job.ExpectAllOk(100s);
}

// Kill -9 one of four in the middle of allreduces: the others name it, soon.
TEST(Communicator, SurvivorsNameTheRankThatDied) {
  static constexpr int kVictim = 2;
  ForkedJob job(4, [](const BootstrapOptions& launch) {
    const int rank = launch.rank;
    auto communicator = Join();
    std::vector<float> data(1 << 20, 1.0F);
    absl::Status status;
    for (int i = 0; status.ok(); ++i) {
      status = communicator->AllReduce(data.data(), data.data(), data.size(), DataType::kFloat32,
                                       ReduceOp::kAvg);
      if (i == 2) {
        std::printf("running\n");
        std::fflush(stdout);
      }
    }
    std::printf("%s\n", status.ToString().c_str());
    std::fflush(stdout);
    EXPECT_NE(rank, kVictim);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(transport::FailedRankOf(status), kVictim) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("allreduce (ring, 1048576 x float avg)"));
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
  std::printf("all survivors knew after %.0f ms\n",
              absl::ToDoubleMilliseconds(absl::Now() - killed));
  const auto outcomes = job.ranks().Wait(20s);
  for (const auto& outcome : outcomes) {
    EXPECT_TRUE(outcome.ok() || outcome.rank == kVictim) << outcome.ToString();
  }
  EXPECT_EQ(outcomes[kVictim].signal, 9);
}

TEST(Communicator, ALateRankIsNamedAtTheDeadline) {
  ForkedJob job(3, [](const BootstrapOptions& launch) {
    const int rank = launch.rank;
    CommunicatorOptions options;
    options.timeout = absl::Seconds(1);
    auto communicator = Join(options);
    int32_t one = 1;
    ASSERT_TRUE(communicator->AllReduce(&one, &one, 1, DataType::kInt32, ReduceOp::kSum).ok());
    EXPECT_EQ(one, 3);
    if (rank != 1) {
      const absl::Status status =
          communicator->AllReduce(&one, &one, 1, DataType::kInt32, ReduceOp::kSum);
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("allreduce (recursive_doubling, 1 x int32 sum): waits for rank"));
    }
    EXPECT_TRUE(communicator->domain().worker().bootstrap().Barrier("end", absl::Seconds(30)).ok());
  });
  job.ExpectAllOk(100s);
}

TEST(Communicator, DifferentSlotsAreRefused) {
  ForkedJob job(2, [](const BootstrapOptions& launch) {
    const int rank = launch.rank;
    CommunicatorOptions options;
    options.slots_per_peer = rank == 0 ? 4 : 2;
    auto communicator = Join(options);
    const absl::Status status = communicator->Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("give all ranks the same slots_per_peer"));
  });
  job.ExpectAllOk(100s);
}

TEST(Communicator, BadOptionsAreRefused) {
  ForkedJob job(1, [](const BootstrapOptions&) {
    CommunicatorOptions options;
    options.slot_bytes = 100;
    EXPECT_THAT(Communicator::FromEnvironment(options).status().ToString(),
                HasSubstr("slot_bytes 100: expected a multiple of 64"));
    setenv("SUMAC_ALGO", "fast", 1);
    EXPECT_THAT(Communicator::FromEnvironment().status().ToString(),
                HasSubstr("SUMAC_ALGO: unknown algorithm \"fast\""));
  });
  job.ExpectAllOk(100s);
}

}  // namespace
}  // namespace sumac::collectives
