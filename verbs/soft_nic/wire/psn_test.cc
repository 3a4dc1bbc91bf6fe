#include "verbs/soft_nic/wire/psn.h"

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

TEST(PsnTest, AddWraps) {
  EXPECT_EQ(PsnAdd(0xfffffe, 1), 0xffffffu);
  EXPECT_EQ(PsnAdd(0xfffffe, 2), 0u);
  EXPECT_EQ(PsnAdd(0xfffffe, 5), 3u);
  EXPECT_EQ(PsnAdd(7, 0), 7u);
  EXPECT_EQ(PsnAdd(0, static_cast<uint32_t>(-1)), 0xffffffu);
}

TEST(PsnTest, DiffIsSignedAcrossTheWrap) {
  EXPECT_EQ(PsnDiff(5, 5), 0);
  EXPECT_EQ(PsnDiff(0, 0xffffff), 1);
  EXPECT_EQ(PsnDiff(0xffffff, 0), -1);
  EXPECT_EQ(PsnDiff(3, 0xfffffe), 5);
  EXPECT_EQ(PsnDiff(0x7fffff, 0), 0x7fffff);
  EXPECT_EQ(PsnDiff(0x800000, 0), -0x800000);
}

TEST(PsnTest, DiffUndoesAdd) {
  for (uint32_t base : {0u, 1u, 0x7fffffu, 0x800000u, 0xffffffu}) {
    for (uint32_t n : {0u, 1u, 100u, 0x7fffffu}) {
      EXPECT_EQ(PsnDiff(PsnAdd(base, n), base), static_cast<int32_t>(n)) << base << " + " << n;
      EXPECT_EQ(PsnDiff(base, PsnAdd(base, n)), -static_cast<int32_t>(n)) << base << " + " << n;
    }
  }
}

}  // namespace
}  // namespace sumac::soft_nic
