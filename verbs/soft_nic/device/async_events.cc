#include "verbs/soft_nic/device/async_events.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "verbs/log.h"
#include "verbs/soft_nic/link/no_cancel.h"

namespace sumac::soft_nic {
namespace {

// What an event is about: at most one of these.
struct Subject {
  SoftQueuePair* qp = nullptr;
  SoftCompletionQueue* cq = nullptr;
  SoftSharedReceiveQueue* srq = nullptr;
};

Subject SubjectOf(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      return {.qp = static_cast<SoftQueuePair*>(event.element.qp)};
    case IBV_EVENT_CQ_ERR:
      return {.cq = static_cast<SoftCompletionQueue*>(event.element.cq)};
    case IBV_EVENT_SRQ_LIMIT_REACHED:
      return {.srq = static_cast<SoftSharedReceiveQueue*>(event.element.srq)};
    default:
      return {};  // about the port or the device
  }
}

// Waits until as many events are acknowledged as were taken.
void WaitAcknowledged(pthread_mutex_t& mutex, pthread_cond_t& cond, const uint32_t& completed,
                      const uint32_t& taken) {
  pthread_mutex_lock(&mutex);
  while (completed != taken) pthread_cond_wait(&cond, &mutex);
  pthread_mutex_unlock(&mutex);
}

void Count(pthread_mutex_t& mutex, pthread_cond_t& cond, uint32_t& counter) {
  pthread_mutex_lock(&mutex);
  ++counter;
  pthread_cond_signal(&cond);
  pthread_mutex_unlock(&mutex);
}

}  // namespace

AsyncEvents::AsyncEvents() : fd_(eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC)) {}

void AsyncEvents::Post(const ibv_async_event& event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() >= kEventsMax) {
    Log().warn("soft NIC: an asynchronous event of type {} is dropped: nobody takes them",
               static_cast<int>(event.event_type));
    return;
  }
  events_.push_back(event);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof(one));
}

int AsyncEvents::Take(ibv_async_event* event) {
  for (;;) {
    {
      const ScopedNoCancel no_cancel;  // an event is taken whole
      const std::lock_guard lock(mutex_);
      if (!events_.empty()) {
        *event = events_.front();
        events_.pop_front();
        uint64_t one = 0;
        [[maybe_unused]] const ssize_t got = read(fd_.get(), &one, sizeof(one));
        // Counted before the list is let go: who destroys the object now waits for it.
        const Subject subject = SubjectOf(*event);
        if (subject.qp) Count(subject.qp->mutex, subject.qp->cond, subject.qp->async_events_taken);
        if (subject.cq) Count(subject.cq->mutex, subject.cq->cond, subject.cq->async_events_taken);
        if (subject.srq) {
          Count(subject.srq->mutex, subject.srq->cond, subject.srq->async_events_taken);
        }
        return 0;
      }
    }
    if ((fcntl(fd_.get(), F_GETFL) & O_NONBLOCK) != 0) {
      errno = EAGAIN;
      return -1;
    }
    pollfd readable{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (poll(&readable, 1, -1) < 0 && errno != EINTR) return -1;
  }
}

void AsyncEvents::Acknowledge(const ibv_async_event& event) {
  const Subject subject = SubjectOf(event);
  if (subject.qp) Count(subject.qp->mutex, subject.qp->cond, subject.qp->events_completed);
  if (subject.cq) Count(subject.cq->mutex, subject.cq->cond, subject.cq->async_events_completed);
  if (subject.srq) Count(subject.srq->mutex, subject.srq->cond, subject.srq->events_completed);
}

void AsyncEvents::Retire(SoftQueuePair& qp) {
  Withdraw([&qp](const ibv_async_event& event) { return SubjectOf(event).qp == &qp; });
  WaitAcknowledged(qp.mutex, qp.cond, qp.events_completed, qp.async_events_taken);
}

void AsyncEvents::Retire(SoftCompletionQueue& cq) {
  Withdraw([&cq](const ibv_async_event& event) { return SubjectOf(event).cq == &cq; });
  WaitAcknowledged(cq.mutex, cq.cond, cq.async_events_completed, cq.async_events_taken);
}

void AsyncEvents::Retire(SoftSharedReceiveQueue& srq) {
  Withdraw([&srq](const ibv_async_event& event) { return SubjectOf(event).srq == &srq; });
  WaitAcknowledged(srq.mutex, srq.cond, srq.events_completed, srq.async_events_taken);
}

void AsyncEvents::Withdraw(absl::FunctionRef<bool(const ibv_async_event&)> is_about) {
  const std::lock_guard lock(mutex_);
  for (auto at = events_.begin(); at != events_.end();) {
    if (!is_about(*at)) {
      ++at;
      continue;
    }
    at = events_.erase(at);
    uint64_t one = 0;
    [[maybe_unused]] const ssize_t got = read(fd_.get(), &one, sizeof(one));
  }
}

}  // namespace sumac::soft_nic
