#include "verbs/soft_nic/device/soft_queue_pair.h"

#include "verbs/soft_nic/device/extended_queue_pair.h"
#include "verbs/soft_nic/device/protection_domain.h"

namespace sumac::soft_nic {

SoftQueuePair::SoftQueuePair(const QueuePairLimits& limits, KeyTable& keys,
                             const ibv_qp_init_attr& init, ibv_pd* domain)
    : GenuineQueuePair{},
      init_attr(init),
      memory(keys, RightsOf(domain), limits.qpn),
      engine(limits, memory, *static_cast<SoftCompletionQueue*>(init.send_cq),
             *static_cast<SoftCompletionQueue*>(init.recv_cq)) {
  context = domain->context;
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
