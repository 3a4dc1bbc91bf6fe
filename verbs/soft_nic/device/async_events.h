// The asynchronous events of a device: a short list behind a pollable descriptor
// (ibv_context.async_fd).
//
// Post never blocks or fails: past kEventsMax the newest event is dropped and counted, and Take
// waits on the descriptor as ibv_get_async_event does. Any thread.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <deque>
#include <mutex>

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class AsyncEvents {
 public:
  static constexpr size_t kEventsMax = 4096;
  AsyncEvents();
  int fd() const { return fd_.get(); }
  void Post(const ibv_async_event& event);
  // 0, or -1 with errno (EAGAIN when the descriptor is non-blocking and nothing is there).
  int Take(ibv_async_event* event);
  // Withdraws the events of an object that is being destroyed.
  template <typename IsAbout>
  void Forget(IsAbout is_about) {
    const std::lock_guard lock(mutex_);
    std::erase_if(events_, is_about);
  }

 private:
  UniqueFd fd_;
  std::mutex mutex_;
  std::deque<ibv_async_event> events_;
};

}  // namespace sumac::soft_nic
