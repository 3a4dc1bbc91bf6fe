// The asynchronous events of a device: a short list behind a pollable descriptor
// (ibv_context.async_fd).
//
// A queue pair, completion queue or shared receive queue that is destroyed takes its events along,
// and waits until those that were handed out are acknowledged (man 3 ibv_get_async_event). Post
// never blocks; past kEventsMax the newest event is dropped with a warning. Any thread.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <deque>
#include <mutex>

#include "absl/functional/function_ref.h"

#include "verbs/soft_nic/device/shared_receive_queue.h"
#include "verbs/soft_nic/device/soft_queue_pair.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class AsyncEvents {
 public:
  static constexpr size_t kEventsMax = 16384;
  AsyncEvents();
  int fd() const { return fd_.get(); }
  void Post(const ibv_async_event& event);
  // 0, or -1 with errno: EAGAIN when the descriptor is non-blocking and nothing is there.
  int Take(ibv_async_event* event);
  static void Acknowledge(const ibv_async_event& event);
  void Retire(SoftQueuePair& qp);
  void Retire(SoftCompletionQueue& cq);
  void Retire(SoftSharedReceiveQueue& srq);

 private:
  void Withdraw(absl::FunctionRef<bool(const ibv_async_event&)> is_about);

  UniqueFd fd_;  // its counter is the length of the list
  std::mutex mutex_;
  std::deque<ibv_async_event> events_;
};

}  // namespace sumac::soft_nic
