// A device's counters for other processes: who asks, gets them as text.
//
// The device listens on an abstract unix name that says user, process and address, which
// /proc/net/unix lists: nothing is written anywhere, nothing goes stale, and a device that is gone
// is gone. One message a connection, "group/name value" lines, to the same user or root only.
// ReadSoftPortCounters (verbs/port_counters.h) asks them all.
//
// Threads: the constructor and destructor any one; OnReadable the device's helper thread.
#pragma once

#include <infiniband/verbs.h>

#include <string>

#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

class CounterService {
 public:
  // Without a free name it serves nobody: a device works without.
  CounterService(ibv_context* context, const Gid& address);
  CounterService(const CounterService&) = delete;
  CounterService& operator=(const CounterService&) = delete;

  // Readable when somebody asks; -1: nobody can.
  int fd() const { return listener_.get(); }
  void OnReadable();
  // Once nobody calls OnReadable any more.
  void Close() { listener_ = UniqueFd(); }

 private:
  ibv_context* const context_;
  UniqueFd listener_;
};

}  // namespace sumac::soft_nic
