#include "cli/perf/pair/pattern.h"

#include <vector>

#include "gtest/gtest.h"

namespace sumac::cli {
namespace {

TEST(Pattern, IsItsOwnAndNoOther) {
  const Salt salt{.row = 3, .phase = 1, .writer = 1, .lane = 2, .slot = 3};
  for (const size_t bytes : {1u, 2u, 7u, 8u, 9u, 4099u}) {
    std::vector<std::byte> memory(bytes);
    FillPattern(memory, salt);
    EXPECT_EQ(CountWrong(memory, salt), 0u);
    memory.back() ^= std::byte{1};
    EXPECT_EQ(CountWrong(memory, salt), 1u);
  }
}

TEST(Pattern, OtherSaltsAndPlacesShow) {
  std::vector<std::byte> memory(4096);
  const Salt salt{.row = 1, .phase = 0, .writer = 0, .lane = 0, .slot = 0};
  FillPattern(memory, salt);
  for (const Salt& other : {Salt{2, 0, 0, 0, 0}, Salt{1, 1, 0, 0, 0}, Salt{1, 0, 1, 0, 0},
                            Salt{1, 0, 0, 1, 0}, Salt{1, 0, 0, 0, 1}}) {
    EXPECT_GT(CountWrong(memory, other), 4000u);
  }
  const std::vector<std::byte> shifted(memory.begin() + 64, memory.end());
  EXPECT_GT(CountWrong(shifted, salt), 3900u);
}

TEST(Pattern, AFewBytesDifferBetweenPhases) {
  // Two bytes of one phase must not pass for those of the next too often; these rows do not.
  for (uint64_t row = 0; row < 8; ++row) {
    std::vector<std::byte> memory(2);
    FillPattern(memory, {row, 0, 0, 0, 0});
    EXPECT_GT(CountWrong(memory, {row, 1, 0, 0, 0}), 0u) << row;
  }
}

}  // namespace
}  // namespace sumac::cli
