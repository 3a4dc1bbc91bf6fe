// The data path allocates nothing: two processes over the soft NIC, every operation, once warm.
//
// A program of its own: it replaces operator new. Counts per thread, for the bootstrap's threads
// allocate as they like.

#include <cstdint>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"

#include "runtime/domain.h"
#include "runtime/testing/domain_rank.h"
#include "tests/support/job.h"

namespace {
thread_local uint64_t allocations = 0;

void* Counted(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t bytes) { return Counted(bytes); }
void* operator new[](std::size_t bytes) { return Counted(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }

namespace sumac::runtime {
namespace {

using testing::Deadline;
using testing::DomainRank;
using testing::Must;

// One of each, on peers and on itself.
void OneRound(Domain& domain, const Capability& peer, const Capability& own, const Segment& work,
              const Signal& theirs, const Signal& mine, uint64_t round) {
  Must(domain.Put(peer, 0, work.Slice(0, 10000)));
  Must(domain.Get(peer, 0, work.Slice(10000, 10000)));
  Must(domain.FetchAdd(peer, 8, 1));
  Must(domain.CompareSwap(peer, 8, 1, 2));
  Must(domain.Put(own, 0, work.Slice(0, 100)));
  Must(domain.FetchAdd(own, 0, 1));
  if (Must(domain.SignalRoom(theirs.rank)) > 0) {
    Must(domain.PutWithSignal(peer, 0, work.Slice(0, 10000), theirs));
  } else {
    Must(domain.RaiseSignal(theirs));
  }
  domain.Progress();
  Must(domain.WaitSignal(mine, theirs.rank, round, Deadline()));
  Must(domain.Flush(theirs.rank));
}

TEST(AllocationTest, NoneOnTheDataPath) {
  test_support::ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    const Segment memory = Must(domain.Allocate(1 << 16));
    const Segment work = Must(domain.Allocate(1 << 16));
    const Grant grant = Must(domain.MakeGrant(memory, 0, 1 << 16, kAllRights));
    const Signal mine = Must(domain.CreateSignal());
    const int other = 1 - self.rank();
    const auto capabilities = self.Swap(grant.capability());
    const Capability& peer = capabilities[static_cast<size_t>(other)];
    const Signal theirs{.rank = other, .id = mine.id};
    uint64_t round = 0;
    const auto run = [&](int rounds) {
      for (int i = 0; i < rounds; ++i) {
        OneRound(domain, peer, grant.capability(), work, theirs, mine, ++round);
      }
    };
    run(50);
    const uint64_t before = allocations;
    EXPECT_GT(before, 0u) << "the counter does not count";
    run(200);
    EXPECT_EQ(allocations - before, 0u) << "allocations in 200 rounds";
    self.Barrier();
  });
  job.ExpectAllOk(std::chrono::seconds(100));
}

}  // namespace
}  // namespace sumac::runtime
