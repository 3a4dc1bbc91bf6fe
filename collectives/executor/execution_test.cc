#include "collectives/executor/execution.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "collectives/executor/collective_case.h"
#include "collectives/executor/fake_cluster.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;

constexpr DataType kTypes[] = {DataType::kFloat32,  DataType::kFloat64, DataType::kFloat16,
                               DataType::kBfloat16, DataType::kInt32,   DataType::kInt64};
constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax,
                             ReduceOp::kAvg};

FakeNetworkOptions NetworkFor(const CollectiveCase& c) {
  FakeNetworkOptions options;
  options.seed = c.seed;
  // Small pieces for small vectors, so that they too move in several.
  const size_t bytes = c.count * c.element();
  options.slot_bytes = bytes > 100'000 ? 16384 : bytes > 2'000 ? 512 : 16;
  options.copied_bytes_max = options.slot_bytes / (1 << c.seed % 3);  // always copied ... rarely
  options.slots_per_peer = 1 + c.seed % 4;
  return options;
}

// Runs the case; says what was wrong.
std::string RunCase(const CollectiveCase& c, const Algorithm& algorithm) {
  FakeCluster cluster(c.ranks, NetworkFor(c));
  std::vector<CaseBuffers> buffers;
  buffers.reserve(c.ranks);
  std::vector<Arguments> arguments;
  for (int r = 0; r < c.ranks; ++r) {
    buffers.emplace_back(c, r);
    arguments.push_back(buffers.back().arguments());
  }
  cluster.Add(algorithm, c.root, arguments);
  if (const absl::Status status = cluster.Run(); !status.ok()) {
    return absl::StrCat(c.ToString(), ": ", status.ToString());
  }
  if (!cluster.network().Idle()) return absl::StrCat(c.ToString(), ": messages are left over");
  const std::vector<std::byte> result = ExpectedResult(c);
  for (int r = 0; r < c.ranks; ++r) {
    if (cluster.transport(r).attached()) return "still attached";
    if (std::string wrong = buffers[r].Wrong(result); !wrong.empty()) return wrong;
  }
  return "";
}

std::vector<Algorithm> AlgorithmsWithData() {
  std::vector<Algorithm> out;
  for (const Algorithm& algorithm : Algorithms()) {
    if (algorithm.collective != Collective::kBarrier) out.push_back(algorithm);
  }
  return out;
}

class EveryAlgorithm : public ::testing::TestWithParam<Algorithm> {};

TEST_P(EveryAlgorithm, GivesTheReferencesBits) {
  const Algorithm& algorithm = GetParam();
  const Collective collective = algorithm.collective;
  const bool reduces =
      collective == Collective::kAllReduce || collective == Collective::kReduceScatter;
  const bool shared =
      collective == Collective::kAllGather || collective == Collective::kReduceScatter;
  uint64_t seed = 0;
  for (int n = 1; n <= 9; ++n) {
    for (const DataType type : kTypes) {
      for (const ReduceOp op : kOps) {
        if (!reduces && op != ReduceOp::kSum) continue;
        for (const int count : {0, 1, 2, 3, 7, n - 1, n, n + 1, 1000, 100'003}) {
          for (const bool in_place : {false, true}) {
            ++seed;
            // The long vector takes turns, to bound the time of this test.
            if (count > 1000 && in_place == ((n + static_cast<int>(op)) % 2 != 0)) continue;
            CollectiveCase c{
                collective, n,   static_cast<int>(seed % n), static_cast<size_t>(count), type, op,
                in_place,   seed};
            if (shared) c.count = count > 1000 ? c.count / n * n : c.count * n;
            ASSERT_EQ(RunCase(c, algorithm), "") << algorithm.name;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Algorithms, EveryAlgorithm, ::testing::ValuesIn(AlgorithmsWithData()),
                         [](const auto& i) {
                           std::string name =
                               std::string(NameOf(i.param.collective)) + "_" + i.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Ranks may be several operations apart; nothing of one may reach another.
TEST(Execution, OperationsFollowEachOtherWithoutABarrier) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    const int n = 2 + static_cast<int>(random() % 5);
    FakeNetworkOptions options{seed, 32, 8 + 8 * (random() % 4),
                               static_cast<uint32_t>(1 + random() % 3)};
    FakeCluster cluster(n, options);
    std::deque<std::vector<CaseBuffers>> all;
    for (int i = 0; i < 12; ++i) {
      const Algorithm& algorithm = Algorithms()[random() % Algorithms().size()];
      if (algorithm.collective == Collective::kBarrier) continue;
      CollectiveCase c{algorithm.collective,
                       n,
                       static_cast<int>(random() % n),
                       n * (random() % 40),
                       kTypes[random() % 6],
                       kOps[random() % 5],
                       random() % 2 != 0,
                       seed * 100 + i};
      std::vector<CaseBuffers>& buffers = all.emplace_back();
      std::vector<Arguments> arguments;
      buffers.reserve(n);
      for (int r = 0; r < n; ++r) {
        buffers.emplace_back(c, r);
        arguments.push_back(buffers[r].arguments());
      }
      cluster.Add(algorithm, c.root, arguments);
    }
    ASSERT_TRUE(cluster.Run().ok()) << "seed " << seed;
    for (const auto& buffers : all) {
      const std::vector<std::byte> result = ExpectedResult(buffers[0].collective_case());
      for (const CaseBuffers& one : buffers) ASSERT_EQ(one.Wrong(result), "") << "seed " << seed;
    }
  }
}

TEST(Execution, BarrierLetsNobodyPassBeforeTheLastHasCome) {
  for (int n = 2; n <= 9; ++n) {
    for (int late = 0; late < n; ++late) {
      FakeCluster cluster(n, {});
      int32_t in = 1;
      std::vector<int32_t> out(n);
      std::vector<ReadyProgram> programs;
      const Schedule schedule =
          BuildSchedule(*FindAlgorithm(Collective::kBarrier, "dissemination"), n, 0);
      for (int r = 0; r < n; ++r) programs.push_back(MakeReady(schedule, r));
      const auto start = [&](int r) {
        return cluster.execution(r).Start(programs[r],
                                          {&in, &out[r], 1, DataType::kInt32, ReduceOp::kMax});
      };
      const auto settle = [&] {
        for (bool moved = true; moved;) {
          for (int r = 0; r < n; ++r) ASSERT_TRUE(cluster.execution(r).Advance().ok());
          moved = cluster.network().Step();
        }
      };
      for (int r = 0; r < n; ++r) {
        if (r == late) continue;
        ASSERT_TRUE(start(r).ok());
      }
      // The late rank's execution has nothing to do yet, so settle() skips over it.
      settle();
      for (int r = 0; r < n; ++r) {
        EXPECT_EQ(cluster.execution(r).done(), r == late) << n << " " << r;
      }
      ASSERT_TRUE(start(late).ok());
      settle();
      for (int r = 0; r < n; ++r) EXPECT_TRUE(cluster.execution(r).done());
    }
  }
}

// Sums of arbitrary floats depend on the order; but no rank may see another result than the others.
TEST(Execution, AllRanksEndWithTheSameBits) {
  for (const char* name : {"ring", "recursive_doubling"}) {
    for (int n = 2; n <= 9; ++n) {
      constexpr size_t kCount = 501;
      std::mt19937_64 random(n);
      std::normal_distribution<float> normal;
      std::vector<std::vector<float>> in(n, std::vector<float>(kCount)), out = in;
      std::vector<Arguments> arguments;
      for (int r = 0; r < n; ++r) {
        for (float& x : in[r]) x = normal(random);
        arguments.push_back(
            {in[r].data(), out[r].data(), kCount, DataType::kFloat32, ReduceOp::kAvg});
      }
      FakeCluster cluster(n, {});
      cluster.Add(*FindAlgorithm(Collective::kAllReduce, name), 0, arguments);
      ASSERT_TRUE(cluster.Run().ok());
      for (size_t i = 0; i < kCount; ++i) {
        double sum = 0;
        for (int r = 0; r < n; ++r) sum += in[r][i];
        EXPECT_NEAR(out[0][i], sum / n, 1e-5);
        for (int r = 1; r < n; ++r) ASSERT_EQ(std::memcmp(&out[r][i], &out[0][i], 4), 0);
      }
    }
  }
}

TEST(Execution, SaysWhomItWaitsFor) {
  const CollectiveCase c{Collective::kAllReduce, 4, 0, 4000};
  FakeCluster cluster(4, {});
  std::vector<CaseBuffers> buffers;
  std::vector<Arguments> arguments;
  buffers.reserve(4);
  for (int r = 0; r < 4; ++r) {
    buffers.emplace_back(c, r);
    arguments.push_back(buffers[r].arguments());
  }
  cluster.network().Cut(1, 2);
  cluster.Add(*FindAlgorithm(Collective::kAllReduce, "ring"), 0, arguments);
  EXPECT_THAT(std::string(cluster.Run().message()), HasSubstr("stuck"));
  EXPECT_THAT(cluster.execution(2).Describe(),
              HasSubstr("waits for rank 1: step 2 of 13 (receive block 1 from rank 1"));
}

TEST(Execution, ErrorsSayTheStepAndKeepThePayload) {
  const CollectiveCase c{Collective::kAllReduce, 2, 0, 4000};
  FakeCluster cluster(2, {});
  std::vector<CaseBuffers> buffers;
  buffers.reserve(2);
  std::vector<Arguments> arguments;
  for (int r = 0; r < 2; ++r) {
    buffers.emplace_back(c, r);
    arguments.push_back(buffers[r].arguments());
  }
  cluster.transport(0).FailSendsTo(1);
  cluster.transport(1).FailSendsTo(0);
  cluster.Add(*FindAlgorithm(Collective::kAllReduce, "ring"), 0, arguments);
  const absl::Status status = cluster.Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 1 of 5 (send block"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank is gone"));

  absl::Status with_payload = absl::UnavailableError("x");
  with_payload.SetPayload("url", absl::Cord("7"));
  EXPECT_EQ(Annotate(with_payload, "op").GetPayload("url"), absl::Cord("7"));
}

// A rank with another count does not get its result, but no memory is touched that should not be
// (AddressSanitizer and the guard bytes watch).
TEST(Execution, DifferentCountsCorruptNothing) {
  for (size_t other : {0, 10, 1000, 5000}) {
    FakeCluster cluster(2, {});
    std::vector<CaseBuffers> buffers;
    buffers.reserve(2);
    buffers.emplace_back(CollectiveCase{Collective::kAllReduce, 2, 0, 1000}, 0);
    buffers.emplace_back(CollectiveCase{Collective::kAllReduce, 2, 0, other}, 1);
    cluster.Add(*FindAlgorithm(Collective::kAllReduce, "ring"), 0,
                {buffers[0].arguments(), buffers[1].arguments()});
    const absl::Status status = cluster.Run();
    for (const CaseBuffers& one : buffers) {
      EXPECT_FALSE(one.WroteOutside());
    }
    EXPECT_TRUE(status.ok() || status.message() == "stuck") << status;
  }
}

}  // namespace
}  // namespace sumac::collectives
