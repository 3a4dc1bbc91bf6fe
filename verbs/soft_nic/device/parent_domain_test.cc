// Parent domains: the rights of the domain inside, and the order in which both may go.
#include <infiniband/verbs.h>

#include <cerrno>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {
namespace {

// Called by no one: see protection_domain.h.
void* Allocate(ibv_pd*, void*, size_t, size_t, uint64_t) {
  ADD_FAILURE() << "an allocator was called";
  return nullptr;
}
void Free(ibv_pd*, void*, void*, uint64_t) {}

ibv_pd* ParentOf(ibv_pd* pd, ibv_td* td = nullptr) {
  ibv_parent_domain_init_attr attr{};
  attr.pd = pd;
  attr.td = td;
  attr.comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
  attr.alloc = Allocate;
  attr.free = Free;
  return ibv_alloc_parent_domain(pd->context, &attr);
}

TEST(SoftDeviceParentDomain, SharesRightsWithTheDomainInside) {
  End a(64), b(64);
  Connect(a, b);
  ibv_pd* const parent = ParentOf(b.pd->pd());
  ASSERT_NE(parent, nullptr);
  // The queue pair is of the inner domain, the region of the parent domain.
  ibv_mr* const mr = soft_nic::RegMr(parent, b.memory.data(), b.memory.size(), kAllAccess);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(mr->pd, parent);
  a.memory[0] = 0x77;
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), mr->rkey), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory[0], 0x77);
  // A region that moves to the domain inside and back stays what it is.
  for (ibv_pd* const to : {b.pd->pd(), parent}) {
    ASSERT_EQ(soft_nic::ReregMr(mr, IBV_REREG_MR_CHANGE_PD, to, nullptr, 0, 0), 0);
    ibv_sge sge = b.Sge(0, 8);
    sge.lkey = mr->lkey;
    ASSERT_EQ(b.Post(IBV_WR_RDMA_WRITE, sge, a.Address(32), a.region->rkey()), 0);
    EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(a.memory[32], 0x77);
  }
  EXPECT_EQ(soft_nic::DeallocPd(parent), EBUSY);
  EXPECT_EQ(soft_nic::DeregMr(mr), 0);
  EXPECT_EQ(soft_nic::DeallocPd(parent), 0);
}

TEST(SoftDeviceParentDomain, GoesAfterWhatIsMadeWithIt) {
  auto device = *Device::Open("soft0");
  ibv_context* const context = device->context();
  ibv_pd* const pd = soft_nic::AllocPd(context);
  ibv_td_init_attr thread{};
  ibv_td* const td = ibv_alloc_td(context, &thread);
  ASSERT_NE(td, nullptr);
  ibv_pd* const parent = ParentOf(pd, td);
  ASSERT_NE(parent, nullptr);
  EXPECT_EQ(ibv_dealloc_td(td), EBUSY);
  EXPECT_EQ(soft_nic::DeallocPd(pd), EBUSY);

  ibv_cq_init_attr_ex queue{};
  queue.cqe = 16;
  queue.wc_flags = IBV_WC_STANDARD_FLAGS;
  queue.comp_mask = IBV_CQ_INIT_ATTR_MASK_PD;
  queue.parent_domain = parent;
  ibv_cq_ex* const cq = ibv_create_cq_ex(context, &queue);
  ASSERT_NE(cq, nullptr);
  EXPECT_EQ(soft_nic::DeallocPd(parent), EBUSY);
  EXPECT_EQ(soft_nic::DestroyCq(ibv_cq_ex_to_cq(cq)), 0);

  EXPECT_EQ(soft_nic::DeallocPd(parent), 0);
  EXPECT_EQ(soft_nic::DeallocPd(pd), 0);
  EXPECT_EQ(ibv_dealloc_td(td), 0);
}

TEST(SoftDeviceParentDomain, RefusesWhatMakesNone) {
  auto device = *Device::Open("soft0");
  auto other = *Device::Open("soft0");
  ibv_context* const context = device->context();
  ibv_pd* const pd = soft_nic::AllocPd(context);
  ibv_pd* const parent = ParentOf(pd);
  const auto errno_of = [&](ibv_parent_domain_init_attr attr) {
    errno = 0;
    EXPECT_EQ(ibv_alloc_parent_domain(context, &attr), nullptr);
    return errno;
  };
  ibv_parent_domain_init_attr attr{};
  EXPECT_EQ(errno_of(attr), EINVAL) << "no protection domain";
  attr.pd = parent;
  EXPECT_EQ(errno_of(attr), EINVAL) << "a parent domain in a parent domain";
  attr.pd = pd;
  attr.comp_mask = 1 << 9;
  EXPECT_EQ(errno_of(attr), EINVAL);
  attr.comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS;
  attr.alloc = Allocate;
  EXPECT_EQ(errno_of(attr), EINVAL) << "nothing to free with";
  ibv_td_init_attr thread{};
  thread.comp_mask = 1;
  errno = 0;
  EXPECT_EQ(ibv_alloc_td(context, &thread), nullptr);
  EXPECT_EQ(errno, EINVAL);

  ibv_pd* const elsewhere = soft_nic::AllocPd(other->context());
  attr = {};
  attr.pd = elsewhere;
  EXPECT_EQ(errno_of(attr), EINVAL) << "of another device";
  ibv_cq_init_attr_ex queue{};
  queue.cqe = 16;
  queue.comp_mask = IBV_CQ_INIT_ATTR_MASK_PD;
  for (ibv_pd* const wrong : {static_cast<ibv_pd*>(nullptr), pd, elsewhere}) {
    queue.parent_domain = wrong;
    errno = 0;
    EXPECT_EQ(ibv_create_cq_ex(context, &queue), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(soft_nic::DeallocPd(elsewhere), 0);
  EXPECT_EQ(soft_nic::DeallocPd(parent), 0);
  EXPECT_EQ(soft_nic::DeallocPd(pd), 0);
}

}  // namespace
}  // namespace sumac::verbs
