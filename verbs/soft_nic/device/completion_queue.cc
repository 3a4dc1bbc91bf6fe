#include "verbs/soft_nic/device/completion_queue.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <new>

#include "verbs/soft_nic/link/no_cancel.h"

namespace sumac::soft_nic {
namespace {

uint64_t ReadClock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

CompletionTime CompletionTime::Now() {
  return {.raw_ns = ReadClock(CLOCK_MONOTONIC_RAW), .wall_ns = ReadClock(CLOCK_REALTIME)};
}

SoftChannel* SoftChannel::Create(ibv_context* context) {
  const int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
  if (fd < 0) return nullptr;
  auto* channel = new SoftChannel();
  channel->context = context;
  channel->fd = fd;
  return channel;
}

SoftChannel::~SoftChannel() { close(fd); }

void SoftChannel::Notify(SoftCompletionQueue* queue) {
  const ScopedNoCancel no_cancel;  // the engine is owned
  const std::lock_guard lock(mutex_);
  if (queue->events_queued_++ == 0) {
    queue->next_event_ = nullptr;
    (last_ != nullptr ? last_->next_event_ : first_) = queue;
    last_ = queue;
  }
  const uint64_t one = 1;
  // Can't block: nobody arms a queue 2^64 times.
  [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof(one));
}

SoftCompletionQueue* SoftChannel::Take() {
  const ScopedNoCancel no_cancel;  // an event is taken whole
  const std::lock_guard lock(mutex_);
  SoftCompletionQueue* queue = first_;
  if (queue == nullptr) return nullptr;
  if (--queue->events_queued_ == 0) {
    first_ = queue->next_event_;
    if (first_ == nullptr) last_ = nullptr;
  }
  uint64_t one = 0;
  // Doesn't block: the counter equals the number of events in the list.
  [[maybe_unused]] const ssize_t got = read(fd, &one, sizeof(one));
  // Counted before the channel is let go: who destroys the queue now waits for it.
  pthread_mutex_lock(&queue->mutex);
  ++queue->comp_events_taken;
  pthread_mutex_unlock(&queue->mutex);
  return queue;
}

void SoftChannel::Forget(SoftCompletionQueue* queue) {
  const std::lock_guard lock(mutex_);
  if (queue->events_queued_ == 0) return;
  SoftCompletionQueue** link = &first_;
  SoftCompletionQueue* previous = nullptr;
  while (*link != queue) {
    previous = *link;
    link = &previous->next_event_;
  }
  *link = queue->next_event_;
  if (last_ == queue) last_ = previous;
  for (; queue->events_queued_ != 0; --queue->events_queued_) {
    uint64_t one = 0;
    [[maybe_unused]] const ssize_t got = read(fd, &one, sizeof(one));
  }
}

bool SoftChannel::has_event() {
  const std::lock_guard lock(mutex_);
  return first_ != nullptr;
}

SoftCompletionQueue::SoftCompletionQueue(ibv_context* owner, int entries, void* user_context,
                                         SoftChannel* event_channel, bool* overrun_flag)
    : GenuineCompletionQueue{},
      overrun_flag_(overrun_flag),
      ring_(std::bit_ceil(static_cast<uint32_t>(entries))) {
  mask_ = static_cast<uint32_t>(ring_.size()) - 1;
  context = owner;
  channel = event_channel;
  cq_context = user_context;
  cqe = static_cast<int>(ring_.size());
  pthread_mutex_init(&mutex, nullptr);
  pthread_cond_init(&cond, nullptr);
}

SoftCompletionQueue::~SoftCompletionQueue() {
  pthread_cond_destroy(&cond);
  pthread_mutex_destroy(&mutex);
}

void SoftCompletionQueue::Push(const ibv_wc& completion, bool solicited) {
  if (overrun_.load(std::memory_order_relaxed)) return;
  const uint32_t head = head_.load(std::memory_order_relaxed);
  if (head - tail_.load(std::memory_order_acquire) > mask_) {
    overrun_.store(true, std::memory_order_release);
    *overrun_flag_ = true;
    return;
  }
  ring_[head & mask_] = completion;
  if (!times_.empty()) times_[head & mask_] = CompletionTime::Now();
  head_.store(head + 1, std::memory_order_seq_cst);
  int armed = armed_.load(std::memory_order_seq_cst);
  if (armed == kDisarmed || (armed == kSolicited && !solicited)) return;
  if (armed_.compare_exchange_strong(armed, kDisarmed) && channel != nullptr) {
    soft_channel()->Notify(this);
  }
}

void SoftCompletionQueue::Forget(uint32_t qpn) {
  consumers_.lock();
  const uint32_t head = head_.load(std::memory_order_relaxed);
  uint32_t kept = tail_.load(std::memory_order_relaxed);
  for (uint32_t i = kept; i != head; ++i) {
    if (ring_[i & mask_].qp_num == qpn) continue;
    if (!times_.empty()) times_[kept & mask_] = times_[i & mask_];
    ring_[kept++ & mask_] = ring_[i & mask_];
  }
  head_.store(kept, std::memory_order_release);
  consumers_.unlock();
}

bool SoftCompletionQueue::Resize(int entries) {
  std::vector<ibv_wc> ring(std::bit_ceil(static_cast<uint32_t>(entries)));
  std::vector<CompletionTime> times(times_.empty() ? 0 : ring.size());
  const uint32_t mask = static_cast<uint32_t>(ring.size()) - 1;
  const std::lock_guard lock(consumers_);
  const uint32_t head = head_.load(std::memory_order_relaxed);
  const uint32_t tail = tail_.load(std::memory_order_relaxed);
  if (head - tail > ring.size()) return false;
  for (uint32_t i = tail; i != head; ++i) {
    ring[i & mask] = ring_[i & mask_];
    if (!times.empty()) times[i & mask] = times_[i & mask_];
  }
  ring_.swap(ring);
  times_.swap(times);
  mask_ = mask;
  cqe = static_cast<int>(ring_.size());
  return true;
}

int SoftCompletionQueue::Take(int count, ibv_wc* out) {
  // Cheap look first: most polls find nothing.
  if (head_.load(std::memory_order_seq_cst) == tail_.load(std::memory_order_relaxed)) return 0;
  consumers_.lock();
  uint32_t tail = tail_.load(std::memory_order_relaxed);
  const uint32_t head = head_.load(std::memory_order_acquire);
  int taken = 0;
  while (taken < count && tail != head) out[taken++] = ring_[tail++ & mask_];
  tail_.store(tail, std::memory_order_release);
  consumers_.unlock();
  return taken;
}

bool SoftCompletionQueue::TakeOne(ibv_wc* out, CompletionTime* time) {
  if (head_.load(std::memory_order_seq_cst) == tail_.load(std::memory_order_relaxed)) return false;
  const std::lock_guard lock(consumers_);
  const uint32_t tail = tail_.load(std::memory_order_relaxed);
  if (head_.load(std::memory_order_acquire) == tail) return false;
  *out = ring_[tail & mask_];
  if (!times_.empty()) *time = times_[tail & mask_];
  tail_.store(tail + 1, std::memory_order_release);
  return true;
}

void SoftCompletionQueue::Arm(bool solicited_only) {
  int armed = armed_.load(std::memory_order_relaxed);
  const int wanted = solicited_only ? kSolicited : kAny;
  // Sequentially consistent, as Push's and Take's accesses of `head_`: one of the two sees the
  // other. "Any" is not weakened by a later "solicited only" (IBTA vol. 1, 11.4.2.2).
  while (armed < wanted && !armed_.compare_exchange_weak(armed, wanted)) {
  }
}

}  // namespace sumac::soft_nic
