// Memory windows of both types, bound, used, invalidated from here and from the peer.
#include <cerrno>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

constexpr unsigned kWindowAccess = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;

// b offers a part of its memory through a window; a uses it.
class MemoryWindowTest : public testing::Test {
 protected:
  MemoryWindowTest()
      : a(4096), b(4096), of_a(RawQueuePair::Create(a)), of_b(RawQueuePair::Create(b)) {
    Connect(a, of_a, b, of_b);
    region = soft_nic::RegMr(b.pd->pd(), b.memory.data(), 4096,
                             IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    EXPECT_NE(region, nullptr);
  }
  ~MemoryWindowTest() override {
    for (ibv_mw* const window : windows) EXPECT_EQ(ibv_dealloc_mw(window), 0);
    EXPECT_EQ(soft_nic::DeregMr(region), 0);
  }

  ibv_mw* Alloc(ibv_mw_type type) {
    windows.push_back(ibv_alloc_mw(b.pd->pd(), type));
    EXPECT_NE(windows.back(), nullptr);
    return windows.back();
  }
  ibv_mw_bind_info Info(size_t offset, uint64_t length, unsigned access = kWindowAccess) const {
    return {.mr = region, .addr = b.Address(offset), .length = length, .mw_access_flags = access};
  }
  // Type 1.
  ibv_wc_status Bind(ibv_mw* window, const ibv_mw_bind_info& info) {
    ibv_mw_bind bind{.wr_id = 5, .send_flags = IBV_SEND_SIGNALED, .bind_info = info};
    EXPECT_EQ(ibv_bind_mw(of_b.get(), window, &bind), 0);
    const ibv_wc wc = b.Next();
    EXPECT_EQ(wc.wr_id, 5u);
    if (wc.status == IBV_WC_SUCCESS) {
      EXPECT_EQ(wc.opcode, IBV_WC_BIND_MW);
    }
    return wc.status;
  }
  // Type 2, with the next key.
  ibv_wc_status PostBind(RawQueuePair& qp, ibv_mw* window, const ibv_mw_bind_info& info) {
    ibv_send_wr wr{};
    wr.opcode = IBV_WR_BIND_MW;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.bind_mw.mw = window;
    wr.bind_mw.rkey = ibv_inc_rkey(window->rkey);
    wr.bind_mw.bind_info = info;
    EXPECT_EQ(Post(qp, wr), 0);
    const ibv_wc_status status = b.Next().status;
    if (status == IBV_WC_SUCCESS) window->rkey = wr.bind_mw.rkey;
    return status;
  }
  ibv_wc_status Invalidate(RawQueuePair& qp, uint32_t rkey) {
    ibv_send_wr wr{};
    wr.opcode = IBV_WR_LOCAL_INV;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.invalidate_rkey = rkey;
    EXPECT_EQ(Post(qp, wr), 0);
    return b.Next().status;
  }
  static int Post(RawQueuePair& qp, ibv_send_wr& wr) {
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp.get(), &wr, &bad);
  }
  ibv_wc_status Write(uint64_t addr, uint32_t rkey, ibv_wr_opcode opcode = IBV_WR_RDMA_WRITE) {
    return WriteBy(of_a, addr, rkey, opcode);
  }
  ibv_wc_status WriteBy(RawQueuePair& qp, uint64_t addr, uint32_t rkey,
                        ibv_wr_opcode opcode = IBV_WR_RDMA_WRITE) {
    ibv_sge sge = a.Sge(0, 8);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = addr;
    wr.wr.rdma.rkey = rkey;
    EXPECT_EQ(Post(qp, wr), 0);
    return a.Next().status;
  }
  // After a refusal, which ends a connection.
  void Reconnect() {
    for (RawQueuePair* const qp : {&of_a, &of_b}) ASSERT_EQ(qp->Modify(IBV_QPS_RESET), 0);
    Connect(a, of_a, b, of_b);
  }
  void ExpectRefused(uint64_t addr, uint32_t rkey, ibv_wr_opcode opcode = IBV_WR_RDMA_WRITE) {
    EXPECT_STREQ(NameOf(Write(addr, rkey, opcode)), "IBV_WC_REM_ACCESS_ERR");
    Reconnect();
  }

  End a, b;
  RawQueuePair of_a, of_b;
  ibv_mr* region = nullptr;
  std::vector<ibv_mw*> windows;
};

TEST_F(MemoryWindowTest, TypeOneOpensMovesAndCloses) {
  ibv_mw* const window = Alloc(IBV_MW_TYPE_1);
  const uint32_t unbound = window->rkey;
  ExpectRefused(b.Address(64), unbound);
  ASSERT_EQ(Bind(window, Info(64, 128)), IBV_WC_SUCCESS);
  const uint32_t first = window->rkey;
  EXPECT_NE(first, unbound);
  a.memory[0] = 9;
  EXPECT_EQ(Write(b.Address(64 + 120), first), IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory[64 + 120], 9);
  EXPECT_EQ(Write(b.Address(64), first, IBV_WR_RDMA_READ), IBV_WC_SUCCESS);
  ExpectRefused(b.Address(64 + 121), first);
  ExpectRefused(b.Address(63), first);
  ExpectRefused(b.Address(64), unbound);
  ExpectRefused(b.Address(64), region->rkey);  // the region itself is not open

  EXPECT_EQ(soft_nic::DeregMr(region), EBUSY);
  EXPECT_EQ(soft_nic::ReregMr(region, IBV_REREG_MR_CHANGE_ACCESS, nullptr, nullptr, 0, 0),
            IBV_REREG_MR_ERR_INPUT);

  ASSERT_EQ(Bind(window, Info(1024, 8, IBV_ACCESS_REMOTE_READ)), IBV_WC_SUCCESS);
  ExpectRefused(b.Address(64), first);
  ExpectRefused(b.Address(1024), window->rkey);  // to be read only
  EXPECT_EQ(Write(b.Address(1024), window->rkey, IBV_WR_RDMA_READ), IBV_WC_SUCCESS);

  ASSERT_EQ(Bind(window, {}), IBV_WC_SUCCESS);
  ExpectRefused(b.Address(1024), window->rkey, IBV_WR_RDMA_READ);
}

TEST_F(MemoryWindowTest, ZeroBasedWindowCountsFromItsStart) {
  ibv_mw* const window = Alloc(IBV_MW_TYPE_1);
  ASSERT_EQ(Bind(window, Info(512, 64, kWindowAccess | IBV_ACCESS_ZERO_BASED)), IBV_WC_SUCCESS);
  a.memory[0] = 77;
  EXPECT_EQ(Write(16, window->rkey), IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory[512 + 16], 77);
  ExpectRefused(57, window->rkey);
  ExpectRefused(b.Address(512), window->rkey);
}

TEST_F(MemoryWindowTest, TypeTwoBelongsToItsQueuePairUntilInvalidated) {
  ibv_mw* const window = Alloc(IBV_MW_TYPE_2);
  ASSERT_EQ(PostBind(of_b, window, Info(0, 64)), IBV_WC_SUCCESS);
  EXPECT_EQ(Write(b.Address(0), window->rkey), IBV_WC_SUCCESS);

  // Another queue pair of the same protection domain: neither use nor invalidation.
  {
    RawQueuePair other_a = RawQueuePair::Create(a);
    RawQueuePair other_b = RawQueuePair::Create(b);
    Connect(a, other_a, b, other_b);
    EXPECT_STREQ(NameOf(WriteBy(other_a, b.Address(0), window->rkey)), "IBV_WC_REM_ACCESS_ERR");
  }
  {
    RawQueuePair other_a = RawQueuePair::Create(a);
    RawQueuePair other_b = RawQueuePair::Create(b);
    Connect(a, other_a, b, other_b);
    EXPECT_STREQ(NameOf(Invalidate(other_b, window->rkey)), "IBV_WC_MW_BIND_ERR");
  }

  // Bound it can't be bound again.
  EXPECT_STREQ(NameOf(PostBind(of_b, window, Info(64, 64))), "IBV_WC_MW_BIND_ERR");
  Reconnect();
  EXPECT_EQ(Write(b.Address(0), window->rkey), IBV_WC_SUCCESS);
  ASSERT_EQ(Invalidate(of_b, window->rkey), IBV_WC_SUCCESS);
  ExpectRefused(b.Address(0), window->rkey);
  ASSERT_EQ(PostBind(of_b, window, Info(64, 64)), IBV_WC_SUCCESS);
  EXPECT_EQ(Write(b.Address(64), window->rkey), IBV_WC_SUCCESS);
}

TEST_F(MemoryWindowTest, PeerRetiresAKeyWithASend) {
  ibv_mw* const window = Alloc(IBV_MW_TYPE_2);
  ASSERT_EQ(PostBind(of_b, window, Info(0, 64)), IBV_WC_SUCCESS);
  ibv_sge sge = b.Sge(1024, 64);
  ibv_recv_wr receive{.wr_id = 3, .next = nullptr, .sg_list = &sge, .num_sge = 1};
  ibv_recv_wr* bad = nullptr;
  const auto send = [&](uint32_t rkey) {
    EXPECT_EQ(ibv_post_recv(of_b.get(), &receive, &bad), 0);
    ibv_sge piece = a.Sge(0, 8);
    ibv_send_wr wr{};
    wr.sg_list = &piece;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND_WITH_INV;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.invalidate_rkey = rkey;
    EXPECT_EQ(Post(of_a, wr), 0);
    return a.Next().status;
  };
  ASSERT_EQ(send(window->rkey), IBV_WC_SUCCESS);
  const ibv_wc wc = b.Next();
  EXPECT_EQ(wc.wc_flags, static_cast<unsigned>(IBV_WC_WITH_INV));
  EXPECT_EQ(wc.invalidated_rkey, window->rkey);
  ExpectRefused(b.Address(0), window->rkey);
  // A key that is no open window's: the sender's fault.
  for (const uint32_t rkey : {window->rkey, region->rkey, uint32_t{1}}) {
    EXPECT_STREQ(NameOf(send(rkey)), "IBV_WC_REM_ACCESS_ERR");
    EXPECT_STREQ(NameOf(b.Next().status), "IBV_WC_REM_ACCESS_ERR");
    Reconnect();
  }
}

TEST_F(MemoryWindowTest, UnlawfulBindsAreRefused) {
  const auto refused = [&](ibv_mw_type type, ibv_mw_bind_info info) {
    ibv_mw* const window = Alloc(type);
    EXPECT_STREQ(NameOf(type == IBV_MW_TYPE_1 ? Bind(window, info) : PostBind(of_b, window, info)),
                 "IBV_WC_MW_BIND_ERR");
    Reconnect();
  };
  for (const ibv_mw_type type : {IBV_MW_TYPE_1, IBV_MW_TYPE_2}) {
    refused(type, Info(4000, 97));                  // past the end
    refused(type, Info(0, ~uint64_t{0}));           // around
    refused(type, Info(0, 8, IBV_ACCESS_MW_BIND));  // no right of a window
    ibv_mw_bind_info info = Info(0, 8);
    ibv_mr* const closed = soft_nic::RegMr(b.pd->pd(), b.memory.data(), 64, IBV_ACCESS_LOCAL_WRITE);
    info.mr = closed;  // not to be bound to
    refused(type, info);
    EXPECT_EQ(soft_nic::DeregMr(closed), 0);
    ibv_mr* const read_only = soft_nic::RegMr(b.pd->pd(), b.memory.data(), 64, IBV_ACCESS_MW_BIND);
    info.mr = read_only;
    refused(type, info);
    EXPECT_EQ(soft_nic::DeregMr(read_only), 0);
  }
  refused(IBV_MW_TYPE_2, {});  // only type 1 is closed this way

  // What the call itself can tell.
  ibv_mw* const window = Alloc(IBV_MW_TYPE_2);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_BIND_MW;
  wr.bind_mw.bind_info = Info(0, 8);
  wr.bind_mw.rkey = window->rkey;
  EXPECT_EQ(Post(of_b, wr), EINVAL);  // no window
  wr.bind_mw.mw = window;
  wr.bind_mw.rkey = window->rkey ^ 0x100;
  EXPECT_EQ(Post(of_b, wr), EINVAL) << "another window's key";
  errno = 0;
  EXPECT_EQ(ibv_alloc_mw(b.pd->pd(), static_cast<ibv_mw_type>(3)), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(MemoryWindowTest, WindowOfADestroyedQueuePairIsClosed) {
  ibv_mw* const window = Alloc(IBV_MW_TYPE_2);
  {
    RawQueuePair other_a = RawQueuePair::Create(a);
    RawQueuePair other_b = RawQueuePair::Create(b);
    Connect(a, other_a, b, other_b);
    ASSERT_EQ(PostBind(other_b, window, Info(0, 64)), IBV_WC_SUCCESS);
    EXPECT_EQ(soft_nic::DeregMr(region), EBUSY);
  }
  ASSERT_EQ(PostBind(of_b, window, Info(0, 64)), IBV_WC_SUCCESS);
  EXPECT_EQ(Write(b.Address(0), window->rkey), IBV_WC_SUCCESS);
}

TEST_F(MemoryWindowTest, BindsKeepTheirPlaceInTheQueue) {
  // A window is opened, announced, closed, opened again, all in one chain behind other requests.
  ibv_mw* const window = Alloc(IBV_MW_TYPE_2);
  ibv_sge piece = b.Sge(0, 2048);
  ibv_send_wr chain[6]{};
  for (size_t i = 0; i < 6; ++i) {
    chain[i].wr_id = i;
    chain[i].send_flags = IBV_SEND_SIGNALED;
    chain[i].next = i < 5 ? &chain[i + 1] : nullptr;
    chain[i].opcode = i % 2 == 0 ? IBV_WR_RDMA_WRITE : IBV_WR_BIND_MW;
    if (i % 2 == 0) {
      chain[i].sg_list = &piece;
      chain[i].num_sge = 1;
      chain[i].wr.rdma.remote_addr = a.Address(0);
      chain[i].wr.rdma.rkey = a.region->rkey();
    } else {
      chain[i].bind_mw.mw = window;
      chain[i].bind_mw.rkey = window->rkey;
      chain[i].bind_mw.bind_info = Info(2048, 64);
    }
  }
  chain[3].opcode = IBV_WR_LOCAL_INV;
  chain[3].invalidate_rkey = window->rkey;
  ASSERT_EQ(Post(of_b, chain[0]), 0);
  for (uint64_t i = 0; i < 6; ++i) {
    const ibv_wc wc = b.Next();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS) << i;
    EXPECT_EQ(wc.wr_id, i);
  }
  a.memory[0] = 3;
  EXPECT_EQ(Write(b.Address(2048), window->rkey), IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory[2048], 3);
}

TEST_F(MemoryWindowTest, BindAndInvalidateThroughTheExtendedCalls) {
  ibv_qp_init_attr_ex attr{};
  attr.send_cq = attr.recv_cq = b.cq->cq();
  attr.cap = RawQueuePair::Attributes(b).cap;
  attr.qp_type = IBV_QPT_RC;
  attr.pd = b.pd->pd();
  attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  attr.send_ops_flags = IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV;
  RawQueuePair other_a = RawQueuePair::Create(a);
  RawQueuePair other_b(ibv_create_qp_ex(b.device->context(), &attr));
  Connect(a, other_a, b, other_b);
  ibv_qp_ex* const qp = soft_nic::QpToQpEx(other_b.get());
  ibv_mw* const window = Alloc(IBV_MW_TYPE_2);
  const ibv_mw_bind_info info = Info(0, 64);
  const auto post = [&](auto build) {
    ibv_wr_start(qp);
    qp->wr_flags = IBV_SEND_SIGNALED;
    build();
    EXPECT_EQ(ibv_wr_complete(qp), 0);
    return b.Next();
  };
  window->rkey = ibv_inc_rkey(window->rkey);
  ibv_wc wc = post([&] { ibv_wr_bind_mw(qp, window, window->rkey, &info); });
  EXPECT_EQ(wc.opcode, IBV_WC_BIND_MW);
  EXPECT_EQ(WriteBy(other_a, b.Address(0), window->rkey), IBV_WC_SUCCESS);
  wc = post([&] { ibv_wr_local_inv(qp, window->rkey); });
  EXPECT_EQ(wc.opcode, IBV_WC_LOCAL_INV);
  EXPECT_STREQ(NameOf(WriteBy(other_a, b.Address(0), window->rkey)), "IBV_WC_REM_ACCESS_ERR");
}

}  // namespace
}  // namespace sumac::verbs
