// How a process that sleeps learns that a neighbour on this host has written into memory for it.
//
// A line of shared memory says how many threads sleep, and an event descriptor wakes them: a writer
// whose reader is awake makes no system call. The reader announces its sleep before it looks for
// the last time, and the writer looks at the announcement after it has written, so one of them sees
// the other (Dekker; both sides have a full fence in between).
//
// The sleeper's side is for any thread; the waker's for the engine's owner.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sumac::soft_nic {

class SleepFlag {
 public:
  static constexpr size_t kBytes = 64;

  // `memory` is kBytes of shared memory, zeroed by its creator; `event` an eventfd. Both stay.
  SleepFlag(std::span<std::byte> memory, int event) : memory_(memory.data()), event_(event) {}

  // --- Sleeper
  void Announce() { Sleepers().fetch_add(1, std::memory_order_seq_cst); }
  void Withdraw() { Sleepers().fetch_sub(1, std::memory_order_seq_cst); }
  // Makes the event unreadable again, if it was rung.
  void Clear() {
    if (Rung().load(std::memory_order_relaxed) == 0) return;
    uint64_t rings = 0;
    [[maybe_unused]] const ssize_t got = read(event_, &rings, sizeof(rings));
    Rung().store(0, std::memory_order_seq_cst);
  }

  // --- Waker, after it has written
  void WakeIfAsleep() {
    if (SleepersAfterFence() == 0) return;
    if (Rung().exchange(1, std::memory_order_seq_cst) != 0) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_, &one, sizeof(one));
  }

 private:
  uint32_t SleepersAfterFence() const {
#ifdef __SANITIZE_THREAD__
    // ThreadSanitizer knows no fences; a read-modify-write of the flag itself orders the same, at
    // the price of taking its cache line from the other writers.
    return Sleepers().fetch_add(0, std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return Sleepers().load(std::memory_order_relaxed);
#endif
  }
  std::atomic_ref<uint32_t> Sleepers() const {
    return std::atomic_ref(*reinterpret_cast<uint32_t*>(memory_));
  }
  std::atomic_ref<uint32_t> Rung() const {
    return std::atomic_ref(*reinterpret_cast<uint32_t*>(memory_ + sizeof(uint32_t)));
  }

  std::byte* memory_;
  int event_;
};

}  // namespace sumac::soft_nic
