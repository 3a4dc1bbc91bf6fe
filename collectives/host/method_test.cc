#include "collectives/host/method.h"

#include "gtest/gtest.h"

namespace sumac::collectives {
namespace {

using std::chrono::microseconds;

// `calls` of one size, on rank 0 and another rank, where each way takes so long.
class Calls {
 public:
  Calls(MethodChooser& first, MethodChooser& other) : first_(first), other_(other) {}

  // How many went by copies.
  uint32_t Make(uint32_t calls, size_t bytes, microseconds stage, microseconds copy) {
    uint32_t copies = 0;
    for (uint32_t i = 0; i < calls; ++i) {
      const HostMethod method = first_.current(bytes);
      EXPECT_EQ(method, other_.current(bytes)) << "call " << i;
      const HostMethod next = first_.Next(bytes);
      first_.OnCall(bytes, next, method == HostMethod::kCopy ? copy : stage);
      other_.OnCall(bytes, next, {});
      copies += method == HostMethod::kCopy;
    }
    return copies;
  }

 private:
  MethodChooser& first_;
  MethodChooser& other_;
};

class MethodTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kRest = MethodChooser::kPeriod - 2 * MethodChooser::kTrials;
  MethodChooser first{HostCopies::kMeasured};
  MethodChooser other{HostCopies::kMeasured};
  Calls calls{first, other};
};

TEST_F(MethodTest, TriesBothAndTakesTheFaster) {
  EXPECT_EQ(calls.Make(MethodChooser::kPeriod, 1 << 20, microseconds(200), microseconds(100)),
            MethodChooser::kTrials + kRest);
  EXPECT_EQ(calls.Make(MethodChooser::kPeriod, 1 << 26, microseconds(100), microseconds(200)),
            MethodChooser::kTrials);
}

TEST_F(MethodTest, ChangesItsMindWhenTheMachineDoes) {
  calls.Make(MethodChooser::kPeriod, 1 << 20, microseconds(200), microseconds(100));
  EXPECT_EQ(calls.Make(MethodChooser::kPeriod, 1 << 20, microseconds(50), microseconds(100)),
            MethodChooser::kTrials);
}

TEST_F(MethodTest, TheFirstCallOfEachDoesNotCount) {
  for (uint32_t i = 0; i < 2 * MethodChooser::kTrials; ++i) {
    const bool cold = i % MethodChooser::kTrials == 0;
    calls.Make(1, 1 << 20, microseconds(cold ? 1 : 200), microseconds(cold ? 1000 : 100));
  }
  EXPECT_EQ(calls.Make(kRest, 1 << 20, {}, {}), kRest);
}

TEST_F(MethodTest, SizesAreApart) {
  EXPECT_EQ(calls.Make(MethodChooser::kTrials, 1000, microseconds(2), microseconds(1)), 0u);
  EXPECT_EQ(first.current(1000), HostMethod::kCopy);
  EXPECT_EQ(first.current(1 << 20), HostMethod::kStage);
}

TEST(Method, AlwaysAndNever) {
  MethodChooser never{HostCopies::kNever}, its_other{HostCopies::kNever};
  EXPECT_EQ(Calls(never, its_other).Make(3000, 1 << 20, microseconds(200), microseconds(100)), 0u);
  EXPECT_FALSE(never.measures(1 << 20));
  MethodChooser always{HostCopies::kAlways}, follower{HostCopies::kMeasured};
  EXPECT_EQ(Calls(always, follower).Make(3000, 1 << 20, microseconds(1), microseconds(2)), 2999u);
  EXPECT_FALSE(always.measures(1 << 20));
}

TEST(Method, WhatIsNoMethodIsTheStage) {
  MethodChooser chooser{HostCopies::kMeasured};
  chooser.OnCall(1 << 20, static_cast<HostMethod>(77), {});
  EXPECT_EQ(chooser.current(1 << 20), HostMethod::kStage);
}

}  // namespace
}  // namespace sumac::collectives
