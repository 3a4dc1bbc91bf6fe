// XRC (Annex A14): an initiator and a target, whose peer is the test.
#include "verbs/soft_nic/engine/extended_reliable_connection.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "verbs/soft_nic/engine/engine_testing.h"
#include "verbs/soft_nic/engine/shared_receive_queue.h"
#include "verbs/soft_nic/engine/xrc_selection.h"

namespace sumac::soft_nic {
namespace {

using testing::CompletionLog;
using testing::Engine;
using testing::kAllAccess;
using testing::Packet;
using testing::TestMemory;

constexpr uint32_t kFirstPsn = 0x500;

// A shared receive queue with memory and completions of its own.
struct Queue {
  Queue()
      : receives(
            16, 4, keys, [] {}, &completions) {
    key = keys.Add(bytes, sizeof(bytes), kAllAccess);
  }
  void Post(size_t offset, uint32_t length, uint64_t wr_id) {
    ibv_sge sge{reinterpret_cast<uint64_t>(bytes + offset), length, key};
    ibv_recv_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    ASSERT_EQ(receives.Post(wr), 0);
  }

  alignas(8) uint8_t bytes[8192] = {};
  TestMemory keys;
  uint32_t key = 0;
  CompletionLog completions;
  SharedReceiveQueue receives;
};

class Queues : public XrcQueues {
 public:
  SharedReceiveQueue* Find(uint32_t number) override {
    const auto found = map.find(number);
    return found != map.end() ? &found->second->receives : nullptr;
  }
  Queue& Add(uint32_t number) { return *(map[number] = std::make_unique<Queue>()); }
  std::map<uint32_t, std::unique_ptr<Queue>> map;
};

class XrcTargetTest : public ::testing::Test {
 protected:
  XrcTargetTest() {
    // Each queue has keys of its own, of which no other must make use.
    one_.keys.Add(one_.bytes, 1, 0);
    engine_.limits.type = IBV_QPT_XRC_RECV;
    engine_.limits.xrc_queues = &queues_;
    engine_.Connect();
  }
  static PacketHeader Header(Opcode opcode, uint32_t psn, uint32_t number) {
    PacketHeader header;
    header.opcode = opcode;
    header.psn = psn;
    header.xrc_srqn = number;
    header.ack_request = true;
    return header;
  }
  PacketHeader Remote(Opcode opcode, uint32_t psn, uint32_t number, Queue& queue, size_t offset,
                      uint32_t length) {
    PacketHeader header = Header(opcode, psn, number);
    header.remote_addr = reinterpret_cast<uint64_t>(queue.bytes + offset);
    header.rkey = queue.key;
    header.dma_length = length;
    return header;
  }
  void ExpectAnswer(uint32_t psn, uint8_t syndrome) {
    const auto sent = engine_.Transmit();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].header.opcode, Opcode::kXrcAcknowledge);
    EXPECT_EQ(sent[0].header.psn, psn);
    EXPECT_EQ(sent[0].header.syndrome, syndrome);
  }

  Queues queues_;
  Queue& one_ = queues_.Add(1);
  Queue& two_ = queues_.Add(2);
  Engine engine_;
};

TEST_F(XrcTargetTest, EachMessageGoesToTheQueueThatItNames) {
  one_.Post(0, 4096, 11);
  two_.Post(0, 4096, 22);
  engine_.Inject(Header(Opcode::kXrcSendFirst, kFirstPsn, 2), 1024, 0xaa);
  engine_.Inject(Header(Opcode::kXrcSendLast, kFirstPsn + 1, 2), 100, 0xbb);
  engine_.Inject(Header(Opcode::kXrcSendOnly, kFirstPsn + 2, 1), 10, 0xcc);
  ExpectAnswer(kFirstPsn + 2, kSyndromeAckNoCredits);
  ASSERT_EQ(one_.completions.list.size(), 1u);
  ASSERT_EQ(two_.completions.list.size(), 1u);
  EXPECT_EQ(one_.completions.list[0].wr_id, 11u);
  EXPECT_EQ(one_.completions.list[0].byte_len, 10u);
  EXPECT_EQ(one_.completions.list[0].qp_num, testing::kLocalQpn);
  EXPECT_EQ(two_.completions.list[0].wr_id, 22u);
  EXPECT_EQ(two_.completions.list[0].byte_len, 1124u);
  EXPECT_EQ(two_.bytes[1023], 0xaa);
  EXPECT_EQ(two_.bytes[1123], 0xbb);
  EXPECT_EQ(one_.bytes[9], 0xcc);
  EXPECT_TRUE(engine_.receives.list.empty());
}

TEST_F(XrcTargetTest, EmptyQueueIsWaitedFor) {
  engine_.Inject(Header(Opcode::kXrcSendOnly, kFirstPsn, 2), 10);
  ExpectAnswer(kFirstPsn, kSyndromeRnrNak | engine_.receive.min_rnr_timer);
  two_.Post(0, 64, 1);
  engine_.Inject(Header(Opcode::kXrcSendOnly, kFirstPsn, 2), 10);
  ExpectAnswer(kFirstPsn, kSyndromeAckNoCredits);
}

TEST_F(XrcTargetTest, RemoteMemoryIsThatOfTheNamedQueue) {
  engine_.Inject(Remote(Opcode::kXrcWriteOnly, kFirstPsn, 1, one_, 0, 8), 8, 0x11);
  EXPECT_EQ(one_.bytes[7], 0x11);
  // A key of the other queue's domain is none here.
  two_.keys.Remove(two_.key);
  two_.key = 0;
  engine_.Inject(Remote(Opcode::kXrcReadRequest, kFirstPsn + 1, 1, one_, 0, 8));
  EXPECT_EQ(testing::Describe(engine_.Transmit()), "XRC READ_RESP_ONLY@501, XRC ACK@501");
  engine_.Inject(Remote(Opcode::kXrcWriteOnly, kFirstPsn + 2, 2, one_, 0, 8), 8, 0x22);
  ExpectAnswer(kFirstPsn + 2, kSyndromeNakRemoteAccess);
  EXPECT_EQ(one_.bytes[7], 0x11);
  EXPECT_EQ(engine_.qp->state(), IBV_QPS_ERR);
}

TEST_F(XrcTargetTest, ReadIsAnsweredFromItsQueueWhateverCameAfterIt) {
  one_.bytes[0] = 0x31;
  engine_.Inject(Remote(Opcode::kXrcReadRequest, kFirstPsn, 1, one_, 0, 8));
  two_.Post(0, 4096, 1);
  engine_.Inject(Header(Opcode::kXrcSendFirst, kFirstPsn + 1, 2), 1024);
  const auto sent = engine_.Transmit();
  ASSERT_EQ(sent.size(), 2u);
  ASSERT_EQ(sent[0].payload.size(), 8u);
  EXPECT_EQ(sent[0].payload[0], std::byte{0x31});
  EXPECT_EQ(sent[1].header.opcode, Opcode::kXrcAcknowledge);
  // Asked again when its queue has gone: refused, and no reason to end the connection.
  engine_.qp->ForgetReceives(one_.receives);
  PacketHeader again = Remote(Opcode::kXrcReadRequest, kFirstPsn, 1, one_, 0, 8);
  queues_.map.erase(1);
  engine_.Inject(again);
  ExpectAnswer(kFirstPsn, kSyndromeNakRemoteAccess);
  engine_.Inject(Header(Opcode::kXrcSendLast, kFirstPsn + 2, 2), 4);
  EXPECT_EQ(two_.completions.list.size(), 1u);
}

TEST_F(XrcTargetTest, AtomicIsCarriedOutOnce) {
  PacketHeader header = Remote(Opcode::kXrcFetchAdd, kFirstPsn, 2, two_, 8, 0);
  header.swap_or_add = 5;
  engine_.Inject(header);
  engine_.Inject(header);
  const auto sent = engine_.Transmit();
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0].header.opcode, Opcode::kXrcAtomicAcknowledge);
  EXPECT_EQ(two_.bytes[8], 5);
}

TEST_F(XrcTargetTest, UnknownQueueEndsTheConnection) {
  engine_.Inject(Header(Opcode::kXrcSendOnly, kFirstPsn, 3), 10);
  ExpectAnswer(kFirstPsn, kSyndromeNakInvalidRequest);
  EXPECT_EQ(engine_.qp->state(), IBV_QPS_ERR);
}

TEST_F(XrcTargetTest, MessageThatChangesItsQueueEndsTheConnection) {
  one_.Post(0, 4096, 1);
  two_.Post(0, 4096, 2);
  engine_.Inject(Header(Opcode::kXrcSendFirst, kFirstPsn, 1), 1024);
  engine_.Inject(Header(Opcode::kXrcSendLast, kFirstPsn + 1, 2), 4);
  ExpectAnswer(kFirstPsn + 1, kSyndromeNakInvalidRequest);
  ASSERT_EQ(one_.completions.list.size(), 1u);
  EXPECT_EQ(one_.completions.list[0].status, IBV_WC_REM_INV_REQ_ERR);
  EXPECT_TRUE(two_.completions.list.empty());
}

TEST_F(XrcTargetTest, QueueThatGoesTakesTheMessageUnderWayAlong) {
  one_.Post(0, 4096, 1);
  engine_.Inject(Header(Opcode::kXrcSendFirst, kFirstPsn, 1), 1024);
  engine_.qp->ForgetReceives(one_.receives);
  queues_.map.erase(1);
  engine_.Inject(Header(Opcode::kXrcSendLast, kFirstPsn + 1, 1), 4);
  ExpectAnswer(kFirstPsn + 1, kSyndromeNakInvalidRequest);
  engine_.qp->OnDoorbell(engine_.now);
}

TEST_F(XrcTargetTest, BufferInUseIsFlushedToItsQueue) {
  one_.Post(0, 4096, 7);
  engine_.Inject(Header(Opcode::kXrcSendFirst, kFirstPsn, 1), 1024);
  engine_.qp->ToError(engine_.now);
  ASSERT_EQ(one_.completions.list.size(), 1u);
  EXPECT_EQ(one_.completions.list[0].wr_id, 7u);
  EXPECT_EQ(one_.completions.list[0].status, IBV_WC_WR_FLUSH_ERR);
}

TEST_F(XrcTargetTest, NeitherSendsNorListensToAnswers) {
  EXPECT_EQ(engine_.Post(IBV_WR_SEND, 0, 4), EINVAL);
  EXPECT_EQ(engine_.PostReceive(0, 4), EINVAL);
  engine_.Inject(Header(Opcode::kXrcAcknowledge, 0x100, 0));
  EXPECT_EQ(engine_.qp->counters().dropped_wrong_state, 1u);
  engine_.Inject(Header(Opcode::kRcSendOnly, kFirstPsn, 0), 4);
  EXPECT_EQ(engine_.qp->counters().dropped_malformed, 1u) << "another service";
  EXPECT_TRUE(engine_.Transmit().empty());
}

class XrcInitiatorTest : public ::testing::Test {
 protected:
  XrcInitiatorTest() {
    engine_.limits.type = IBV_QPT_XRC_SEND;
    engine_.Connect();
  }
  int Post(ibv_wr_opcode opcode, uint32_t length, uint32_t number) {
    ibv_sge sge = engine_.Sge(0, length);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma = {0x10000, 0x77};
    wr.qp_type.xrc.remote_srqn = number;
    return engine_.qp->PostSend(wr);
  }
  Engine engine_;
};

TEST_F(XrcInitiatorTest, NamesTheQueueInEveryPacketOfARequest) {
  ASSERT_EQ(Post(IBV_WR_SEND, 2100, 0xabcdef), 0);
  ASSERT_EQ(Post(IBV_WR_RDMA_WRITE, 4, 1), 0);
  ASSERT_EQ(Post(IBV_WR_RDMA_READ, 4, 2), 0);
  const auto sent = engine_.Transmit();
  EXPECT_EQ(testing::Describe(sent),
            "XRC SEND_FIRST@100, XRC SEND_MIDDLE@101, XRC SEND_LAST@102, XRC WRITE_ONLY@103, "
            "XRC READ_REQ@104");
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(sent[i].header.xrc_srqn, 0xabcdefu);
  EXPECT_EQ(sent[3].header.xrc_srqn, 1u);
  EXPECT_EQ(sent[4].header.xrc_srqn, 2u);
  engine_.Inject(Opcode::kXrcAcknowledge, 0x103);
  EXPECT_EQ(engine_.sends.list.size(), 2u);
  engine_.Inject(Opcode::kXrcReadResponseOnly, 0x104, 4, 0x5a);
  ASSERT_EQ(engine_.sends.list.size(), 3u);
  EXPECT_EQ(engine_.memory[3], std::byte{0x5a});
}

TEST_F(XrcInitiatorTest, SendsAgainWhatWasLost) {
  ASSERT_EQ(Post(IBV_WR_SEND, 2000, 5), 0);
  ASSERT_EQ(engine_.Transmit().size(), 2u);
  engine_.FireTimer();
  const auto again = engine_.Transmit();  // one: the window has shrunk
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].header.opcode, Opcode::kXrcSendFirst);
  EXPECT_EQ(again[0].header.xrc_srqn, 5u);
}

TEST_F(XrcInitiatorTest, RefusesWhatItCanNotDo) {
  EXPECT_EQ(Post(IBV_WR_SEND, 4, 0x1000000), EINVAL) << "25 bits";
  EXPECT_EQ(Post(IBV_WR_LOCAL_INV, 0, 1), EINVAL);
  EXPECT_EQ(Post(IBV_WR_SEND_WITH_INV, 4, 1), EINVAL);
  EXPECT_EQ(engine_.PostReceive(0, 4), EINVAL);
  engine_.Inject(Opcode::kXrcSendOnly, 0x500, 4);
  EXPECT_EQ(engine_.qp->counters().dropped_wrong_state, 1u);
  EXPECT_TRUE(engine_.Transmit().empty());
}

}  // namespace
}  // namespace sumac::soft_nic
