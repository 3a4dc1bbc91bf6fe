#include "verbs/soft_nic/device/data_path.h"

#include <sched.h>

#include <cerrno>
#include <cstdint>
#include <mutex>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {
namespace {

// Posts a chain of requests one by one; what went in is picked up even when a later one is refused.
template <typename Request, typename Post>
int PostChain(SoftQueuePair& qp, SpinLock& lock, Request* request, Request** bad, Post post) {
  int error = 0;
  bool posted = false;
  {
    const std::lock_guard guard(lock);
    for (; request != nullptr; request = request->next) {
      error = post(*request);
      if (error != 0) break;
      posted = true;
    }
  }
  if (error != 0) *bad = request;
  if (posted) RingAfterPost(qp);
  return error;
}

// Two processes that poll on one processor each wait for the end of the other's time slice: 7 ms a
// round trip, seen with pingpongs beside a compiler.
// Only after a long wait, as a processor that waits for it may have much to do.
void GiveWayAfterEmptyPolls(bool empty) {
  constexpr uint32_t kInARow = 256;
  thread_local uint32_t in_a_row = 0;
  in_a_row = empty ? in_a_row + 1 : 0;
  if (in_a_row != 0 && in_a_row % kInARow == 0) sched_yield();
}

}  // namespace

void RingAfterPost(SoftQueuePair& qp) {
  SoftContext& context = SoftContext::Of(qp.context);
  // Most requests to a peer on this host end here.
  if (qp.qp_type == IBV_QPT_RC && context.same_host().on() &&
      context.progress().TryAlone([&] { return context.scheduler().RunDirect(qp); })) {
    return;
  }
  context.scheduler().RingDoorbell(qp);
  context.progress().Ring();
}

int PostSend(ibv_qp* qp, ibv_send_wr* request, ibv_send_wr** bad) {
  auto& soft = *static_cast<SoftQueuePair*>(qp);
  return PostChain(soft, soft.send_lock, request, bad,
                   [&soft](const ibv_send_wr& wr) { return soft.engine.PostSend(wr); });
}

int PostReceive(ibv_qp* qp, ibv_recv_wr* request, ibv_recv_wr** bad) {
  auto& soft = *static_cast<SoftQueuePair*>(qp);
  // A receive gives the engine nothing to send: it finds the buffer when a message comes. Only in
  // the error state must it be flushed.
  int error = 0;
  {
    const std::lock_guard guard(soft.receive_lock);
    for (; request != nullptr; request = request->next) {
      error = soft.engine.PostReceive(*request);
      if (error != 0) break;
    }
  }
  if (error != 0) *bad = request;
  // Pairs with FlushAfterError: either the flush finds this request, or we find the error.
  soft.receive_posts.fetch_add(1, std::memory_order_acq_rel);
  if (soft.engine.state() == IBV_QPS_ERR) RingAfterPost(soft);
  return error;
}

int PostSharedReceive(ibv_srq* srq, ibv_recv_wr* request, ibv_recv_wr** bad) {
  auto& soft = *static_cast<SoftSharedReceiveQueue*>(srq);
  const std::lock_guard guard(soft.lock);
  for (; request != nullptr; request = request->next) {
    if (const int error = soft.engine.Post(*request); error != 0) {
      *bad = request;
      return error;
    }
  }
  return 0;
}

int PollCompletions(ibv_cq* cq, int count, ibv_wc* out) {
  auto& soft = *static_cast<SoftCompletionQueue*>(cq);
  int taken = soft.Take(count, out);
  if (taken != 0) return taken;
  if (soft.overrun()) return -1;  // nothing more will come
  SoftContext::Of(cq->context).progress().Poll();
  taken = soft.Take(count, out);
  GiveWayAfterEmptyPolls(taken == 0);
  return taken;
}

int RequestNotification(ibv_cq* cq, int solicited_only) {
  static_cast<SoftCompletionQueue*>(cq)->Arm(solicited_only != 0);
  return 0;
}

void FillOperations(verbs_context* context) {
  context->sz = sizeof(verbs_context);
  context->query_port = QueryPortExtended;
  context->query_device_ex = QueryDeviceExtended;
  context->advise_mr = AdviseMr;
  context->alloc_td = AllocTd;
  context->dealloc_td = DeallocTd;
  context->alloc_parent_domain = AllocParentDomain;
  context->open_xrcd = OpenXrcd;
  context->close_xrcd = CloseXrcd;
  context->get_srq_num = GetSrqNum;
  context->open_qp = OpenQp;
  context->create_qp_ex = CreateQpEx;
  context->create_cq_ex = CreateCqEx;
  context->create_srq_ex = CreateSrqEx;
  context->query_rt_values = QueryRtValues;
  context->modify_qp_rate_limit = ModifyQpRateLimit;
  ibv_context_ops& ops = context->context.ops;
  ops.post_send = PostSend;
  ops.post_recv = PostReceive;
  ops.poll_cq = PollCompletions;
  ops.req_notify_cq = RequestNotification;
  ops.post_srq_recv = PostSharedReceive;
  ops.alloc_mw = AllocMw;
  ops.bind_mw = BindMw;
  ops.dealloc_mw = DeallocMw;
  // Entries that only libraries before 2008 called; theirs is the library's own code now.
  ops._compat_query_device = [](ibv_context*, ibv_device_attr*) { return EOPNOTSUPP; };
  ops._compat_query_port = [](ibv_context*, uint8_t, _compat_ibv_port_attr*) { return EOPNOTSUPP; };
  for (auto* entry :
       {&ops._compat_alloc_pd,    &ops._compat_dealloc_pd,   &ops._compat_reg_mr,
        &ops._compat_rereg_mr,    &ops._compat_dereg_mr,     &ops._compat_create_cq,
        &ops._compat_cq_event,    &ops._compat_resize_cq,    &ops._compat_destroy_cq,
        &ops._compat_create_srq,  &ops._compat_modify_srq,   &ops._compat_query_srq,
        &ops._compat_destroy_srq, &ops._compat_create_qp,    &ops._compat_query_qp,
        &ops._compat_modify_qp,   &ops._compat_destroy_qp,   &ops._compat_create_ah,
        &ops._compat_destroy_ah,  &ops._compat_attach_mcast, &ops._compat_detach_mcast,
        &ops._compat_async_event}) {
    *entry = []() -> void* {
      errno = EOPNOTSUPP;
      return nullptr;
    };
  }
}

}  // namespace sumac::soft_nic
