// UD, one engine, the test is the peer: what arrives, what is dropped, what goes out.
#include "verbs/soft_nic/engine/unreliable_datagram.h"

#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/address_handle.h"
#include "verbs/soft_nic/engine/engine_testing.h"
#include "verbs/soft_nic/wire/grh.h"

namespace sumac::soft_nic {
namespace {

using testing::Describe;
using testing::Engine;
using testing::kLocalQpn;

constexpr uint32_t kMtu = 1024;
constexpr uint32_t kQkey = 0x11111111;
constexpr Gid kHere = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 1};
constexpr Gid kThere = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 2};

class UdTest : public ::testing::Test {
 protected:
  UdTest() {
    engine.limits.type = IBV_QPT_UD;
    engine.receive.remote_qpn = 0;
    engine.receive.qkey = kQkey;
    engine.receive.path.source = kHere;
    engine.receive.path.source_port = 0xc123;
    engine.send.first_psn = 0xffffff;
    engine.Connect();
    handle.path.source = kHere;
    handle.path.destination = kThere;
  }

  void Inject(Opcode opcode, size_t bytes, uint32_t qkey = kQkey) {
    testing::Packet packet{{}, std::vector<std::byte>(bytes, std::byte{0xab})};
    packet.header.opcode = opcode;
    packet.header.dest_qpn = kLocalQpn;
    packet.header.psn = 77;  // any
    packet.header.qkey = qkey;
    packet.header.source_qpn = 0x2e;
    packet.header.immediate = 0x44332211;
    packet.header.solicited = opcode == Opcode::kUdSendOnlyWithImmediate;
    engine.qp->OnPacket(packet.view(), kThere, engine.now);
  }

  int Post(ibv_wr_opcode opcode, uint32_t bytes, uint32_t qkey = kQkey, ibv_ah* to = nullptr) {
    ibv_sge sge = engine.Sge(0, bytes);
    ibv_send_wr wr{};
    wr.wr_id = ++engine.last_wr_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.imm_data = 0x44332211;
    wr.wr.ud = {to != nullptr ? to : &handle, 0x2e, qkey};
    return engine.qp->PostSend(wr);
  }

  void ExpectUntouched(size_t from = 0) const {
    for (size_t i = from; i < engine.memory.size(); ++i) {
      ASSERT_EQ(engine.memory[i], static_cast<std::byte>(i * 7 + 3)) << i;
    }
  }
  const QueuePairCounters& counters() const { return engine.qp->counters(); }
  std::vector<ibv_wc>& received() { return engine.receives.list; }

  Engine engine;
  AddressHandle handle{};
};

TEST_F(UdTest, DatagramArrivesBehindItsHeader) {
  engine.PostReceive(0, kGrhBytes + 32);
  Inject(Opcode::kUdSendOnly, 32);
  ASSERT_EQ(received().size(), 1u);
  const ibv_wc& wc = received()[0];
  EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.opcode, IBV_WC_RECV);
  EXPECT_EQ(wc.byte_len, kGrhBytes + 32);
  EXPECT_EQ(wc.src_qp, 0x2eu);
  EXPECT_EQ(wc.qp_num, kLocalQpn);
  EXPECT_EQ(wc.wc_flags, static_cast<unsigned>(IBV_WC_GRH));
  EXPECT_EQ(wc.sl, 0x8 | 2);  // RoCE v2 over IPv4, as ConnectX says it
  EXPECT_FALSE(engine.receives.solicited_flags[0]);
  const auto grh = ReadGrh(std::span<const std::byte, kGrhBytes>(engine.memory.data(), kGrhBytes));
  ASSERT_TRUE(grh.has_value());
  EXPECT_EQ(grh->source, kThere);
  EXPECT_EQ(grh->destination, kHere);
  // Version and header length, then the total length: IP, UDP, BTH, DETH, 32 bytes, ICRC.
  EXPECT_EQ(engine.memory[20], std::byte{0x45});
  EXPECT_EQ(engine.memory[23], std::byte{20 + 8 + 12 + 8 + 32 + 4});
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(engine.memory[kGrhBytes + i], std::byte{0xab});
  ExpectUntouched(kGrhBytes + 32);
}

TEST_F(UdTest, ImmediateAndSolicitedArrive) {
  engine.PostReceive(0, 2000);
  Inject(Opcode::kUdSendOnlyWithImmediate, 0);
  ASSERT_EQ(received().size(), 1u);
  EXPECT_EQ(received()[0].byte_len, kGrhBytes);
  EXPECT_EQ(received()[0].wc_flags, static_cast<unsigned>(IBV_WC_GRH | IBV_WC_WITH_IMM));
  EXPECT_EQ(received()[0].imm_data, 0x44332211u);
  EXPECT_TRUE(engine.receives.solicited_flags[0]);
}

TEST_F(UdTest, HeaderAndPayloadAreScatteredOverAnyPieces) {
  // The pieces meet inside the header and inside the payload.
  ibv_sge pieces[] = {engine.Sge(1000, 7), engine.Sge(2000, 33), engine.Sge(3000, 5),
                      engine.Sge(4000, 1000)};
  ibv_recv_wr wr{};
  wr.sg_list = pieces;
  wr.num_sge = 4;
  ASSERT_EQ(engine.qp->PostReceive(wr), 0);
  Inject(Opcode::kUdSendOnly, 32);
  ASSERT_EQ(received().size(), 1u);
  std::vector<std::byte> all;
  for (const ibv_sge& piece : pieces) {
    const auto* from = reinterpret_cast<const std::byte*>(piece.addr);
    all.insert(all.end(), from, from + piece.length);
  }
  EXPECT_TRUE(ReadGrh(std::span<const std::byte, kGrhBytes>(all.data(), kGrhBytes)).has_value());
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(all[kGrhBytes + i], std::byte{0xab});
  EXPECT_EQ(all[kGrhBytes + 32], static_cast<std::byte>((4000 + 27) * 7 + 3));
}

TEST_F(UdTest, WrongQkeyIsDroppedAndCounted) {
  engine.PostReceive(0, 2000);
  Inject(Opcode::kUdSendOnly, 32, kQkey + 1);
  EXPECT_EQ(counters().dropped_bad_qkey, 1u);
  EXPECT_TRUE(received().empty());
  ExpectUntouched();
  engine.qp->SetQkey(kQkey + 1);
  Inject(Opcode::kUdSendOnly, 32, kQkey + 1);
  EXPECT_EQ(received().size(), 1u);
}

TEST_F(UdTest, WithoutReceiveItIsDroppedAndCounted) {
  Inject(Opcode::kUdSendOnly, 32);
  EXPECT_EQ(counters().dropped_no_receive, 1u);
  engine.PostReceive(0, 2000);
  Inject(Opcode::kUdSendOnly, 32);
  EXPECT_EQ(received().size(), 1u);
}

TEST_F(UdTest, BufferThatIsTooSmallFailsAloneAndTheQueuePairGoesOn) {
  engine.PostReceive(0, kGrhBytes + 31);
  engine.PostReceive(0, kGrhBytes - 1);
  engine.PostReceive(0, 0);
  for (const size_t bytes : {32, 0, 0}) Inject(Opcode::kUdSendOnly, bytes);
  ASSERT_EQ(received().size(), 3u);
  for (const ibv_wc& wc : received()) EXPECT_EQ(wc.status, IBV_WC_LOC_LEN_ERR);
  ExpectUntouched();
  engine.PostReceive(0, kGrhBytes);
  Inject(Opcode::kUdSendOnly, 0);
  EXPECT_EQ(received().back().status, IBV_WC_SUCCESS);
}

TEST_F(UdTest, LongerThanTheMtuOrOfAnotherServiceIsMalformed) {
  engine.PostReceive(0, 8000);
  Inject(Opcode::kUdSendOnly, kMtu + 4);
  Inject(Opcode::kUcSendOnly, 8);
  Inject(Opcode::kRcSendOnly, 8);
  EXPECT_EQ(counters().dropped_malformed, 3u);
  Inject(Opcode::kUdSendOnly, kMtu);
  ASSERT_EQ(received().size(), 1u);
  EXPECT_EQ(received()[0].byte_len, kGrhBytes + kMtu);
}

TEST_F(UdTest, BadLocalKeyOfAReceiveEndsTheQueuePair) {
  engine.PostReceive(0, 2000);
  engine.PostReceive(0, 2000);
  engine.keys.Remove(engine.key);
  Inject(Opcode::kUdSendOnly, 32);
  ASSERT_EQ(received().size(), 2u);
  EXPECT_EQ(received()[0].status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(received()[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
  ExpectUntouched();
  Inject(Opcode::kUdSendOnly, 32);
  EXPECT_EQ(counters().dropped_wrong_state, 1u);
}

TEST_F(UdTest, SendsGoWhereTheirHandlesSay) {
  AddressHandle other{};
  other.path = handle.path;
  other.path.destination[15] = 9;
  ASSERT_EQ(Post(IBV_WR_SEND, 32), 0);
  ASSERT_EQ(Post(IBV_WR_SEND_WITH_IMM, 13, kQkey, &other), 0);
  ASSERT_EQ(Post(IBV_WR_SEND, 0), 0);
  ASSERT_EQ(Post(IBV_WR_SEND, kMtu), 0);
  other.path.destination[15] = 10;  // too late: the address was copied

  class Sink : public testing::PacketList {
   public:
    bool Transmit(const OutgoingPacket& packet) override {
      paths.push_back(*packet.path);
      return PacketList::Transmit(packet);
    }
    std::vector<Path> paths;
  } sink;
  EXPECT_FALSE(engine.qp->PollTransmit(sink, engine.now, 100));
  EXPECT_EQ(Describe(sink.list),
            "UD SEND_ONLY@ffffff, UD SEND_ONLY_IMM@0, UD SEND_ONLY@1, UD SEND_ONLY@2");
  for (const testing::Packet& packet : sink.list) {
    EXPECT_EQ(packet.header.dest_qpn, 0x2eu);
    EXPECT_EQ(packet.header.source_qpn, kLocalQpn);
    EXPECT_EQ(packet.header.qkey, kQkey);
    EXPECT_FALSE(packet.header.ack_request);
  }
  EXPECT_EQ(sink.list[1].header.immediate, 0x44332211u);
  EXPECT_EQ(sink.list[1].header.pad_bytes, 3);
  EXPECT_TRUE(
      std::equal(sink.list[0].payload.begin(), sink.list[0].payload.end(), engine.memory.begin()));
  EXPECT_EQ(sink.paths[0].destination, kThere);
  EXPECT_EQ(sink.paths[1].destination[15], 9);
  EXPECT_EQ(sink.paths[1].source_port, 0xc123);
  ASSERT_EQ(engine.sends.list.size(), 4u);
  for (const ibv_wc& wc : engine.sends.list) EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(engine.qp->next_send_psn(), 3u);
}

TEST_F(UdTest, QkeyWithTheTopBitMeansTheQueuePairsOwn) {
  ASSERT_EQ(Post(IBV_WR_SEND, 8, 0x80000000), 0);
  ASSERT_EQ(Post(IBV_WR_SEND, 8, 0xffffffff), 0);
  ASSERT_EQ(Post(IBV_WR_SEND, 8, 0x7fffffff), 0);
  const auto sent = engine.Transmit();
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0].header.qkey, kQkey);
  EXPECT_EQ(sent[1].header.qkey, kQkey);
  EXPECT_EQ(sent[2].header.qkey, 0x7fffffffu);
}

TEST_F(UdTest, LongerThanTheMtuIsNotSentAndNoError) {
  ASSERT_EQ(Post(IBV_WR_SEND, kMtu + 1), 0);
  ASSERT_EQ(Post(IBV_WR_SEND, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "UD SEND_ONLY@ffffff");
  EXPECT_EQ(counters().unsent_too_long, 1u);
  ASSERT_EQ(engine.sends.list.size(), 2u);
  EXPECT_EQ(engine.sends.list[0].status, IBV_WC_SUCCESS);
}

TEST_F(UdTest, WhatUdDoesNotHaveIsRefusedAtPost) {
  for (const ibv_wr_opcode opcode :
       {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ, IBV_WR_SEND_WITH_INV,
        IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD}) {
    EXPECT_EQ(Post(opcode, 8), EINVAL) << opcode;
  }
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  EXPECT_EQ(engine.qp->PostSend(wr), EINVAL) << "no address handle";
}

TEST_F(UdTest, InlineDataGoesOut) {
  std::byte local[16];
  std::memset(local, 0x5a, sizeof(local));
  ibv_sge sge{reinterpret_cast<uint64_t>(local), sizeof(local), 0};
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = IBV_SEND_INLINE;
  wr.wr.ud = {&handle, 0x2e, kQkey};
  ASSERT_EQ(engine.qp->PostSend(wr), 0);
  std::memset(local, 0, sizeof(local));
  const auto sent = engine.Transmit();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].payload, std::vector<std::byte>(16, std::byte{0x5a}));
}

TEST_F(UdTest, FullLinkAndSmallBudgetsLoseNothing) {
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Post(IBV_WR_SEND, 8), 0);
  testing::PacketList sink;
  sink.room = 1;
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 10));
  EXPECT_EQ(engine.sends.list.size(), 1u);
  sink.room = 100;
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 1));
  EXPECT_FALSE(engine.qp->PollTransmit(sink, engine.now, 2));
  EXPECT_EQ(sink.list.size(), 3u);
}

TEST_F(UdTest, BadLocalKeyOfASendEndsTheQueuePair) {
  ASSERT_EQ(Post(IBV_WR_SEND, 8), 0);
  ASSERT_EQ(Post(IBV_WR_SEND, 8), 0);
  engine.keys.Remove(engine.key);
  EXPECT_TRUE(engine.Transmit().empty());
  ASSERT_EQ(engine.sends.list.size(), 2u);
  EXPECT_EQ(engine.sends.list[0].status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(engine.sends.list[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
}

TEST_F(UdTest, ReadyToReceiveIsEnoughToReceive) {
  engine.qp->ToReset();
  engine.qp->ToInit();
  ASSERT_EQ(engine.PostReceive(0, 2000), 0);
  Inject(Opcode::kUdSendOnly, 8);
  EXPECT_EQ(counters().dropped_wrong_state, 1u);
  engine.qp->ToReadyToReceive(engine.receive);
  Inject(Opcode::kUdSendOnly, 8);
  EXPECT_EQ(received().size(), 1u);
}

}  // namespace
}  // namespace sumac::soft_nic
