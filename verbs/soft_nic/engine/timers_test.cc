#include "verbs/soft_nic/engine/timers.h"

#include <gtest/gtest.h>

namespace sumac::soft_nic {
namespace {

TEST(TimersTest, CodesOfTheSpecification) {
  EXPECT_EQ(AckTimeout(0), Duration::max());
  EXPECT_EQ(AckTimeout(1), Duration(8192));
  EXPECT_EQ(AckTimeout(14), Duration(67108864));
  EXPECT_EQ(AckTimeout(31), Duration(int64_t{4096} << 31));
  EXPECT_EQ(RnrWait(0), std::chrono::microseconds(655360));
  EXPECT_EQ(RnrWait(1), std::chrono::microseconds(10));
  EXPECT_EQ(RnrWait(12), std::chrono::microseconds(640));
  EXPECT_EQ(RnrWait(18), std::chrono::microseconds(5120));
  EXPECT_EQ(RnrWait(31), std::chrono::microseconds(491520));
}

}  // namespace
}  // namespace sumac::soft_nic
