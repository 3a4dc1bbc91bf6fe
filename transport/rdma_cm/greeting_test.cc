#include "transport/rdma_cm/greeting.h"

#include <vector>

#include "gtest/gtest.h"

namespace sumac::transport::rdma_cm {
namespace {

TEST(Greeting, SurvivesTheTripAlsoPadded) {
  const auto bytes = Encode({3, 0x01020304, 0xfedcba9876543210});
  for (const size_t padding : {0, 36, 172}) {
    std::vector<uint8_t> came(bytes.begin(), bytes.end());
    came.resize(bytes.size() + padding, 0xaa);
    const auto greeting = ParseGreeting(came);
    ASSERT_TRUE(greeting.ok()) << greeting.status();
    EXPECT_EQ(greeting->from, 3u);
    EXPECT_EQ(greeting->to, 0x01020304u);
    EXPECT_EQ(greeting->key, 0xfedcba9876543210u);
  }
}

TEST(Greeting, IsBigEndianOnTheWire) {
  const auto bytes = Encode({1, 2, 3});
  EXPECT_EQ(
      std::vector<uint8_t>(bytes.begin(), bytes.end()),
      (std::vector<uint8_t>{'S', 'U', 'M', 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3}));
}

TEST(Greeting, NothingElseIsOne) {
  const auto good = Encode({1, 2, 3});
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(ParseGreeting({good.data(), length}).ok()) << length;
  }
  for (size_t byte = 0; byte < 4; ++byte) {
    auto bad = good;
    bad[byte] ^= 1;
    EXPECT_EQ(ParseGreeting(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace sumac::transport::rdma_cm
