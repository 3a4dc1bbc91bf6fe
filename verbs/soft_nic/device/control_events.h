// Descriptors that the helper thread serves beside packets: joiners of the port, questions for
// counters. One descriptor stands for all of them.
//
// Add before the helper starts; OnReadable from the helper thread only.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <functional>
#include <utility>
#include <vector>

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class ControlEvents {
 public:
  ControlEvents() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ControlEvents(const ControlEvents&) = delete;
  ControlEvents& operator=(const ControlEvents&) = delete;

  // `serve` never blocks. A negative descriptor is none.
  void Add(int fd, std::function<void()> serve) {
    if (fd < 0) return;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = serves_.size();
    serves_.push_back(std::move(serve));
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }
  // -1 when the process has no descriptor left.
  int fd() const { return epoll_.get(); }
  void OnReadable() {
    std::array<epoll_event, 8> events{};
    const int ready = epoll_wait(epoll_.get(), events.data(), events.size(), 0);
    for (int i = 0; i < ready; ++i) serves_[events[static_cast<size_t>(i)].data.u64]();
  }

 private:
  UniqueFd epoll_;
  std::vector<std::function<void()>> serves_;
};

}  // namespace sumac::soft_nic
