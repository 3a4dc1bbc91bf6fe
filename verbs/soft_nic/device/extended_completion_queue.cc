// Polling with ibv_start_poll, ibv_next_poll and the ibv_wc_read_* functions, with timestamps.
//
// A session takes completions one by one into the queue's `session`, whose lock is held from start
// to end; the ring's own lock is not, so a program may destroy a queue pair between the two.
#include <cerrno>
#include <cstdint>
#include <limits>

#include "verbs/soft_nic/device/completion_queue.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {
namespace {

SoftCompletionQueue& Of(ibv_cq_ex* cq) {
  return *static_cast<SoftCompletionQueue*>(ibv_cq_ex_to_cq(cq));
}
const ibv_wc& CurrentOf(ibv_cq_ex* cq) { return Of(cq).session->current; }

bool TakeNext(SoftCompletionQueue& cq) {
  return cq.TakeOne(&cq.session->current, &cq.session->time);
}

// Shows the completion in the fields that the header reads without a call.
int Show(ibv_cq_ex* cq) {
  cq->wr_id = CurrentOf(cq).wr_id;
  cq->status = CurrentOf(cq).status;
  return 0;
}

int StartPoll(ibv_cq_ex* cq, ibv_poll_cq_attr* attr) {
  if (attr->comp_mask != 0) return EINVAL;
  SoftCompletionQueue& soft = Of(cq);
  PollSession& session = *soft.session;
  const auto take = [&] {
    if (!session.single_threaded) session.lock.lock();
    if (TakeNext(soft)) return true;
    if (!session.single_threaded) session.lock.unlock();
    return false;
  };
  if (take()) return Show(cq);
  if (soft.overrun()) return EIO;  // nothing more will come
  SoftContext::Of(cq->context).progress().Poll();
  return take() ? Show(cq) : ENOENT;
}

int NextPoll(ibv_cq_ex* cq) { return TakeNext(Of(cq)) ? Show(cq) : ENOENT; }

void EndPoll(ibv_cq_ex* cq) {
  PollSession& session = *Of(cq).session;
  if (!session.single_threaded) session.lock.unlock();
}

void FillOperations(ibv_cq_ex* cq) {
  cq->start_poll = StartPoll;
  cq->next_poll = NextPoll;
  cq->end_poll = EndPoll;
  cq->read_opcode = [](ibv_cq_ex* self) { return CurrentOf(self).opcode; };
  cq->read_vendor_err = [](ibv_cq_ex* self) { return CurrentOf(self).vendor_err; };
  cq->read_byte_len = [](ibv_cq_ex* self) { return CurrentOf(self).byte_len; };
  cq->read_imm_data = [](ibv_cq_ex* self) { return CurrentOf(self).imm_data; };
  cq->read_qp_num = [](ibv_cq_ex* self) { return CurrentOf(self).qp_num; };
  cq->read_src_qp = [](ibv_cq_ex* self) { return CurrentOf(self).src_qp; };
  cq->read_wc_flags = [](ibv_cq_ex* self) { return CurrentOf(self).wc_flags; };
  cq->read_slid = [](ibv_cq_ex* self) { return uint32_t{CurrentOf(self).slid}; };
  cq->read_sl = [](ibv_cq_ex* self) { return CurrentOf(self).sl; };
  cq->read_dlid_path_bits = [](ibv_cq_ex* self) { return CurrentOf(self).dlid_path_bits; };
  cq->read_completion_ts = [](ibv_cq_ex* self) { return Of(self).session->time.raw_ns; };
  cq->read_completion_wallclock_ns = [](ibv_cq_ex* self) { return Of(self).session->time.wall_ns; };
  // Refused at creation; a call all the same finds zeroes.
  cq->read_cvlan = [](ibv_cq_ex*) { return uint16_t{0}; };
  cq->read_flow_tag = [](ibv_cq_ex*) { return uint32_t{0}; };
  cq->read_tm_info = [](ibv_cq_ex*, ibv_wc_tm_info* info) { *info = {}; };
}

}  // namespace

ibv_cq_ex* CreateCqEx(ibv_context* context, ibv_cq_init_attr_ex* attr) {
  constexpr uint64_t kTimes =
      IBV_WC_EX_WITH_COMPLETION_TIMESTAMP | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK;
  constexpr uint64_t kKnownFields = IBV_WC_STANDARD_FLAGS | kTimes;
  const uint32_t flags =
      (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS) != 0 ? attr->flags : uint32_t{0};
  constexpr uint32_t kKnown = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
  auto* const parent = static_cast<SoftProtectionDomain*>(
      (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) != 0 ? attr->parent_domain : nullptr);
  if ((attr->comp_mask & ~kKnown) != 0 ||
      (flags & ~static_cast<uint32_t>(IBV_CREATE_CQ_ATTR_SINGLE_THREADED)) != 0 ||
      (attr->wc_flags & ~kKnownFields) != 0) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  if (attr->cqe > static_cast<uint32_t>(std::numeric_limits<int>::max()) ||
      attr->comp_vector != 0 ||
      // Must be a parent domain (man 3 ibv_create_cq_ex).
      ((attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) != 0 &&
       (parent == nullptr || parent->inner == nullptr || parent->context != context))) {
    errno = EINVAL;
    return nullptr;
  }
  ibv_cq* const cq =
      CreateCq(context, static_cast<int>(attr->cqe), attr->cq_context, attr->channel, 0);
  if (cq == nullptr) return nullptr;
  auto& soft = *static_cast<SoftCompletionQueue*>(cq);
  // Nobody else has seen the queue yet.
  const auto* const made = OrNoMemory([&]() -> PollSession* {
    soft.session = std::make_unique<PollSession>();
    if ((attr->wc_flags & kTimes) != 0) soft.KeepTimes();
    return soft.session.get();
  });
  if (made == nullptr) {
    DestroyCq(cq);
    errno = ENOMEM;
    return nullptr;
  }
  soft.session->single_threaded = (flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED) != 0;
  auto* const extended = reinterpret_cast<ibv_cq_ex*>(cq);
  FillOperations(extended);
  if (parent != nullptr) {
    soft.parent_domain = parent;
    AddObject(parent);
  }
  return extended;
}

int QueryRtValues(ibv_context*, ibv_values_ex* values) {
  const uint32_t known = values->comp_mask & IBV_VALUES_MASK_RAW_CLOCK;
  if (known != 0) {
    // Programs take tv_nsec for the whole count, as the providers of hardware have it.
    values->raw_clock = {.tv_sec = 0,
                         .tv_nsec = static_cast<int64_t>(CompletionTime::Now().raw_ns)};
  }
  values->comp_mask = known;
  return 0;
}

}  // namespace sumac::soft_nic
