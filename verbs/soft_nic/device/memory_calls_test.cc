// Registration beyond the plain: other addresses, changes in place; and queues that change size.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

ibv_wc_status StatusOf(End& end) { return end.Next().status; }

TEST(SoftDeviceMemory, PeersNameARegionByItsOwnAddresses) {
  End a(64), b(8192);
  Connect(a, b);
  for (const uint64_t iova : {uint64_t{0}, uint64_t{0x12345678}, ~uint64_t{0} - 8192}) {
    ibv_mr* const mr = soft_nic::RegMrIova(b.pd->pd(), &b.memory[100], 4096, iova, kAllAccess);
    ASSERT_NE(mr, nullptr);
    EXPECT_EQ(mr->addr, &b.memory[100]);
    a.memory[0] = static_cast<uint8_t>(iova | 1);
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), iova + 4, mr->rkey), 0);
    EXPECT_EQ(StatusOf(a), IBV_WC_SUCCESS);
    EXPECT_EQ(b.memory[104], a.memory[0]);
    // Its lkey goes by the same addresses.
    ibv_sge sge{.addr = iova + 4, .length = 8, .lkey = mr->lkey};
    ASSERT_EQ(b.Post(IBV_WR_RDMA_WRITE, sge, a.Address(32), a.region->rkey()), 0);
    EXPECT_EQ(StatusOf(b), IBV_WC_SUCCESS);
    EXPECT_EQ(a.memory[32], a.memory[0]);
    EXPECT_EQ(soft_nic::DeregMr(mr), 0);
  }
  // Atomics are aligned by both addresses or refused.
  ibv_mr* const mr = soft_nic::RegMrIova(b.pd->pd(), &b.memory[4], 4096, 0, kAllAccess);
  ASSERT_EQ(a.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, a.Sge(0, 8), 8, mr->rkey), 0);
  EXPECT_STREQ(NameOf(StatusOf(a)), "IBV_WC_REM_INV_REQ_ERR");
  EXPECT_EQ(soft_nic::DeregMr(mr), 0);

  errno = 0;
  EXPECT_EQ(soft_nic::RegMrIova(b.pd->pd(), b.memory.data(), 64, ~uint64_t{0} - 8, 0), nullptr);
  EXPECT_EQ(errno, EINVAL) << "it would wrap around";
  EXPECT_EQ(soft_nic::RegDmabufMr(b.pd->pd(), 0, 64, 0, 0, 0), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
}

TEST(SoftDeviceMemory, RegionIsMovedAndItsRightsChanged) {
  End a(64), b(4096);
  Connect(a, b);
  ibv_mr* const mr = soft_nic::RegMr(b.pd->pd(), b.memory.data(), 1024, kAllAccess);
  const uint32_t rkey = mr->rkey;
  const auto write = [&](size_t offset) {
    EXPECT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(offset), rkey), 0);
    return StatusOf(a);
  };
  EXPECT_EQ(write(0), IBV_WC_SUCCESS);
  ASSERT_EQ(
      soft_nic::ReregMr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, nullptr, &b.memory[2048], 512, 0), 0);
  EXPECT_EQ(mr->addr, &b.memory[2048]);
  EXPECT_EQ(mr->length, 512u);
  EXPECT_EQ(mr->rkey, rkey);
  EXPECT_EQ(write(2048), IBV_WC_SUCCESS);

  // What was refused leaves everything as it was.
  void* const page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const auto refused = [&](int flags, ibv_pd* pd, void* addr, size_t length, int access) {
    errno = 0;
    EXPECT_EQ(soft_nic::ReregMr(mr, flags, pd, addr, length, access), IBV_REREG_MR_ERR_INPUT);
    EXPECT_NE(errno, 0);
  };
  refused(0, nullptr, nullptr, 0, 0);
  refused(8, nullptr, nullptr, 0, 0);
  refused(IBV_REREG_MR_CHANGE_PD, nullptr, nullptr, 0, 0);
  refused(IBV_REREG_MR_CHANGE_PD, a.pd->pd(), nullptr, 0, 0);  // of another device
  refused(IBV_REREG_MR_CHANGE_TRANSLATION, nullptr, b.memory.data(), 0, 0);
  refused(IBV_REREG_MR_CHANGE_TRANSLATION, nullptr, page, 4096, 0);  // not writable
  refused(IBV_REREG_MR_CHANGE_ACCESS, nullptr, nullptr, 0, IBV_ACCESS_REMOTE_WRITE);
  refused(IBV_REREG_MR_CHANGE_ACCESS, nullptr, nullptr, 0, 1 << 30);
  EXPECT_EQ(write(2048), IBV_WC_SUCCESS);

  // All three at once, and the old place is closed.
  ASSERT_EQ(soft_nic::ReregMr(mr, IBV_REREG_MR_FLAGS_SUPPORTED, b.pd->pd(), page, 4096,
                              IBV_ACCESS_REMOTE_READ),
            0);
  EXPECT_STREQ(NameOf(write(2048)), "IBV_WC_REM_ACCESS_ERR");
  EXPECT_EQ(soft_nic::DeregMr(mr), 0);
  munmap(page, 4096);
}

TEST(SoftDeviceMemory, RegionThatLosesARightOrItsDomainIsClosedAtOnce) {
  for (const int flags : {IBV_REREG_MR_CHANGE_ACCESS, IBV_REREG_MR_CHANGE_PD}) {
    End a(64), b(64);
    Connect(a, b);
    ibv_pd* const other = soft_nic::AllocPd(b.device->context());
    ibv_mr* const mr = soft_nic::RegMr(b.pd->pd(), b.memory.data(), 64, kAllAccess);
    ASSERT_EQ(soft_nic::ReregMr(mr, flags, other, nullptr, 0, IBV_ACCESS_LOCAL_WRITE), 0);
    EXPECT_EQ(soft_nic::DeallocPd(other), flags == IBV_REREG_MR_CHANGE_PD ? EBUSY : 0);
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), mr->rkey), 0);
    EXPECT_STREQ(NameOf(StatusOf(a)), "IBV_WC_REM_ACCESS_ERR");
    EXPECT_EQ(soft_nic::DeregMr(mr), 0);
    if (flags == IBV_REREG_MR_CHANGE_PD) {
      EXPECT_EQ(soft_nic::DeallocPd(other), 0);
    }
  }
}

TEST(SoftDeviceMemory, CompletionQueueIsResizedUnderTraffic) {
  End a(64), b(64);
  Connect(a, b);
  ibv_cq* const cq = a.cq->cq();
  EXPECT_EQ(soft_nic::ResizeCq(cq, 0), EINVAL);
  EXPECT_EQ(soft_nic::ResizeCq(cq, 1 << 30), EINVAL);
  std::atomic<bool> stop{false};
  std::thread resizer([&] {
    for (int i = 0; !stop; ++i) EXPECT_EQ(soft_nic::ResizeCq(cq, i % 2 == 0 ? 300 : 4000), 0);
  });
  uint64_t posted = 0;
  for (uint64_t completed = 0; completed < 2000; ++completed) {
    while (posted < completed + 100) {
      ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey(), posted), 0);
      ++posted;
    }
    const ibv_wc wc = a.Next();
    ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
    ASSERT_EQ(wc.wr_id, completed);
  }
  stop = true;
  resizer.join();
  ASSERT_EQ(soft_nic::ResizeCq(cq, 300), 0);
  EXPECT_EQ(cq->cqe, 512);
}

}  // namespace
}  // namespace sumac::verbs
