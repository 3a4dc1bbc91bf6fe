// A lock for the few instructions in which threads of one application post or poll at once.
//
// Uncontended it is one atomic exchange. It yields while it waits, because its holder may have lost
// the processor. Never held by us across a system call; a program that posts with ibv_wr_start or
// polls with ibv_start_poll holds one as long as it likes.
#pragma once

#include <sched.h>

#include <atomic>

namespace sumac::soft_nic {

class SpinLock {
 public:
  void lock() {
    while (held_.exchange(true, std::memory_order_acquire)) {
      while (held_.load(std::memory_order_relaxed)) sched_yield();
    }
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace sumac::soft_nic
