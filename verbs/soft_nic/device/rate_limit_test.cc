// What a queue pair and a whole device may send a second: lower bounds of time only, which no slow
// machine breaks.
#include <cstdlib>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/counters.h"
#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"

namespace sumac::verbs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBytes = 1 << 20;
constexpr uint64_t kBytesPerSecond = 20'000'000;
// What may go out at once (engine/pacer.h: 200 us) is far less than a tenth of it.
constexpr std::chrono::milliseconds kAtLeast(kBytes * 1000 / kBytesPerSecond * 9 / 10);

class RateLimitTest : public testing::Test {
 protected:
  RateLimitTest() : a(kBytes), b(kBytes) {}
  // One WRITE of everything; how long it took.
  Clock::duration Write(ibv_qp* qp) {
    for (size_t i = 0; i < kBytes; ++i) a.memory[i] = static_cast<uint8_t>(i * 13);
    ibv_sge sge = a.Sge(0, kBytes);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = b.Address(0);
    wr.wr.rdma.rkey = b.region->rkey();
    ibv_send_wr* bad = nullptr;
    const auto start = Clock::now();
    EXPECT_EQ(ibv_post_send(qp, &wr, &bad), 0);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
    const auto took = Clock::now() - start;
    EXPECT_EQ(a.memory, b.memory);
    return took;
  }
  End a, b;
};

TEST_F(RateLimitTest, ByModifyQpRateLimit) {
  auto of_a = RawQueuePair::Create(a);
  auto of_b = RawQueuePair::Create(b);
  ibv_qp_rate_limit_attr limit{};
  limit.rate_limit = kBytesPerSecond * 8 / 1000;
  EXPECT_EQ(ibv_modify_qp_rate_limit(of_a.get(), &limit), EINVAL) << "not before it can send";
  Connect(a, of_a, b, of_b);
  for (const auto& [rate, burst] : {std::pair{999u, 0u}, {40'000'001u, 0u}, {1000u, 4096u}}) {
    ibv_qp_rate_limit_attr bad{};
    bad.rate_limit = rate;
    bad.max_burst_sz = burst;
    EXPECT_EQ(ibv_modify_qp_rate_limit(of_a.get(), &bad), EINVAL) << rate;
  }
  ASSERT_EQ(ibv_modify_qp_rate_limit(of_a.get(), &limit), 0);
  EXPECT_GE(Write(of_a.get()), kAtLeast);
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  ASSERT_EQ(soft_nic::QueryQp(of_a.get(), &attr, IBV_QP_RATE_LIMIT, &init), 0);
  EXPECT_EQ(attr.rate_limit, limit.rate_limit);

  limit.rate_limit = 0;
  ASSERT_EQ(ibv_modify_qp_rate_limit(of_a.get(), &limit), 0) << "none again";
  Write(of_a.get());

  ibv_device_attr_ex device{};
  ASSERT_EQ(ibv_query_device_ex(a.device->context(), nullptr, &device), 0);
  EXPECT_LE(device.packet_pacing_caps.qp_rate_limit_min, 1000u);
  EXPECT_EQ(device.packet_pacing_caps.qp_rate_limit_max, 40'000'000u);
  EXPECT_TRUE(ibv_is_qpt_supported(device.packet_pacing_caps.supported_qpts, IBV_QPT_RC));
}

// 2.5 Gbit/s is too fast to tell from no limit here: only that it is taken and all arrives.
TEST_F(RateLimitTest, ByTheAddressVectorsStaticRate) {
  auto of_a = RawQueuePair::Create(a);
  auto of_b = RawQueuePair::Create(b);
  of_a.Connect(of_b->qp_num, b.gid(), kAllAccess, IBV_RATE_2_5_GBPS);
  of_b.Connect(of_a->qp_num, a.gid());
  constexpr std::chrono::microseconds kOnWire(kBytes * 8 / 2500);
  EXPECT_GE(Write(of_a.get()), kOnWire * 9 / 10 - std::chrono::microseconds(200));
}

TEST(SendQuotaTest, HoldsForTheWholeDevice) {
  ASSERT_EQ(setenv("SUMAC_SOFT_SEND_QUOTA", "160", 1), 0);  // Mbit/s: kBytesPerSecond
  End a(kBytes);
  ASSERT_EQ(unsetenv("SUMAC_SOFT_SEND_QUOTA"), 0);
  End b(kBytes);
  Connect(a, b, IBV_MTU_1024);
  auto second = RawQueuePair::Create(a);
  auto of_b = RawQueuePair::Create(b);
  Connect(a, second, b, of_b);
  const auto start = Clock::now();
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, kBytes / 2), b.Address(0), b.region->rkey()), 0);
  ibv_sge sge = a.Sge(kBytes / 2, kBytes / 2);
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.wr.rdma.remote_addr = b.Address(kBytes / 2);
  wr.wr.rdma.rkey = b.region->rkey();
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(second.get(), &wr, &bad), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_GE(Clock::now() - start, kAtLeast);
  EXPECT_GT(soft_nic::ReadCounters(a.device->context()).scheduler.waits_for_quota, 0u);
  EXPECT_EQ(soft_nic::ReadCounters(b.device->context()).scheduler.waits_for_quota, 0u);
}

}  // namespace
}  // namespace sumac::verbs
