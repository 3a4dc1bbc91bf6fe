// On-demand registration: pages that come, go or never are while they are registered.
#include "verbs/soft_nic/device/on_demand.h"

#include <infiniband/verbs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

constexpr int kOnDemand = kAllAccess | IBV_ACCESS_ON_DEMAND;

// Address space of some pages, of which each may be mapped or not.
class Pages {
 public:
  explicit Pages(size_t count) : bytes_(count * size()) {
    start_ = static_cast<uint8_t*>(
        mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  ~Pages() { munmap(start_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  static size_t size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
  uint8_t* at(size_t page) const { return start_ + page * size(); }
  size_t bytes() const { return bytes_; }
  void Map(size_t page, int protection = PROT_READ | PROT_WRITE) {
    ASSERT_EQ(mmap(at(page), size(), protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
              at(page));
  }
  bool present(size_t page) const {
    unsigned char state = 0;
    return mincore(at(page), size(), &state) == 0 && (state & 1) != 0;
  }

 private:
  uint8_t* start_;
  size_t bytes_;
};

// Two connected ends, and an on-demand region of the second one's over pages of which none is
// there.
class SoftDeviceOnDemand : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!soft_nic::OnDemandOffered()) GTEST_SKIP() << "needs Linux 5.14";
    Connect(a_, b_);
    region_ = soft_nic::RegMr(b_.pd->pd(), pages_.at(0), pages_.bytes(), kOnDemand);
    ASSERT_NE(region_, nullptr);
  }
  void TearDown() override {
    if (region_ == nullptr) return;
    EXPECT_EQ(soft_nic::DeregMr(region_), 0);
  }

  ibv_wc_status Rdma(ibv_wr_opcode opcode, const uint8_t* remote, uint32_t rkey, size_t length) {
    EXPECT_EQ(a_.Post(opcode, a_.Sge(0, length), reinterpret_cast<uint64_t>(remote), rkey), 0);
    return a_.Next().status;
  }
  static ibv_sge Piece(const ibv_mr* mr, uint8_t* at, size_t length) {
    return {.addr = reinterpret_cast<uint64_t>(at),
            .length = static_cast<uint32_t>(length),
            .lkey = mr->lkey};
  }
  int Advise(ibv_advise_mr_advice advice, ibv_sge range,
             uint32_t flags = IBV_ADVISE_MR_FLAG_FLUSH) {
    return ibv_advise_mr(b_.pd->pd(), advice, flags, &range, 1);
  }

  End a_{16384}, b_{16384};
  Pages pages_{4};
  ibv_mr* region_ = nullptr;
};

TEST_F(SoftDeviceOnDemand, PagesAreBroughtInWhenTheyAreUsed) {
  pages_.Map(1);
  pages_.Map(2);
  EXPECT_FALSE(pages_.present(1));
  uint8_t* const across = pages_.at(2) - 100;
  std::fill(a_.memory.begin(), a_.memory.end(), 0x5a);
  EXPECT_EQ(Rdma(IBV_WR_RDMA_WRITE, across, region_->rkey, 200), IBV_WC_SUCCESS);
  EXPECT_EQ(across[0], 0x5a);
  EXPECT_EQ(across[199], 0x5a);
  EXPECT_EQ(Rdma(IBV_WR_ATOMIC_FETCH_AND_ADD, pages_.at(1), region_->rkey, 8), IBV_WC_SUCCESS);
  EXPECT_EQ(pages_.at(1)[0], 5);
  // Gone from memory, not from the address space: they come back as zeroes, as for the program.
  ASSERT_EQ(madvise(pages_.at(1), 2 * Pages::size(), MADV_DONTNEED), 0);
  EXPECT_EQ(Rdma(IBV_WR_RDMA_READ, across, region_->rkey, 200), IBV_WC_SUCCESS);
  EXPECT_EQ(a_.memory[199], 0);
  // Other memory in the same place.
  pages_.Map(1);
  pages_.at(1)[0] = 0x33;
  EXPECT_EQ(Rdma(IBV_WR_RDMA_READ, pages_.at(1), region_->rkey, 8), IBV_WC_SUCCESS);
  EXPECT_EQ(a_.memory[0], 0x33);
}

TEST_F(SoftDeviceOnDemand, RemoteRequestIntoAHoleIsRefusedAsAWhole) {
  pages_.Map(0);
  std::fill(a_.memory.begin(), a_.memory.end(), 0x5a);
  EXPECT_STREQ(NameOf(Rdma(IBV_WR_RDMA_WRITE, pages_.at(0), region_->rkey, 2 * Pages::size())),
               "IBV_WC_REM_ACCESS_ERR");
  EXPECT_EQ(std::count(pages_.at(0), pages_.at(1), 0), static_cast<ptrdiff_t>(Pages::size()));
}

TEST_F(SoftDeviceOnDemand, ReadOnlyPagesAreReadAndNotWritten) {
  pages_.Map(0, PROT_READ);
  EXPECT_EQ(Rdma(IBV_WR_RDMA_READ, pages_.at(0), region_->rkey, 64), IBV_WC_SUCCESS);
  EXPECT_STREQ(NameOf(Rdma(IBV_WR_RDMA_WRITE, pages_.at(0), region_->rkey, 64)),
               "IBV_WC_REM_ACCESS_ERR");
}

TEST_F(SoftDeviceOnDemand, ReadOfAHoleIsRefused) {
  EXPECT_STREQ(NameOf(Rdma(IBV_WR_RDMA_READ, pages_.at(3), region_->rkey, 64)),
               "IBV_WC_REM_ACCESS_ERR");
}

TEST_F(SoftDeviceOnDemand, SendFromAHoleIsALocalError) {
  ASSERT_EQ(b_.Post(IBV_WR_SEND, Piece(region_, pages_.at(2), 64)), 0);
  EXPECT_STREQ(NameOf(b_.Next().status), "IBV_WC_LOC_PROT_ERR");
}

TEST_F(SoftDeviceOnDemand, ReceiveIntoAHoleFailsOnBothSides) {
  ibv_sge sge = Piece(region_, pages_.at(2), 64);
  ibv_recv_wr receive{};
  receive.sg_list = &sge;
  receive.num_sge = 1;
  ASSERT_EQ(b_.qp->PostReceive(receive), 0);
  ASSERT_EQ(a_.Post(IBV_WR_SEND, a_.Sge(0, 64)), 0);
  EXPECT_STREQ(NameOf(a_.Next().status), "IBV_WC_REM_OP_ERR");
  EXPECT_STREQ(NameOf(b_.Next().status), "IBV_WC_LOC_PROT_ERR");
}

TEST_F(SoftDeviceOnDemand, ImplicitRegionIsAllMemoryThereIs) {
  ibv_mr* const everything = soft_nic::RegMr(b_.pd->pd(), nullptr, SIZE_MAX, kOnDemand);
  ASSERT_NE(everything, nullptr);
  pages_.Map(3);
  std::memset(a_.memory.data(), 0x21, 64);
  EXPECT_EQ(Rdma(IBV_WR_RDMA_WRITE, pages_.at(3), everything->rkey, 64), IBV_WC_SUCCESS);
  EXPECT_EQ(pages_.at(3)[63], 0x21);
  ASSERT_EQ(b_.Post(IBV_WR_RDMA_WRITE, Piece(everything, b_.memory.data(), 64), a_.Address(),
                    a_.region->rkey()),
            0);
  EXPECT_EQ(b_.Next().status, IBV_WC_SUCCESS);
  // The page at 0, the kernel's half, the end where sums wrap.
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, Piece(everything, nullptr, 64)), EFAULT);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH,
                   Piece(everything, reinterpret_cast<uint8_t*>(~uint64_t{0} - 64), 64)),
            EFAULT);
  EXPECT_STREQ(NameOf(Rdma(IBV_WR_RDMA_WRITE, reinterpret_cast<uint8_t*>(uint64_t{1} << 63),
                           everything->rkey, 64)),
               "IBV_WC_REM_ACCESS_ERR");
  EXPECT_EQ(soft_nic::DeregMr(everything), 0);
  // Only on demand.
  errno = 0;
  EXPECT_EQ(soft_nic::RegMr(b_.pd->pd(), nullptr, SIZE_MAX, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(SoftDeviceOnDemand, WindowOverSuchARegionIsOnDemandToo) {
  ibv_mr* const bindable =
      soft_nic::RegMr(b_.pd->pd(), pages_.at(0), pages_.bytes(), kOnDemand | IBV_ACCESS_MW_BIND);
  ibv_mw* const window = soft_nic::AllocMw(b_.pd->pd(), IBV_MW_TYPE_1);
  ibv_mw_bind bind{};
  bind.send_flags = IBV_SEND_SIGNALED;
  bind.bind_info = {.mr = bindable,
                    .addr = reinterpret_cast<uint64_t>(pages_.at(0)),
                    .length = pages_.bytes(),
                    .mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
  ASSERT_EQ(soft_nic::BindMw(b_.qp->qp(), window, &bind), 0);
  ASSERT_EQ(b_.Next().status, IBV_WC_SUCCESS);
  pages_.Map(0);
  EXPECT_EQ(Rdma(IBV_WR_RDMA_WRITE, pages_.at(0), window->rkey, 8), IBV_WC_SUCCESS);
  EXPECT_STREQ(NameOf(Rdma(IBV_WR_RDMA_WRITE, pages_.at(1), window->rkey, 8)),
               "IBV_WC_REM_ACCESS_ERR");
  EXPECT_EQ(soft_nic::DeallocMw(window), 0);
  EXPECT_EQ(soft_nic::DeregMr(bindable), 0);
}

TEST_F(SoftDeviceOnDemand, PrefetchBringsPagesIn) {
  pages_.Map(1);
  const ibv_sge page = Piece(region_, pages_.at(1), 8);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, page), 0);
  EXPECT_FALSE(pages_.present(1));
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, page), 0);
  EXPECT_TRUE(pages_.present(1));
  const ibv_sge hole = Piece(region_, pages_.at(2), 8);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, hole), EFAULT);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, hole, 0), 0) << "nobody waits for how it went";
}

TEST_F(SoftDeviceOnDemand, SenselessAdviceIsRefused) {
  const ibv_sge page = Piece(region_, pages_.at(0), 8);
  EXPECT_EQ(Advise(static_cast<ibv_advise_mr_advice>(3), page), EOPNOTSUPP);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, page, 2), EINVAL);
  EXPECT_EQ(ibv_advise_mr(b_.pd->pd(), IBV_ADVISE_MR_ADVICE_PREFETCH, 0, nullptr, 0), EINVAL);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, Piece(region_, pages_.at(4), 8)), EFAULT);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, b_.Sge(0, 8)), EINVAL) << "not on demand";
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH, {.addr = 0, .length = 8, .lkey = 0}), ENOENT);
  ibv_mr* const readable =
      soft_nic::RegMr(b_.pd->pd(), pages_.at(0), pages_.bytes(), IBV_ACCESS_ON_DEMAND);
  EXPECT_EQ(Advise(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, Piece(readable, pages_.at(0), 8)), EPERM);
  EXPECT_EQ(soft_nic::DeregMr(readable), 0);
  ibv_pd* const other = soft_nic::AllocPd(b_.device->context());
  ibv_sge range = page;
  EXPECT_EQ(ibv_advise_mr(other, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &range, 1), EPERM);
  EXPECT_EQ(soft_nic::DeallocPd(other), 0);
}

TEST_F(SoftDeviceOnDemand, CapabilitiesNameEveryService) {
  ibv_device_attr_ex attr{};
  ASSERT_EQ(ibv_query_device_ex(a_.device->context(), nullptr, &attr), 0);
  EXPECT_EQ(attr.odp_caps.general_caps,
            uint64_t{IBV_ODP_SUPPORT} | uint64_t{IBV_ODP_SUPPORT_IMPLICIT});
  EXPECT_NE(attr.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_ATOMIC, 0u);
  EXPECT_EQ(attr.odp_caps.per_transport_caps.uc_odp_caps & IBV_ODP_SUPPORT_READ, 0u);
  EXPECT_EQ(attr.odp_caps.per_transport_caps.ud_odp_caps & IBV_ODP_SUPPORT_WRITE, 0u);
}

}  // namespace
}  // namespace sumac::verbs
