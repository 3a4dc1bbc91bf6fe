// UC, one engine, the test is the peer: every opcode in order, behind a gap, without a receive, of
// the wrong length; what goes out.
#include "verbs/soft_nic/engine/unreliable_connection.h"

#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using testing::Describe;
using testing::Engine;
using testing::kLocalQpn;
using testing::kRemoteQpn;

constexpr uint32_t kMtu = 1024;

// The peer's first PSN is 0x500, ours 0x100; memory byte i is 7 i + 3.
class UcTest : public ::testing::Test {
 protected:
  explicit UcTest(uint32_t expected_psn = 0x500, uint32_t first_psn = 0x100) {
    engine.limits.type = IBV_QPT_UC;
    engine.receive.expected_psn = expected_psn;
    engine.send.first_psn = first_psn;
    engine.Connect();
  }
  const QueuePairCounters& counters() const { return engine.qp->counters(); }
  size_t received() const { return engine.receives.list.size(); }
  bool Filled(size_t offset, size_t length, uint8_t with = 0xab) const {
    return std::all_of(engine.memory.begin() + static_cast<long>(offset),
                       engine.memory.begin() + static_cast<long>(offset + length),
                       [with](std::byte b) { return b == std::byte{with}; });
  }
  void ExpectUntouched(size_t from = 0, size_t to = 64 << 10) const {
    for (size_t i = from; i < to; ++i) {
      ASSERT_EQ(engine.memory[i], static_cast<std::byte>(i * 7 + 3)) << i;
    }
  }
  // The queue pair still takes a message.
  void ExpectAlive(uint32_t psn) {
    const size_t before = received();
    if (engine.qp->state() != IBV_QPS_RTS) FAIL() << "not ready";
    ASSERT_EQ(engine.PostReceive(60000, 16), 0);
    engine.Inject(Opcode::kUcSendOnly, psn, 16);
    ASSERT_EQ(received(), before + 1);
    EXPECT_EQ(engine.receives.list.back().status, IBV_WC_SUCCESS);
  }
  Engine engine;
};

TEST_F(UcTest, SendsOfEveryLengthArrive) {
  engine.PostReceive(0, 4000);
  engine.PostReceive(8000, 4000);
  engine.PostReceive(16000, 4000);
  engine.Inject(Opcode::kUcSendOnly, 0x500, 13);
  engine.Inject(Opcode::kUcSendFirst, 0x501, kMtu);
  engine.Inject(Opcode::kUcSendMiddle, 0x502, kMtu);
  engine.Inject(Opcode::kUcSendLast, 0x503, 1);
  engine.Inject(Opcode::kUcSendOnly, 0x504, 0);
  ASSERT_EQ(received(), 3u);
  EXPECT_EQ(engine.receives.list[0].byte_len, 13u);
  EXPECT_EQ(engine.receives.list[1].byte_len, 2 * kMtu + 1);
  EXPECT_EQ(engine.receives.list[2].byte_len, 0u);
  for (const ibv_wc& wc : engine.receives.list) {
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.opcode, IBV_WC_RECV);
    EXPECT_EQ(wc.qp_num, kLocalQpn);
  }
  EXPECT_TRUE(Filled(0, 13));
  EXPECT_TRUE(Filled(8000, 2 * kMtu + 1));
  ExpectUntouched(8000 + 2 * kMtu + 1, 16000);
  EXPECT_EQ(engine.qp->expected_psn(), 0x505u);
  EXPECT_TRUE(engine.Transmit().empty()) << "UC acknowledges nothing";
}

TEST_F(UcTest, ImmediatesArrive) {
  engine.PostReceive(0, 4000);
  engine.PostReceive(8000, 4000);
  PacketHeader header;
  header.opcode = Opcode::kUcSendOnlyWithImmediate;
  header.psn = 0x500;
  header.immediate = 0x44332211;
  header.solicited = true;
  engine.Inject(header, 8);
  engine.Inject(Opcode::kUcSendFirst, 0x501, kMtu);
  header.opcode = Opcode::kUcSendLastWithImmediate;
  header.psn = 0x502;
  header.solicited = false;
  engine.Inject(header, 8);
  ASSERT_EQ(received(), 2u);
  for (const ibv_wc& wc : engine.receives.list) {
    EXPECT_EQ(wc.wc_flags, IBV_WC_WITH_IMM);
    EXPECT_EQ(wc.imm_data, 0x44332211u);
  }
  EXPECT_TRUE(engine.receives.solicited_flags[0]);
  EXPECT_FALSE(engine.receives.solicited_flags[1]);
}

TEST_F(UcTest, WritesPlaceTheirBytes) {
  engine.InjectReth(Opcode::kUcWriteOnly, 0x500, 100, 13, 13);
  engine.InjectReth(Opcode::kUcWriteFirst, 0x501, 2000, 2 * kMtu + 5, kMtu);
  engine.Inject(Opcode::kUcWriteMiddle, 0x502, kMtu);
  engine.Inject(Opcode::kUcWriteLast, 0x503, 5);
  EXPECT_TRUE(Filled(100, 13));
  EXPECT_TRUE(Filled(2000, 2 * kMtu + 5));
  ExpectUntouched(0, 100);
  ExpectUntouched(2000 + 2 * kMtu + 5);
  EXPECT_EQ(received(), 0u);
}

TEST_F(UcTest, WritesWithImmediateTakeAReceive) {
  engine.PostReceive(0, 0);
  engine.PostReceive(0, 0);
  engine.InjectReth(Opcode::kUcWriteOnlyWithImmediate, 0x500, 100, 16, 16);
  engine.InjectReth(Opcode::kUcWriteFirst, 0x501, 2000, kMtu + 4, kMtu);
  engine.Inject(Opcode::kUcWriteLastWithImmediate, 0x502, 4);
  ASSERT_EQ(received(), 2u);
  EXPECT_EQ(engine.receives.list[0].opcode, IBV_WC_RECV_RDMA_WITH_IMM);
  EXPECT_EQ(engine.receives.list[1].byte_len, kMtu + 4);
  EXPECT_TRUE(Filled(2000, kMtu + 4));
}

TEST_F(UcTest, GapDropsTheRestOfTheMessageAndTheNextOneStarts) {
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu, 0x11);
  engine.Inject(Opcode::kUcSendMiddle, 0x502, kMtu, 0x11);  // 0x501 is lost
  engine.Inject(Opcode::kUcSendMiddle, 0x503, kMtu, 0x11);
  engine.Inject(Opcode::kUcSendLast, 0x504, 8, 0x11);
  EXPECT_EQ(received(), 0u);
  EXPECT_EQ(counters().dropped_out_of_order, 1u);
  EXPECT_EQ(counters().dropped_with_message, 2u);
  EXPECT_EQ(counters().messages_cut_short, 1u);
  // The buffer is the next message's.
  engine.Inject(Opcode::kUcSendFirst, 0x505, kMtu);
  engine.Inject(Opcode::kUcSendLast, 0x506, 8);
  ASSERT_EQ(received(), 1u);
  EXPECT_EQ(engine.receives.list[0].byte_len, kMtu + 8);
  EXPECT_TRUE(Filled(0, kMtu + 8));
}

TEST_F(UcTest, LostEndEndsTheMessageWhenTheNextOneStarts) {
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu);
  engine.Inject(Opcode::kUcSendOnly, 0x502, 8, 0x22);
  ASSERT_EQ(received(), 1u);
  EXPECT_EQ(engine.receives.list[0].byte_len, 8u);
  EXPECT_TRUE(Filled(0, 8, 0x22));
  EXPECT_EQ(counters().messages_cut_short, 1u);
  EXPECT_EQ(counters().dropped_out_of_order, 0u);
}

TEST_F(UcTest, LostBeginningDropsTheMessage) {
  engine.PostReceive(0, 8000);
  for (const Opcode opcode : {Opcode::kUcSendMiddle, Opcode::kUcSendLast, Opcode::kUcWriteMiddle,
                              Opcode::kUcWriteLastWithImmediate}) {
    engine.Inject(opcode, 0x501, opcode == Opcode::kUcSendLast ? 8 : kMtu);
  }
  EXPECT_EQ(received(), 0u);
  EXPECT_EQ(counters().dropped_out_of_order, 1u);
  EXPECT_EQ(counters().dropped_with_message, 3u);
  EXPECT_EQ(counters().messages_cut_short, 0u);
  ExpectUntouched();
}

TEST_F(UcTest, MiddleOrLastWithoutFirstIsMalformedThoughItsPsnIsNext) {
  for (const Opcode opcode :
       {Opcode::kUcSendMiddle, Opcode::kUcSendLast, Opcode::kUcSendLastWithImmediate,
        Opcode::kUcWriteMiddle, Opcode::kUcWriteLast, Opcode::kUcWriteLastWithImmediate}) {
    SCOPED_TRACE(NameOf(opcode));
    const uint64_t before = counters().dropped_malformed;
    engine.Inject(opcode, engine.qp->expected_psn(), kMtu);
    EXPECT_EQ(counters().dropped_malformed, before + 1);
    ExpectAlive(0x900);
  }
}

TEST_F(UcTest, MessageGoesOnOnlyAsWhatItIs) {
  engine.InjectReth(Opcode::kUcWriteFirst, 0x500, 0, 2 * kMtu, kMtu);
  engine.PostReceive(8000, 8000);
  engine.Inject(Opcode::kUcSendLast, 0x501, 8);
  EXPECT_EQ(received(), 0u);
  EXPECT_EQ(counters().dropped_malformed, 1u);
  EXPECT_EQ(counters().messages_cut_short, 1u);
  engine.Inject(Opcode::kUcWriteLast, 0x502, kMtu);
  EXPECT_EQ(counters().dropped_with_message, 1u);
  ExpectUntouched(kMtu);
}

TEST_F(UcTest, RepeatedPacketOfAMessageEndsIt) {
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu);
  engine.Inject(Opcode::kUcSendMiddle, 0x501, kMtu);
  engine.Inject(Opcode::kUcSendMiddle, 0x501, kMtu);
  engine.Inject(Opcode::kUcSendLast, 0x502, 8);
  EXPECT_EQ(received(), 0u);
  EXPECT_EQ(counters().dropped_out_of_order, 1u);
  ExpectAlive(0x503);
}

TEST_F(UcTest, RepeatedOnlyIsANewMessage) {
  engine.PostReceive(0, 8);
  engine.PostReceive(8, 8);
  engine.Inject(Opcode::kUcSendOnly, 0x500, 8);
  engine.Inject(Opcode::kUcSendOnly, 0x500, 8);
  EXPECT_EQ(received(), 2u);
}

TEST_F(UcTest, WithoutReceiveTheMessageIsDropped) {
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu);
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendLast, 0x501, 8);
  EXPECT_EQ(counters().dropped_no_receive, 1u);
  EXPECT_EQ(counters().dropped_with_message, 1u);
  EXPECT_EQ(received(), 0u);
  ExpectUntouched();
}

TEST_F(UcTest, EveryOpcodeThatNeedsAReceiveIsDroppedWithoutOne) {
  engine.Inject(Opcode::kUcSendOnly, 0x500, 8);
  engine.Inject(Opcode::kUcSendOnlyWithImmediate, 0x501, 8);
  engine.InjectReth(Opcode::kUcWriteOnlyWithImmediate, 0x502, 0, 8, 8);
  EXPECT_EQ(counters().dropped_no_receive, 3u);
  ExpectUntouched();
  engine.InjectReth(Opcode::kUcWriteFirst, 0x503, 0, kMtu + 8, kMtu);
  engine.Inject(Opcode::kUcWriteLastWithImmediate, 0x504, 8);
  EXPECT_EQ(counters().dropped_no_receive, 4u);
  EXPECT_EQ(counters().messages_cut_short, 1u);
  ExpectUntouched(kMtu);
  ExpectAlive(0x505);
}

TEST_F(UcTest, WrongLengthsAreDropped) {
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu - 4);
  engine.Inject(Opcode::kUcSendOnly, 0x501, kMtu + 4);
  engine.Inject(Opcode::kUcSendFirst, 0x502, kMtu);
  engine.Inject(Opcode::kUcSendMiddle, 0x503, kMtu - 1);
  engine.Inject(Opcode::kUcSendFirst, 0x504, kMtu);
  engine.Inject(Opcode::kUcSendLast, 0x505, 0);
  // RETH and payload disagree.
  engine.InjectReth(Opcode::kUcWriteOnly, 0x506, 20000, 16, 8);
  engine.InjectReth(Opcode::kUcWriteOnly, 0x507, 20000, 8, 16);
  engine.InjectReth(Opcode::kUcWriteFirst, 0x508, 20000, kMtu, kMtu);
  EXPECT_EQ(counters().dropped_malformed, 7u);
  EXPECT_EQ(received(), 0u);
  ExpectUntouched(kMtu);
  engine.Inject(Opcode::kUcSendOnly, 0x509, 8);
  EXPECT_EQ(received(), 1u);
}

TEST_F(UcTest, BufferThatIsTooSmallFailsAloneAndTheConnectionGoesOn) {
  engine.PostReceive(0, 100);
  engine.PostReceive(8000, 100);
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu);
  engine.Inject(Opcode::kUcSendLast, 0x501, 8);
  engine.Inject(Opcode::kUcSendOnly, 0x502, 8);
  ASSERT_EQ(received(), 2u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_LOC_LEN_ERR);
  EXPECT_EQ(engine.receives.list[1].status, IBV_WC_SUCCESS);
  ExpectUntouched(0, 8000);
}

TEST_F(UcTest, WriteThatIsNotAllowedChangesNoByte) {
  const uint32_t read_only = engine.keys.Add(engine.memory.data(), 4096, IBV_ACCESS_REMOTE_READ);
  struct Case {
    uint32_t key;
    size_t offset;
    uint32_t length;
  };
  uint32_t psn = 0x500;
  uint64_t refused = 0;
  for (const Case& bad : {Case{engine.key ^ 1, 0, 2 * kMtu}, Case{read_only, 0, 2 * kMtu},
                          Case{engine.key, (64 << 10) - kMtu, 2 * kMtu}}) {
    PacketHeader header;
    header.opcode = Opcode::kUcWriteFirst;
    header.psn = psn++;
    header.remote_addr = engine.addr(bad.offset);
    header.rkey = bad.key;
    header.dma_length = bad.length;
    engine.Inject(header, kMtu);
    engine.Inject(Opcode::kUcWriteLast, psn++, kMtu);
    EXPECT_EQ(counters().dropped_bad_key, ++refused);
    EXPECT_EQ(counters().dropped_with_message, refused);
  }
  engine.qp->SetReceiveRights(0, 0);
  engine.InjectReth(Opcode::kUcWriteOnly, psn++, 0, 8, 8);
  EXPECT_EQ(counters().dropped_malformed, 1u);
  ExpectUntouched();
  ExpectAlive(psn);
}

TEST_F(UcTest, KeyThatGoesMeanwhileEndsTheWrite) {
  engine.InjectReth(Opcode::kUcWriteFirst, 0x500, 0, 2 * kMtu, kMtu);
  engine.keys.Remove(engine.key);
  engine.Inject(Opcode::kUcWriteLast, 0x501, kMtu);
  EXPECT_EQ(counters().dropped_bad_key, 1u);
  EXPECT_EQ(counters().messages_cut_short, 1u);
  ExpectUntouched(kMtu);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_RTS);
}

TEST_F(UcTest, OpcodesOfOtherServicesAreMalformed) {
  engine.PostReceive(0, 8000);
  for (const Opcode opcode : {Opcode::kRcSendOnly, Opcode::kRcAcknowledge, Opcode::kUdSendOnly,
                              Opcode::kRcReadRequest, Opcode::kRcFetchAdd}) {
    engine.Inject(opcode, 0x500);
  }
  EXPECT_EQ(counters().dropped_malformed, 5u);
  engine.Inject(Opcode::kCnp, 0, 16);
  EXPECT_EQ(received(), 0u);
}

class UcWrapTest : public UcTest {
 protected:
  UcWrapTest() : UcTest(0xfffffe, 0xfffffe) {}
};

TEST_F(UcWrapTest, PsnsWrapBothWays) {
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendFirst, 0xfffffe, kMtu);
  engine.Inject(Opcode::kUcSendMiddle, 0xffffff, kMtu);
  engine.Inject(Opcode::kUcSendMiddle, 0x000000, kMtu);
  engine.Inject(Opcode::kUcSendLast, 0x000001, 8);
  ASSERT_EQ(received(), 1u);
  EXPECT_EQ(engine.receives.list[0].byte_len, 3 * kMtu + 8);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 3 * kMtu), 0);
  EXPECT_EQ(Describe(engine.Transmit()),
            "UC WRITE_FIRST@fffffe, UC WRITE_MIDDLE@ffffff, UC WRITE_LAST@0");
  EXPECT_EQ(engine.qp->next_send_psn(), 1u);
}

TEST_F(UcTest, RequestsGoOutInPacketsAndCompleteAtOnce) {
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 0), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 2 * kMtu + 1), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND_WITH_IMM, 0, kMtu + 1), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND_WITH_IMM, 0, 5), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, kMtu), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE_WITH_IMM, 0, kMtu), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE_WITH_IMM, 0, 2 * kMtu), 0);
  const auto sent = engine.Transmit();
  EXPECT_EQ(Describe(sent),
            "UC SEND_ONLY@100, UC SEND_FIRST@101, UC SEND_MIDDLE@102, UC SEND_LAST@103, "
            "UC SEND_FIRST@104, UC SEND_LAST_IMM@105, UC SEND_ONLY_IMM@106, UC WRITE_ONLY@107, "
            "UC WRITE_ONLY_IMM@108, UC WRITE_FIRST@109, UC WRITE_LAST_IMM@10a");
  for (const testing::Packet& packet : sent) {
    EXPECT_EQ(packet.header.dest_qpn, kRemoteQpn);
    EXPECT_FALSE(packet.header.ack_request);
  }
  EXPECT_EQ(sent[7].header.remote_addr, 0x10000u);
  EXPECT_EQ(sent[7].header.rkey, 0x77u);
  EXPECT_EQ(sent[9].header.dma_length, 2 * kMtu);
  ASSERT_EQ(engine.sends.list.size(), 7u);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(engine.sends.list[i].status, IBV_WC_SUCCESS);
    EXPECT_EQ(engine.sends.list[i].wr_id, i + 1);
  }
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);
}

TEST_F(UcTest, BytesAreThePostedOnes) {
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 10, kMtu + 3, IBV_SEND_SIGNALED | IBV_SEND_SOLICITED), 0);
  const auto sent = engine.Transmit();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_FALSE(sent[0].header.solicited);
  EXPECT_TRUE(sent[1].header.solicited);
  EXPECT_EQ(sent[1].header.pad_bytes, 1);
  EXPECT_TRUE(std::equal(sent[0].payload.begin(), sent[0].payload.end(), &engine.memory[10]));
  EXPECT_TRUE(
      std::equal(sent[1].payload.begin(), sent[1].payload.end(), &engine.memory[10 + kMtu]));
}

TEST_F(UcTest, FullLinkAndSmallBudgetsLoseNothing) {
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 3 * kMtu), 0);
  testing::PacketList sink;
  sink.room = 1;
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 10));
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 10));
  EXPECT_EQ(sink.list.size(), 1u);
  EXPECT_TRUE(engine.sends.list.empty());
  sink.room = 100;
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 1));
  EXPECT_FALSE(engine.qp->PollTransmit(sink, engine.now, 1));
  EXPECT_EQ(Describe(sink.list), "UC SEND_FIRST@100, UC SEND_MIDDLE@101, UC SEND_LAST@102");
  EXPECT_EQ(engine.sends.list.size(), 1u);
}

TEST_F(UcTest, UnsignaledSuccessIsSilent) {
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, 0), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  EXPECT_TRUE(engine.sends.list.empty());
}

TEST_F(UcTest, WhatUcDoesNotHaveIsRefusedAtPost) {
  for (const ibv_wr_opcode opcode : {IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
                                     IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_SEND_WITH_INV}) {
    EXPECT_EQ(engine.Post(opcode, 0, 8), EINVAL) << opcode;
  }
}

TEST_F(UcTest, BadLocalKeyOfASendEndsTheQueuePair) {
  engine.PostReceive(0, 8);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  engine.keys.Remove(engine.key);
  EXPECT_TRUE(engine.Transmit().empty());
  ASSERT_EQ(engine.sends.list.size(), 1u);
  EXPECT_EQ(engine.sends.list[0].status, IBV_WC_LOC_PROT_ERR);
  ASSERT_EQ(received(), 1u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
}

TEST_F(UcTest, BadLocalKeyOfAReceiveEndsTheQueuePair) {
  engine.PostReceive(0, 8);
  engine.keys.Remove(engine.key);
  engine.Inject(Opcode::kUcSendOnly, 0x500, 8);
  ASSERT_EQ(received(), 1u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
  engine.Inject(Opcode::kUcSendOnly, 0x501, 8);
  EXPECT_EQ(counters().dropped_wrong_state, 1u);
}

TEST_F(UcTest, ErrorFlushesAndResetForgets) {
  engine.PostReceive(0, 8000);
  engine.Inject(Opcode::kUcSendFirst, 0x500, kMtu);
  engine.qp->ToError(engine.now);
  ASSERT_EQ(received(), 1u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_WR_FLUSH_ERR);
  engine.PostReceive(0, 8000);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.sends.list.size(), 1u);
  engine.qp->ToReset();
  engine.qp->ToInit();
  engine.qp->ToReadyToReceive(engine.receive);
  engine.qp->ToReadyToSend(engine.send);
  ExpectAlive(0x500);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "UC SEND_ONLY@100");
}

}  // namespace
}  // namespace sumac::soft_nic
