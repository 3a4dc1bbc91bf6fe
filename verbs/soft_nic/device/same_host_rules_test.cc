// One-sided requests without packets between two devices of one process: who may, and when not.
#include <infiniband/verbs.h>

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/device/same_host_test_support.h"

namespace sumac::verbs {
namespace {

using test_support::Eventually;

TEST(SameHost, SwitchedOffItIsPackets) {
  std::optional<PacketsOnly> packets(std::in_place);
  End a(4096);
  packets.reset();
  End b(4096);
  Connect(a, b);
  for (auto [from, to] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
    ASSERT_EQ(from->Post(IBV_WR_RDMA_WRITE, from->Sge(0, 64), to->Address(), to->region->rkey()),
              0);
    EXPECT_EQ(from->Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(DirectRequests(*from), 0u);
  }
}

// Both ends in one process, on one device even.
TEST(SameHost, WithinOneProcess) {
  End a(4096), b(4096);
  Connect(a, b);
  ASSERT_TRUE(Eventually([&] { return DirectIsUp(a); }));
  std::memset(a.memory.data(), 0x33, 4096);
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 4096), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  ASSERT_EQ(a.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory, std::vector<uint8_t>([] {
              std::vector<uint8_t> expected(4096, 0x33);
              expected[0] += 5;
              return expected;
            }()));
  EXPECT_EQ(DirectRequests(a), 2u);
}

TEST(SameHost, RightsOfTheQueuePairCount) {
  End a(4096), b(4096);
  ConnectionOptions to_a = To(a);
  to_a.access = IBV_ACCESS_REMOTE_READ;  // b lets a read
  Connect(a, b, To(b), to_a);
  ASSERT_TRUE(Eventually([&] { return DirectIsUp(a); }));
  ASSERT_EQ(a.Post(IBV_WR_RDMA_READ, a.Sge(0, 64), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(DirectRequests(a), 1u);
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 64), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_REM_INV_REQ_ERR);
}

TEST(SameHost, AKeyOfAnotherProtectionDomainIsRefused) {
  End a(4096), b(4096);
  auto other = *ProtectionDomain::Create(b.device);
  auto region = *MemoryRegion::Register(other, b.memory.data(), 4096, kAllAccess);
  Connect(a, b);
  ASSERT_TRUE(Eventually([&] { return DirectIsUp(a); }));
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 64), b.Address(), region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(DirectRequests(a), 0u);
}

TEST(SameHost, AQueuePairInErrorTakesNothing) {
  End a(4096), b(4096);
  ConnectionOptions to_b = To(b);
  to_b.timeout = 8;
  to_b.retry_count = 1;
  Connect(a, b, to_b, To(a));
  ASSERT_TRUE(Eventually([&] { return DirectIsUp(a); }));
  ibv_qp_attr error{};
  error.qp_state = IBV_QPS_ERR;
  ASSERT_EQ(b.device->provider().modify_qp(b.qp->qp(), &error, IBV_QP_STATE), 0);
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 64), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_EQ(DirectRequests(a), 0u);
}

}  // namespace
}  // namespace sumac::verbs
