// The soft NIC's completion queue and completion channel: genuine ibv_cq and ibv_comp_channel.
//
// A queue is a ring: the engine's owner pushes, polling threads take under a spin lock of the
// queue. A full ring overruns: the queue is then in error for good, that completion and all later
// ones are lost, and the device moves the attached queue pairs to error (IBTA vol. 1, 10.10.2 and
// 11.6.3.1).
//
// Arm and Push meet without a lost event: Push publishes the entry before it looks whether the
// queue is armed; a consumer arms before it polls again.
//
// A channel is an eventfd that counts queued events, and the list of queues that have some. A queue
// is in the list once, with its number of events, so the list needs no memory of its own.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "verbs/soft_nic/device/spin_lock.h"
#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

class SoftCompletionQueue;

class SoftChannel : public ibv_comp_channel {
 public:
  // Null with errno when there is no descriptor.
  static SoftChannel* Create(ibv_context* context);
  ~SoftChannel();
  SoftChannel(const SoftChannel&) = delete;
  SoftChannel& operator=(const SoftChannel&) = delete;

  void Notify(SoftCompletionQueue* queue);
  // Takes an event, or null when there is none. Its queue counts it in comp_events_taken.
  SoftCompletionQueue* Take();
  // Withdraws a queue's events that nobody took.
  void Forget(SoftCompletionQueue* queue);
  bool has_event();

 private:
  SoftChannel() : ibv_comp_channel{} {}
  std::mutex mutex_;
  SoftCompletionQueue* first_ = nullptr;
  SoftCompletionQueue* last_ = nullptr;
};

class SoftCompletionQueue : public ibv_cq, public CompletionSink {
 public:
  // `overrun_flag` is set when the queue overruns; read by the engine's owner.
  SoftCompletionQueue(ibv_context* context, int entries, void* cq_context, SoftChannel* channel,
                      bool* overrun_flag);
  ~SoftCompletionQueue() override;
  SoftCompletionQueue(const SoftCompletionQueue&) = delete;
  SoftCompletionQueue& operator=(const SoftCompletionQueue&) = delete;

  // Engine's owner.
  void Push(const ibv_wc& completion, bool solicited) override;
  // Drops the completions of a queue pair that is being destroyed. Engine's owner.
  void Forget(uint32_t qpn);

  // Any thread. The number taken.
  int Take(int count, ibv_wc* out);
  void Arm(bool solicited_only);
  bool overrun() const { return overrun_.load(std::memory_order_acquire); }

  SoftChannel* soft_channel() const { return static_cast<SoftChannel*>(channel); }
  // How many queue pairs use it; changed by control calls that entered exclusively.
  int users = 0;
  // Events handed out so far, under ibv_cq.mutex: destroying waits for their acknowledgement.
  uint32_t comp_events_taken = 0;
  uint32_t async_events_taken = 0;
  bool overrun_reported = false;  // IBV_EVENT_CQ_ERR; engine's owner

 private:
  friend class SoftChannel;
  enum Armed : int { kDisarmed, kSolicited, kAny };

  bool* const overrun_flag_;
  std::vector<ibv_wc> ring_;
  uint32_t mask_;
  std::atomic<uint32_t> head_{0};  // next to push
  std::atomic<uint32_t> tail_{0};  // next to take
  std::atomic<int> armed_{kDisarmed};
  std::atomic<bool> overrun_{false};
  SpinLock consumers_;
  SoftCompletionQueue* next_event_ = nullptr;  // under the channel's mutex
  uint32_t events_queued_ = 0;
};

}  // namespace sumac::soft_nic
