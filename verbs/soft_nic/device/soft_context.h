// An opened soft NIC: the genuine verbs_context, and everything behind it.
//
// Created by ibv_open_device. It owns link, keys, scheduler and progress; the objects made on it
// (protection domains, queues, regions) belong to the application. ibv_close_device takes the
// device off the network; programs that leave objects behind (perftest does) are within their
// rights, as with hardware, so the context itself lives until the last of them is destroyed.
//
// Threads: as verbs ask, any. A child after fork must not use it: its helper thread is not there.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <mutex>
#include <new>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "verbs/soft_nic/device/async_events.h"
#include "verbs/soft_nic/device/control_events.h"
#include "verbs/soft_nic/device/counter_service.h"
#include "verbs/soft_nic/device/key_table.h"
#include "verbs/soft_nic/device/progress.h"
#include "verbs/soft_nic/device/same_host.h"
#include "verbs/soft_nic/device/scheduler.h"
#include "verbs/soft_nic/device/xrc_domain.h"
#include "verbs/soft_nic/link/interface_monitor.h"
#include "verbs/soft_nic/link/udp_link.h"

namespace sumac::soft_nic {

class SoftContext : public verbs_context {
 public:
  // `send_quota`: Scheduler. `local`: one-sided requests to this host without packets
  // (same_host.h).
  SoftContext(ibv_device* device, std::unique_ptr<Link> link, uint64_t send_quota, bool local);
  SoftContext(const SoftContext&) = delete;
  SoftContext& operator=(const SoftContext&) = delete;

  static SoftContext& Of(ibv_context* context) {
    // As verbs_get_ctx, without its test for contexts of old libraries: this one is ours.
    auto* bytes = reinterpret_cast<std::byte*>(context) - offsetof(verbs_context, context);
    return *static_cast<SoftContext*>(reinterpret_cast<verbs_context*>(bytes));
  }

  Link& link() { return *link_; }
  KeyTable& keys() { return keys_; }
  Scheduler& scheduler() { return scheduler_; }
  AsyncEvents& async_events() { return async_events_; }
  const InterfaceMonitor& port() const { return port_; }
  SameHost& same_host() { return same_host_; }
  Progress& progress() { return *progress_; }

  // Takes the device off the network: nothing is served or answered any more.
  void Stop() {
    progress_->Stop();
    progress_->Exclusive([this] { same_host_.Close(); });
    counter_service_.Close();
  }

  // A queue pair with a shared receive queue is in error: it takes no more from it.
  void ReportLastReceive(SoftQueuePair& qp);

  // Each object of the application that hangs directly on the context, and the application itself
  // until it closes the device. The last Release destroys it.
  void Retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // How many of them are alive, for the limits.
  std::atomic<uint32_t> protection_domains{0};
  std::atomic<uint32_t> completion_queues{0};
  std::atomic<uint32_t> shared_receive_queues{0};
  std::atomic<uint32_t> address_handles{0};  // each holds its protection domain
  std::atomic<uint32_t> xrc_domains{0};

  // XRC domains by the files that they were opened with.
  std::mutex xrc_mutex;
  absl::flat_hash_map<FileIdentity, SoftXrcDomain*> xrc_files;

 private:
  ~SoftContext();
  void Report(SoftQueuePair& qp, ibv_event_type what);
  void ReportError(SoftQueuePair& qp);
  void ReportOverrun(SoftCompletionQueue& cq);
  void ReportPort(bool up);

  std::atomic<uint32_t> references_{1};
  UniqueFd command_file_;
  std::unique_ptr<Link> link_;
  KeyTable keys_;
  AsyncEvents async_events_;
  Scheduler scheduler_;
  InterfaceMonitor port_;
  SameHost same_host_;
  CounterService counter_service_;
  ControlEvents control_events_;
  std::atomic<bool> started_{false};    // progress_ is there
  std::unique_ptr<Progress> progress_;  // last: its helper uses the rest
};

// What `make` makes, or null with ENOMEM: verbs are called from C, where nothing catches.
template <typename Make>
auto OrNoMemory(Make make) -> decltype(make()) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    errno = ENOMEM;
    return nullptr;
  }
}

}  // namespace sumac::soft_nic
