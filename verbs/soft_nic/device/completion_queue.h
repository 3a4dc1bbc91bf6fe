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
#include <cstddef>
#include <cstdint>
#include <memory>
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

// An ibv_cq with room behind it for the rest of an ibv_cq_ex, so that one address is both.
struct GenuineCompletionQueue : ibv_cq {
  std::byte rest_of_extended[sizeof(ibv_cq_ex) - sizeof(ibv_cq)];
};
static_assert(sizeof(GenuineCompletionQueue) == sizeof(ibv_cq_ex) &&
              offsetof(ibv_cq_ex, comp_mask) == sizeof(ibv_cq));

// When something completed, by both clocks that a program can ask for.
struct CompletionTime {
  uint64_t raw_ns = 0;  // CLOCK_MONOTONIC_RAW: the device's clock
  uint64_t wall_ns = 0;
  static CompletionTime Now();
};

// What ibv_start_poll to ibv_end_poll go over (extended_completion_queue.cc).
struct PollSession {
  SpinLock lock;  // from start to end
  bool single_threaded = false;
  ibv_wc current{};
  CompletionTime time;
};

class SoftCompletionQueue : public GenuineCompletionQueue, public CompletionSink {
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
  // Room for at least `entries`, keeping what is there; false when that is more. Engine's owner.
  bool Resize(int entries);

  // Any thread. The number taken.
  int Take(int count, ibv_wc* out);
  // One, with its time (zero unless they are kept). False: none is there.
  bool TakeOne(ibv_wc* out, CompletionTime* time);
  void Arm(bool solicited_only);
  bool overrun() const { return overrun_.load(std::memory_order_acquire); }

  // Notes the time of every completion from now on. Before the queue is used.
  void KeepTimes() { times_.resize(ring_.size()); }
  // Null unless created extended.
  std::unique_ptr<PollSession> session;

  SoftChannel* soft_channel() const { return static_cast<SoftChannel*>(channel); }
  ibv_pd* parent_domain = nullptr;  // that it was created with; counts it
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
  std::vector<CompletionTime> times_;  // beside ring_; empty unless kept
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
