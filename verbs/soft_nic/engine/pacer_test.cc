// Pacing in virtual time: rates are kept over any stretch, bursts are bounded, and notifications
// slow a sender that nobody acknowledges until the network is quiet again.
#include "verbs/soft_nic/engine/pacer.h"

#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/congestion_rate.h"
#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::Engine;

constexpr uint64_t kMegabyte = 1'000'000;
const Time kStart{std::chrono::seconds(100)};

TEST(PacerTest, WithoutARateNothingWaits) {
  Pacer pacer;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(pacer.MaySend(kStart));
    pacer.OnSent(1 << 20, kStart);
  }
}

// Whoever asks again when told to gets the whole rate, also when every timer is late.
TEST(PacerTest, KeepsTheRateAlsoWithLateTimers) {
  for (const microseconds late : {microseconds(0), microseconds(30), microseconds(90)}) {
    Pacer pacer;
    pacer.SetRate(100 * kMegabyte);
    Time now = kStart;
    uint64_t sent = 0;
    while (now < kStart + milliseconds(100)) {
      for (; pacer.MaySend(now); sent += 1000) pacer.OnSent(1000, now);
      ASSERT_GT(pacer.next(), now);
      now = pacer.next() + late;
    }
    EXPECT_NEAR(static_cast<double>(sent), 10e6, 0.01 * 10e6) << late.count();
  }
}

TEST(PacerTest, PauseIsNotFollowedByAFlood) {
  Pacer pacer;
  pacer.SetRate(100 * kMegabyte);
  pacer.OnSent(1000, kStart);
  const Time later = kStart + std::chrono::hours(1);
  uint64_t sent = 0;
  for (; pacer.MaySend(later); sent += 1000) pacer.OnSent(1000, later);
  const auto burst = static_cast<uint64_t>(100 * kMegabyte * 200 / 1'000'000);  // Pacer::kBurst
  EXPECT_LE(sent, burst + 1000);
}

TEST(CongestionRateTest, HalvesAtFirstAndRecovers) {
  CongestionRate rate;
  EXPECT_EQ(rate.Current(kStart), 0u);
  rate.OnNotification(1000 * kMegabyte, kStart);
  EXPECT_EQ(rate.Current(kStart), 500 * kMegabyte);
  rate.OnNotification(1000 * kMegabyte, kStart + microseconds(10));  // of the same congestion
  EXPECT_EQ(rate.Current(kStart + microseconds(10)), 500 * kMegabyte);
  // Five steps come close to the former rate, none beyond it.
  const uint64_t soon = rate.Current(kStart + 5 * microseconds(55));
  EXPECT_GT(soon, 980 * kMegabyte);
  EXPECT_LT(soon, 1000 * kMegabyte);
  EXPECT_GT(rate.Current(kStart + milliseconds(2)), 1000 * kMegabyte);
  EXPECT_EQ(rate.Current(kStart + milliseconds(50)), 0u) << "free again";
}

TEST(CongestionRateTest, ConstantNotificationsLeaveAMinimum) {
  CongestionRate rate;
  Time now = kStart;
  for (int i = 0; i < 1000; ++i, now += microseconds(55))
    rate.OnNotification(1000 * kMegabyte, now);
  EXPECT_GE(rate.Current(now), 10 * kMegabyte / 8);
  EXPECT_LT(rate.Current(now), 50 * kMegabyte);
}

TEST(CongestionRateTest, RareNotificationsCostLittle) {
  CongestionRate rate;
  Time now = kStart;
  for (int i = 0; i < 100; ++i, now += milliseconds(10)) {
    rate.OnNotification(1000 * kMegabyte, now);
    (void)rate.Current(now + milliseconds(9));
  }
  rate.OnNotification(1000 * kMegabyte, now);
  EXPECT_GT(rate.Current(now), 0u);
}

class PacedQueuePairTest : public ::testing::Test {
 protected:
  // Lets time pass as the device does; the packets that went out by then.
  size_t RunUntil(Time end) {
    size_t packets = engine.Transmit().size();
    for (Time at; (at = engine.qp->NextTimeout()) <= end;) {
      engine.now = at;
      engine.qp->OnTimeout(at);
      packets += engine.Transmit().size();
    }
    engine.now = end;
    return packets + engine.Transmit().size();
  }
  void PostWrites(int count) {
    for (int i = 0; i < count; ++i) ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 10 * 1024), 0);
  }
  Engine engine;
};

TEST_F(PacedQueuePairTest, EveryServiceKeepsItsRateLimit) {
  for (const ibv_qp_type type : {IBV_QPT_RC, IBV_QPT_UC}) {
    engine = Engine();
    engine.limits.type = type;
    engine.send.timeout = 0;
    engine.send.congestion.window_bytes_initial = engine.send.congestion.window_bytes_max = 1 << 20;
    engine.Connect();
    engine.qp->SetRateLimit(10 * kMegabyte);
    PostWrites(40);  // 400 packets of 1 KiB and a little
    const Time start = engine.now;
    const size_t begun = RunUntil(start + milliseconds(10));
    EXPECT_GT(begun, 80u);
    EXPECT_LT(begun, 105u);
    EXPECT_EQ(begun + RunUntil(start + milliseconds(60)), 400u) << "nothing is left behind";
    EXPECT_EQ(engine.qp->NextTimeout(), kNever);
  }
}

TEST_F(PacedQueuePairTest, ResetEndsTheLimit) {
  engine.Connect();
  engine.qp->SetRateLimit(kMegabyte);
  engine.qp->ToReset();
  engine.qp->ToInit();
  engine.qp->ToReadyToReceive(engine.receive);
  engine.qp->ToReadyToSend(engine.send);
  PostWrites(4);
  EXPECT_EQ(engine.Transmit().size(), 40u);
}

TEST_F(PacedQueuePairTest, NotificationsSlowUcDown) {
  engine.limits.type = IBV_QPT_UC;
  engine.Connect();
  for (int i = 0; i < 10; ++i) {  // 100 packets a millisecond: 100 MB/s
    PostWrites(10);
    EXPECT_EQ(engine.Transmit().size(), 100u);
    engine.now += milliseconds(1);
  }
  PostWrites(10);
  testing::Packet cnp{{}, std::vector<std::byte>(16)};
  cnp.header.opcode = Opcode::kCnp;
  cnp.header.dest_qpn = engine.qp->qpn();
  engine.qp->OnPacket(cnp.view(), engine.now);
  const Time start = engine.now;
  const size_t soon = RunUntil(start + microseconds(100));
  EXPECT_LT(soon, 40u) << "a burst, and half the rate";
  EXPECT_EQ(soon + RunUntil(start + milliseconds(20)), 100u);
  EXPECT_EQ(engine.qp->counters().cnps_received, 1u);
}

}  // namespace
}  // namespace sumac::soft_nic
