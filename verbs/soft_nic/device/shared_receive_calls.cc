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

namespace {

SoftSharedReceiveQueue* Make(ibv_pd* pd, ibv_srq_init_attr* attr,
                             SoftCompletionQueue* completions) {
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
    return new SoftSharedReceiveQueue(context.keys(), pd, attr->srq_context, given, report_limit,
                                      completions);
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

void Destroy(SoftSharedReceiveQueue* srq) {
  SoftContext& context = SoftContext::Of(srq->context);
  context.async_events().Retire(*srq);
  RemoveObject(srq->pd);
  --context.shared_receive_queues;
  delete srq;
}

// One that packets name, whose receives complete to a queue of its own (Annex A14).
ibv_srq* CreateXrcSrq(ibv_context* context, ibv_srq_init_attr_ex* attr) {
  if (attr->xrcd == nullptr || attr->xrcd->context != context || attr->cq == nullptr ||
      attr->cq->context != context) {
    errno = EINVAL;
    return nullptr;
  }
  auto& domain = *static_cast<SoftXrcDomain*>(attr->xrcd);
  auto& completions = *static_cast<SoftCompletionQueue*>(attr->cq);
  ibv_srq_init_attr plain{.srq_context = attr->srq_context, .attr = attr->attr};
  SoftSharedReceiveQueue* const srq = Make(attr->pd, &plain, &completions);
  if (srq == nullptr) return nullptr;
  const bool added = SoftContext::Of(context).progress().Exclusive([&] {
    if (!domain.Add(*srq)) return false;
    srq->xrc_domain = &domain;
    ++domain.objects;
    ++completions.users;
    return true;
  });
  if (!added) {
    Destroy(srq);
    errno = ENOMEM;
    return nullptr;
  }
  attr->attr = plain.attr;
  return srq;
}

}  // namespace

ibv_srq* CreateSrq(ibv_pd* pd, ibv_srq_init_attr* attr) { return Make(pd, attr, nullptr); }

ibv_srq* CreateSrqEx(ibv_context* context, ibv_srq_init_attr_ex* attr) {
  const ibv_srq_type type =
      (attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) != 0 ? attr->srq_type : IBV_SRQT_BASIC;
  constexpr uint32_t kBasic = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
  constexpr uint32_t kXrc = kBasic | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
  const uint32_t known = type == IBV_SRQT_XRC ? kXrc : kBasic;
  if ((type != IBV_SRQT_BASIC && type != IBV_SRQT_XRC) || (attr->comp_mask & ~known) != 0) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  const uint32_t needed = type == IBV_SRQT_XRC ? kXrc : uint32_t{IBV_SRQ_INIT_ATTR_PD};
  if ((attr->comp_mask & needed) != needed || attr->pd == nullptr || attr->pd->context != context) {
    errno = EINVAL;
    return nullptr;
  }
  if (type == IBV_SRQT_XRC) return CreateXrcSrq(context, attr);
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
  const bool used = context.progress().Exclusive([&] {
    if (soft->users != 0) return true;
    if (soft->xrc_domain == nullptr) return false;
    soft->xrc_domain->Remove(*soft);
    context.scheduler().ForEach([soft](SoftQueuePair& qp) {
      if (qp.xrc_domain == soft->xrc_domain) qp.engine.ForgetReceives(soft->engine);
    });
    --soft->completions->users;
    --soft->xrc_domain->objects;
    return false;
  });
  if (used) return EBUSY;
  Destroy(soft);
  return 0;
}

}  // namespace sumac::soft_nic
