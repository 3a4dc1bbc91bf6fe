#include "verbs/soft_nic/device/quarantine.h"

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

TEST(Quarantine, HoldsTheLatest) {
  Quarantine quarantine(3);
  EXPECT_FALSE(quarantine.Holds(1));
  for (uint32_t number = 1; number <= 3; ++number) quarantine.Add(number);
  for (uint32_t number = 1; number <= 3; ++number) EXPECT_TRUE(quarantine.Holds(number));
  quarantine.Add(4);
  EXPECT_FALSE(quarantine.Holds(1));
  EXPECT_TRUE(quarantine.Holds(2));
  for (uint32_t number = 5; number <= 1000; ++number) quarantine.Add(number);
  EXPECT_FALSE(quarantine.Holds(997));
  EXPECT_TRUE(quarantine.Holds(998));
}

}  // namespace
}  // namespace sumac::soft_nic
