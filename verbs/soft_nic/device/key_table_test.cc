#include "verbs/soft_nic/device/key_table.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

constexpr int kRead = IBV_ACCESS_REMOTE_READ;
constexpr int kWrite = IBV_ACCESS_REMOTE_WRITE;

struct Fixture {
  KeyTable keys;
  ibv_pd pd{}, other_pd{};
  std::vector<std::byte> memory = std::vector<std::byte>(4096);
  uint64_t begin() const { return reinterpret_cast<uint64_t>(memory.data()); }
  uint32_t Add(int access) {
    return keys.Add({.pd = &pd, .addr = begin(), .length = memory.size(), .access = access});
  }
};

TEST(KeyTable, FindsWhatIsInside) {
  Fixture f;
  const uint32_t key = f.Add(kRead);
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin(), 4096, kRead), f.memory.data());
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin() + 4095, 1, kRead), f.memory.data() + 4095);
}

TEST(KeyTable, RefusesEverythingElse) {
  Fixture f;
  const uint32_t key = f.Add(kRead);
  EXPECT_EQ(f.keys.Find(key ^ 1, &f.pd, f.begin(), 1, kRead), nullptr) << "unknown key";
  EXPECT_EQ(f.keys.Find(key, &f.other_pd, f.begin(), 1, kRead), nullptr) << "another domain's";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin(), 1, kWrite), nullptr) << "right not granted";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin(), 1, kRead | kWrite), nullptr) << "one of two rights";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin() - 1, 1, kRead), nullptr) << "before";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin() - 1, 4097, kRead), nullptr) << "around";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin(), 4097, kRead), nullptr) << "too long";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin() + 4096, 1, kRead), nullptr) << "after";
  EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin() + 1, ~size_t{0}, kRead), nullptr) << "wrapping";
  EXPECT_EQ(f.keys.Find(key, &f.pd, ~uint64_t{0}, 2, kRead), nullptr) << "wrapping address";
}

TEST(KeyTable, RemovedKeysAreGoneAndKeysDiffer) {
  Fixture f;
  std::set<uint32_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const uint32_t key = f.Add(kRead);
    EXPECT_TRUE(seen.insert(key).second) << "a key came again";
    EXPECT_NE(key, 0u);
    f.keys.Remove(key);
    EXPECT_EQ(f.keys.Find(key, &f.pd, f.begin(), 1, kRead), nullptr);
  }
  EXPECT_EQ(f.keys.size(), 0u);
}

TEST(ProtectedMemory, LocalAndRemoteRightsAreDifferentThings) {
  Fixture f;
  const uint32_t local_write = f.Add(IBV_ACCESS_LOCAL_WRITE);
  const uint32_t remote_read = f.Add(kRead);
  ProtectedMemory memory(f.keys, &f.pd);
  EXPECT_NE(memory.Local(local_write, f.begin(), 1, true), nullptr);
  EXPECT_EQ(memory.Remote(local_write, f.begin(), 1, kWrite), nullptr);
  EXPECT_NE(memory.Local(remote_read, f.begin(), 1, false), nullptr);  // reading needs no right
  EXPECT_EQ(memory.Local(remote_read, f.begin(), 1, true), nullptr);
  EXPECT_FALSE(memory.Invalidate(remote_read)) << "a memory region is not a window";
  EXPECT_NE(memory.Remote(remote_read, f.begin(), 1, kRead), nullptr);
}

TEST(KeyTable, WindowsOpenWhatTheyAreBoundTo) {
  Fixture f;
  const uint32_t region = f.Add(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
  const uint32_t window = f.keys.AddWindow(&f.pd, IBV_MW_TYPE_2);
  ASSERT_NE(window, 0u);
  const auto find = [&](uint32_t key, uint32_t qpn) {
    return f.keys.FindInWindow(key, &f.pd, qpn, f.begin() + 8, 8, kWrite);
  };
  EXPECT_EQ(find(window, 7), nullptr) << "not bound";
  const WindowBind bind{.rkey = ibv_inc_rkey(window),
                        .region_key = region,
                        .addr = f.begin() + 8,
                        .length = 8,
                        .access = kWrite};
  EXPECT_FALSE(f.keys.Bind(bind, &f.other_pd, 7));
  ASSERT_TRUE(f.keys.Bind(bind, &f.pd, 7));
  EXPECT_EQ(f.keys.at(region).windows, 1u);
  EXPECT_EQ(find(bind.rkey, 7), f.memory.data() + 8);
  EXPECT_EQ(find(window, 7), nullptr) << "its former key";
  EXPECT_EQ(find(bind.rkey, 8), nullptr) << "another queue pair's";
  EXPECT_EQ(f.keys.FindInWindow(bind.rkey, &f.other_pd, 7, f.begin() + 8, 8, kWrite), nullptr);
  EXPECT_EQ(f.keys.Find(bind.rkey, &f.pd, f.begin() + 8, 8, 0), nullptr) << "it is no lkey";
  EXPECT_FALSE(f.keys.Invalidate(window, &f.pd, 7));
  EXPECT_FALSE(f.keys.Invalidate(bind.rkey, &f.pd, 8));
  EXPECT_TRUE(f.keys.Invalidate(bind.rkey, &f.pd, 7));
  EXPECT_FALSE(f.keys.Invalidate(bind.rkey, &f.pd, 7)) << "closed already";
  EXPECT_EQ(f.keys.at(region).windows, 0u);
  ASSERT_TRUE(f.keys.Bind(bind, &f.pd, 7));
  f.keys.ReleaseWindowsOf(7);
  EXPECT_EQ(find(bind.rkey, 7), nullptr);
  ASSERT_TRUE(f.keys.Bind(bind, &f.pd, 7));
  f.keys.RemoveWindow(window);
  EXPECT_EQ(f.keys.at(region).windows, 0u);
  EXPECT_EQ(f.keys.window_count(), 0u);
}

}  // namespace
}  // namespace sumac::soft_nic
