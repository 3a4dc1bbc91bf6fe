// The queue pairs of one device and their turns: packets to the right one, timers, doorbells, and a
// fair share of the link for each.
//
// Owned by SoftContext, driven by Progress. Threads: RingDoorbell from any thread; everything else
// by the engine's owner. A turn allocates nothing.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/progress.h"
#include "verbs/soft_nic/device/quarantine.h"
#include "verbs/soft_nic/device/soft_queue_pair.h"
#include "verbs/soft_nic/device/timer_heap.h"
#include "verbs/soft_nic/engine/pacer.h"
#include "verbs/soft_nic/link/link.h"

namespace sumac::soft_nic {

// Packets that reached the device but no queue pair.
struct SchedulerCounters {
  uint64_t dropped_unknown_qpn = 0;
  uint64_t dropped_wrong_source = 0;  // not from the address that the queue pair is connected to
  uint64_t waits_for_quota = 0;       // turns that ended because the send quota was used up
};

// Called by the engine's owner.
struct SchedulerEvents {
  std::function<void(SoftQueuePair&)> on_error;  // in the error state without being asked to
  std::function<void(SoftCompletionQueue&)> on_overrun;  // once a queue
  std::function<void(SoftQueuePair&)> on_established;    // the peer's first packet, before RTS
  std::function<void(SoftQueuePair&)> on_drained;        // in SQD
};

class Scheduler : public Drivable, private PacketHandler {
 public:
  // `send_quota` is what all queue pairs together may send, in bytes per second; 0: no limit.
  Scheduler(Link& link, uint64_t send_quota, SchedulerEvents events);

  // A free QPN of the link's range, not used lately; 0 when there is none.
  uint32_t ReserveQpn();
  void Add(SoftQueuePair& qp);
  void Remove(SoftQueuePair& qp);
  size_t size() const { return count_; }
  // A control call changed the queue pair: it may have something to do.
  void Touch(SoftQueuePair& qp) { Activate(qp); }

  // After a post. Any thread; then Progress::Ring.
  void RingDoorbell(SoftQueuePair& qp);

  // What was posted, by the posting thread alone. False: there is more to do, for Drive.
  bool RunDirect(SoftQueuePair& qp) { return qp.engine.RunDirect() && !overrun_; }

  DriveResult Drive(Time now, bool receive) override;
  bool AnnounceSleep() override { return link_.AnnounceSleep(); }
  void WithdrawSleep() override { link_.WithdrawSleep(); }
  Time NextTimeout() const override {
    return held_back_ ? std::min(timers_.next(), quota_.next()) : timers_.next();
  }

  // Completion queues set it when they overrun; their queue pairs then go to error.
  bool* overrun_flag() { return &overrun_; }

  const SchedulerCounters& counters() const { return counters_; }
  // Of all queue pairs that there are or were.
  QueuePairCounters QueuePairTotals() const;
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (SoftQueuePair* qp : table_) {
      if (qp != nullptr) visit(*qp);
    }
  }

 private:
  void OnPacket(const Gid& source, const PacketView& packet) override;
  Claim ClaimOn(const Gid& source, uint32_t qpn) const override;
  SoftQueuePair*& SlotOf(uint32_t qpn);
  void Activate(SoftQueuePair& qp);
  void TakeDoorbells(Time now);
  void RunTimers(Time now);
  uint32_t Transmit(Time now);  // packets
  void Settle(SoftQueuePair& qp);
  void FailOverrunQueues(Time now);

  Link& link_;
  const SchedulerEvents events_;
  std::vector<SoftQueuePair*> table_;  // by (qpn - first) modulo its size
  size_t count_ = 0;
  Quarantine used_{kQueuePairsMax};  // QPNs
  std::atomic<SoftQueuePair*> doorbells_{nullptr};
  SoftQueuePair* first_active_ = nullptr;
  SoftQueuePair* last_active_ = nullptr;
  TimerHeap timers_;
  Pacer quota_;
  bool held_back_ = false;  // queue pairs wait for the quota
  Time now_{};              // of the current turn, for OnPacket
  bool overrun_ = false;
  SchedulerCounters counters_;
  QueuePairCounters of_removed_;
};

}  // namespace sumac::soft_nic
