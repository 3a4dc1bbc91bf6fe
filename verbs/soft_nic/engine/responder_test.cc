// The responder against hand-made requests: what it answers, changes, and above all doesn't change.
#include "verbs/soft_nic/engine/responder.h"

#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/responder_testing.h"

namespace sumac::soft_nic {
namespace {

TEST_F(ResponderTest, OneAckCoversAllThatCame) {
  engine.Connect();
  for (uint32_t i = 0; i < 3; ++i) {
    engine.InjectReth(Opcode::kRcWriteOnly, 0x500 + i, i * 64, 64, 64);
  }
  ExpectAnswer(0x502, kSyndromeAckNoCredits, 3);
  EXPECT_TRUE(engine.Transmit().empty());
}

TEST_F(ResponderTest, OneSequenceNakPerGap) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x502, 64, 64, 64);
  ExpectAnswer(0x501, kSyndromeNakSequence, 1);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x503, 64, 64, 64);
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_EQ(engine.memory[64], static_cast<std::byte>(64 * 7 + 3));
  engine.InjectReth(Opcode::kRcWriteOnly, 0x501, 64, 64, 64);
  ExpectAnswer(0x501, kSyndromeAckNoCredits, 2);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x503, 64, 64, 64);
  ExpectAnswer(0x502, kSyndromeNakSequence, 2);
  EXPECT_EQ(engine.qp->counters().sequence_naks_sent, 2u);
  EXPECT_EQ(engine.qp->counters().dropped_out_of_order, 3u);
}

// Packets that overtook one were dropped: without a NAK the peer would learn of it by its timer
// only.
TEST_F(ResponderTest, GapFilledBeforeTheNakWentOutMovesTheNak) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x502, 0, 64, 64);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x501, 0, 64, 64);
  ExpectAnswer(0x502, kSyndromeNakSequence, 2);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x502, 0, 64, 64);
  ExpectAnswer(0x502, kSyndromeAckNoCredits, 3);
}

TEST_F(ResponderTest, NothingMissingAnyMoreDrawsAnAck) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x501, 0, 64, 64);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x501, 0, 64, 64);  // a copy that the network made
  ExpectAnswer(0x501, kSyndromeAckNoCredits, 2);
}

TEST_F(ResponderTest, DuplicatesAreAcknowledgedNotRepeated) {  // dup_request_ack_lost
  engine.Connect();
  ASSERT_EQ(engine.PostReceive(8192, 64), 0);
  ASSERT_EQ(engine.PostReceive(16384, 64), 0);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64, 1);
  engine.Inject(Opcode::kRcSendOnly, 0x501, 64, 2);
  ExpectAnswer(0x501, kSyndromeAckNoCredits, 2);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64, 7);
  engine.Inject(Opcode::kRcSendOnly, 0x501, 64, 7);
  ExpectAnswer(0x501, kSyndromeAckNoCredits, 2);
  EXPECT_EQ(engine.memory[0], std::byte{1});
  EXPECT_EQ(engine.memory[8192], std::byte{2});
  EXPECT_EQ(engine.receives.list.size(), 1u);
  EXPECT_EQ(engine.qp->counters().duplicates_received, 2u);
}

TEST_F(ResponderTest, ReadResponsesAndThenTheAckBehindThem) {  // write_read_write
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 60000, 64, 64);
  engine.InjectReth(Opcode::kRcReadRequest, 0x501, 0, 2000);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x503, 61000, 64, 64);
  const std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC READ_RESP_FIRST@501, RC READ_RESP_LAST@502, RC ACK@503");
  EXPECT_EQ(sent[0].header.msn, 2u);
  EXPECT_EQ(sent[1].header.msn, 2u);
  EXPECT_EQ(sent[2].header.msn, 3u);
  ASSERT_EQ(sent[1].payload.size(), 976u);
  EXPECT_EQ(std::memcmp(sent[0].payload.data(), &engine.memory[0], 1024), 0);
  EXPECT_EQ(std::memcmp(sent[1].payload.data(), &engine.memory[1024], 976), 0);
}

TEST_F(ResponderTest, ReadIsCarriedOutAgainFromWhereThePeerAsks) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcReadRequest, 0x500, 0, 3000);
  EXPECT_EQ(engine.Transmit().size(), 3u);
  engine.InjectReth(Opcode::kRcReadRequest, 0x501, 1024, 1976);
  const std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC READ_RESP_FIRST@501, RC READ_RESP_LAST@502");
  EXPECT_EQ(std::memcmp(sent[0].payload.data(), &engine.memory[1024], 1024), 0);
  // Beyond what was ever asked for: nothing.
  engine.InjectReth(Opcode::kRcReadRequest, 0x501, 1024, 4000);
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_EQ(engine.qp->counters().dropped_malformed, 1u);
}

TEST_F(ResponderTest, RepeatedReadReplacesTheOneBeingAnswered) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcReadRequest, 0x500, 0, 4096);
  engine.InjectReth(Opcode::kRcReadRequest, 0x504, 8192, 1024);
  EXPECT_EQ(Describe(engine.Transmit(2)), "RC READ_RESP_FIRST@500, RC READ_RESP_MIDDLE@501");
  engine.InjectReth(Opcode::kRcReadRequest, 0x501, 1024, 3072);
  EXPECT_EQ(Describe(engine.Transmit()),
            "RC READ_RESP_FIRST@501, RC READ_RESP_MIDDLE@502, RC READ_RESP_LAST@503, "
            "RC READ_RESP_ONLY@504");
}

TEST_F(ResponderTest, AtomicsHappenOnceHoweverOftenTheyCome) {
  engine.receive.max_dest_rd_atomic = 2;
  engine.Connect();
  engine.SetWord(64, 10);
  engine.InjectAtomic(Opcode::kRcFetchAdd, 0x500, 64, 5);
  EXPECT_EQ(Answer().atomic_result, 10u);
  engine.InjectAtomic(Opcode::kRcFetchAdd, 0x500, 64, 5);
  PacketHeader answer = Answer();
  EXPECT_EQ(answer.opcode, Opcode::kRcAtomicAcknowledge);
  EXPECT_EQ(answer.psn, 0x500u);
  EXPECT_EQ(answer.atomic_result, 10u);
  engine.InjectAtomic(Opcode::kRcCompareSwap, 0x501, 64, 99, 15);
  EXPECT_EQ(Answer().atomic_result, 15u);
  engine.InjectAtomic(Opcode::kRcCompareSwap, 0x502, 64, 77, 15);
  EXPECT_EQ(Answer().atomic_result, 99u);
  engine.InjectAtomic(Opcode::kRcCompareSwap, 0x501, 64, 99, 15);
  EXPECT_EQ(Answer().atomic_result, 15u);
  EXPECT_EQ(engine.Word(64), 99u);
  // Three back with room for two: the peer can't still be waiting for it.
  engine.InjectAtomic(Opcode::kRcFetchAdd, 0x500, 64, 5);
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_EQ(engine.Word(64), 99u);
}

TEST_F(ResponderTest, ReceiverNotReady) {
  engine.receive.min_rnr_timer = 18;
  engine.Connect();
  engine.Inject(Opcode::kRcSendOnly, 0x500, 32);
  engine.Inject(Opcode::kRcSendOnly, 0x501, 32);
  ExpectAnswer(0x500, 0x32, 0);
  engine.Inject(Opcode::kRcSendOnly, 0x501, 32);
  EXPECT_TRUE(engine.Transmit().empty());
  engine.Inject(Opcode::kRcSendOnly, 0x500, 32);
  ExpectAnswer(0x500, 0x32, 0);
  ASSERT_EQ(engine.PostReceive(0, 64), 0);
  engine.Inject(Opcode::kRcSendOnly, 0x500, 32);
  ExpectAnswer(0x500, kSyndromeAckNoCredits, 1);
  EXPECT_EQ(engine.receives.list.size(), 1u);
  EXPECT_EQ(engine.qp->counters().rnr_naks_sent, 2u);
}

TEST_F(ResponderTest, WriteWithImmediateNeedsABufferAtItsEnd) {
  engine.Connect();
  PacketHeader last;
  last.opcode = Opcode::kRcWriteLastWithImmediate;
  last.psn = 0x501;
  last.ack_request = true;
  last.solicited = true;
  last.immediate = 0xdeadbeef;
  engine.InjectReth(Opcode::kRcWriteFirst, 0x500, 0, 1500, 1024);
  engine.Inject(last, 476);
  ExpectAnswer(0x501, kSyndromeRnrNak | 12, 0);
  EXPECT_EQ(engine.memory[1024], static_cast<std::byte>(1024 * 7 + 3));
  ASSERT_EQ(engine.PostReceive(0, 0), 0);
  engine.Inject(last, 476);
  ExpectAnswer(0x501, kSyndromeAckNoCredits, 1);
  ASSERT_EQ(engine.receives.list.size(), 1u);
  EXPECT_EQ(engine.receives.list[0].imm_data, 0xdeadbeefu);
  EXPECT_EQ(engine.receives.list[0].byte_len, 1500u);
  EXPECT_TRUE(engine.receives.solicited_flags[0]);
  EXPECT_EQ(engine.memory[1499], std::byte{0xab});
}

struct Step {
  Opcode opcode;
  size_t bytes;
  uint32_t dma_length = 0;
};
struct InvalidCase {
  const char* name;
  std::vector<Step> steps;  // all but the last are fine
};

TEST_F(ResponderTest, InvalidRequestsEndTheConnection) {
  const InvalidCase kCases[] = {
      {"middle first", {{Opcode::kRcSendMiddle, 1024}}},
      {"last first", {{Opcode::kRcSendLast, 8}}},
      {"write middle first", {{Opcode::kRcWriteMiddle, 1024}}},
      {"send starts in send", {{Opcode::kRcSendFirst, 1024}, {Opcode::kRcSendOnly, 8}}},
      {"write starts in send", {{Opcode::kRcSendFirst, 1024}, {Opcode::kRcWriteOnly, 8, 8}}},
      {"send goes on as write", {{Opcode::kRcSendFirst, 1024}, {Opcode::kRcWriteMiddle, 1024}}},
      {"write goes on as send", {{Opcode::kRcWriteFirst, 1024, 2000}, {Opcode::kRcSendLast, 976}}},
      {"read in a write", {{Opcode::kRcWriteFirst, 1024, 2000}, {Opcode::kRcReadRequest, 0, 8}}},
      {"atomic in a send", {{Opcode::kRcSendFirst, 1024}, {Opcode::kRcFetchAdd, 0}}},
      {"short first", {{Opcode::kRcSendFirst, 1020}}},
      {"long only", {{Opcode::kRcSendOnly, 1028}}},
      {"short middle", {{Opcode::kRcSendFirst, 1024}, {Opcode::kRcSendMiddle, 512}}},
      {"empty last", {{Opcode::kRcSendFirst, 1024}, {Opcode::kRcSendLast, 0}}},
      {"write shorter than said", {{Opcode::kRcWriteOnly, 8, 12}}},
      {"write longer than said", {{Opcode::kRcWriteOnly, 12, 8}}},
      {"write first is all", {{Opcode::kRcWriteFirst, 1024, 1024}}},
      {"write too many", {{Opcode::kRcWriteFirst, 1024, 2000}, {Opcode::kRcWriteMiddle, 1024}}},
      {"write last short", {{Opcode::kRcWriteFirst, 1024, 2000}, {Opcode::kRcWriteLast, 972}}},
      {"write over 2^31", {{Opcode::kRcWriteFirst, 1024, (1u << 31) + 4}}},
      {"read over 2^31", {{Opcode::kRcReadRequest, 0, (1u << 31) + 4}}},
  };
  for (const InvalidCase& test : kCases) {
    SCOPED_TRACE(test.name);
    Engine fresh;
    fresh.Connect();
    ASSERT_EQ(fresh.PostReceive(32768, 8192), 0);
    ASSERT_EQ(fresh.PostReceive(32768, 8192), 0);
    uint32_t psn = 0x500;
    for (const Step& step : test.steps) {
      fresh.InjectReth(step.opcode, psn++, 0, step.dma_length, step.bytes);
    }
    const std::deque<Packet> sent = fresh.Transmit();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].header.syndrome, kSyndromeNakInvalidRequest);
    EXPECT_EQ(sent[0].header.psn, psn - 1);
    EXPECT_EQ(fresh.qp->state(), IBV_QPS_ERR);
    EXPECT_EQ(fresh.receives.list.size(), 2u);
    EXPECT_EQ(fresh.receives.list.back().status, IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(fresh.qp->counters().invalid_request_naks_sent, 1u);
  }
}

TEST_F(ResponderTest, SendLongerThanTheBuffer) {
  engine.Connect();
  ASSERT_EQ(engine.PostReceive(0, 1500), 0);
  ASSERT_EQ(engine.PostReceive(4096, 8192), 0);
  engine.Inject(Opcode::kRcSendFirst, 0x500, 1024);
  engine.Inject(Opcode::kRcSendLast, 0x501, 477);
  ExpectAnswer(0x501, kSyndromeNakInvalidRequest, 0);
  ASSERT_EQ(engine.receives.list.size(), 2u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_LOC_LEN_ERR);
  EXPECT_EQ(engine.receives.list[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(engine.memory[1024], static_cast<std::byte>(1024 * 7 + 3));
}

TEST_F(ResponderTest, ReceiveBufferWithABadKey) {
  engine.Connect();
  ASSERT_EQ(engine.PostReceive(engine.memory.size() - 8, 64), 0);
  engine.Inject(Opcode::kRcSendOnly, 0x500, 64);
  ExpectAnswer(0x500, kSyndromeNakRemoteOperation, 0);
  ASSERT_EQ(engine.receives.list.size(), 1u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_LOC_PROT_ERR);
  ExpectUntouched();
}

TEST_F(ResponderTest, LateDuplicateOfAReadDoesNotEndTheConnection) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcReadRequest, 0x500, 0, 8);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  engine.keys.Remove(engine.key);
  engine.InjectReth(Opcode::kRcReadRequest, 0x500, 0, 8);
  ExpectAnswer(0x500, kSyndromeNakRemoteAccess, 1);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_RTS);
}

TEST_F(ResponderTest, PacketsInTheWrongStateAreDropped) {
  engine.Connect();
  engine.qp->ToError(engine.now);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  engine.qp->ToReset();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  engine.qp->ToInit();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  EXPECT_EQ(engine.qp->counters().dropped_wrong_state, 3u);
  ExpectUntouched();
  engine.qp->ToReadyToReceive(engine.receive);
  engine.InjectAck(0x100);
  EXPECT_EQ(engine.qp->counters().dropped_wrong_state, 4u);
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);
  ExpectAnswer(0x500, kSyndromeAckNoCredits, 1);
  engine.Inject(Opcode::kUcSendOnly, 0x501, 8);
  EXPECT_EQ(engine.qp->counters().dropped_malformed, 1u);
}

TEST_F(ResponderTest, SolicitedAndPlainReceives) {
  engine.Connect();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(engine.PostReceive(0, 64), 0);
  PacketHeader send;
  send.opcode = Opcode::kRcSendOnly;
  send.psn = 0x500;
  engine.Inject(send, 8);
  send.psn = 0x501;
  send.solicited = true;
  engine.Inject(send, 8);
  ASSERT_EQ(engine.receives.list.size(), 2u);
  EXPECT_FALSE(engine.receives.solicited_flags[0]);
  EXPECT_TRUE(engine.receives.solicited_flags[1]);
  EXPECT_TRUE(engine.Transmit().empty());  // no acknowledgement was asked for
}

TEST_F(ResponderTest, PsnWraps) {
  engine.receive.expected_psn = 0xffffff;
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteFirst, 0xffffff, 0, 2048, 1024);
  engine.Inject(Opcode::kRcWriteLast, 0, 1024);
  ExpectAnswer(0, kSyndromeAckNoCredits, 1);
  engine.InjectReth(Opcode::kRcWriteFirst, 0xffffff, 0, 2048, 1024, 0x11);
  ExpectAnswer(0, kSyndromeAckNoCredits, 1);
  EXPECT_EQ(engine.memory[0], std::byte{0xab});
  engine.Inject(Opcode::kRcSendOnly, 2, 8);
  ExpectAnswer(1, kSyndromeNakSequence, 1);
}

}  // namespace
}  // namespace sumac::soft_nic
