#include "verbs/soft_nic/device/soft_queue_pair.h"

#include "verbs/soft_nic/device/extended_queue_pair.h"
#include "verbs/soft_nic/device/protection_domain.h"

namespace sumac::soft_nic {

namespace {

// Of the side that an XRC queue pair has not.
CompletionSink& SinkOf(ibv_cq* cq) {
  class Nothing : public CompletionSink {
    void Push(const ibv_wc&, bool) override {}
  };
  static Nothing nothing;
  if (cq == nullptr) return nothing;
  return *static_cast<SoftCompletionQueue*>(cq);
}

QueuePairLimits WithDirect(QueuePairLimits limits, DirectMemory& direct) {
  if (limits.type == IBV_QPT_RC) limits.direct = &direct;
  return limits;
}

}  // namespace

SoftQueuePair::SoftQueuePair(const QueuePairLimits& limits, KeyTable& keys,
                             const ibv_qp_init_attr& init, ibv_context* of, ibv_pd* domain,
                             SoftXrcDomain* xrc)
    : GenuineQueuePair{},
      xrc_domain(xrc),
      init_attr(init),
      memory(keys, domain != nullptr ? RightsOf(domain) : nullptr, limits.qpn),
      engine(WithDirect(limits, direct), memory, SinkOf(init.send_cq), SinkOf(init.recv_cq)) {
  context = of;
  qp_context = init.qp_context;
  pd = domain;
  send_cq = init.send_cq;
  recv_cq = init.recv_cq;
  srq = init.srq;
  qp_num = limits.qpn;
  state = IBV_QPS_RESET;
  qp_type = init.qp_type;
  pthread_mutex_init(&mutex, nullptr);
  pthread_cond_init(&cond, nullptr);
}

SoftQueuePair::~SoftQueuePair() {
  pthread_cond_destroy(&cond);
  pthread_mutex_destroy(&mutex);
}

}  // namespace sumac::soft_nic
