// The ranks of a job that share this host's memory: an area of each, mapped by all, and waiting for
// words in it.
//
// Collectives among ranks of one host run over it (collectives/host). Made collectively; only when
// *all* ranks of the bootstrap can really map each other's memory, which is tried, not assumed;
// otherwise all ranks get the same refusal and go another way. An area is written by its owner and
// read by the others. Its memory comes from a peer: sizes and offsets in it are checked before use.
//
// Waiting: a rank spins a little, then yields, then sleeps in a futex on the word. Who writes a
// word wakes only if somebody sleeps. With more ranks than CPUs, or when the one waited for was
// last seen on the same CPU, it hardly spins. Every wait ends: at the deadline of the operation
// (DeadlineExceeded naming the rank waited for), or when the bootstrap learns that a rank died
// (Unavailable naming it), or when the rank waited for has left.
//
// Ownership: shared by a communicator and its buffers; `bootstrap` must outlive all waits. Threads:
// one at a time. Hot path: Publish and Await allocate nothing and make no system call while the
// others are on time.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "runtime/host/peer_memory.h"
#include "runtime/host/region_record.h"
#include "runtime/memory/mapping.h"
#include "transport/bootstrap/bootstrap.h"

namespace sumac::runtime {

inline constexpr size_t kCacheLineBytes = 64;

// A counter that its owner raises and others wait for. Only ever grows.
using HostFlag = std::atomic<uint64_t>;
static_assert(HostFlag::is_always_lock_free && sizeof(HostFlag) == 8);

struct HostGroupOptions {
  std::string name;       // unique in the bootstrap's life; the same on all ranks
  size_t area_bytes = 0;  // of each rank; the same on all ranks
  std::string refusal;    // not empty: this rank does not want to share, and why
  absl::Duration timeout = absl::Seconds(30);  // for the others to call Create
};

class HostGroup {
 public:
  // Collective. FailedPrecondition, on all ranks alike: they can't share memory, and why (no
  // failure of the job). Others: the bootstrap failed.
  static absl::StatusOr<std::shared_ptr<HostGroup>> Create(transport::Bootstrap& bootstrap,
                                                           const HostGroupOptions& options);
  ~HostGroup();
  HostGroup(const HostGroup&) = delete;
  HostGroup& operator=(const HostGroup&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  // `area_bytes` of zeroed memory, at a cache line's beginning.
  std::byte* area(int rank) const { return members_[static_cast<size_t>(rank)].area; }
  // More ranks than CPUs that they may run on: some wait for others to get one. The same on all.
  bool oversubscribed() const { return oversubscribed_; }

  // --- Waiting
  // The waits until the next Begin are of one operation, which may take `timeout` from its first
  // wait that is not over at once.
  void Begin(absl::Duration timeout) {
    if (const int cpu = ::sched_getcpu(); cpu != cpu_) {
      cpu_ = cpu;
      own_->cpu.store(cpu, std::memory_order_relaxed);
    }
    timeout_ = timeout;
    deadline_ = absl::InfiniteFuture();
  }
  // Raises a flag of the own area, after everything written before.
  void Publish(HostFlag& flag, uint64_t value) {
    if (fence_) {
      flag.exchange(value, std::memory_order_seq_cst);
      if (own_->sleepers.load(std::memory_order_seq_cst) != 0) Wake(flag);
    } else {
      flag.store(value, std::memory_order_release);
      // Not before the store: a sleeper sees to that with a membarrier (see Sleep).
      std::atomic_signal_fence(std::memory_order_seq_cst);
      if (own_->sleepers.load(std::memory_order_relaxed) != 0) Wake(flag);
    }
  }
  // Waits until a flag of `peer`'s area has come to `at_least`; then what the peer wrote before is
  // visible. False: it has not, and status() says why.
  bool Await(const HostFlag& flag, uint64_t at_least, int peer) {
    for (int i = 0; i < kSpins; ++i) {
      if (flag.load(std::memory_order_acquire) >= at_least) return true;
      Pause();
    }
    return AwaitLong(flag, at_least, peer);
  }
  const absl::Status& status() const { return status_; }
  // After a failure that a rank's death may explain (a peer that is gone, a buffer that is): waits
  // a moment for the bootstrap's news of one; then that is the status.
  void AwaitNews();

  // The others need not wait for this rank any more: waits for it fail. Idempotent.
  void Leave();

  // --- Buffers that the ranks can reach in each other's memory
  // Announces a memfd of this process; peers map it when they first need it. A reference that is
  // not valid(): no room for more, use another way.
  RegionRef AnnounceRegion(int fd, size_t bytes);
  // Peers unmap it when they notice; the reference is never valid again.
  void WithdrawRegion(const RegionRef& ref);
  // How often this rank has withdrawn. Peers that are told call ForgetWithdrawn when it changed.
  uint32_t withdrawals() const { return withdrawals_; }
  void ForgetWithdrawn(int peer, uint32_t withdrawals) {
    if (members_[static_cast<size_t>(peer)].withdrawals != withdrawals) {
      UnmapWithdrawn(peer, withdrawals);
    }
  }
  // Bytes in `peer`'s region, mapped here. Null: the reference is no good, and status() says why.
  std::byte* Reach(int peer, const RegionRef& ref, uint64_t offset, uint64_t bytes);
  // --- Private memory of the other ranks
  // The kernel copies from it for us: tried by each rank with each other, and the same on all.
  bool can_copy() const { return can_copy_; }
  // From `address` in `peer`'s memory; a system call. False: not all of it, and status() says why.
  bool CopyFrom(int peer, uint64_t address, std::byte* to, size_t bytes);

  // Regions of peers mapped at the moment; for tests.
  int mapped_regions() const;

  static void Pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#endif
  }

 private:
  // What each rank's memory begins with.
  struct alignas(kCacheLineBytes) Header {
    uint64_t nonce = 0;
    std::atomic<uint32_t> left{0};
    std::atomic<int32_t> cpu{-1};  // that it was last seen on by itself
    alignas(kCacheLineBytes) std::atomic<uint32_t> sleepers{0};  // in waits for the owner's flags
    alignas(kCacheLineBytes) RegionRecord regions[kRegionsMax];
  };
  static constexpr int kSpins = 20;  // before a wait asks who might hold it up
  struct MappedRegion {
    uint32_t generation = 0;
    PeerMemory memory;
  };
  struct Member {
    PeerMemory memory;  // not of the own rank
    Header* header = nullptr;
    std::byte* area = nullptr;
    int32_t pid = 0;
    uint32_t withdrawals = 0;           // as we last heard
    std::vector<MappedRegion> regions;  // by slot
  };

  HostGroup(transport::Bootstrap& bootstrap, std::shared_ptr<Mapping> mapping);
  // Maps all others' areas; why not, if not. And tries to copy from them.
  std::string MapOthers(const std::vector<std::string>& values);
  bool FindsNonce(int peer, uint64_t address, uint64_t nonce);
  bool AwaitLong(const HostFlag& flag, uint64_t at_least, int peer);
  void Sleep(const HostFlag& flag, uint64_t at_least, int peer);
  static void Wake(HostFlag& flag);
  static void SleepOn(const HostFlag& flag, uint64_t seen, absl::Duration time);
  // Is there a reason not to wait any longer? Then it is in status_.
  bool MustEnd(int peer);
  void UnmapWithdrawn(int peer, uint32_t withdrawals);

  transport::Bootstrap& bootstrap_;
  const int rank_;
  const std::shared_ptr<Mapping> mapping_;
  std::vector<Member> members_;
  Header* own_ = nullptr;
  int cpu_ = -1;
  uint32_t one_cpu_waits_ = 0;  // for peers on our CPU
  bool fence_ = true;
  bool oversubscribed_ = false;
  bool can_copy_ = true;
  uint32_t withdrawals_ = 0;
  uint32_t generations_ = 0;
  absl::Duration timeout_ = absl::ZeroDuration();
  absl::Time deadline_;
  absl::Time left_seen_ = absl::InfiniteFuture();
  absl::Status status_;
};

}  // namespace sumac::runtime
