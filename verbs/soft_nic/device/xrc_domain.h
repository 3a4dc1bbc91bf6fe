// The soft NIC's XRC domain: a genuine ibv_xrcd, and the shared receive queues that packets to its
// queue pairs can name (IBTA vol. 1, Annex A14).
//
// A domain that is opened with a file is the same for all who open that file on this device. A soft
// NIC is its process's own, so the domain is too: another process, or another device of this one,
// that opens the file gets a domain of its own and a warning. That serves programs that only name a
// file because they must (ibv_xsrq_pingpong); who does want to share learns it from ibv_open_qp, or
// from the connection, which ends with "invalid request" when a packet names an unknown queue.
//
// Owned by the application through ibv_open_xrcd / ibv_close_xrcd, as often as it is opened. Find
// is the engine's owner's; queues are added and removed by control calls that entered exclusively.
#pragma once

#include <infiniband/verbs.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_map.h"

#include "verbs/soft_nic/device/quarantine.h"
#include "verbs/soft_nic/engine/xrc_selection.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class SoftSharedReceiveQueue;

using FileIdentity = std::pair<dev_t, ino_t>;

class SoftXrcDomain : public ibv_xrcd, public XrcQueues {
 public:
  explicit SoftXrcDomain(ibv_context* opened) : ibv_xrcd{} { context = opened; }
  SoftXrcDomain(const SoftXrcDomain&) = delete;
  SoftXrcDomain& operator=(const SoftXrcDomain&) = delete;

  SharedReceiveQueue* Find(uint32_t number) override;
  // Gives `queue` a number that names it in packets; false when there is none to be had.
  [[nodiscard]] bool Add(SoftSharedReceiveQueue& queue);
  void Remove(SoftSharedReceiveQueue& queue);
  template <typename Visit>
  void ForEach(Visit visit) {
    for (auto& [number, queue] : queues_) visit(*queue);
  }

  std::atomic<int> objects{0};  // queues, and queue pairs
  int opens = 1;                // under SoftContext::xrc_mutex
  // Of one that was opened with a file: which, held open, and the name that says so to others.
  FileIdentity identity{};
  UniqueFd file;
  UniqueFd claim;

 private:
  static constexpr size_t kQuarantined = 1024;

  absl::flat_hash_map<uint32_t, SoftSharedReceiveQueue*> queues_;
  Quarantine removed_{kQuarantined};
};

}  // namespace sumac::soft_nic
