// Keys after deregistration: refused, however often, and also while the table changes under the
// refusals.

#include <atomic>
#include <cstring>
#include <span>
#include <thread>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/same_host_test_support.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::verbs {
namespace {

using soft_nic::SoftContext;

// The path that a peer's packet takes through the key table, a million times, beside a thread that
// registers and deregisters.
TEST(StaleKey, AMillionUsesInARace) {
  constexpr int kUses = 1'000'000;
  End a(64 << 10);
  SoftContext& nic = SoftContext::Of(a.device->context());
  const auto registered = [&] {
    auto region = MemoryRegion::Register(a.pd, a.memory.data(), a.memory.size(),
                                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    EXPECT_TRUE(region.ok()) << region.status();
    return *std::move(region);
  };
  // The key that was valid last; each is stale before it can be seen here.
  std::atomic<uint32_t> stale{registered()->rkey()};
  std::atomic<bool> stop{false};
  std::thread owner([&] {
    while (!stop) {
      const uint32_t key = registered()->rkey();
      stale.store(key);
    }
  });
  int passed = 0;
  const uint64_t address = a.Address();
  for (int i = 0; i < kUses; ++i) {
    const uint32_t key = stale.load();
    passed += static_cast<int>(nic.progress().Exclusive([&] {
      soft_nic::ProtectedMemory memory(nic.keys(), a.pd->pd());
      return memory.Remote(key, address, 64, IBV_ACCESS_REMOTE_WRITE) != nullptr;
    }));
  }
  stop = true;
  owner.join();
  EXPECT_EQ(passed, 0);
}

// The same by the way without packets: on one host the initiator itself looks at the key.
TEST(StaleKey, AMillionDirectUsesInARace) {
  constexpr int kUses = 1'000'000;
  End a(64), b(4096);
  Connect(a, b);
  ASSERT_TRUE(test_support::Eventually([&a] { return DirectIsUp(a); }));
  const auto registered = [&] {
    auto region = MemoryRegion::Register(b.pd, b.memory.data(), b.memory.size(),
                                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    EXPECT_TRUE(region.ok()) << region.status();
    return *std::move(region);
  };
  std::atomic<uint32_t> stale{registered()->rkey()};
  std::atomic<bool> stop{false};
  std::thread owner([&] {
    while (!stop) {
      const uint32_t key = registered()->rkey();
      stale.store(key);
    }
  });
  SoftContext& nic = SoftContext::Of(a.device->context());
  soft_nic::DirectPath& direct = static_cast<soft_nic::SoftQueuePair*>(a.qp->qp())->direct;
  const iovec bytes{a.memory.data(), 64};
  int passed = 0;
  for (int i = 0; i < kUses; ++i) {
    const soft_nic::RemoteRange range{stale.load(), b.Address(), 64};
    passed += static_cast<int>(
        nic.progress().Exclusive([&] { return direct.Write(range, 0, std::span(&bytes, 1)); }));
  }
  stop = true;
  owner.join();
  EXPECT_EQ(passed, 0);
  // And one that is not stale passes.
  const auto fresh = registered();
  EXPECT_TRUE(nic.progress().Exclusive([&] {
    return direct.Write({fresh->rkey(), b.Address(), 64}, 0, std::span(&bytes, 1));
  }));
}

// Over the wire: what was deregistered while WRITEs to it were on the way is not written to once
// ibv_dereg_mr has returned.
TEST(StaleKey, NothingIsWrittenAfterDeregistration) {
  constexpr int kRounds = 100;
  constexpr size_t kBytes = 32 << 10;
  for (int round = 0; round < kRounds; ++round) {
    End a(kBytes), b(kBytes);
    Connect(a, b);
    std::memset(a.memory.data(), 0x55, kBytes);
    auto region = MemoryRegion::Register(b.pd, b.memory.data(), kBytes,
                                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    ASSERT_TRUE(region.ok());
    std::atomic<bool> posted{false};
    std::thread writer([&, key = (*region)->rkey()] {
      ibv_wc_status status = IBV_WC_SUCCESS;
      while (status == IBV_WC_SUCCESS) {
        EXPECT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, kBytes), b.Address(), key), 0);
        posted = true;
        status = a.Next().status;
      }
      EXPECT_EQ(status, IBV_WC_REM_ACCESS_ERR);
    });
    while (!posted) std::this_thread::yield();
    region->reset();
    std::memset(b.memory.data(), 0, kBytes);
    writer.join();
    for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(b.memory[i], 0) << i << ", round " << round;
  }
}

}  // namespace
}  // namespace sumac::verbs
