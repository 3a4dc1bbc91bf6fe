#include "collectives/executor/runner.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "collectives/executor/collective_case.h"
#include "collectives/executor/fake_transport.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;

constexpr DataType kF32 = DataType::kFloat32;
constexpr ReduceOp kSum = ReduceOp::kSum;

// One rank of four; its peers are never there.
class RunnerTest : public ::testing::Test {
 protected:
  static std::string Refusal(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  FakeNetwork network_{{}};
  FakeTransport transport_{network_, 1};
  Runner runner_{transport_, 1, 4, {}};
  std::vector<float> memory_ = std::vector<float>(64);
  float* a_ = memory_.data();
};

TEST_F(RunnerTest, RefusesSizesThatOverflow) {
  constexpr size_t kHuge = std::numeric_limits<size_t>::max();
  for (const size_t count : {kHuge, kHuge / 2, kHuge / 4 + 1, kHuge / 8 + 1}) {
    EXPECT_THAT(Refusal(runner_.AllReduce(a_, a_, count, kF32, kSum)),
                HasSubstr("more than memory can hold"));
  }
  EXPECT_THAT(Refusal(runner_.AllGather(a_, a_ + 4, kHuge / 16, kF32)),
              HasSubstr("elements of 4 bytes from 4 ranks are more than memory can hold"));
  EXPECT_THAT(Refusal(runner_.ReduceScatter(a_, a_ + 4, kHuge / 16, kF32, kSum)),
              HasSubstr("reduce-scatter"));
}

TEST_F(RunnerTest, RefusesBuffersThatOverlapBadly) {
  EXPECT_THAT(Refusal(runner_.AllReduce(a_, a_ + 1, 8, kF32, kSum)), HasSubstr("overlap"));
  EXPECT_THAT(Refusal(runner_.AllGather(a_, a_, 4, kF32)),
              HasSubstr("send must be recv + rank * count"));
  EXPECT_THAT(Refusal(runner_.ReduceScatter(a_, a_, 4, kF32, kSum)),
              HasSubstr("recv must be send + rank * count"));
  EXPECT_TRUE(runner_.status().ok());
}

TEST_F(RunnerTest, RefusesNullAndUnknown) {
  EXPECT_THAT(Refusal(runner_.AllReduce(nullptr, a_, 8, kF32, kSum)),
              HasSubstr("the send buffer is null, but the count is 8"));
  EXPECT_THAT(Refusal(runner_.AllReduce(a_, nullptr, 8, kF32, kSum)), HasSubstr("recv buffer"));
  EXPECT_THAT(Refusal(runner_.Broadcast(a_, a_, 8, kF32, 4)), HasSubstr("root 4 is not a rank"));
  EXPECT_THAT(Refusal(runner_.Broadcast(a_, a_, 8, kF32, -1)), HasSubstr("root -1"));
  EXPECT_THAT(Refusal(runner_.AllReduce(a_, a_, 8, static_cast<DataType>(77), kSum)),
              HasSubstr("unknown data type 77"));
  EXPECT_THAT(Refusal(runner_.AllReduce(a_, a_, 8, kF32, static_cast<ReduceOp>(9))),
              HasSubstr("unknown reduction 9"));
}

TEST_F(RunnerTest, NothingToDoIsDoneAtOnce) {
  EXPECT_TRUE(runner_.AllReduce(nullptr, nullptr, 0, kF32, kSum).ok());
  EXPECT_TRUE(runner_.AllGather(nullptr, nullptr, 0, kF32).ok());
  EXPECT_TRUE(runner_.Broadcast(nullptr, nullptr, 0, kF32, 2).ok());
}

TEST_F(RunnerTest, AFailureNamesTheCallAndStays) {
  const absl::Status status = runner_.AllReduce(a_, a_, 64, kF32, kSum);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("allreduce (recursive_doubling, 64 x float sum): waits for rank 0: step 2 "
                        "of 5 (receive block 0 from rank 0, reduce it with input into temp 0)"));
  EXPECT_FALSE(transport_.attached());
  EXPECT_EQ(runner_.Barrier(), status);
  EXPECT_EQ(runner_.status(), status);
}

TEST(Runner, AloneNeedsNoNetwork) {
  FakeNetwork network({});
  FakeTransport transport(network, 0);
  transport.FailSendsTo(0);
  Runner runner(transport, 0, 1, {});
  for (const bool in_place : {false, true}) {
    for (const size_t count : {1, 5, 1000}) {
      for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kAvg}) {
        for (const Collective collective : {Collective::kAllReduce, Collective::kReduceScatter,
                                            Collective::kAllGather, Collective::kBroadcast}) {
          const CollectiveCase c{collective, 1, 0, count, DataType::kInt64, op, in_place, count};
          CaseBuffers buffers(c, 0);
          ASSERT_TRUE(RunWith(runner, c, buffers).ok());
          ASSERT_EQ(buffers.Wrong(ExpectedResult(c)), "");
        }
      }
    }
  }
  EXPECT_TRUE(runner.Barrier().ok());
}

}  // namespace
}  // namespace sumac::collectives
