// Whether a network interface is up, told by the kernel (rtnetlink(7)): what a NIC calls the state
// of its port.
//
// Up means switched on and running (a cable, or a peer of a veth pair that is up). No privilege is
// needed. Threads: OnReadable by one thread at a time; up() by any.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class InterfaceMonitor {
 public:
  // `changed(up)` is called by OnReadable. An interface that can't be watched counts as up.
  InterfaceMonitor(const std::string& interface, std::function<void(bool up)> changed);
  InterfaceMonitor(const InterfaceMonitor&) = delete;
  InterfaceMonitor& operator=(const InterfaceMonitor&) = delete;

  bool up() const { return up_.load(std::memory_order_relaxed); }
  // Readable when something may have changed; -1: it can't be watched.
  int fd() const { return socket_.get(); }
  void OnReadable();

 private:
  const std::string interface_;
  const std::function<void(bool)> changed_;
  UniqueFd socket_;
  std::atomic<bool> up_{true};
};

}  // namespace sumac::soft_nic
