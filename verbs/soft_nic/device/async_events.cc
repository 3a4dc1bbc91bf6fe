#include "verbs/soft_nic/device/async_events.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace sumac::soft_nic {

AsyncEvents::AsyncEvents() : fd_(eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC)) {}

void AsyncEvents::Post(const ibv_async_event& event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() >= kEventsMax) return;
  events_.push_back(event);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof(one));
}

int AsyncEvents::Take(ibv_async_event* event) {
  for (;;) {
    uint64_t one = 0;
    if (read(fd_.get(), &one, sizeof(one)) != sizeof(one)) return -1;
    const std::lock_guard lock(mutex_);
    if (events_.empty()) continue;  // withdrawn: its count was still there
    *event = events_.front();
    events_.pop_front();
    return 0;
  }
}

}  // namespace sumac::soft_nic
