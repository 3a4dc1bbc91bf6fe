// The promise of the hot path: posting, progress and short messages take no memory.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "gtest/gtest.h"

#include "transport/testing/fake_bootstrap.h"
#include "transport/testing/ranks_on_threads.h"
#include "transport/worker.h"

namespace {
// Of this thread only: the soft NIC's helper and the connector may allocate as they like.
thread_local uint64_t allocations = 0;
}  // namespace

// The replaced operators pair with each other; g++ 12 loses sight of that once it has inlined one
// of them.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const size_t unit = static_cast<size_t>(alignment);
  if (void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace sumac::transport {
namespace {

TEST(NoAllocation, TheCounterCounts) {
  const uint64_t before = allocations;
  ::operator delete(::operator new(1));
  EXPECT_GT(allocations, before);
}

TEST(NoAllocation, ShortMessagesAndOneSidedOperations) {
  FakeJob job(1);
  const auto created = Worker::Create(job.rank(0), TestOptions());
  ASSERT_TRUE(created.ok()) << created.status();
  Worker& worker = **created;
  Endpoint& self = **worker.Connect(0, Soon());
  std::array<std::byte, 8192> memory{};
  const auto region =
      worker.Register(memory.data(), memory.size(), kRemoteRead | kRemoteWrite | kRemoteAtomic);
  ASSERT_TRUE(region.ok()) << region.status();
  const LocalSlice local{memory.data(), 4096, (*region)->lkey()};
  const LocalSlice word{memory.data(), 8, (*region)->lkey()};
  const RemoteSlice remote{reinterpret_cast<uint64_t>(memory.data()) + 4096, (*region)->rkey()};
  uint64_t immediates = 0;
  worker.SetImmediateHandler([&](int, uint32_t) { ++immediates; });

  bool good = true;
  const auto round = [&] {
    std::array<std::byte, 3000> message{};
    good = good && self.Send(message, Soon()).ok();
    good = good && self.Receive(message, Soon()).ok();
    good = good && self.Write(local, remote).ok();
    good = good && self.Read(local, remote).ok();
    good = good && self.FetchAdd(word, remote, 1).ok();
    good = good && self.CompareSwap(word, remote, 1, 2).ok();
    good = good && self.WriteWithImmediate(local, remote, 7).ok();
    good = good && self.Flush(Soon()).ok();
  };
  for (int i = 0; i < 100; ++i) round();  // the device's own buffers reach their size
  const uint64_t before = allocations;
  for (int i = 0; i < 1000; ++i) round();
  EXPECT_EQ(allocations - before, 0u);
  EXPECT_TRUE(good) << self.status();
  EXPECT_TRUE(worker.Wait([&] { return immediates == 1100; }, Soon()).ok()) << immediates;
}

}  // namespace
}  // namespace sumac::transport
