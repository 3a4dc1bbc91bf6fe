#include "verbs/soft_nic/link/flood_guard.h"

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

using std::chrono::milliseconds;

const Time kStart{std::chrono::seconds(50)};

Gid GidWith(uint8_t host) {
  Gid gid{};
  gid[15] = host;
  return gid;
}

TEST(FloodGuardTest, HoldsASourceThatExceedsTheLimitAndNoOther) {
  FloodGuard guard;
  for (uint32_t i = 1; i < FloodGuard::kBadMax; ++i) {
    EXPECT_FALSE(guard.OnBad(GidWith(1), kStart));
  }
  EXPECT_FALSE(guard.Floods(GidWith(1), kStart));
  EXPECT_TRUE(guard.OnBad(GidWith(1), kStart));
  EXPECT_TRUE(guard.Floods(GidWith(1), kStart));
  EXPECT_FALSE(guard.Floods(GidWith(2), kStart));
  EXPECT_TRUE(guard.Floods(GidWith(1), kStart + milliseconds(999)));
  EXPECT_FALSE(guard.Floods(GidWith(1), kStart + milliseconds(1000))) << "it has stopped";
}

TEST(FloodGuardTest, AFewBadPacketsAllTheTimeAreNoFlood) {
  FloodGuard guard;
  Time now = kStart;
  for (int i = 0; i < 100'000; ++i, now += std::chrono::microseconds(110)) {
    ASSERT_FALSE(guard.OnBad(GidWith(1), now)) << i;
  }
}

TEST(FloodGuardTest, LastsAsLongAsTheFlood) {
  FloodGuard guard;
  Time now = kStart;
  for (int i = 0; i < 1'000'000; ++i, now += std::chrono::microseconds(10)) {
    (void)guard.OnBad(GidWith(1), now);
    if (i > 1000) {
      ASSERT_TRUE(guard.Floods(GidWith(1), now)) << i;
    }
  }
  EXPECT_FALSE(guard.Floods(GidWith(1), now + FloodGuard::kHold));
}

}  // namespace
}  // namespace sumac::soft_nic
