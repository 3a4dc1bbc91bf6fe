// UC and UD through the verbs API: two devices in one process, real sockets on loopback.
#include <arpa/inet.h>
#include <endian.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/counters.h"
#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {
namespace {

constexpr uint32_t kQkey = 0x11111111;
constexpr size_t kGrh = sizeof(ibv_grh);

struct QpDeleter {
  void operator()(ibv_qp* qp) const { EXPECT_EQ(soft_nic::DestroyQp(qp), 0); }
};
struct AhDeleter {
  void operator()(ibv_ah* ah) const { EXPECT_EQ(soft_nic::DestroyAh(ah), 0); }
};
using Qp = std::unique_ptr<ibv_qp, QpDeleter>;
using Ah = std::unique_ptr<ibv_ah, AhDeleter>;

Qp Create(End& end, ibv_qp_type type) {
  ibv_qp_init_attr attr{};
  attr.send_cq = attr.recv_cq = end.cq->cq();
  attr.qp_type = type;
  attr.cap = {512, 512, 4, 4, 256};
  Qp qp(soft_nic::CreateQp(end.pd->pd(), &attr));
  EXPECT_NE(qp, nullptr) << strerror(errno);
  return qp;
}

Qp ReadyUd(End& end, uint32_t qkey = kQkey) {
  Qp qp = Create(end, IBV_QPT_UD);
  ibv_qp_attr attr{};
  attr.port_num = 1;
  attr.qkey = qkey;
  attr.qp_state = IBV_QPS_INIT;
  EXPECT_EQ(soft_nic::ModifyQp(qp.get(), &attr,
                               IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY),
            0);
  attr.qp_state = IBV_QPS_RTR;
  EXPECT_EQ(soft_nic::ModifyQp(qp.get(), &attr, IBV_QP_STATE), 0);
  attr.qp_state = IBV_QPS_RTS;
  attr.sq_psn = 0xffffff;
  EXPECT_EQ(soft_nic::ModifyQp(qp.get(), &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
  return qp;
}

void ConnectUc(ibv_qp* qp, const End& peer, uint32_t peer_qpn, ibv_mtu mtu = IBV_MTU_1024,
               unsigned access = kAllAccess) {
  ibv_qp_attr attr{};
  attr.port_num = 1;
  attr.qp_access_flags = access;
  attr.qp_state = IBV_QPS_INIT;
  ASSERT_EQ(soft_nic::ModifyQp(
                qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
            0);
  attr.qp_state = IBV_QPS_RTR;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.port_num = 1;
  attr.ah_attr.grh.dgid = peer.gid();
  attr.path_mtu = mtu;
  attr.dest_qp_num = peer_qpn;
  attr.rq_psn = attr.sq_psn = 0xfffffe;
  ASSERT_EQ(
      soft_nic::ModifyQp(
          qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN),
      0);
  attr.qp_state = IBV_QPS_RTS;
  ASSERT_EQ(soft_nic::ModifyQp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
}

Ah HandleTo(End& from, const End& to) {
  ibv_ah_attr attr{};
  attr.is_global = 1;
  attr.port_num = 1;
  attr.grh.dgid = to.gid();
  Ah ah(soft_nic::CreateAh(from.pd->pd(), &attr));
  EXPECT_NE(ah, nullptr) << strerror(errno);
  return ah;
}

int PostDatagram(End& end, ibv_qp* qp, ibv_ah* ah, uint32_t qpn, size_t offset, size_t length,
                 uint32_t qkey = kQkey, ibv_wr_opcode opcode = IBV_WR_SEND) {
  ibv_sge sge = end.Sge(offset, length);
  ibv_send_wr wr{};
  wr.wr_id = 1;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.imm_data = htobe32(0x11223344);
  wr.wr.ud = {ah, qpn, qkey};
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &wr, &bad);
}

int PostUc(End& end, ibv_qp* qp, ibv_wr_opcode opcode, size_t offset, size_t length,
           uint64_t remote_addr = 0, uint32_t rkey = 0) {
  ibv_sge sge = end.Sge(offset, length);
  ibv_send_wr wr{};
  wr.wr_id = 1;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.imm_data = htobe32(0x11223344);
  wr.wr.rdma = {remote_addr, rkey};
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &wr, &bad);
}

void PostReceive(End& end, ibv_qp* qp, size_t offset, size_t length, uint64_t wr_id = 2) {
  ibv_sge sge = end.Sge(offset, length);
  ibv_recv_wr wr{};
  wr.wr_id = wr_id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_recv(qp, &wr, &bad), 0);
}

// Until a counter of what was dropped has moved: nothing else tells of it.
template <typename Field>
void AwaitDrop(End& end, Field field, uint64_t count = 1) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (soft_nic::ReadCounters(end.device->context()).queue_pairs.*field < count) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
}

TEST(UnreliableDatagram, AnswersWithWhatTheCompletionSays) {
  End a(16384), b(16384);
  std::iota(a.memory.begin(), a.memory.end(), 1);
  Qp here = ReadyUd(a), there = ReadyUd(b);
  Ah to_b = HandleTo(a, b);
  for (const size_t size : {0, 1, 13, 2048, 4096}) {
    SCOPED_TRACE(size);
    PostReceive(b, there.get(), 0, 8192);
    ASSERT_EQ(PostDatagram(a, here.get(), to_b.get(), there->qp_num, 3, size, kQkey,
                           IBV_WR_SEND_WITH_IMM),
              0);
    ASSERT_EQ(a.Next().status, IBV_WC_SUCCESS);
    ibv_wc wc = b.Next();
    ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.byte_len, kGrh + size);
    EXPECT_EQ(wc.src_qp, here->qp_num);
    EXPECT_EQ(wc.imm_data, htobe32(0x11223344));
    EXPECT_EQ(wc.wc_flags, static_cast<unsigned>(IBV_WC_GRH | IBV_WC_WITH_IMM));
    EXPECT_EQ(std::memcmp(&b.memory[kGrh], &a.memory[3], size), 0);

    auto* grh = reinterpret_cast<ibv_grh*>(b.memory.data());
    Ah back(soft_nic::CreateAhFromWc(b.pd->pd(), &wc, grh, 1));
    ASSERT_NE(back, nullptr) << strerror(errno);
    ibv_ah_attr attr{};
    ASSERT_EQ(soft_nic::InitAhFromWc(b.device->context(), 1, &wc, grh, &attr), 0);
    const ibv_gid gid = a.gid();
    EXPECT_EQ(std::memcmp(attr.grh.dgid.raw, gid.raw, sizeof(gid.raw)), 0);
    EXPECT_EQ(attr.is_global, 1);
    PostReceive(a, here.get(), 8192, 8192);
    ASSERT_EQ(PostDatagram(b, there.get(), back.get(), wc.src_qp, kGrh, size), 0);
    EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(a.Next().byte_len, kGrh + size);
    EXPECT_EQ(std::memcmp(&a.memory[8192 + kGrh], &a.memory[3], size), 0);
  }
}

TEST(UnreliableDatagram, ReachesItselfAndANeighbourOnItsDevice) {
  End a(16384);
  a.memory[0] = 7;
  Qp first = ReadyUd(a), second = ReadyUd(a);
  Ah home = HandleTo(a, a);
  for (ibv_qp* to : {first.get(), second.get()}) {
    PostReceive(a, to, 8192, 4096, 9);
    ASSERT_EQ(PostDatagram(a, first.get(), home.get(), to->qp_num, 0, 8), 0);
    bool received = false;
    for (int i = 0; i < 2; ++i) {
      const ibv_wc wc = a.Next();
      EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
      if (wc.opcode != IBV_WC_RECV) continue;
      received = true;
      EXPECT_EQ(wc.wr_id, 9u);
      EXPECT_EQ(wc.qp_num, to->qp_num);
    }
    EXPECT_TRUE(received);
    EXPECT_EQ(a.memory[8192 + kGrh], 7);
    a.memory[8192 + kGrh] = 0;
  }
}

TEST(UnreliableDatagram, ManySendersReachOneQueuePair) {
  End a(4096), b(65536), c(4096);
  Qp sink = ReadyUd(b);
  for (uint64_t i = 0; i < 40; ++i) PostReceive(b, sink.get(), i * 1024, 1024, i);
  for (End* from : {&a, &c}) {
    Qp qp = ReadyUd(*from);
    Ah to_b = HandleTo(*from, b);
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(PostDatagram(*from, qp.get(), to_b.get(), sink->qp_num, 0, 64), 0);
      ASSERT_EQ(from->Next().status, IBV_WC_SUCCESS);
    }
    for (int i = 0; i < 20; ++i) {
      const ibv_wc wc = b.Next();
      EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
      EXPECT_EQ(wc.src_qp, qp->qp_num);
    }
  }
}

TEST(UnreliableDatagram, WrongQkeyAndMissingReceiveAreCountedAndForgotten) {
  End a(8192), b(8192);
  Qp here = ReadyUd(a), there = ReadyUd(b);
  Ah to_b = HandleTo(a, b);
  ASSERT_EQ(PostDatagram(a, here.get(), to_b.get(), there->qp_num, 0, 8), 0);
  AwaitDrop(b, &soft_nic::QueuePairCounters::dropped_no_receive);
  PostReceive(b, there.get(), 0, 4096);
  ASSERT_EQ(PostDatagram(a, here.get(), to_b.get(), there->qp_num, 0, 8, kQkey + 1), 0);
  AwaitDrop(b, &soft_nic::QueuePairCounters::dropped_bad_qkey);
  // The top bit asks for the sender's own Q_Key, which is the right one.
  ASSERT_EQ(PostDatagram(a, here.get(), to_b.get(), there->qp_num, 0, 8, 0x80000000), 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
}

TEST(UnreliableDatagram, ShortBufferFailsAlone) {
  End a(8192), b(8192);
  Qp here = ReadyUd(a), there = ReadyUd(b);
  Ah to_b = HandleTo(a, b);
  PostReceive(b, there.get(), 0, kGrh + 7);
  PostReceive(b, there.get(), 0, kGrh + 8);
  for (const ibv_wc_status expected : {IBV_WC_LOC_LEN_ERR, IBV_WC_SUCCESS}) {
    ASSERT_EQ(PostDatagram(a, here.get(), to_b.get(), there->qp_num, 0, 8), 0);
    EXPECT_EQ(b.Next().status, expected);
  }
}

TEST(UnreliableDatagram, QkeyIsQueriedAndChanged) {
  End a(8192), b(8192);
  Qp here = ReadyUd(a), there = ReadyUd(b);
  ibv_qp_attr attr{};
  attr.qkey = 0x222;
  ASSERT_EQ(soft_nic::ModifyQp(there.get(), &attr, IBV_QP_QKEY), 0);
  ibv_qp_init_attr init{};
  ASSERT_EQ(soft_nic::QueryQp(there.get(), &attr, IBV_QP_QKEY, &init), 0);
  EXPECT_EQ(attr.qkey, 0x222u);
  EXPECT_EQ(attr.qp_state, IBV_QPS_RTS);
  EXPECT_EQ(init.qp_type, IBV_QPT_UD);
  PostReceive(b, there.get(), 0, 4096);
  Ah to_b = HandleTo(a, b);
  ASSERT_EQ(PostDatagram(a, here.get(), to_b.get(), there->qp_num, 0, 8, 0x222), 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
}

TEST(UnreliableDatagram, AddressHandlesAreCheckedAndHoldTheirDomain) {
  End a(64);
  ibv_ah_attr good{};
  good.is_global = 1;
  good.port_num = 1;
  good.grh.dgid = a.gid();
  const auto refused = [&](auto change) {
    ibv_ah_attr attr = good;
    change(attr);
    errno = 0;
    return soft_nic::CreateAh(a.pd->pd(), &attr) == nullptr && errno == EINVAL;
  };
  EXPECT_TRUE(refused([](ibv_ah_attr& attr) { attr.is_global = 0; }));
  EXPECT_TRUE(refused([](ibv_ah_attr& attr) { attr.grh.sgid_index = 1; }));
  EXPECT_TRUE(refused([](ibv_ah_attr& attr) { attr.port_num = 2; }));
  EXPECT_TRUE(refused([](ibv_ah_attr& attr) { attr.grh.dgid.raw[0] = 0xfe; })) << "IPv6";
  ibv_device_attr device{};
  ASSERT_EQ(soft_nic::QueryDevice(a.device->context(), &device), 0);
  EXPECT_GT(device.max_ah, 0);

  ibv_pd* pd = soft_nic::AllocPd(a.device->context());
  ibv_ah* ah = soft_nic::CreateAh(pd, &good);
  ASSERT_NE(ah, nullptr);
  EXPECT_EQ(ah->pd, pd);
  EXPECT_EQ(ah->context, a.device->context());
  EXPECT_EQ(soft_nic::DeallocPd(pd), EBUSY);
  EXPECT_EQ(soft_nic::DestroyAh(ah), 0);
  EXPECT_EQ(soft_nic::DeallocPd(pd), 0);
}

TEST(UnreliableDatagram, CompletionsThatTellNoAddressGiveNoHandle) {
  End a(64);
  ibv_grh grh{};
  ibv_wc wc{};
  wc.wc_flags = IBV_WC_GRH;
  EXPECT_EQ(soft_nic::CreateAhFromWc(a.pd->pd(), &wc, &grh, 1), nullptr);
  EXPECT_EQ(errno, EINVAL);
  wc.wc_flags = 0;  // without a GRH there is a LID only: no address on RoCE
  EXPECT_EQ(soft_nic::CreateAhFromWc(a.pd->pd(), &wc, &grh, 1), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

class UcMtuTest : public testing::TestWithParam<ibv_mtu> {};

TEST_P(UcMtuTest, MovesEverySizeWithEveryOperation) {
  constexpr size_t kBytes = 256 << 10;
  End a(kBytes), b(kBytes);
  Qp here = Create(a, IBV_QPT_UC), there = Create(b, IBV_QPT_UC);
  ConnectUc(here.get(), b, there->qp_num, GetParam());
  ConnectUc(there.get(), a, here->qp_num, GetParam());
  std::iota(a.memory.begin(), a.memory.end(), 1);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{256}, size_t{4097}, size_t{60'003}}) {
    SCOPED_TRACE(size);
    for (const ibv_wr_opcode opcode : {IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE_WITH_IMM}) {
      std::fill(b.memory.begin(), b.memory.end(), 0);
      PostReceive(b, there.get(), 5, kBytes - 5);
      ASSERT_EQ(PostUc(a, here.get(), opcode, 7, size, b.Address(5), b.region->rkey()), 0);
      EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
      const ibv_wc wc = b.Next();
      EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
      EXPECT_EQ(wc.byte_len, size);
      EXPECT_EQ(wc.imm_data, htobe32(0x11223344));
      EXPECT_EQ(std::memcmp(&a.memory[7], &b.memory[5], size), 0);
      EXPECT_EQ(b.memory[4], 0);
      EXPECT_EQ(b.memory[5 + size], 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PathMtu, UcMtuTest,
                         testing::Values(IBV_MTU_256, IBV_MTU_1024, IBV_MTU_4096));

TEST(UnreliableConnection, PassiveTargetIsWrittenTo) {
  End a(4096), b(4096);
  Qp here = Create(a, IBV_QPT_UC), there = Create(b, IBV_QPT_UC);
  ConnectUc(here.get(), b, there->qp_num);
  ConnectUc(there.get(), a, here->qp_num);
  std::fill(a.memory.begin(), a.memory.end(), 9);
  ASSERT_EQ(PostUc(a, here.get(), IBV_WR_RDMA_WRITE, 0, 4096, b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  // As ib_write_lat does: the last byte tells.
  const volatile uint8_t* last = &b.memory[4095];
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (*last != 9) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
}

TEST(UnreliableConnection, RefusedWritesChangeNoByteAndTheConnectionGoesOn) {
  End a(4096), b(4096);
  Qp here = Create(a, IBV_QPT_UC), there = Create(b, IBV_QPT_UC);
  ConnectUc(here.get(), b, there->qp_num);
  ConnectUc(there.get(), a, here->qp_num);
  std::fill(a.memory.begin(), a.memory.end(), 9);
  const std::vector<uint8_t> before = b.memory;
  ASSERT_EQ(PostUc(a, here.get(), IBV_WR_RDMA_WRITE, 0, 2048, b.Address(), b.region->rkey() ^ 1),
            0);
  ASSERT_EQ(PostUc(a, here.get(), IBV_WR_RDMA_WRITE, 0, 2048, b.Address(2049), b.region->rkey()),
            0);
  AwaitDrop(b, &soft_nic::QueuePairCounters::dropped_bad_key, 2);
  AwaitDrop(b, &soft_nic::QueuePairCounters::dropped_with_message, 2);
  EXPECT_EQ(b.memory, before);
  ASSERT_EQ(PostUc(a, here.get(), IBV_WR_SEND, 0, 8), 0);
  AwaitDrop(b, &soft_nic::QueuePairCounters::dropped_no_receive);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  PostReceive(b, there.get(), 0, 8);
  ASSERT_EQ(PostUc(a, here.get(), IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory[0], 9);
}

TEST(UnreliableConnection, PacketsOfAStrangerAreDropped) {
  End a(4096), b(4096);
  Qp here = Create(a, IBV_QPT_UC), there = Create(b, IBV_QPT_UC);
  ConnectUc(here.get(), b, there->qp_num);
  // Connected to an address that nobody has.
  End nowhere(64);
  ibv_qp_attr attr{};
  attr.port_num = 1;
  attr.qp_state = IBV_QPS_INIT;
  ASSERT_EQ(
      soft_nic::ModifyQp(there.get(), &attr,
                         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
      0);
  attr.qp_state = IBV_QPS_RTR;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.grh.dgid = a.gid();
  attr.ah_attr.grh.dgid.raw[15] ^= 0x55;
  attr.path_mtu = IBV_MTU_1024;
  ASSERT_EQ(soft_nic::ModifyQp(
                there.get(), &attr,
                IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN),
            0);
  PostReceive(b, there.get(), 0, 8);
  ASSERT_EQ(PostUc(a, here.get(), IBV_WR_SEND, 0, 8), 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (soft_nic::ReadCounters(b.device->context()).scheduler.dropped_wrong_source == 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
}

TEST(UnreliableConnection, WhatItDoesNotHaveIsRefused) {
  End a(64), b(64);
  Qp here = Create(a, IBV_QPT_UC), there = Create(b, IBV_QPT_UC);
  ConnectUc(here.get(), b, there->qp_num);
  EXPECT_EQ(PostUc(a, here.get(), IBV_WR_RDMA_READ, 0, 8, b.Address(), b.region->rkey()), EINVAL);
  ibv_qp_attr attr{};
  attr.timeout = 3;
  EXPECT_EQ(soft_nic::ModifyQp(here.get(), &attr, IBV_QP_TIMEOUT), EINVAL);
}

TEST(UnreliableConnection, LocalErrorFlushesAndReports) {
  End a(64), b(64);
  Qp here = Create(a, IBV_QPT_UC), there = Create(b, IBV_QPT_UC);
  ConnectUc(here.get(), b, there->qp_num);
  PostReceive(a, here.get(), 0, 8);
  ibv_sge sge = a.Sge(0, 8);
  sge.lkey ^= 1;
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(here.get(), &wr, &bad), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(a.Next().status, IBV_WC_WR_FLUSH_ERR);
  ibv_async_event event{};
  ASSERT_EQ(soft_nic::GetAsyncEvent(a.device->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_FATAL);
  EXPECT_EQ(event.element.qp, here.get());
  soft_nic::AckAsyncEvent(&event);
}

}  // namespace
}  // namespace sumac::verbs
