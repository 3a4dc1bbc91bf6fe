// Creating, resizing and destroying shared receive queues.

#include <algorithm>
#include <bit>
#include <cerrno>
#include <mutex>
#include <new>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/shared_receive_queue.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {

ibv_srq* CreateSrq(ibv_pd* pd, ibv_srq_init_attr* attr) {
  if (attr->attr.max_wr > kWorkRequestsMax || attr->attr.max_sge > kSgesMax) {
    errno = EINVAL;
    return nullptr;
  }
  SoftContext& context = SoftContext::Of(pd->context);
  if (++context.shared_receive_queues > kSharedReceiveQueuesMax) {
    --context.shared_receive_queues;
    errno = ENOMEM;
    return nullptr;
  }
  // What is given may be more than what was asked, never less. The limit is armed by ModifySrq
  // only.
  ibv_srq_attr given = attr->attr;
  given.max_wr = std::bit_ceil(std::max(given.max_wr, 1u));
  given.max_sge = std::max(given.max_sge, 1u);
  const auto report_limit = [&context](SoftSharedReceiveQueue& limited) {
    ibv_async_event event{};
    event.element.srq = &limited;
    event.event_type = IBV_EVENT_SRQ_LIMIT_REACHED;
    context.async_events().Post(event);
  };
  auto* srq = OrNoMemory([&] {
    return new SoftSharedReceiveQueue(context.keys(), pd, attr->srq_context, given, report_limit);
  });
  if (srq == nullptr) {
    --context.shared_receive_queues;
    return nullptr;
  }
  AddObject(pd);
  attr->attr.max_wr = given.max_wr;
  attr->attr.max_sge = given.max_sge;
  return srq;
}

ibv_srq* CreateSrqEx(ibv_context* context, ibv_srq_init_attr_ex* attr) {
  constexpr uint32_t kKnown = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
  const bool basic =
      (attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) == 0 || attr->srq_type == IBV_SRQT_BASIC;
  if ((attr->comp_mask & ~kKnown) != 0 || !basic) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  if ((attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) == 0 || attr->pd == nullptr ||
      attr->pd->context != context) {
    errno = EINVAL;
    return nullptr;
  }
  ibv_srq_init_attr plain{.srq_context = attr->srq_context, .attr = attr->attr};
  ibv_srq* const srq = CreateSrq(attr->pd, &plain);
  if (srq != nullptr) attr->attr = plain.attr;
  return srq;
}

int ModifySrq(ibv_srq* srq, ibv_srq_attr* attr, int mask) {
  auto& soft = *static_cast<SoftSharedReceiveQueue*>(srq);
  if ((mask & ~(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT)) != 0) return EINVAL;
  const bool resize = (mask & IBV_SRQ_MAX_WR) != 0;
  if (resize && (attr->max_wr == 0 || attr->max_wr > kWorkRequestsMax)) return EINVAL;
  return SoftContext::Of(srq->context).progress().Exclusive([&] {
    const uint32_t max_wr = resize ? std::bit_ceil(attr->max_wr) : soft.max_wr;
    if ((mask & IBV_SRQ_LIMIT) != 0 && attr->srq_limit > max_wr) return EINVAL;
    if (resize) {
      const std::lock_guard guard(soft.lock);
      try {
        if (!soft.engine.Resize(max_wr)) return EINVAL;
      } catch (const std::bad_alloc&) {
        return ENOMEM;
      }
      soft.max_wr = attr->max_wr = max_wr;
      if (soft.engine.limit() > max_wr) soft.engine.SetLimit(max_wr);
    }
    if ((mask & IBV_SRQ_LIMIT) != 0) soft.engine.SetLimit(attr->srq_limit);
    return 0;
  });
}

int QuerySrq(ibv_srq* srq, ibv_srq_attr* attr) {
  auto& soft = *static_cast<SoftSharedReceiveQueue*>(srq);
  SoftContext::Of(srq->context).progress().Exclusive([&] {
    *attr = {
        .max_wr = soft.max_wr, .max_sge = soft.engine.max_sge(), .srq_limit = soft.engine.limit()};
  });
  return 0;
}

int DestroySrq(ibv_srq* srq) {
  auto* soft = static_cast<SoftSharedReceiveQueue*>(srq);
  SoftContext& context = SoftContext::Of(srq->context);
  if (context.progress().Exclusive([&] { return soft->users != 0; })) return EBUSY;
  context.async_events().Retire(*soft);
  RemoveObject(srq->pd);
  --context.shared_receive_queues;
  delete soft;
  return 0;
}

}  // namespace sumac::soft_nic
