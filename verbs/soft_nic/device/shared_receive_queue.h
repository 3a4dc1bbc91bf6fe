// The soft NIC's shared receive queue: a genuine ibv_srq around the engine's SharedReceiveQueue.
//
// Posting threads take its spin lock; the engine's owner takes buffers out. Owned by the
// application through ibv_create_srq / ibv_destroy_srq, and held by the queue pairs that use it.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <functional>

#include "verbs/soft_nic/device/completion_queue.h"
#include "verbs/soft_nic/device/key_table.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/spin_lock.h"
#include "verbs/soft_nic/device/xrc_domain.h"
#include "verbs/soft_nic/engine/shared_receive_queue.h"

namespace sumac::soft_nic {

class SoftSharedReceiveQueue : public ibv_srq {
 public:
  SoftSharedReceiveQueue(KeyTable& keys, ibv_pd* domain, void* user_context,
                         const ibv_srq_attr& attr,
                         const std::function<void(SoftSharedReceiveQueue&)>& on_limit,
                         SoftCompletionQueue* xrc_completions = nullptr)
      : ibv_srq{},
        max_wr(attr.max_wr),
        memory(keys, RightsOf(domain)),
        engine(
            attr.max_wr, attr.max_sge, memory, [this, on_limit] { on_limit(*this); },
            xrc_completions),
        completions(xrc_completions) {
    context = domain->context;
    srq_context = user_context;
    pd = domain;
    pthread_mutex_init(&mutex, nullptr);
    pthread_cond_init(&cond, nullptr);
  }
  ~SoftSharedReceiveQueue() {
    pthread_cond_destroy(&cond);
    pthread_mutex_destroy(&mutex);
  }
  SoftSharedReceiveQueue(const SoftSharedReceiveQueue&) = delete;
  SoftSharedReceiveQueue& operator=(const SoftSharedReceiveQueue&) = delete;

  uint32_t max_wr;  // changed by control calls that entered exclusively
  ProtectedMemory memory;
  SharedReceiveQueue engine;
  SpinLock lock;  // of who posts
  int users = 0;  // queue pairs; changed by control calls that entered exclusively
  // XRC: what packets call it, in which domain, and where its receives complete.
  uint32_t number = 0;
  SoftXrcDomain* xrc_domain = nullptr;
  SoftCompletionQueue* const completions;
  uint32_t async_events_taken = 0;  // under ibv_srq.mutex: destroying waits for acknowledgement
};

}  // namespace sumac::soft_nic
