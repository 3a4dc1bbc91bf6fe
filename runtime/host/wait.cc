// How a rank waits for a word of another's memory, once it is clear that it takes a while.

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "runtime/host/host_group.h"

namespace sumac::runtime {
namespace {

// How long a wait keeps its CPU, giving it to others that want it, before it sleeps. Waking up
// costs some 25 us.
constexpr absl::Duration kAwake = absl::Microseconds(200);
constexpr int kSpinsApart = 400;  // before the first yield, when the peer has a CPU of its own
constexpr uint32_t kWaitsPerMove = 128;
constexpr int kSpinsPerYield = 32;
constexpr int kYieldsPerLook = 16;  // at the clock, and at whether the job has failed
// Between two of these a sleeper looks whether the job has failed.
constexpr absl::Duration kSleepMax = absl::Milliseconds(10);
// A rank that left may have done so because of a death that we have not heard of yet.
constexpr absl::Duration kNewsDelay = absl::Milliseconds(500);

// The half of a flag that changes with every step: futexes are 32 bits.
uint32_t* LowHalf(const HostFlag& flag) {
  auto* const halves = reinterpret_cast<uint32_t*>(const_cast<HostFlag*>(&flag));
  return halves + (std::endian::native == std::endian::little ? 0 : 1);
}

}  // namespace

bool HostGroup::AwaitLong(const HostFlag& flag, uint64_t at_least, int peer) {
  const auto there = [&] { return flag.load(std::memory_order_acquire) >= at_least; };
  const Header& header = *members_[static_cast<size_t>(peer)].header;
  const bool one_cpu = header.cpu.load(std::memory_order_relaxed) == ::sched_getcpu();
  const bool in_our_way = oversubscribed_ || one_cpu;
  for (int i = 0; i < kSpinsApart && !in_our_way; ++i) {
    if (there()) return true;
    Pause();
  }
  const absl::Time began = absl::Now();
  if (deadline_ == absl::InfiniteFuture()) deadline_ = began + timeout_;
  // There are CPUs for all, but the scheduler has put two ranks on one, and sees no reason to
  // change that as both yield. Who sleeps is woken on a CPU that is idle, if there is one.
  if (one_cpu && !oversubscribed_ && one_cpu_waits_++ % kWaitsPerMove == 0) {
    Sleep(flag, at_least, peer);
  }
  const int spins = in_our_way ? 1 : kSpinsPerYield;
  for (int yields = 0;;) {
    for (int i = 0; i < spins; ++i) {
      if (there()) return true;
      Pause();
    }
    ::sched_yield();
    if (++yields % kYieldsPerLook == 0 && absl::Now() - began > kAwake) break;
  }
  left_seen_ = absl::InfiniteFuture();
  for (;;) {
    if (there()) return true;
    if (MustEnd(peer)) {
      if (!there()) return false;
      status_ = absl::OkStatus();  // it came with the peer's last breath
      return true;
    }
    Sleep(flag, at_least, peer);
  }
}

void HostGroup::Sleep(const HostFlag& flag, uint64_t at_least, int peer) {
  std::atomic<uint32_t>& sleepers = members_[static_cast<size_t>(peer)].header->sleepers;
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  // Now either the peer's next Publish sees the sleeper, or its last one is seen below. The barrier
  // is made on the peer's CPU, too, so that Publish needs none.
  if (!fence_) (void)::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0);
  const uint64_t seen = flag.load(std::memory_order_seq_cst);
  if (seen < at_least) {
    SleepOn(flag, seen, std::clamp(deadline_ - absl::Now(), absl::ZeroDuration(), kSleepMax));
  }
  sleepers.fetch_sub(1, std::memory_order_seq_cst);
}

void HostGroup::SleepOn(const HostFlag& flag, uint64_t seen, absl::Duration time) {
  const timespec timeout = absl::ToTimespec(time);
  (void)::syscall(SYS_futex, LowHalf(flag), FUTEX_WAIT, static_cast<uint32_t>(seen), &timeout,
                  nullptr, 0);
}

void HostGroup::AwaitNews() {
  const HostFlag never{0};
  const absl::Time until = absl::Now() + kNewsDelay;
  while (!bootstrap_.failed() && absl::Now() < until) SleepOn(never, 0, absl::Milliseconds(1));
  if (bootstrap_.failed()) status_ = bootstrap_.failure();
}

void HostGroup::Wake(HostFlag& flag) {
  (void)::syscall(SYS_futex, LowHalf(flag), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool HostGroup::MustEnd(int peer) {
  if (bootstrap_.failed()) {
    status_ = bootstrap_.failure();
    return true;
  }
  const absl::Time now = absl::Now();
  if (now >= deadline_) {
    status_ = absl::DeadlineExceededError(
        absl::StrCat("waits for rank ", peer, " since ", absl::FormatDuration(timeout_)));
    return true;
  }
  if (members_[static_cast<size_t>(peer)].header->left.load(std::memory_order_acquire) == 0) {
    return false;
  }
  if (left_seen_ == absl::InfiniteFuture()) left_seen_ = now;
  if (now - left_seen_ < kNewsDelay) return false;
  status_ = transport::WithFailedRank(
      absl::UnavailableError(
          absl::StrCat("rank ", peer,
                       " has left: its communicator is gone (do all ranks make the same calls?)")),
      peer);
  return true;
}

}  // namespace sumac::runtime
