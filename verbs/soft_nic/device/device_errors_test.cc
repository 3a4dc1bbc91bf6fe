// What goes wrong on a connection, as both ends see it: statuses by name, and no byte changed.
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

const char* NextName(End& end) { return NameOf(end.Next().status); }

ibv_qp_state StateOf(const End& end) { return end.qp->Query(IBV_QP_STATE)->qp_state; }

// A request that the peer must refuse: its receives are flushed, its memory is as before.
void ExpectRefused(End& a, End& b, ibv_wr_opcode opcode, const std::vector<uint8_t>& before) {
  SCOPED_TRACE(opcode);
  EXPECT_STREQ(NextName(a), "IBV_WC_REM_ACCESS_ERR");
  EXPECT_STREQ(NextName(b), "IBV_WC_WR_FLUSH_ERR");
  EXPECT_EQ(b.memory, before);
  EXPECT_EQ(StateOf(a), IBV_QPS_ERR);
  EXPECT_EQ(StateOf(b), IBV_QPS_ERR);
}

struct Right {
  ibv_wr_opcode opcode;
  int needed;
};
class RightsTest : public testing::TestWithParam<Right> {};

TEST_P(RightsTest, RegionWithoutTheRightRefuses) {
  End a(64), b(64);
  Connect(a, b);
  auto region = MemoryRegion::Register(b.pd, b.memory.data(), 64,
                                       (kAllAccess & ~GetParam().needed) | IBV_ACCESS_LOCAL_WRITE);
  ASSERT_TRUE(region.ok());
  b.PostReceive(32, 8);
  const std::vector<uint8_t> before = b.memory;
  ASSERT_EQ(a.Post(GetParam().opcode, a.Sge(0, 8), b.Address(), (*region)->rkey()), 0);
  ExpectRefused(a, b, GetParam().opcode, before);
}

TEST_P(RightsTest, QueuePairWithoutTheRightRefuses) {
  End a(64), b(64);
  ConnectionOptions to_a = To(a);
  to_a.access = kAllAccess & ~GetParam().needed;
  Connect(a, b, To(b), to_a);
  b.PostReceive(32, 8);
  const std::vector<uint8_t> before = b.memory;
  ASSERT_EQ(a.Post(GetParam().opcode, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  // A queue pair that never takes such requests calls them invalid, not forbidden
  // (IBTA vol. 1, 9.7.4.1.6, C9-78); both are typed, and neither changes a byte.
  const std::string status = NextName(a);
  EXPECT_TRUE(status == "IBV_WC_REM_INV_REQ_ERR" || status == "IBV_WC_REM_ACCESS_ERR") << status;
  EXPECT_STREQ(NextName(b), "IBV_WC_WR_FLUSH_ERR");
  EXPECT_EQ(b.memory, before);
}

TEST_P(RightsTest, RightTakenAwayWhileConnectedCounts) {
  End a(64), b(64);
  Connect(a, b);
  ASSERT_EQ(a.Post(GetParam().opcode, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  ASSERT_STREQ(NextName(a), "IBV_WC_SUCCESS");
  ibv_qp_attr attr{};
  attr.qp_access_flags = static_cast<unsigned>(kAllAccess & ~GetParam().needed);
  ASSERT_EQ(b.device->provider().modify_qp(b.qp->qp(), &attr, IBV_QP_ACCESS_FLAGS), 0);
  EXPECT_EQ(b.qp->Query(IBV_QP_ACCESS_FLAGS)->qp_access_flags, attr.qp_access_flags);
  const std::vector<uint8_t> before = b.memory;
  ASSERT_EQ(a.Post(GetParam().opcode, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_STRNE(NextName(a), "IBV_WC_SUCCESS");
  EXPECT_EQ(b.memory, before);
}

INSTANTIATE_TEST_SUITE_P(
    All, RightsTest,
    testing::Values(Right{IBV_WR_RDMA_WRITE, IBV_ACCESS_REMOTE_WRITE},
                    Right{IBV_WR_RDMA_READ, IBV_ACCESS_REMOTE_READ},
                    Right{IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_ACCESS_REMOTE_ATOMIC},
                    Right{IBV_WR_ATOMIC_CMP_AND_SWP, IBV_ACCESS_REMOTE_ATOMIC}));

TEST(SoftDeviceErrors, DeregisteredMemoryIsRefused) {
  End a(64), b(64);
  Connect(a, b);
  const uint32_t rkey = b.region->rkey();
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), rkey), 0);
  ASSERT_STREQ(NextName(a), "IBV_WC_SUCCESS");
  b.PostReceive(0, 8);
  b.region.reset();
  const std::vector<uint8_t> before = b.memory;
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(32, 8), b.Address(), rkey), 0);
  ExpectRefused(a, b, IBV_WR_RDMA_WRITE, before);
}

TEST(SoftDeviceErrors, KeyOfAnotherProtectionDomainIsRefused) {
  End a(64), b(64);
  Connect(a, b);
  auto other = *ProtectionDomain::Create(b.device);
  auto region = *MemoryRegion::Register(other, b.memory.data(), 64, kAllAccess);
  b.PostReceive(0, 8);
  const std::vector<uint8_t> before = b.memory;
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(32, 8), b.Address(), region->rkey()), 0);
  ExpectRefused(a, b, IBV_WR_RDMA_WRITE, before);
}

TEST(SoftDeviceErrors, BadLocalMemoryIsTheRequestersOwnFault) {
  for (const ibv_wr_opcode opcode : {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ}) {
    SCOPED_TRACE(opcode);
    End a(64), b(64);
    Connect(a, b);
    b.PostReceive(0, 64);
    ibv_sge sge = a.Sge(0, 8);
    sge.lkey ^= 1;
    ASSERT_EQ(a.Post(opcode, sge, b.Address(), b.region->rkey()), 0);
    EXPECT_STREQ(NextName(a), "IBV_WC_LOC_PROT_ERR");
    EXPECT_EQ(StateOf(a), IBV_QPS_ERR);
  }
}

TEST(SoftDeviceErrors, MessageLongerThanItsReceiveFailsBothEnds) {
  End a(256), b(256);
  Connect(a, b);
  std::fill(a.memory.begin(), a.memory.end(), 0xee);
  b.PostReceive(0, 99);
  ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 100)), 0);
  EXPECT_STREQ(NextName(b), "IBV_WC_LOC_LEN_ERR");
  EXPECT_STREQ(NextName(a), "IBV_WC_REM_INV_REQ_ERR");
  EXPECT_EQ(b.memory[99], 0);
}

TEST(SoftDeviceErrors, ReceiverThatNeverPostsIsRnrExceeded) {
  End a(64), b(64);
  ConnectionOptions to_b = To(b);
  to_b.rnr_retry = 2;
  ConnectionOptions to_a = To(a);
  to_a.min_rnr_timer = 1;  // 10 us
  Connect(a, b, to_b, to_a);
  ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8)), 0);
  EXPECT_STREQ(NextName(a), "IBV_WC_RNR_RETRY_EXC_ERR");
  EXPECT_EQ(StateOf(a), IBV_QPS_ERR);
}

TEST(SoftDeviceErrors, InvalidatingARegionFromAfarIsRefused) {
  // Only memory windows can be; a region stays as it is.
  End a(64), b(64);
  Connect(a, b);
  b.PostReceive(0, 64);
  ibv_sge sge = a.Sge(0, 8);
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND_WITH_INV;
  wr.invalidate_rkey = b.region->rkey();
  wr.send_flags = IBV_SEND_SIGNALED;
  ASSERT_EQ(a.qp->PostSend(wr), 0);
  EXPECT_STRNE(NextName(a), "IBV_WC_SUCCESS");
  EXPECT_STRNE(NextName(b), "IBV_WC_SUCCESS");
}

TEST(SoftDeviceErrors, PostsThatCannotBeAreRefusedAtOnce) {
  QueuePairOptions options;
  options.max_send_wr = options.max_recv_wr = 4;
  End a(64, options), b(64, options);
  EXPECT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8)), EINVAL) << "RESET";
  Connect(a, b);
  for (int i = 0; i < 4; ++i) a.PostReceive(0, 8);
  ibv_sge sge = a.Sge(0, 8);
  ibv_recv_wr receive{.wr_id = 9, .next = nullptr, .sg_list = &sge, .num_sge = 1};
  EXPECT_EQ(a.qp->PostReceive(receive), ENOMEM) << "full";
  // The first of a chain that is refused is pointed at; those before it count.
  ibv_send_wr chain[6] = {};
  for (int i = 0; i < 6; ++i) {
    chain[i].wr_id = static_cast<uint64_t>(i);
    chain[i].next = i < 5 ? &chain[i + 1] : nullptr;
    chain[i].sg_list = &sge;
    chain[i].num_sge = 1;
    chain[i].opcode = i == 3 ? static_cast<ibv_wr_opcode>(99) : IBV_WR_RDMA_WRITE;
    chain[i].send_flags = IBV_SEND_SIGNALED;
    chain[i].wr.rdma.remote_addr = b.Address();
    chain[i].wr.rdma.rkey = b.region->rkey();
  }
  ibv_send_wr* bad = nullptr;
  EXPECT_EQ(ibv_post_send(a.qp->qp(), chain, &bad), EINVAL);
  EXPECT_EQ(bad, &chain[3]);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(a.Next().wr_id, i);
}

TEST(SoftDeviceErrors, ResetQueuePairConnectsAgain) {
  End a(64), b(64);
  for (uint8_t round = 1; round <= 3; ++round) {
    Connect(a, b);
    a.memory[0] = round;
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
    EXPECT_STREQ(NextName(a), "IBV_WC_SUCCESS");
    EXPECT_EQ(b.memory[0], round);
    a.PostReceive(0, 8);
    for (End* end : {&a, &b}) {
      ibv_qp_attr attr{};
      attr.qp_state = IBV_QPS_RESET;
      ASSERT_EQ(end->device->provider().modify_qp(end->qp->qp(), &attr, IBV_QP_STATE), 0);
      EXPECT_EQ(StateOf(*end), IBV_QPS_RESET);
      ibv_wc wc{};
      EXPECT_EQ(end->cq->Poll({&wc, 1}), 0) << "RESET forgets, it does not flush";
    }
  }
}

TEST(SoftDeviceErrors, DestroyingAQueuePairUnderLoadIsClean) {
  End a(1 << 20), b(1 << 20);
  for (int i = 0; i < 10; ++i) {
    Connect(a, b);
    for (int n = 0; n < 8; ++n) {
      ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 1 << 20), b.Address(), b.region->rkey()), 0);
    }
    (i % 2 == 0 ? a : b).qp.reset();
    (i % 2 == 0 ? b : a).qp.reset();
    ibv_wc wc{};
    EXPECT_EQ(a.cq->Poll({&wc, 1}), 0) << "a completion of a queue pair that is gone";
    a.qp = *QueuePair::Create(a.pd, a.cq, a.cq, {});
    b.qp = *QueuePair::Create(b.pd, b.cq, b.cq, {});
  }
}

}  // namespace
}  // namespace sumac::verbs
