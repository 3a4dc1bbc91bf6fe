#include "verbs/soft_nic/engine/placement.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

namespace sumac::soft_nic {
namespace {

TEST(PlacementTest, EveryAlignmentAndLength) {
  std::array<std::byte, 64> from;
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i + 1);
  for (size_t at = 0; at < 16; ++at) {
    for (size_t length = 0; length <= 32; ++length) {
      alignas(8) std::array<std::byte, 64> to{};
      PlaceBytes(&to[at], &from[at % 3], length);
      for (size_t i = 0; i < to.size(); ++i) {
        const bool inside = i >= at && i < at + length;
        ASSERT_EQ(to[i], inside ? from[at % 3 + i - at] : std::byte{0}) << at << " " << length;
      }
    }
  }
}

// A program that spins on the last word of a WRITE sees all the rest (ib_write_lat,
// put-with-signal).
TEST(PlacementTest, WhoSeesTheLastWordSeesAll) {
  constexpr uint32_t kRounds = 20000;
  constexpr size_t kWords = 64;
  alignas(64) std::array<uint32_t, kWords> memory{};
  std::atomic<uint32_t> seen{0};
  std::atomic<bool> torn{false};
  std::thread reader([&] {
    for (uint32_t round = 1; round <= kRounds; ++round) {
      std::atomic_ref<uint32_t> flag(memory[kWords - 1]);
      while (flag.load(std::memory_order_acquire) != round) std::this_thread::yield();
      for (size_t i = 0; i + 2 < kWords; ++i) {
        if (memory[i] != round) torn = true;
      }
      seen.store(round, std::memory_order_release);
    }
  });
  for (uint32_t round = 1; round <= kRounds; ++round) {
    std::array<uint32_t, kWords> message;
    message.fill(round);
    PlaceBytes(reinterpret_cast<std::byte*>(memory.data()),
               reinterpret_cast<const std::byte*>(message.data()), sizeof(message));
    while (seen.load(std::memory_order_acquire) != round) std::this_thread::yield();
  }
  reader.join();
  EXPECT_FALSE(torn);
}

}  // namespace
}  // namespace sumac::soft_nic
