#include "verbs/soft_nic/engine/congestion_notifier.h"

#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using testing::Engine;

class CongestionNotifierTest : public ::testing::Test {
 protected:
  CongestionNotifierTest() { engine.Connect(); }

  // A WRITE of the peer, marked on its way.
  void InjectMarked() {
    testing::Packet packet{{}, std::vector<std::byte>(64)};
    packet.header.opcode = Opcode::kRcWriteOnly;
    packet.header.dest_qpn = engine.qp->qpn();
    packet.header.psn = 0;  // long ago or far ahead: a mark counts all the same
    packet.header.dma_length = 64;
    PacketView view = packet.view();
    view.congestion_experienced = true;
    engine.qp->OnPacket(view, engine.now);
  }
  // The CNPs that go out now.
  std::vector<testing::Packet> Notifications() {
    std::vector<testing::Packet> found;
    for (auto& packet : engine.Transmit()) {
      if (packet.header.opcode == Opcode::kCnp) found.push_back(packet);
    }
    return found;
  }

  Engine engine;
};

TEST_F(CongestionNotifierTest, OneForManyMarksAndItsFormIsRight) {
  EXPECT_TRUE(Notifications().empty());
  for (int i = 0; i < 10; ++i) InjectMarked();
  const auto sent = Notifications();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_TRUE(sent[0].header.becn);
  EXPECT_FALSE(sent[0].header.ack_request);
  EXPECT_EQ(sent[0].header.psn, 0u);
  EXPECT_EQ(sent[0].header.dest_qpn, engine.receive.remote_qpn);
  EXPECT_EQ(sent[0].payload, std::vector<std::byte>(16));
  EXPECT_EQ(engine.qp->counters().cnps_sent, 1u);
}

TEST_F(CongestionNotifierTest, AtMostOnePerInterval) {
  int sent = 0;
  for (int microseconds = 0; microseconds < 1000; microseconds += 10) {
    InjectMarked();
    sent += static_cast<int>(Notifications().size());
    engine.now += std::chrono::microseconds(10);
  }
  EXPECT_EQ(sent, 20);
}

TEST_F(CongestionNotifierTest, ANotificationSlowsTheSenderAndDrawsNone) {
  engine.Inject(Opcode::kCnp, 0, 16);
  EXPECT_EQ(engine.qp->counters().cnps_received, 1u);
  EXPECT_TRUE(Notifications().empty());
  // Half of the initial window goes out before an answer is waited for.
  EXPECT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 64 << 10), 0);
  size_t bytes = 0;
  for (const auto& packet : engine.Transmit()) bytes += packet.payload.size();
  EXPECT_GT(bytes, 0u);
  EXPECT_LE(bytes, engine.send.congestion.window_bytes_initial / 2);
}

}  // namespace
}  // namespace sumac::soft_nic
