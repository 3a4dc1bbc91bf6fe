// The soft NIC's queue pair: a genuine ibv_qp around the engine's QueuePair.
//
// Posting threads take a spin lock of the queue, as drivers of hardware do, and write into the
// engine's ring; the scheduler picks the queue pair up from its doorbell. Owned by the application
// through ibv_create_qp / ibv_destroy_qp; the scheduler's fields belong to the engine's owner.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cstddef>
#include <memory>

#include "verbs/soft_nic/device/completion_queue.h"
#include "verbs/soft_nic/device/key_table.h"
#include "verbs/soft_nic/device/spin_lock.h"
#include "verbs/soft_nic/device/timer_heap.h"
#include "verbs/soft_nic/engine/queue_pair.h"
#include "verbs/soft_nic/local/direct_path.h"

namespace sumac::soft_nic {

class SoftXrcDomain;
class WorkRequestBuilder;

// An ibv_qp with room behind it for the rest of an ibv_qp_ex, so that one address is both.
struct GenuineQueuePair : ibv_qp {
  std::byte rest_of_extended[sizeof(ibv_qp_ex) - sizeof(ibv_qp)];
};
static_assert(sizeof(GenuineQueuePair) == sizeof(ibv_qp_ex) &&
              alignof(GenuineQueuePair) == alignof(ibv_qp_ex));

class SoftQueuePair : public GenuineQueuePair, public TimerItem {
 public:
  // `domain` is null for an XRC target, which has `xrc` instead; the queues' domains are its.
  SoftQueuePair(const QueuePairLimits& limits, KeyTable& keys, const ibv_qp_init_attr& attr,
                ibv_context* of, ibv_pd* domain, SoftXrcDomain* xrc = nullptr);
  ~SoftQueuePair();
  SoftQueuePair(const SoftQueuePair&) = delete;
  SoftQueuePair& operator=(const SoftQueuePair&) = delete;

  // Its own completion queues: of an XRC target there are none.
  template <typename Visit>
  void ForEachCompletionQueue(Visit visit) const {
    for (ibv_cq* const cq : {send_cq, recv_cq}) {
      if (cq != nullptr) visit(*static_cast<SoftCompletionQueue*>(cq));
    }
  }

  SoftXrcDomain* const xrc_domain;  // of an XRC target
  int opens = 1;  // handles on it (ibv_open_qp); changed by control calls that entered exclusively

  ibv_qp_init_attr init_attr;  // as created, capabilities rounded up
  ibv_qp_attr attr{};          // as set by ibv_modify_qp so far
  ProtectedMemory memory;
  DirectPath direct;  // RC
  QueuePair engine;

  // Once the engine is in the error state: flushes receives that were posted while it got there.
  // Engine's owner.
  void FlushAfterError(Time now) {
    receive_posts.fetch_add(1, std::memory_order_acq_rel);
    engine.OnDoorbell(now);
  }
  // Only its order matters: read-modify-writes of one variable are seen in one order by all.
  std::atomic<uint32_t> receive_posts{0};
  uint32_t async_events_taken = 0;  // under ibv_qp.mutex: destroying waits for acknowledgement

  bool heard_before_send = false;  // a packet came in RTR: reported. Engine's owner.
  bool drain_event_due = false;    // in SQD, once all that was sent is complete. Engine's owner.

  SpinLock send_lock;
  // What ibv_wr_* calls collect; null unless created extended. Under send_lock.
  std::unique_ptr<WorkRequestBuilder> builder;
  SpinLock receive_lock;

  // Scheduler.
  std::atomic<bool> doorbell{false};
  SoftQueuePair* next_doorbell = nullptr;
  SoftQueuePair* next_active = nullptr;
  bool active = false;
};

}  // namespace sumac::soft_nic
