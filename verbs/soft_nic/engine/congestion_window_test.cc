#include "verbs/soft_nic/engine/congestion_window.h"

#include <gtest/gtest.h>

namespace sumac::soft_nic {
namespace {

constexpr uint32_t kPacket = 1000;

CongestionWindow Make(uint32_t initial, uint32_t max) {
  CongestionOptions options;
  options.window_bytes_initial = initial;
  options.window_bytes_max = max;
  CongestionWindow window;
  window.Reset(options, kPacket);
  return window;
}

TEST(CongestionWindowTest, LimitsHoldAtLeastOnePacket) {
  EXPECT_EQ(Make(1, 1).bytes(), kPacket);
  EXPECT_EQ(Make(5000, 3000).bytes(), 3000u);
}

TEST(CongestionWindowTest, SlowStartDoublesUpToTheLimit) {
  CongestionWindow window = Make(2000, 7000);
  window.OnAck(2000, 2000);
  EXPECT_EQ(window.bytes(), 4000u);
  window.OnAck(4000, 4000);
  EXPECT_EQ(window.bytes(), 7000u);
}

TEST(CongestionWindowTest, GrowsOnePacketPerWindowAfterALoss) {
  CongestionWindow window = Make(10000, 20000);
  window.OnLoss();
  EXPECT_EQ(window.bytes(), 5000u);
  for (int i = 0; i < 4; ++i) window.OnAck(1000, 5000);
  EXPECT_EQ(window.bytes(), 5000u);
  window.OnAck(1000, 5000);
  EXPECT_EQ(window.bytes(), 6000u);
}

TEST(CongestionWindowTest, TimeoutStartsFromOnePacketUpToHalf) {
  CongestionWindow window = Make(10000, 20000);
  window.OnTimeout();
  EXPECT_EQ(window.bytes(), kPacket);
  for (int i = 0; i < 3; ++i) window.OnAck(window.bytes(), window.bytes());
  EXPECT_EQ(window.bytes(), 8000u);  // past the threshold of 5000 by the last doubling
  window.OnAck(4000, 8000);
  EXPECT_EQ(window.bytes(), 8000u);
}

TEST(CongestionWindowTest, AnIdleSenderDoesNotGrow) {
  CongestionWindow window = Make(10000, 20000);
  for (int i = 0; i < 100; ++i) window.OnAck(1000, 1000);
  EXPECT_EQ(window.bytes(), 10000u);
}

TEST(CongestionWindowTest, LossesNeverGoBelowTwoPackets) {
  CongestionWindow window = Make(10000, 20000);
  for (int i = 0; i < 10; ++i) window.OnLoss();
  EXPECT_EQ(window.bytes(), 2 * kPacket);
}

TEST(CongestionWindowTest, NotificationsCutByHalfFirstAndByLessAfterQuietTimes) {
  using std::chrono::microseconds;
  CongestionWindow window = Make(100'000, 100'000);
  std::chrono::steady_clock::time_point now{};
  window.OnNotification(now);  // alpha is 1
  EXPECT_EQ(window.bytes(), 50'000u);
  window.OnNotification(now + microseconds(54));  // in the same interval: one cut
  EXPECT_EQ(window.bytes(), 50'000u);
  now += microseconds(60);
  window.OnNotification(now);
  EXPECT_EQ(window.bytes(), 25'000u);
  // After quiet times alpha is small, and so is the cut.
  now += std::chrono::milliseconds(5);
  window.OnNotification(now);
  EXPECT_GT(window.bytes(), 24'900u);
  EXPECT_LT(window.bytes(), 25'000u);
  // It grows a packet a window from there, not by doubling.
  window.OnAck(25'000, 25'000);
  EXPECT_LE(window.bytes(), 26'000u);
  // Never below a packet, whatever comes.
  for (int i = 0; i < 1000; ++i) window.OnNotification(now += microseconds(60));
  EXPECT_EQ(window.bytes(), kPacket);
}

}  // namespace
}  // namespace sumac::soft_nic
