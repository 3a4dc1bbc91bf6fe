// Creating, connecting and destroying queue pairs.

#include <algorithm>
#include <bit>
#include <cerrno>

#include "verbs/log.h"
#include "verbs/soft_nic/device/address_vector.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/qp_transitions.h"
#include "verbs/soft_nic/device/shared_receive_queue.h"
#include "verbs/soft_nic/device/soft_context.h"
#include "verbs/soft_nic/wire/psn.h"

namespace sumac::soft_nic {
namespace {

bool WithinLimits(const ibv_qp_cap& cap) {
  return cap.max_send_wr <= kWorkRequestsMax && cap.max_recv_wr <= kWorkRequestsMax &&
         cap.max_send_sge <= kSgesMax && cap.max_recv_sge <= kSgesMax &&
         cap.max_inline_data <= kInlineBytesMax;
}

// The 14 bits of source-port entropy that identify the flow to ECMP, from both QPNs.
uint16_t SourcePortOf(uint32_t local_qpn, uint32_t remote_qpn) {
  uint64_t hash = (uint64_t{local_qpn} * remote_qpn + local_qpn) * 0x9e3779b97f4a7c15ull;
  hash ^= hash >> 32;
  return static_cast<uint16_t>(0xc000 | (hash & 0x3fff));
}

ReceiveConfig ReceiveConfigOf(const SoftQueuePair& qp, const Link& link) {
  const ibv_qp_attr& attr = qp.attr;
  ReceiveConfig config;
  config.remote_qpn = attr.dest_qp_num;
  config.expected_psn = attr.rq_psn & kPsnMask;
  config.qkey = attr.qkey;
  config.mtu_bytes =
      qp.qp_type == IBV_QPT_UD ? link.mtu_bytes() : 128u << static_cast<uint32_t>(attr.path_mtu);
  config.max_dest_rd_atomic = attr.max_dest_rd_atomic;
  config.min_rnr_timer = attr.min_rnr_timer;
  config.access_flags = static_cast<int>(attr.qp_access_flags);
  config.path = PathOf(attr.ah_attr, link.local_gid());  // UD: from us to nowhere in particular
  config.path.source_port = SourcePortOf(qp.qp_num, attr.dest_qp_num);
  return config;
}

// Who has a large buffer in the kernel is probably not alone in that, and then more in flight keeps
// both ends busy; where it is wrong, losses shrink the window.
constexpr uint32_t kLargeReceiveBuffer = 4 << 20;
constexpr uint32_t kLargeWindow = 512 << 10;

SendConfig SendConfigOf(const ibv_qp_attr& attr, const Link& link) {
  SendConfig config;
  if (link.receive_buffer_bytes() >= kLargeReceiveBuffer) {
    config.congestion.window_bytes_max = kLargeWindow;
    config.congestion.read_chunk_bytes = kLargeWindow / 4;
    config.congestion.ack_interval_packets *= 2;  // two batches: each ACK costs both ends a packet
  }
  config.first_psn = attr.sq_psn & kPsnMask;
  config.timeout = attr.timeout;
  config.retry_count = attr.retry_cnt;
  config.rnr_retry = attr.rnr_retry;
  config.max_rd_atomic = attr.max_rd_atomic;
  return config;
}

// Keeps what `mask` sets, for the transition itself and for ibv_query_qp.
void Remember(ibv_qp_attr& kept, const ibv_qp_attr& given, int mask) {
  const auto take = [&](int bit, auto ibv_qp_attr::*field) {
    if ((mask & bit) != 0) kept.*field = given.*field;
  };
  take(IBV_QP_PKEY_INDEX, &ibv_qp_attr::pkey_index);
  take(IBV_QP_PORT, &ibv_qp_attr::port_num);
  take(IBV_QP_QKEY, &ibv_qp_attr::qkey);
  take(IBV_QP_ACCESS_FLAGS, &ibv_qp_attr::qp_access_flags);
  take(IBV_QP_AV, &ibv_qp_attr::ah_attr);
  take(IBV_QP_PATH_MTU, &ibv_qp_attr::path_mtu);
  take(IBV_QP_DEST_QPN, &ibv_qp_attr::dest_qp_num);
  take(IBV_QP_RQ_PSN, &ibv_qp_attr::rq_psn);
  take(IBV_QP_MAX_DEST_RD_ATOMIC, &ibv_qp_attr::max_dest_rd_atomic);
  take(IBV_QP_MIN_RNR_TIMER, &ibv_qp_attr::min_rnr_timer);
  take(IBV_QP_TIMEOUT, &ibv_qp_attr::timeout);
  take(IBV_QP_RETRY_CNT, &ibv_qp_attr::retry_cnt);
  take(IBV_QP_RNR_RETRY, &ibv_qp_attr::rnr_retry);
  take(IBV_QP_SQ_PSN, &ibv_qp_attr::sq_psn);
  take(IBV_QP_MAX_QP_RD_ATOMIC, &ibv_qp_attr::max_rd_atomic);
  take(IBV_QP_RATE_LIMIT, &ibv_qp_attr::rate_limit);
}

// In bytes per second: the lower of the address vector's static rate (IBTA vol. 1, 9.11) and the
// queue pair's own limit. The port's rate and above are no limit.
uint64_t RateLimitOf(const ibv_qp_attr& attr) {
  const int megabits = ibv_rate_to_mbps(static_cast<ibv_rate>(attr.ah_attr.static_rate));
  uint64_t kilobits = kRateLimitMax;
  if (megabits > 0) kilobits = std::min(kilobits, uint64_t{1000} * static_cast<uint32_t>(megabits));
  if (attr.rate_limit != 0) kilobits = std::min<uint64_t>(kilobits, attr.rate_limit);
  return kilobits == kRateLimitMax ? 0 : kilobits * 1000 / 8;
}

// These may change on the way to RTS and later.
void Tune(SoftQueuePair& qp) {
  qp.engine.SetRateLimit(RateLimitOf(qp.attr));
  qp.engine.SetReceiveRights(static_cast<int>(qp.attr.qp_access_flags), qp.attr.min_rnr_timer);
  qp.engine.SetQkey(qp.attr.qkey);
}

void Change(SoftContext& context, SoftQueuePair& qp, ibv_qp_state to) {
  const ibv_qp_state from = qp.state;
  qp.state = to;
  switch (to) {
    case IBV_QPS_RESET:
      qp.engine.ToReset();
      SameHost::Disconnect(qp);
      qp.ForEachCompletionQueue([&qp](SoftCompletionQueue& cq) { cq.Forget(qp.qp_num); });
      qp.attr = {};
      qp.heard_before_send = false;
      break;
    case IBV_QPS_INIT:
      if (from != to) qp.engine.ToInit();
      break;
    case IBV_QPS_RTR:
      qp.engine.ToReadyToReceive(ReceiveConfigOf(qp, context.link()));
      qp.engine.SetRateLimit(RateLimitOf(qp.attr));
      context.same_host().Connect(qp);
      break;
    case IBV_QPS_RTS:
      if (from == IBV_QPS_RTR) qp.engine.ToReadyToSend(SendConfigOf(qp.attr, context.link()));
      if (from == IBV_QPS_SQD) qp.engine.SetDraining(false);
      Tune(qp);
      break;
    case IBV_QPS_SQD:
      if (from != to) qp.drain_event_due = qp.attr.en_sqd_async_notify != 0;
      qp.engine.SetDraining(true);
      Tune(qp);
      break;
    default:
      qp.engine.ToError(std::chrono::steady_clock::now());
      qp.FlushAfterError(std::chrono::steady_clock::now());
      if (qp.srq != nullptr && from != to) context.ReportLastReceive(qp);
      break;
  }
  context.same_host().Publish(qp);
  context.scheduler().Touch(qp);
}

bool ReceivesHere(ibv_qp_type type) { return type != IBV_QPT_XRC_SEND && type != IBV_QPT_XRC_RECV; }
bool SendsHere(ibv_qp_type type) { return type != IBV_QPT_XRC_RECV; }

// Null, with errno. `pd` or `xrcd`, by type.
ibv_qp* Make(ibv_context* device, ibv_pd* pd, SoftXrcDomain* xrcd, ibv_qp_init_attr* attr) {
  const ibv_qp_type type = attr->qp_type;
  auto* const srq = static_cast<SoftSharedReceiveQueue*>(attr->srq);
  const bool has_receives = ReceivesHere(type) && srq == nullptr;  // of its own
  ibv_qp_cap& cap = attr->cap;
  if (!has_receives) cap.max_recv_wr = cap.max_recv_sge = 0;
  if (!SendsHere(type)) cap.max_send_wr = cap.max_send_sge = cap.max_inline_data = 0;
  if ((srq != nullptr && (srq->context != device || srq->xrc_domain != nullptr)) ||
      (srq != nullptr && !ReceivesHere(type)) || (SendsHere(type) && attr->send_cq == nullptr) ||
      (ReceivesHere(type) && attr->recv_cq == nullptr) || !WithinLimits(cap)) {
    errno = EINVAL;
    return nullptr;
  }
  if (!SendsHere(type)) attr->send_cq = attr->recv_cq = nullptr;
  SoftContext& context = SoftContext::Of(device);
  // What is given may be more than what was asked, never less.
  if (SendsHere(type)) {
    cap.max_send_wr = std::bit_ceil(std::max(cap.max_send_wr, 1u));
    cap.max_send_sge = std::max(cap.max_send_sge, 1u);
  }
  if (has_receives) {
    cap.max_recv_wr = std::bit_ceil(std::max(cap.max_recv_wr, 1u));
    cap.max_recv_sge = std::max(cap.max_recv_sge, 1u);
  }
  QueuePairLimits limits;
  limits.type = type;
  limits.max_send_wr = cap.max_send_wr;
  limits.max_recv_wr = cap.max_recv_wr;
  limits.max_send_sge = cap.max_send_sge;
  limits.max_recv_sge = cap.max_recv_sge;
  limits.max_inline_bytes = cap.max_inline_data;
  limits.signal_all = attr->sq_sig_all != 0;
  limits.max_dest_rd_atomic = kReadAtomicsMax;
  if (srq != nullptr) limits.shared_receives = &srq->engine;
  if (type == IBV_QPT_XRC_RECV) {
    limits.xrc_queues = xrcd;
    limits.max_recv_sge = kSgesMax;  // of whichever queue a packet names
  }
  SoftQueuePair* qp = context.progress().Exclusive([&]() -> SoftQueuePair* {
    limits.qpn = context.scheduler().ReserveQpn();
    if (limits.qpn == 0) return nullptr;
    auto* made = OrNoMemory(
        [&] { return new SoftQueuePair(limits, context.keys(), *attr, device, pd, xrcd); });
    if (made == nullptr) return nullptr;
    context.scheduler().Add(*made);
    made->ForEachCompletionQueue([](SoftCompletionQueue& cq) { ++cq.users; });
    if (srq != nullptr) ++srq->users;
    return made;
  });
  if (qp == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  if (pd != nullptr) AddObject(pd);
  if (xrcd != nullptr) ++xrcd->objects;
  return qp;
}

}  // namespace

ibv_qp* CreateQp(ibv_pd* pd, ibv_qp_init_attr* attr) {
  const ibv_qp_type type = attr->qp_type;
  if (type != IBV_QPT_RC && type != IBV_QPT_UC && type != IBV_QPT_UD && type != IBV_QPT_XRC_SEND) {
    // An XRC target has no protection domain: ibv_create_qp_ex makes it, with an XRC domain.
    errno = type == IBV_QPT_XRC_RECV ? EINVAL : EOPNOTSUPP;
    return nullptr;
  }
  return Make(pd->context, pd, nullptr, attr);
}

ibv_qp* CreateXrcTarget(ibv_xrcd* xrcd, ibv_qp_init_attr* attr) {
  return Make(xrcd->context, nullptr, static_cast<SoftXrcDomain*>(xrcd), attr);
}

ibv_qp* OpenQp(ibv_context* context, ibv_qp_open_attr* attr) {
  constexpr uint32_t kNeeded = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
  if ((attr->comp_mask & kNeeded) != kNeeded || attr->qp_type != IBV_QPT_XRC_RECV ||
      attr->xrcd == nullptr || attr->xrcd->context != context) {
    errno = EINVAL;
    return nullptr;
  }
  SoftQueuePair* opened = nullptr;
  // The handle is the one that there is, and so is its context.
  const bool has_context = (attr->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT) != 0;
  const int error = SoftContext::Of(context).progress().Exclusive([&] {
    if ((attr->comp_mask & ~(kNeeded | IBV_QP_OPEN_ATTR_CONTEXT)) != 0) return EOPNOTSUPP;
    SoftContext::Of(context).scheduler().ForEach([&](SoftQueuePair& qp) {
      if (qp.xrc_domain == attr->xrcd && qp.qp_num == attr->qp_num) opened = &qp;
    });
    if (opened == nullptr) return EINVAL;
    if (has_context && attr->qp_context != opened->qp_context) return EOPNOTSUPP;
    ++opened->opens;
    return 0;
  });
  if (error == 0) return opened;
  Log().info("{}: ibv_open_qp: {}", context->device->name,
             opened != nullptr ? "the context of a queue pair is that of who created it"
                               : "no such queue pair in the XRC domain as it is in this process");
  errno = error;
  return nullptr;
}

int ModifyQp(ibv_qp* qp, ibv_qp_attr* attr, int mask) {
  auto& soft = *static_cast<SoftQueuePair*>(qp);
  SoftContext& context = SoftContext::Of(qp->context);
  const int error = context.progress().Exclusive([&] {
    const ibv_qp_state to = (mask & IBV_QP_STATE) != 0 ? attr->qp_state : soft.state;
    if ((mask & IBV_QP_CUR_STATE) != 0 && attr->cur_qp_state != soft.state) return EINVAL;
    absl::Status legal = CheckTransition(qp->qp_type, soft.state, to, mask, *attr);
    if (legal.ok() && (mask & IBV_QP_AV) != 0) {
      legal = CheckFamily(attr->ah_attr, context.link().local_gid());
    }
    if (!legal.ok()) {
      Log().info("{} QP 0x{:06x}: ibv_modify_qp: {}", qp->context->device->name, qp->qp_num,
                 std::string(legal.message()));
      return EINVAL;
    }
    Remember(soft.attr, *attr, mask);
    if (to == IBV_QPS_SQD && soft.state != to) {
      soft.attr.en_sqd_async_notify =
          (mask & IBV_QP_EN_SQD_ASYNC_NOTIFY) != 0 ? attr->en_sqd_async_notify : 0;
    }
    Change(context, soft, to);
    return 0;
  });
  // What a peer may have been in the middle of was lawful before the change.
  if (error == 0) context.same_host().AwaitQueuePairUnused(qp->qp_num, context.progress());
  context.progress().Ring();  // it may have something to do now, and its timers have changed
  return error;
}

int ModifyQpRateLimit(ibv_qp* qp, ibv_qp_rate_limit_attr* attr) {
  // Bursts are as long as they are (engine/pacer.h); the packet size is a hint that helps nothing.
  if (attr->max_burst_sz != 0 || attr->comp_mask != 0) return EINVAL;
  ibv_qp_attr change{};
  change.rate_limit = attr->rate_limit;
  return ModifyQp(qp, &change, IBV_QP_RATE_LIMIT);
}

int QueryQp(ibv_qp* qp, ibv_qp_attr* attr, int, ibv_qp_init_attr* init_attr) {
  auto& soft = *static_cast<SoftQueuePair*>(qp);
  SoftContext::Of(qp->context).progress().Exclusive([&] {
    *attr = soft.attr;
    attr->qp_state = attr->cur_qp_state = soft.state;
    attr->cap = soft.init_attr.cap;
    const bool sends = soft.state == IBV_QPS_RTS || soft.state == IBV_QPS_SQD;
    attr->sq_draining = soft.state == IBV_QPS_SQD && !soft.engine.drained() ? 1 : 0;
    if (sends) attr->sq_psn = soft.engine.next_send_psn();
    if (sends || soft.state == IBV_QPS_RTR) {
      attr->rq_psn = soft.engine.expected_psn();
    }
    *init_attr = soft.init_attr;
  });
  return 0;
}

int DestroyQp(ibv_qp* qp) {
  auto* soft = static_cast<SoftQueuePair*>(qp);
  SoftContext& context = SoftContext::Of(qp->context);
  const bool gone = context.progress().Exclusive([&] {
    if (--soft->opens != 0) return false;
    context.scheduler().Remove(*soft);
    context.same_host().Withdraw(qp->qp_num);
    context.keys().ReleaseWindowsOf(qp->qp_num);
    soft->ForEachCompletionQueue([qp](SoftCompletionQueue& cq) {
      cq.Forget(qp->qp_num);
      --cq.users;
    });
    if (soft->srq != nullptr) --static_cast<SoftSharedReceiveQueue*>(soft->srq)->users;
    return true;
  });
  if (!gone) return 0;
  context.same_host().AwaitQueuePairUnused(qp->qp_num, context.progress());
  context.async_events().Retire(*soft);
  if (qp->pd != nullptr) RemoveObject(qp->pd);
  if (soft->xrc_domain != nullptr) --soft->xrc_domain->objects;
  delete soft;
  return 0;
}

}  // namespace sumac::soft_nic
