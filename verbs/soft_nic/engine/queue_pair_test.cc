// Two queue pairs joined in memory, without faults: every operation, both roles, sizes around the
// path MTU.
#include "verbs/soft_nic/engine/queue_pair.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <numeric>
#include <thread>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using testing::Engine;
using testing::Packet;
using testing::PacketList;

class Pair {
 public:
  explicit Pair(uint32_t mtu = 1024, uint32_t psn_a = 0xfffffe, uint32_t psn_b = 0x7ffffe) {
    a.send.first_psn = b.receive.expected_psn = psn_a;
    b.send.first_psn = a.receive.expected_psn = psn_b;
    a.receive.mtu_bytes = b.receive.mtu_bytes = mtu;
    a.receive.remote_qpn = b.receive.remote_qpn = testing::kLocalQpn;
  }
  void Connect() {
    a.Connect();
    b.Connect();
  }
  void Run() {
    for (int idle = 0; idle < 2;) {
      PacketList to_b;
      PacketList to_a;
      while (a.qp->PollTransmit(to_b, a.now, 7)) {
      }
      while (b.qp->PollTransmit(to_a, b.now, 7)) {
      }
      idle = to_a.list.empty() && to_b.list.empty() ? idle + 1 : 0;
      for (const Packet& packet : to_b.list) b.qp->OnPacket(packet.view(), b.now);
      for (const Packet& packet : to_a.list) a.qp->OnPacket(packet.view(), a.now);
    }
  }
  int PostRemote(ibv_wr_opcode opcode, size_t offset, uint32_t length, size_t remote_offset,
                 uint64_t compare_add = 0, uint64_t swap = 0) {
    ibv_sge sge = a.Sge(offset, length);
    ibv_send_wr wr{};
    wr.wr_id = ++a.last_wr_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.imm_data = 0x44332211;
    if (opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      wr.wr.atomic = {b.addr(remote_offset), compare_add, swap, b.key};
    } else {
      wr.wr.rdma = {b.addr(remote_offset), b.key};
    }
    return a.qp->PostSend(wr);
  }

  Engine a;
  Engine b;
};

class QueuePairSizes : public ::testing::TestWithParam<uint32_t> {};

TEST_P(QueuePairSizes, WriteReadSendMoveExactlyTheBytes) {
  const uint32_t length = GetParam();
  for (const uint32_t mtu : {256u, 1024u, 4096u}) {
    Pair pair(mtu);
    pair.Connect();
    for (size_t i = 0; i < pair.b.memory.size(); ++i) pair.b.memory[i] = std::byte{0x55};
    ASSERT_EQ(pair.PostRemote(IBV_WR_RDMA_WRITE, 0, length, 101), 0);
    pair.Run();
    ASSERT_EQ(pair.a.sends.list.size(), 1u);
    EXPECT_EQ(pair.a.sends.list[0].status, IBV_WC_SUCCESS);
    EXPECT_EQ(pair.a.sends.list[0].opcode, IBV_WC_RDMA_WRITE);
    EXPECT_EQ(std::memcmp(&pair.b.memory[101], &pair.a.memory[0], length), 0);
    EXPECT_EQ(pair.b.memory[100], std::byte{0x55});
    EXPECT_EQ(pair.b.memory[101 + length], std::byte{0x55});

    ASSERT_EQ(pair.PostRemote(IBV_WR_RDMA_READ, 30000, length, 101), 0);
    pair.Run();
    ASSERT_EQ(pair.a.sends.list.size(), 2u);
    EXPECT_EQ(pair.a.sends.list[1].opcode, IBV_WC_RDMA_READ);
    EXPECT_EQ(std::memcmp(&pair.a.memory[30000], &pair.a.memory[0], length), 0);

    ASSERT_EQ(pair.b.PostReceive(30000, 20000), 0);
    ASSERT_EQ(pair.PostRemote(IBV_WR_SEND_WITH_IMM, 0, length, 0), 0);
    pair.Run();
    ASSERT_EQ(pair.a.sends.list.size(), 3u);
    ASSERT_EQ(pair.b.receives.list.size(), 1u);
    const ibv_wc& receive = pair.b.receives.list[0];
    EXPECT_EQ(receive.status, IBV_WC_SUCCESS);
    EXPECT_EQ(receive.opcode, IBV_WC_RECV);
    EXPECT_EQ(receive.byte_len, length);
    EXPECT_EQ(receive.wc_flags, static_cast<unsigned>(IBV_WC_WITH_IMM));
    EXPECT_EQ(receive.imm_data, 0x44332211u);
    EXPECT_EQ(std::memcmp(&pair.b.memory[30000], &pair.a.memory[0], length), 0);
    EXPECT_EQ(pair.a.qp->counters().retransmitted_packets, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(AroundTheMtu, QueuePairSizes,
                         ::testing::Values(0, 1, 3, 4, 255, 256, 257, 1023, 1024, 1025, 2048, 2049,
                                           4095, 4096, 4097, 8192, 8193, 20000));

TEST(QueuePairTest, AtomicsReturnTheOriginalValue) {
  Pair pair;
  pair.Connect();
  pair.b.SetWord(64, 5);
  ASSERT_EQ(pair.PostRemote(IBV_WR_ATOMIC_FETCH_AND_ADD, 0, 8, 64, 3), 0);
  ASSERT_EQ(pair.PostRemote(IBV_WR_ATOMIC_CMP_AND_SWP, 8, 8, 64, 8, 100), 0);
  ASSERT_EQ(pair.PostRemote(IBV_WR_ATOMIC_CMP_AND_SWP, 16, 8, 64, 8, 200), 0);
  pair.Run();
  ASSERT_EQ(pair.a.sends.list.size(), 3u);
  EXPECT_EQ(pair.a.sends.list[0].opcode, IBV_WC_FETCH_ADD);
  EXPECT_EQ(pair.a.sends.list[1].opcode, IBV_WC_COMP_SWAP);
  EXPECT_EQ(pair.a.Word(0), 5u);
  EXPECT_EQ(pair.a.Word(8), 8u);
  EXPECT_EQ(pair.a.Word(16), 100u);
  EXPECT_EQ(pair.b.Word(64), 100u);
}

TEST(QueuePairTest, WriteWithImmediateConsumesABuffer) {
  Pair pair;
  pair.Connect();
  ASSERT_EQ(pair.b.PostReceive(0, 0), 0);
  ASSERT_EQ(pair.PostRemote(IBV_WR_RDMA_WRITE_WITH_IMM, 0, 3000, 4096), 0);
  pair.Run();
  ASSERT_EQ(pair.b.receives.list.size(), 1u);
  EXPECT_EQ(pair.b.receives.list[0].opcode, IBV_WC_RECV_RDMA_WITH_IMM);
  EXPECT_EQ(pair.b.receives.list[0].byte_len, 3000u);
  EXPECT_EQ(pair.b.receives.list[0].qp_num, testing::kLocalQpn);
  EXPECT_EQ(pair.b.receives.list[0].src_qp, testing::kLocalQpn);
  EXPECT_EQ(std::memcmp(&pair.b.memory[4096], &pair.a.memory[0], 3000), 0);
}

TEST(QueuePairTest, SendWithInvalidateRetiresTheKey) {
  Pair pair;
  pair.Connect();
  const uint32_t window = pair.b.keys.Add(pair.b.memory.data(), 64, testing::kAllAccess);
  ASSERT_EQ(pair.b.PostReceive(0, 64), 0);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND_WITH_INV;
  wr.invalidate_rkey = window;
  ASSERT_EQ(pair.a.qp->PostSend(wr), 0);
  pair.Run();
  ASSERT_EQ(pair.b.receives.list.size(), 1u);
  EXPECT_EQ(pair.b.receives.list[0].wc_flags, static_cast<unsigned>(IBV_WC_WITH_INV));
  EXPECT_EQ(pair.b.receives.list[0].invalidated_rkey, window);
  EXPECT_EQ(pair.b.keys.Local(window, pair.b.addr(0), 1, false), nullptr);
}

TEST(QueuePairTest, GathersAndScattersPieces) {
  Pair pair;
  pair.Connect();
  ibv_sge from[] = {pair.a.Sge(10, 700), pair.a.Sge(5, 0), pair.a.Sge(2000, 1),
                    pair.a.Sge(100, 900)};
  ibv_sge to[] = {pair.b.Sge(50000, 3), pair.b.Sge(51000, 1597), pair.b.Sge(53000, 64)};
  ibv_recv_wr receive{};
  receive.sg_list = to;
  receive.num_sge = 3;
  ASSERT_EQ(pair.b.qp->PostReceive(receive), 0);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  wr.sg_list = from;
  wr.num_sge = 4;
  ASSERT_EQ(pair.a.qp->PostSend(wr), 0);
  pair.Run();
  ASSERT_EQ(pair.b.receives.list.size(), 1u);
  EXPECT_EQ(pair.b.receives.list[0].byte_len, 1601u);
  std::vector<std::byte> sent;
  for (const ibv_sge& sge : from) {
    const auto* bytes = reinterpret_cast<const std::byte*>(sge.addr);
    sent.insert(sent.end(), bytes, bytes + sge.length);
  }
  EXPECT_EQ(std::memcmp(&pair.b.memory[50000], &sent[0], 3), 0);
  EXPECT_EQ(std::memcmp(&pair.b.memory[51000], &sent[3], 1597), 0);
  EXPECT_EQ(std::memcmp(&pair.b.memory[53000], &sent[1600], 1), 0);
}

TEST(QueuePairTest, InlineDataIsCopiedAtPost) {
  Pair pair;
  pair.Connect();
  uint64_t value = 0x1122334455667788;
  ibv_sge sge{reinterpret_cast<uint64_t>(&value), sizeof(value), 0xbad};
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.wr.rdma = {pair.b.addr(8), pair.b.key};
  ASSERT_EQ(pair.a.qp->PostSend(wr), 0);
  value = 0;
  pair.Run();
  EXPECT_EQ(pair.b.Word(8), 0x1122334455667788u);
}

TEST(QueuePairTest, PostRefusesWhatCanNotWork) {
  Engine engine;
  engine.limits.max_send_wr = 2;
  engine.limits.max_recv_wr = 1;
  engine.Connect();
  EXPECT_EQ(engine.Post(IBV_WR_TSO, 0, 0), EINVAL);
  EXPECT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8, IBV_SEND_INLINE), EINVAL);
  EXPECT_EQ(engine.Post(IBV_WR_SEND, 0, 300, IBV_SEND_INLINE), EINVAL);
  EXPECT_EQ(engine.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, 0, 4), EINVAL);
  EXPECT_EQ(engine.Post(IBV_WR_SEND, 0, (1u << 31) + 1), EINVAL);
  ibv_sge many[5] = {};
  ibv_send_wr wr{};
  wr.sg_list = many;
  wr.num_sge = 5;
  EXPECT_EQ(engine.qp->PostSend(wr), EINVAL);
  EXPECT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.Post(IBV_WR_SEND, 0, 8), ENOMEM);
  EXPECT_EQ(engine.PostReceive(0, 8), 0);
  EXPECT_EQ(engine.PostReceive(0, 8), ENOMEM);
  engine.qp->ToReset();
  EXPECT_EQ(engine.Post(IBV_WR_SEND, 0, 8), EINVAL);
  EXPECT_EQ(engine.PostReceive(0, 8), EINVAL);
  EXPECT_TRUE(engine.sends.list.empty());
}

TEST(QueuePairTest, EndlessReadsOfThePeerLeaveRoomForOurRequests) {
  Pair pair;
  pair.Connect();
  ASSERT_EQ(pair.b.PostReceive(0, 64), 0);
  ASSERT_EQ(pair.PostRemote(IBV_WR_RDMA_WRITE, 0, 64, 0), 0);
  pair.a.InjectReth(Opcode::kRcReadRequest, 0x7ffffe, 0, 60000);
  const std::deque<Packet> sent = pair.a.Transmit(8);
  ASSERT_EQ(sent.size(), 7u);
  EXPECT_EQ(sent.back().header.opcode, Opcode::kRcWriteOnly);
}

// A completion's consumer may post at once, also into a queue of one.
class PostAgain : public CompletionSink {
 public:
  void Push(const ibv_wc&, bool) override {
    if (++count < 5) {
      EXPECT_EQ(qp->PostSend(wr), 0);
    }
  }
  QueuePair* qp = nullptr;
  ibv_send_wr wr{};
  int count = 0;
};

TEST(QueuePairTest, SlotIsFreeBeforeItsCompletionIsSeen) {
  Engine peer;
  peer.Connect();
  PostAgain again;
  QueuePairLimits limits;
  limits.max_send_wr = 1;
  limits.signal_all = true;
  QueuePair qp(limits, peer.keys, again, again);
  again.qp = &qp;
  again.wr.opcode = IBV_WR_RDMA_WRITE;
  qp.ToInit();
  qp.ToReadyToReceive(peer.receive);
  qp.ToReadyToSend(peer.send);
  ASSERT_EQ(qp.PostSend(again.wr), 0);
  for (uint32_t i = 0; i < 5; ++i) {
    PacketList sink;
    (void)qp.PollTransmit(sink, peer.now, 10);
    ASSERT_EQ(sink.list.size(), 1u);
    Packet ack;
    ack.header.opcode = Opcode::kRcAcknowledge;
    ack.header.psn = 0x100 + i;
    ack.header.syndrome = kSyndromeAckNoCredits;
    qp.OnPacket(ack.view(), peer.now);
  }
  EXPECT_EQ(again.count, 5);
}

TEST(QueuePairTest, ResetForgetsAllAndConnectsAgain) {
  Pair pair;
  pair.Connect();
  ASSERT_EQ(pair.PostRemote(IBV_WR_RDMA_WRITE, 0, 5000, 0), 0);
  ASSERT_EQ(pair.b.PostReceive(0, 100), 0);
  EXPECT_FALSE(pair.a.Transmit(3).empty());
  for (Engine* engine : {&pair.a, &pair.b}) {
    engine->qp->ToReset();
    EXPECT_EQ(engine->qp->NextTimeout(), kNever);
    EXPECT_TRUE(engine->Transmit().empty());
    engine->qp->ToInit();
    engine->qp->ToReadyToReceive(engine->receive);
    engine->qp->ToReadyToSend(engine->send);
  }
  EXPECT_TRUE(pair.a.sends.list.empty());
  EXPECT_TRUE(pair.b.receives.list.empty());
  ASSERT_EQ(pair.b.PostReceive(200, 100), 0);
  ASSERT_EQ(pair.PostRemote(IBV_WR_SEND, 0, 100, 0), 0);
  pair.Run();
  ASSERT_EQ(pair.b.receives.list.size(), 1u);
  EXPECT_EQ(pair.b.receives.list[0].wr_id, 1002u);
}

TEST(QueuePairTest, ErrorStateFlushesInOrderAlsoLaterPosts) {
  Engine engine;
  engine.Connect();
  for (int i = 0; i < 3; ++i) ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, 0), 0);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(engine.PostReceive(0, 8), 0);
  engine.Transmit();
  engine.qp->ToError(engine.now);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8, 0), 0);
  ASSERT_EQ(engine.PostReceive(0, 8), 0);
  engine.qp->OnDoorbell(engine.now);
  ASSERT_EQ(engine.sends.list.size(), 4u);
  ASSERT_EQ(engine.receives.list.size(), 3u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(engine.sends.list[i].status, IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(engine.sends.list[i].wr_id, i + 1);
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(engine.receives.list[i].status, IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(engine.receives.list[i].wr_id, i + 1001);
  }
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);
}

// Producers on their own threads while the owner works: what ThreadSanitizer looks at.
TEST(QueuePairTest, PostsFromOtherThreads) {
  constexpr uint32_t kMessages = 20000;
  Pair pair;
  pair.a.limits.max_send_wr = 16;
  pair.b.limits.max_recv_wr = 16;
  pair.Connect();
  std::thread sender([&pair] {
    for (uint32_t i = 0; i < kMessages;) {
      ibv_sge sge{reinterpret_cast<uint64_t>(&i), sizeof(i), 0};
      ibv_send_wr wr{};
      wr.wr_id = i;
      wr.opcode = IBV_WR_SEND;
      wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
      wr.sg_list = &sge;
      wr.num_sge = 1;
      if (pair.a.qp->PostSend(wr) == 0) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::thread receiver([&pair] {
    for (uint32_t i = 0; i < kMessages;) {
      ibv_sge sge = pair.b.Sge((i % 1000) * sizeof(i), sizeof(i));
      ibv_recv_wr wr{};
      wr.wr_id = i;
      wr.sg_list = &sge;
      wr.num_sge = 1;
      if (pair.b.qp->PostReceive(wr) == 0) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  size_t checked = 0;
  while (pair.a.sends.list.size() < kMessages && pair.a.qp->state() == IBV_QPS_RTS) {
    pair.Run();
    for (; checked < pair.b.receives.list.size(); ++checked) {
      ASSERT_EQ(pair.b.receives.list[checked].wr_id, checked);
    }
    if (pair.a.qp->NextTimeout() != kNever) {  // the receiver was not ready: skip the wait
      pair.a.now = pair.a.qp->NextTimeout();
      pair.a.qp->OnTimeout(pair.a.now);
    }
    std::this_thread::yield();
  }
  sender.join();
  receiver.join();
  ASSERT_EQ(pair.a.sends.list.size(), kMessages);
  ASSERT_EQ(pair.b.receives.list.size(), kMessages);
  for (uint32_t i = 0; i < kMessages; ++i) ASSERT_EQ(pair.a.sends.list[i].wr_id, i);
}

}  // namespace
}  // namespace sumac::soft_nic
