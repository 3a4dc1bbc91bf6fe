// What an attacker with raw verbs and a connection can do to memory it has no right to: nothing.
//
// The domain's own checks are out of the way here; only the NIC stands between.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

constexpr size_t kGuard = 512;    // bytes before and after what is granted
constexpr size_t kRegion = 1001;  // neither a multiple of 8 nor of an MTU

// A target whose whole memory is one pattern; the middle is granted with `access`. Its own
// registration of everything is dropped, so that no key but the granted one reaches the guards.
struct Target {
  explicit Target(int access) : end(2 * kGuard + kRegion) {
    std::iota(end.memory.begin(), end.memory.end(), uint8_t{1});
    before = end.memory;
    end.region.reset();
    region = *MemoryRegion::Register(end.pd, end.memory.data() + kGuard, kRegion, access);
  }
  uint64_t Base() const { return end.Address(kGuard); }

  End end;
  std::vector<uint8_t> before;
  std::unique_ptr<MemoryRegion> region;
};

struct Attack {
  ibv_wr_opcode opcode;
  const char* name;
  int needs;
};
constexpr Attack kAttacks[] = {
    {IBV_WR_RDMA_WRITE, "write", IBV_ACCESS_REMOTE_WRITE},
    {IBV_WR_RDMA_WRITE_WITH_IMM, "write with immediate", IBV_ACCESS_REMOTE_WRITE},
    {IBV_WR_RDMA_READ, "read", IBV_ACCESS_REMOTE_READ},
    {IBV_WR_ATOMIC_FETCH_AND_ADD, "fetch-add", IBV_ACCESS_REMOTE_ATOMIC},
    {IBV_WR_ATOMIC_CMP_AND_SWP, "compare-swap", IBV_ACCESS_REMOTE_ATOMIC},
};
bool IsAtomic(const Attack& attack) { return attack.needs == IBV_ACCESS_REMOTE_ATOMIC; }

// Runs one operation of a fresh connection; the name of its completion status.
std::string Try(Target& target, const Attack& attack, uint64_t addr, size_t length, uint32_t rkey) {
  End attacker(4096);
  Connect(attacker, target.end);
  ibv_recv_wr receive{};  // a write with immediate takes one
  EXPECT_EQ(target.end.qp->PostReceive(receive), 0);
  std::fill(attacker.memory.begin(), attacker.memory.end(), 0xee);
  EXPECT_EQ(attacker.Post(attack.opcode, attacker.Sge(0, length), addr, rkey), 0);
  const ibv_wc wc = attacker.Next();
  const bool unchanged = std::all_of(attacker.memory.begin(), attacker.memory.end(),
                                     [](uint8_t byte) { return byte == 0xee; });
  EXPECT_TRUE(wc.status == IBV_WC_SUCCESS || unchanged) << "bytes came with a refusal";
  // The target's queue pair is of no more use; a fresh one for the next attack.
  target.end.qp = *QueuePair::Create(target.end.pd, target.end.cq, target.end.cq, {});
  return NameOf(wc.status);
}

struct Range {
  int64_t offset;
  size_t length;
};

TEST(RawVerbsTest, OffByOneAndWorse) {
  constexpr auto kEnd = static_cast<int64_t>(kRegion);
  const std::vector<Range> outside = {
      {-1, 1},       {-1, 2},        {-1, kRegion + 2}, {0, kRegion + 1},    {kEnd, 1},
      {kEnd - 1, 2}, {kEnd, kGuard}, {-512, kGuard},    {kEnd + 100'000, 8}, {-100'000, 8}};
  Target target(kAllAccess);
  for (const Attack& attack : kAttacks) {
    if (IsAtomic(attack)) continue;
    for (const Range& range : outside) {
      SCOPED_TRACE(std::string(attack.name) + " " + std::to_string(range.length) + " at " +
                   std::to_string(range.offset));
      const uint64_t addr = target.Base() + static_cast<uint64_t>(range.offset);
      EXPECT_EQ(Try(target, attack, addr, range.length, target.region->rkey()),
                "IBV_WC_REM_ACCESS_ERR");
      ASSERT_EQ(target.end.memory, target.before);
    }
  }
}

TEST(RawVerbsTest, AtomicsAtTheEdges) {
  Target target(kAllAccess);
  // The last aligned word that begins inside and ends outside, and the words around.
  const uint64_t end = target.Base() + kRegion;
  for (const Attack& attack : kAttacks) {
    if (!IsAtomic(attack)) continue;
    for (const uint64_t addr :
         {target.Base() - 8, end / 8 * 8, (end + 7) / 8 * 8, end / 8 * 8 + 8}) {
      SCOPED_TRACE(attack.name);
      if (addr + 8 <= end && addr >= target.Base()) continue;
      EXPECT_EQ(Try(target, attack, addr / 8 * 8, 8, target.region->rkey()),
                "IBV_WC_REM_ACCESS_ERR");
      ASSERT_EQ(target.end.memory, target.before);
    }
  }
}

TEST(RawVerbsTest, EveryRightApart) {
  for (const int granted : {0, int{IBV_ACCESS_REMOTE_WRITE}, int{IBV_ACCESS_REMOTE_READ},
                            int{IBV_ACCESS_REMOTE_ATOMIC}}) {
    Target target(granted | IBV_ACCESS_LOCAL_WRITE);
    for (const Attack& attack : kAttacks) {
      if (granted == attack.needs) continue;
      SCOPED_TRACE(std::string(attack.name) + " with access " + std::to_string(granted));
      const uint64_t addr = (target.Base() + 7) / 8 * 8;
      EXPECT_EQ(Try(target, attack, addr, 8, target.region->rkey()), "IBV_WC_REM_ACCESS_ERR");
      ASSERT_EQ(target.end.memory, target.before);
    }
  }
}

TEST(RawVerbsTest, NeighbouringKeys) {
  Target target(kAllAccess);
  const uint32_t rkey = target.region->rkey();
  std::vector<uint32_t> guesses = {0, 1, ~0u};
  for (uint32_t i = 1; i <= 16; ++i) guesses.insert(guesses.end(), {rkey + i, rkey - i});
  for (uint32_t bit = 0; bit < 32; ++bit) guesses.push_back(rkey ^ 1u << bit);
  for (const uint32_t guess : guesses) {
    if (guess == rkey) continue;
    EXPECT_EQ(Try(target, kAttacks[0], target.Base(), 8, guess), "IBV_WC_REM_ACCESS_ERR") << guess;
    ASSERT_EQ(target.end.memory, target.before);
  }
}

// One key must say nothing about another. 2,000 random 32-bit keys: some pair within 16 of each
// other comes up about 15 times by chance; with keys in a row it would be nearly 2,000 times.
TEST(RawVerbsTest, KeysAreDrawnAtRandom) {
  End end(64);
  std::set<uint32_t> keys;
  std::set<uint32_t> top_bytes;
  std::vector<std::unique_ptr<MemoryRegion>> regions;
  for (int i = 0; i < 2000; ++i) {
    regions.push_back(*MemoryRegion::Register(end.pd, end.memory.data(), 64, kAllAccess));
    keys.insert(regions.back()->rkey());
    top_bytes.insert(regions.back()->rkey() >> 24);
  }
  EXPECT_EQ(keys.size(), 2000u);
  EXPECT_GT(top_bytes.size(), 200u) << "of 256";
  int close = 0;
  for (auto it = std::next(keys.begin()); it != keys.end(); ++it)
    close += *it - *std::prev(it) < 17;
  EXPECT_LT(close, 100);
}

// A write or read of no bytes touches nothing, so no key is looked at (IBTA C9-88); it must not be
// a way to anything either.
TEST(RawVerbsTest, NoBytesNoKeyNoHarm) {
  Target target(kAllAccess);
  for (const Attack& attack : kAttacks) {
    if (IsAtomic(attack)) continue;
    SCOPED_TRACE(attack.name);
    EXPECT_EQ(Try(target, attack, 0, 0, target.region->rkey() ^ 1), "IBV_WC_SUCCESS");
    EXPECT_EQ(Try(target, attack, ~uint64_t{0}, 0, 0), "IBV_WC_SUCCESS");
    EXPECT_EQ(target.end.memory, target.before);
  }
}

TEST(RawVerbsTest, AnotherProtectionDomainsKey) {
  Target target(kAllAccess);
  const auto other = *ProtectionDomain::Create(target.end.device);
  const auto region = *MemoryRegion::Register(other, target.end.memory.data(),
                                              target.end.memory.size(), kAllAccess);
  for (const Attack& attack : kAttacks) {
    SCOPED_TRACE(attack.name);
    const uint64_t addr = (target.end.Address() + 7) / 8 * 8;
    EXPECT_EQ(Try(target, attack, addr, 8, region->rkey()), "IBV_WC_REM_ACCESS_ERR");
    ASSERT_EQ(target.end.memory, target.before);
  }
}

TEST(RawVerbsTest, ADroppedKeyIsDead) {
  Target target(kAllAccess);
  const uint32_t rkey = target.region->rkey();
  EXPECT_EQ(Try(target, kAttacks[0], target.Base(), 0, rkey), "IBV_WC_SUCCESS");
  target.region.reset();
  for (const Attack& attack : kAttacks) {
    SCOPED_TRACE(attack.name);
    EXPECT_EQ(Try(target, attack, (target.Base() + 7) / 8 * 8, 8, rkey), "IBV_WC_REM_ACCESS_ERR");
    ASSERT_EQ(target.end.memory, target.before);
  }
}

}  // namespace
}  // namespace sumac::verbs
