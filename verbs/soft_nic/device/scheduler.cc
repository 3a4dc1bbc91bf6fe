#include "verbs/soft_nic/device/scheduler.h"

#include <algorithm>
#include <utility>

#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/shared_receive_queue.h"
#include "verbs/soft_nic/device/xrc_domain.h"

namespace sumac::soft_nic {
namespace {

// Packets a turn: two full batches (transmit_socket.h), so that the ACK for them leaves while the
// peer's next ones come.
constexpr size_t kReceiveBudget = 30;
constexpr uint32_t kTransmitBudget =
    32;  // packets a queue pair before the next one's turn; the link batches runs
constexpr uint32_t kMulticastQpn = 0xffffff;  // IBTA vol. 1, 3.5.10
constexpr int kTurnsMax = 256;  // queue pairs' turns before Drive returns to its caller

// Tells "the link is full" from "my budget is used up", and counts.
class WatchedSink : public TransmitSink {
 public:
  explicit WatchedSink(TransmitSink& sink) : sink_(sink) {}
  bool Transmit(const OutgoingPacket& packet) override {
    if (!sink_.Transmit(packet)) {
      full_ = true;
      return false;
    }
    ++count_;
    return true;
  }
  bool full() const { return full_; }
  uint32_t count() const { return count_; }

 private:
  TransmitSink& sink_;
  bool full_ = false;
  uint32_t count_ = 0;
};

void Accumulate(QueuePairCounters& sum, const QueuePairCounters& more) {
  using Field = uint64_t QueuePairCounters::*;
  static constexpr Field kFields[] = {
      &QueuePairCounters::packets_sent,
      &QueuePairCounters::packets_received,
      &QueuePairCounters::retransmitted_packets,
      &QueuePairCounters::tail_probes,
      &QueuePairCounters::timeouts,
      &QueuePairCounters::sequence_naks_sent,
      &QueuePairCounters::sequence_naks_received,
      &QueuePairCounters::implied_naks,
      &QueuePairCounters::rnr_naks_sent,
      &QueuePairCounters::rnr_naks_received,
      &QueuePairCounters::access_naks_sent,
      &QueuePairCounters::invalid_request_naks_sent,
      &QueuePairCounters::operation_naks_sent,
      &QueuePairCounters::duplicates_received,
      &QueuePairCounters::cnps_sent,
      &QueuePairCounters::cnps_received,
      &QueuePairCounters::dropped_wrong_state,
      &QueuePairCounters::dropped_out_of_order,
      &QueuePairCounters::dropped_malformed,
      &QueuePairCounters::dropped_no_receive,
      &QueuePairCounters::dropped_bad_key,
      &QueuePairCounters::dropped_bad_qkey,
      &QueuePairCounters::dropped_with_message,
      &QueuePairCounters::messages_cut_short,
      &QueuePairCounters::unsent_too_long,
      &QueuePairCounters::direct_requests,
      &QueuePairCounters::direct_bytes,
  };
  static_assert(sizeof(kFields) / sizeof(Field) == sizeof(QueuePairCounters) / sizeof(uint64_t));
  for (const Field field : kFields) sum.*field += more.*field;
}

}  // namespace

Scheduler::Scheduler(Link& link, uint64_t send_quota, SchedulerEvents events)
    : link_(link), events_(std::move(events)), table_(std::min(kQueuePairsMax, link.qpn_count())) {
  timers_.Reserve(table_.size());
  quota_.SetRate(send_quota);
}

SoftQueuePair*& Scheduler::SlotOf(uint32_t qpn) {
  return table_[(qpn - link_.first_qpn()) % table_.size()];
}

uint32_t Scheduler::ReserveQpn() {
  const std::optional<uint32_t> drawn = DrawNumber();
  if (!drawn) return 0;
  // From a number that nobody can guess to the next free one: with few queue pairs that is itself.
  const auto usable = [this](uint32_t qpn, bool used_lately) {
    return SlotOf(qpn) == nullptr && qpn != kMulticastQpn && (used_lately || !used_.Holds(qpn));
  };
  const uint32_t count = link_.qpn_count();
  const uint32_t start = *drawn % count;
  for (const bool used_lately : {false, true}) {
    for (uint32_t i = 0; i < table_.size(); ++i) {
      const uint32_t qpn = link_.first_qpn() + (start + i) % count;
      if (usable(qpn, used_lately)) return qpn;
    }
  }
  return 0;
}

void Scheduler::Add(SoftQueuePair& qp) {
  SlotOf(qp.qp_num) = &qp;
  ++count_;
}

void Scheduler::Remove(SoftQueuePair& qp) {
  TakeDoorbells(std::chrono::steady_clock::now());  // so that it is in no list but the active one
  timers_.Remove(qp);
  SoftQueuePair* previous = nullptr;
  for (SoftQueuePair* at = first_active_; at != nullptr; previous = at, at = at->next_active) {
    if (at != &qp) continue;
    (previous != nullptr ? previous->next_active : first_active_) = at->next_active;
    if (last_active_ == at) last_active_ = previous;
    break;
  }
  SlotOf(qp.qp_num) = nullptr;
  used_.Add(qp.qp_num);
  --count_;
  Accumulate(of_removed_, qp.engine.counters());
}

QueuePairCounters Scheduler::QueuePairTotals() const {
  QueuePairCounters sum = of_removed_;
  ForEach([&sum](const SoftQueuePair& qp) { Accumulate(sum, qp.engine.counters()); });
  return sum;
}

void Scheduler::RingDoorbell(SoftQueuePair& qp) {
  if (qp.doorbell.exchange(true, std::memory_order_acq_rel)) return;
  SoftQueuePair* head = doorbells_.load(std::memory_order_relaxed);
  do {
    qp.next_doorbell = head;
  } while (!doorbells_.compare_exchange_weak(head, &qp, std::memory_order_release));
}

void Scheduler::Activate(SoftQueuePair& qp) {
  if (qp.active) return;
  qp.active = true;
  qp.next_active = nullptr;
  (last_active_ != nullptr ? last_active_->next_active : first_active_) = &qp;
  last_active_ = &qp;
}

void Scheduler::TakeDoorbells(Time now) {
  if (doorbells_.load(std::memory_order_relaxed) == nullptr) return;
  SoftQueuePair* qp = doorbells_.exchange(nullptr, std::memory_order_acquire);
  while (qp != nullptr) {
    SoftQueuePair* const next = qp->next_doorbell;
    // Cleared before the queue is looked at: a post that comes later rings again.
    qp->doorbell.exchange(false, std::memory_order_acq_rel);
    qp->engine.OnDoorbell(now);
    Activate(*qp);
    qp = next;
  }
}

PacketHandler::Claim Scheduler::ClaimOn(const Gid& source, uint32_t qpn) const {
  const SoftQueuePair* const qp = table_[(qpn - link_.first_qpn()) % table_.size()];
  if (qp == nullptr || qp->qp_num != qpn) return Claim::kNobody;
  if (qp->qp_type == IBV_QPT_UD) return Claim::kAnySource;
  return source == qp->engine.path().destination ? Claim::kThisSource : Claim::kNobody;
}

void Scheduler::OnPacket(const Gid& source, const PacketView& packet) {
  SoftQueuePair* const qp = SlotOf(packet.header.dest_qpn);
  if (qp == nullptr || qp->qp_num != packet.header.dest_qpn) {
    ++counters_.dropped_unknown_qpn;
    return;
  }
  if (source != qp->engine.path().destination && qp->qp_type != IBV_QPT_UD) {
    ++counters_.dropped_wrong_source;
    return;
  }
  qp->engine.OnPacket(packet, source, now_);
  Activate(*qp);
  if (qp->state == IBV_QPS_RTR && qp->qp_type != IBV_QPT_UD && !qp->heard_before_send) {
    qp->heard_before_send = true;
    events_.on_established(*qp);
  }
}

void Scheduler::RunTimers(Time now) {
  while (timers_.next() <= now) {
    auto& qp = *static_cast<SoftQueuePair*>(timers_.first());
    qp.engine.OnTimeout(now);
    // Out of the heap until Settle: a timer that is due again at once must not hold up the others.
    timers_.Remove(qp);
    Activate(qp);
  }
}

// After a queue pair's turn: its timer, and its errors.
void Scheduler::Settle(SoftQueuePair& qp) {
  timers_.Set(qp, qp.engine.NextTimeout());
  if (qp.engine.state() == IBV_QPS_ERR && qp.state != IBV_QPS_ERR) {
    qp.state = IBV_QPS_ERR;
    qp.FlushAfterError(now_);
    events_.on_error(qp);
  } else if (qp.state == IBV_QPS_SQD && qp.drain_event_due && qp.engine.drained()) {
    qp.drain_event_due = false;
    events_.on_drained(qp);
  }
}

uint32_t Scheduler::Transmit(Time now) {
  PacedSink within_quota(link_, quota_, now);
  WatchedSink sink(quota_.paced() ? static_cast<TransmitSink&>(within_quota) : link_);
  for (int turn = 0; turn < kTurnsMax && first_active_ != nullptr && !sink.full(); ++turn) {
    SoftQueuePair& qp = *first_active_;
    first_active_ = qp.next_active;
    if (first_active_ == nullptr) last_active_ = nullptr;
    qp.active = false;
    const bool more = qp.engine.PollTransmit(sink, now, kTransmitBudget);
    Settle(qp);
    if (more) Activate(qp);
  }
  held_back_ = within_quota.held_back();
  counters_.waits_for_quota += held_back_;
  link_.Flush();
  return sink.count();
}

void Scheduler::FailOverrunQueues(Time now) {
  ForEach([&](SoftQueuePair& qp) {
    bool overrun = false;
    const auto look = [&](SoftCompletionQueue& cq) {
      if (!cq.overrun()) return;
      overrun = true;
      if (!std::exchange(cq.overrun_reported, true)) events_.on_overrun(cq);
    };
    qp.ForEachCompletionQueue(look);
    if (qp.xrc_domain != nullptr) {
      qp.xrc_domain->ForEach([&look](SoftSharedReceiveQueue& srq) { look(*srq.completions); });
    }
    const ibv_qp_state state = qp.engine.state();
    if (!overrun || state == IBV_QPS_ERR || state == IBV_QPS_RESET) return;
    qp.engine.ToError(now);
    Activate(qp);  // Settle does the rest
  });
}

DriveResult Scheduler::Drive(Time now, bool receive) {
  now_ = now;
  TakeDoorbells(now);
  const size_t received = receive ? link_.Receive(*this, kReceiveBudget) : 0;
  RunTimers(now);
  const uint32_t sent = Transmit(now);
  if (std::exchange(overrun_, false)) FailOverrunQueues(now);
  return {.work_left = first_active_ != nullptr && !held_back_,
          .packets = static_cast<uint32_t>(received) + sent};
}

}  // namespace sumac::soft_nic
