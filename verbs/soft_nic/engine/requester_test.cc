// The requester against hand-made answers. Exchanges named after a capture reproduce what kernel
// rxe did on the wire.
#include "verbs/soft_nic/engine/requester.h"

#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/engine_testing.h"
#include "verbs/soft_nic/engine/timers.h"

namespace sumac::soft_nic {
namespace {

using testing::Describe;
using testing::Engine;
using testing::Packet;

class RequesterTest : public ::testing::Test {
 protected:
  // Statuses of the send completions so far, as "id:status".
  std::string Completions() const {
    std::string text;
    for (const ibv_wc& wc : engine.sends.list) {
      if (!text.empty()) text += ' ';
      text += std::to_string(wc.wr_id);
      text += ':';
      text += std::to_string(static_cast<int>(wc.status));
    }
    return text;
  }
  void InjectReadResponse(Opcode opcode, uint32_t psn, size_t bytes, uint8_t fill = 0xab) {
    engine.Inject(opcode, psn, bytes, fill);
  }
  Engine engine;
};

TEST_F(RequesterTest, SegmentsAndAsksForAnAckAtTheEnd) {
  engine.send.first_psn = 0xfffffe;  // write_4000_multi_psnwrap
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 4000, IBV_SEND_SIGNALED | IBV_SEND_SOLICITED), 0);
  const std::deque<Packet> sent = engine.Transmit();
  EXPECT_EQ(Describe(sent),
            "RC WRITE_FIRST@fffffe, RC WRITE_MIDDLE@ffffff, RC WRITE_MIDDLE@0, RC WRITE_LAST@1");
  EXPECT_EQ(sent[0].header.dma_length, 4000u);
  EXPECT_EQ(sent[0].header.remote_addr, 0x10000u);
  EXPECT_EQ(sent[0].header.dest_qpn, testing::kRemoteQpn);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(sent[i].header.ack_request, i == 3);
    EXPECT_EQ(sent[i].header.solicited, i == 3);
    EXPECT_EQ(sent[i].payload.size(), i == 3 ? 928u : 1024u);
  }
  engine.InjectAck(0);
  EXPECT_EQ(Completions(), "");
  engine.InjectAck(1);
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);
  EXPECT_EQ(engine.qp->next_send_psn(), 2u);
}

TEST_F(RequesterTest, SequenceNakGoesBack) {  // nak_psn_seq_error
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 4000), 0);
  EXPECT_EQ(engine.Transmit().size(), 4u);
  engine.InjectAck(0x101, kSyndromeNakSequence);
  const std::deque<Packet> sent = engine.Transmit();
  EXPECT_EQ(Describe(sent), "RC WRITE_MIDDLE@101, RC WRITE_MIDDLE@102, RC WRITE_LAST@103");
  EXPECT_EQ(std::memcmp(sent[0].payload.data(), &engine.memory[1024], 1024), 0);
  EXPECT_EQ(engine.qp->counters().retransmitted_packets, 3u);
  EXPECT_EQ(engine.qp->counters().sequence_naks_received, 1u);
  engine.InjectAck(0x103);
  engine.InjectAck(0x103);
  EXPECT_EQ(Completions(), "1:0");
}

TEST_F(RequesterTest, LostReadResponseIsAskedForAgain) {  // read_resp_lost
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 3000), 0);
  std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC READ_REQ@100");
  EXPECT_EQ(sent[0].header.dma_length, 3000u);
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x100, 1024, 1);
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x102, 952, 9);
  sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC READ_REQ@101");
  EXPECT_EQ(sent[0].header.remote_addr, 0x10400u);
  EXPECT_EQ(sent[0].header.dma_length, 1976u);
  // Another late answer to the first request is no reason to ask a third time.
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x102, 952, 9);
  EXPECT_TRUE(engine.Transmit().empty());
  // rxe goes on with MIDDLE, others start with FIRST: both are right.
  InjectReadResponse(Opcode::kRcReadResponseMiddle, 0x101, 1024, 2);
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x102, 952, 3);
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_EQ(engine.sends.list[0].byte_len, 3000u);
  EXPECT_EQ(engine.memory[1023], std::byte{1});
  EXPECT_EQ(engine.memory[1024], std::byte{2});
  EXPECT_EQ(engine.memory[2048], std::byte{3});
  EXPECT_EQ(engine.memory[2999], std::byte{3});
  EXPECT_EQ(engine.memory[3000], static_cast<std::byte>(3000 * 7 + 3));
}

TEST_F(RequesterTest, TimeoutResendsUntilRetriesAreExhausted) {
  engine.send.timeout = 10;
  engine.send.retry_count = 3;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, 0), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, 0), 0);
  ASSERT_EQ(engine.PostReceive(0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 2u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(engine.FireTimer(), Duration(4096 * 1024));
    EXPECT_EQ(engine.qp->NextTimeout(), kNever);  // nothing is out until it is sent again
    EXPECT_EQ(engine.Transmit().front().header.psn, 0x100u);
  }
  EXPECT_EQ(Completions(), "");
  EXPECT_EQ(engine.FireTimer(), Duration(4096 * 1024));
  EXPECT_EQ(Completions(), "1:12 2:5");  // retry exceeded, then flushed
  ASSERT_EQ(engine.receives.list.size(), 1u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
  EXPECT_EQ(engine.qp->counters().timeouts, 4u);
  EXPECT_TRUE(engine.Transmit().empty());
}

TEST_F(RequesterTest, ProgressRestoresTheRetries) {
  engine.send.retry_count = 1;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 5000), 0);
  engine.Transmit();
  for (uint32_t psn = 0x100; psn < 0x104; ++psn) {
    engine.FireTimer();
    engine.Transmit();
    engine.InjectAck(psn);
    EXPECT_EQ(engine.qp->NextTimeout(), kNever);  // after a timeout the window is one packet
    engine.Transmit();
    EXPECT_EQ(engine.qp->NextTimeout() - engine.now, AckTimeout(14));
  }
  engine.FireTimer();
  engine.Transmit();
  EXPECT_EQ(Completions(), "");
  engine.FireTimer();
  EXPECT_EQ(Completions(), "1:12");
}

TEST_F(RequesterTest, TimeoutZeroWaitsForEver) {
  engine.send.timeout = 0;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);
}

TEST_F(RequesterTest, ReceiverNotReadyWaitsAsTable45Says) {  // rnr_nak: code 18 is 5.12 ms
  engine.send.rnr_retry = 2;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 32), 0);
  engine.Transmit();
  for (int i = 0; i < 2; ++i) {
    engine.InjectAck(0x100, kSyndromeRnrNak | 18);
    EXPECT_TRUE(engine.Transmit().empty());
    engine.InjectAck(0x100, kSyndromeRnrNak | 18);  // the network's duplicate counts for nothing
    EXPECT_EQ(engine.FireTimer(), std::chrono::microseconds(5120));
    EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@100");
  }
  engine.InjectAck(0x100, kSyndromeRnrNak | 18);
  EXPECT_EQ(Completions(), "1:13");
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
}

TEST_F(RequesterTest, RnrRetrySevenNeverEnds) {
  engine.send.rnr_retry = 7;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 32), 0);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(engine.Transmit().size(), 1u);
    engine.InjectAck(0x100, kSyndromeRnrNak | 0);
    EXPECT_EQ(engine.FireTimer(), std::chrono::microseconds(655360));
  }
  EXPECT_EQ(engine.Transmit().size(), 1u);
  engine.InjectAck(0x100);
  EXPECT_EQ(Completions(), "1:0");
}

TEST_F(RequesterTest, FatalNaksBecomeStatusesAndFlushTheRest) {
  const std::pair<uint8_t, ibv_wc_status> kCases[] = {
      {kSyndromeNakInvalidRequest, IBV_WC_REM_INV_REQ_ERR},
      {kSyndromeNakRemoteAccess, IBV_WC_REM_ACCESS_ERR},
      {kSyndromeNakRemoteOperation, IBV_WC_REM_OP_ERR},
      {kSyndromeNakInvalidRd, IBV_WC_REM_INV_RD_REQ_ERR},
  };
  for (const auto& [syndrome, status] : kCases) {
    Engine fresh;
    fresh.Connect();
    for (int i = 0; i < 3; ++i) ASSERT_EQ(fresh.Post(IBV_WR_SEND, 0, 8, 0), 0);
    fresh.Transmit();
    fresh.InjectAck(0x101, syndrome);  // the first is acknowledged, unsignaled: no completion
    ASSERT_EQ(fresh.sends.list.size(), 2u);
    EXPECT_EQ(fresh.sends.list[0].wr_id, 2u);
    EXPECT_EQ(fresh.sends.list[0].status, status);
    EXPECT_EQ(fresh.sends.list[1].wr_id, 3u);
    EXPECT_EQ(fresh.sends.list[1].status, IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(fresh.qp->state(), IBV_QPS_ERR);
  }
}

TEST_F(RequesterTest, FenceWaitsForReads) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 1500), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, IBV_SEND_SIGNALED | IBV_SEND_FENCE), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC READ_REQ@100, RC SEND_ONLY@102");
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x100, 1024);
  EXPECT_TRUE(engine.Transmit().empty());
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x101, 476);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@103");
}

TEST_F(RequesterTest, LimitsOutstandingReads) {
  engine.send.max_rd_atomic = 2;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, 64, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 8, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 8, 8), 0);  // order: may not pass the READ
  EXPECT_EQ(Describe(engine.Transmit()), "RC READ_REQ@100, RC FETCH_ADD@101");
  InjectReadResponse(Opcode::kRcReadResponseOnly, 0x100, 8);
  EXPECT_EQ(Describe(engine.Transmit()), "RC READ_REQ@102, RC SEND_ONLY@103");
}

TEST_F(RequesterTest, NoReadsAllowedIsAnErrorNotAHang) {
  engine.send.max_rd_atomic = 0;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  engine.InjectAck(0x100);
  EXPECT_EQ(Completions(), "1:0 2:2");
}

TEST_F(RequesterTest, ResponsesAcknowledgeWhatCameBefore) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_ATOMIC_CMP_AND_SWP, 64, 8), 0);
  const std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC WRITE_ONLY@100, RC SEND_ONLY@101, RC CMP_SWAP@102");
  EXPECT_EQ(sent[2].header.compare, 11u);
  EXPECT_EQ(sent[2].header.swap_or_add, 22u);
  PacketHeader answer;
  answer.opcode = Opcode::kRcAtomicAcknowledge;
  answer.psn = 0x102;
  answer.syndrome = kSyndromeAckNoCredits;
  answer.atomic_result = 0x1020304050607080;
  engine.Inject(answer);
  EXPECT_EQ(Completions(), "1:0 2:0 3:0");
  EXPECT_EQ(engine.Word(64), 0x1020304050607080u);

  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  engine.Transmit();
  InjectReadResponse(Opcode::kRcReadResponseOnly, 0x104, 8);
  EXPECT_EQ(Completions(), "1:0 2:0 3:0 4:0 5:0");
}

TEST_F(RequesterTest, AckBeyondAReadIsAnImpliedNak) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  engine.Transmit();
  engine.InjectAck(0x102);
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_EQ(Describe(engine.Transmit()), "RC READ_REQ@101, RC SEND_ONLY@102");
  engine.InjectAck(0x102);  // still about the first sending
  EXPECT_TRUE(engine.Transmit().empty());
  InjectReadResponse(Opcode::kRcReadResponseOnly, 0x101, 8);
  EXPECT_EQ(Completions(), "1:0 2:0");
  engine.InjectAck(0x102);
  EXPECT_EQ(Completions(), "1:0 2:0 3:0");
}

TEST_F(RequesterTest, GhostsAndNonsenseAreCountedAndIgnored) {
  engine.Connect();
  engine.InjectAck(0x100);  // nothing was sent yet
  engine.InjectAck(0x100, kSyndromeNakRemoteAccess);
  EXPECT_EQ(engine.qp->counters().dropped_malformed, 2u);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 2000), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  engine.Transmit();
  engine.InjectAck(0x103);                                        // beyond what was sent
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x100, 1020);  // short
  InjectReadResponse(Opcode::kRcReadResponseOnly, 0x100, 1024);   // ends too early
  engine.Inject(Opcode::kRcAtomicAcknowledge, 0x100);             // not an atomic
  engine.InjectAck(0x100, 0x40);                                  // reserved syndrome
  EXPECT_EQ(engine.qp->counters().dropped_malformed, 7u);
  engine.InjectAck(0xff);  // before the first PSN: an old duplicate
  EXPECT_EQ(engine.qp->counters().duplicates_received, 1u);
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x100, 1024);
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x101, 1024);  // long
  EXPECT_EQ(engine.qp->counters().dropped_malformed, 8u);
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x101, 976);
  InjectReadResponse(Opcode::kRcReadResponseOnly, 0x102, 8);  // answers a SEND
  EXPECT_EQ(engine.qp->counters().dropped_malformed, 9u);
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_EQ(engine.memory[2000], static_cast<std::byte>(2000 * 7 + 3));
  EXPECT_EQ(engine.qp->state(), IBV_QPS_RTS);
}

TEST_F(RequesterTest, LocalKeyErrorWaitsForOlderRequests) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, engine.memory.size() - 4, 8, 0), 0);  // past the region
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  EXPECT_EQ(Completions(), "");
  engine.FireTimer();  // a retry of the older one finds the same again
  EXPECT_EQ(engine.Transmit().size(), 1u);
  engine.InjectAck(0x100);
  EXPECT_EQ(Completions(), "1:0 2:4 3:5");
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
}

TEST_F(RequesterTest, ReadIntoReadOnlyMemoryNeverGoesOut) {
  engine.Connect();
  engine.keys.Remove(engine.key);
  engine.key = engine.keys.Add(engine.memory.data(), 4096, IBV_ACCESS_REMOTE_READ);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_EQ(Completions(), "1:4");
}

TEST_F(RequesterTest, MemoryDeregisteredUnderAReadIsALocalError) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 2000), 0);
  engine.Transmit();
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x100, 1024);
  engine.keys.Remove(engine.key);
  InjectReadResponse(Opcode::kRcReadResponseLast, 0x101, 976);
  EXPECT_EQ(Completions(), "1:4");
  EXPECT_EQ(engine.memory[1024], static_cast<std::byte>(1024 * 7 + 3));
}

TEST_F(RequesterTest, WindowCapsBytesInFlightAndHalvesOnLoss) {
  engine.send.congestion.window_bytes_initial = 16 * (1024 + 512);
  engine.send.congestion.window_bytes_max = 16 * (1024 + 512);
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 60 << 10), 0);
  std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(sent.size(), 16u);
  EXPECT_TRUE(sent.back().header.ack_request);  // or nothing would ever come back
  engine.InjectAck(0x101);
  EXPECT_EQ(engine.Transmit().size(), 2u);
  engine.InjectAck(0x102, kSyndromeNakSequence);
  EXPECT_EQ(engine.Transmit().size(), 8u);
  engine.FireTimer();
  EXPECT_EQ(engine.Transmit().size(), 1u);
}

TEST_F(RequesterTest, LongReadsGoOutInChunksWithFixedBounds) {
  engine.send.congestion.read_chunk_bytes = 4096;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 10000), 0);
  std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC READ_REQ@100, RC READ_REQ@104, RC READ_REQ@108");
  EXPECT_EQ(sent[1].header.remote_addr, 0x11000u);
  EXPECT_EQ(sent[1].header.dma_length, 4096u);
  EXPECT_EQ(sent[2].header.dma_length, 1808u);
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x100, 1024);
  engine.FireTimer();
  sent = engine.Transmit();
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0].header.psn, 0x101u);
  EXPECT_EQ(sent[0].header.dma_length, 3072u);  // to the end of its chunk, not 4096
}

TEST_F(RequesterTest, SilenceIsProbedWithTheLastPacket) {
  engine.send.congestion.tail_probe_us = 100;
  engine.send.timeout = 8;  // 1.05 ms
  engine.send.retry_count = 0;
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 2000), 0);
  EXPECT_EQ(engine.Transmit().size(), 2u);
  EXPECT_EQ(engine.FireTimer(), std::chrono::microseconds(100));
  std::deque<Packet> sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC WRITE_LAST@101");
  EXPECT_TRUE(sent[0].header.ack_request);
  EXPECT_EQ(engine.FireTimer(), std::chrono::microseconds(200));
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_LAST@101");
  EXPECT_EQ(engine.qp->counters().tail_probes, 2u);
  EXPECT_EQ(engine.qp->counters().retransmitted_packets, 2u);
  EXPECT_EQ(engine.FireTimer(), std::chrono::microseconds(400));
  engine.InjectAck(0x101);  // came before the probe went out: none is needed
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);

  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 3000), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  InjectReadResponse(Opcode::kRcReadResponseFirst, 0x102, 1024);
  EXPECT_EQ(engine.FireTimer(), std::chrono::microseconds(100));
  sent = engine.Transmit();
  ASSERT_EQ(Describe(sent), "RC READ_REQ@103");
  EXPECT_EQ(sent[0].header.dma_length, 1976u);
  for (int i = 0; i < 3; ++i) engine.FireTimer();  // 200, 400 us, then the ACK timeout
  EXPECT_EQ(Completions(), "1:0 2:12");
}

TEST_F(RequesterTest, UnsignaledRequestsGiveTheirSlotsBack) {
  engine.limits.max_send_wr = 4;
  engine.Connect();
  for (uint32_t i = 0; i < 100; ++i) {
    ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, 0), 0);
    EXPECT_EQ(engine.Transmit().size(), 1u);
    if (i % 4 == 3) engine.InjectAck(0x100 + i);
  }
  EXPECT_EQ(Completions(), "");
}

TEST_F(RequesterTest, RefusedPacketComesAgain) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 3000), 0);
  testing::PacketList sink;
  sink.room = 1;
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 100));
  EXPECT_EQ(Describe(sink.list), "RC SEND_FIRST@100");
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_MIDDLE@101, RC SEND_LAST@102");
  EXPECT_EQ(engine.qp->counters().packets_sent, 3u);
  EXPECT_EQ(engine.qp->counters().retransmitted_packets, 0u);
}

TEST_F(RequesterTest, LateAckOvertakesARetransmission) {
  engine.Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  engine.Transmit();
  engine.FireTimer();
  engine.InjectAck(0x100);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@101");
  engine.InjectAck(0x101);
  EXPECT_EQ(Completions(), "1:0 2:0");
}

}  // namespace
}  // namespace sumac::soft_nic
