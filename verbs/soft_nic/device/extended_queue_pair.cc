#include "verbs/soft_nic/device/extended_queue_pair.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/data_path.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {

uint64_t SendOperationsOf(ibv_qp_type type) {
  constexpr uint64_t kSends = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
  constexpr uint64_t kWrites = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
  switch (type) {
    case IBV_QPT_RC:
      return kSends | kWrites | IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_RDMA_READ |
             IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
             IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV;
    case IBV_QPT_XRC_SEND:
      return kSends | kWrites | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
             IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
    case IBV_QPT_UC:
      return kSends | kWrites;
    case IBV_QPT_UD:
      return kSends;
    default:
      return 0;
  }
}

WorkRequestBuilder::WorkRequestBuilder(QueuePair& engine, const ibv_qp_cap& cap)
    : engine_(engine),
      pieces_max_(cap.max_send_sge),
      pieces_(std::max(cap.max_send_sge, 1u)),
      inline_bytes_(cap.max_inline_data) {}

void WorkRequestBuilder::Stage() {
  if (begun_ && error_ == 0) Fail(engine_.StageSend(request_));
  begun_ = false;
}

ibv_send_wr& WorkRequestBuilder::Begin(ibv_wr_opcode opcode, uint64_t wr_id, unsigned int flags) {
  Stage();
  request_ = {};
  request_.wr_id = wr_id;
  request_.opcode = opcode;
  request_.send_flags = flags & ~static_cast<unsigned int>(IBV_SEND_INLINE);
  begun_ = true;
  return request_;
}

ibv_send_wr* WorkRequestBuilder::current() {
  if (begun_) return &request_;
  Fail(EINVAL);
  return nullptr;
}

void WorkRequestBuilder::SetPieces(absl::Span<const ibv_sge> pieces) {
  ibv_send_wr* const request = current();
  if (request == nullptr) return;
  if (pieces.size() > pieces_max_) return Fail(EINVAL);
  std::copy(pieces.begin(), pieces.end(), pieces_.begin());
  request->sg_list = pieces_.data();
  request->num_sge = static_cast<int>(pieces.size());
}

// The bytes are taken at once: the program may change them when the setter is back.
void WorkRequestBuilder::SetInline(absl::Span<const ibv_data_buf> buffers) {
  ibv_send_wr* const request = current();
  if (request == nullptr) return;
  size_t length = 0;
  for (const ibv_data_buf& buffer : buffers) {
    if (buffer.length > inline_bytes_.size() - length) return Fail(EINVAL);
    if (buffer.length != 0) std::memcpy(&inline_bytes_[length], buffer.addr, buffer.length);
    length += buffer.length;
  }
  pieces_[0] = {.addr = reinterpret_cast<uint64_t>(inline_bytes_.data()),
                .length = static_cast<uint32_t>(length),
                .lkey = 0};
  request->sg_list = pieces_.data();
  request->num_sge = 1;
  request->send_flags |= IBV_SEND_INLINE;
}

int WorkRequestBuilder::Complete() {
  Stage();
  const int error = error_;
  error_ = 0;
  if (error == 0) {
    engine_.CommitSends();
  } else {
    engine_.DropSends();
  }
  return error;
}

void WorkRequestBuilder::Abort() {
  begun_ = false;
  error_ = 0;
  engine_.DropSends();
}

namespace {

SoftQueuePair& Of(ibv_qp_ex* qp) { return *static_cast<SoftQueuePair*>(&qp->qp_base); }
WorkRequestBuilder& BuilderOf(ibv_qp_ex* qp) { return *Of(qp).builder; }

ibv_send_wr& Begin(ibv_qp_ex* qp, ibv_wr_opcode opcode) {
  return BuilderOf(qp).Begin(opcode, qp->wr_id, qp->wr_flags);
}

ibv_send_wr& BeginRdma(ibv_qp_ex* qp, ibv_wr_opcode opcode, uint32_t rkey, uint64_t addr) {
  ibv_send_wr& request = Begin(qp, opcode);
  request.wr.rdma.remote_addr = addr;
  request.wr.rdma.rkey = rkey;
  return request;
}

ibv_send_wr& BeginAtomic(ibv_qp_ex* qp, ibv_wr_opcode opcode, uint32_t rkey, uint64_t addr,
                         uint64_t compare_add) {
  ibv_send_wr& request = Begin(qp, opcode);
  request.wr.atomic.remote_addr = addr;
  request.wr.atomic.rkey = rkey;
  request.wr.atomic.compare_add = compare_add;
  return request;
}

void FillOperations(ibv_qp_ex* qp) {
  qp->wr_start = [](ibv_qp_ex* self) { Of(self).send_lock.lock(); };
  qp->wr_complete = [](ibv_qp_ex* self) {
    SoftQueuePair& soft = Of(self);
    const int error = soft.builder->Complete();
    soft.send_lock.unlock();
    if (error == 0) RingAfterPost(soft);
    return error;
  };
  qp->wr_abort = [](ibv_qp_ex* self) {
    SoftQueuePair& soft = Of(self);
    soft.builder->Abort();
    soft.send_lock.unlock();
  };

  qp->wr_send = [](ibv_qp_ex* self) { Begin(self, IBV_WR_SEND); };
  qp->wr_send_imm = [](ibv_qp_ex* self, __be32 immediate) {
    Begin(self, IBV_WR_SEND_WITH_IMM).imm_data = immediate;
  };
  qp->wr_send_inv = [](ibv_qp_ex* self, uint32_t rkey) {
    Begin(self, IBV_WR_SEND_WITH_INV).invalidate_rkey = rkey;
  };
  qp->wr_rdma_write = [](ibv_qp_ex* self, uint32_t rkey, uint64_t addr) {
    BeginRdma(self, IBV_WR_RDMA_WRITE, rkey, addr);
  };
  qp->wr_rdma_write_imm = [](ibv_qp_ex* self, uint32_t rkey, uint64_t addr, __be32 immediate) {
    BeginRdma(self, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, addr).imm_data = immediate;
  };
  qp->wr_rdma_read = [](ibv_qp_ex* self, uint32_t rkey, uint64_t addr) {
    BeginRdma(self, IBV_WR_RDMA_READ, rkey, addr);
  };
  qp->wr_atomic_cmp_swp = [](ibv_qp_ex* self, uint32_t rkey, uint64_t addr, uint64_t compare,
                             uint64_t swap) {
    BeginAtomic(self, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, addr, compare).wr.atomic.swap = swap;
  };
  qp->wr_atomic_fetch_add = [](ibv_qp_ex* self, uint32_t rkey, uint64_t addr, uint64_t add) {
    BeginAtomic(self, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, addr, add);
  };
  qp->wr_local_inv = [](ibv_qp_ex* self, uint32_t rkey) {
    Begin(self, IBV_WR_LOCAL_INV).invalidate_rkey = rkey;
  };
  qp->wr_bind_mw = [](ibv_qp_ex* self, ibv_mw* window, uint32_t rkey,
                      const ibv_mw_bind_info* info) {
    ibv_send_wr& request = Begin(self, IBV_WR_BIND_MW);
    request.bind_mw.mw = window;
    request.bind_mw.rkey = rkey;
    request.bind_mw.bind_info = *info;
  };
  // Refused at creation; who calls them all the same learns it from ibv_wr_complete.
  qp->wr_send_tso = [](ibv_qp_ex* self, void*, uint16_t, uint16_t) {
    BuilderOf(self).Fail(EOPNOTSUPP);
  };
  qp->wr_atomic_write = [](ibv_qp_ex* self, uint32_t, uint64_t, const void*) {
    BuilderOf(self).Fail(EOPNOTSUPP);
  };

  qp->wr_set_xrc_srqn = [](ibv_qp_ex* self, uint32_t number) {
    ibv_send_wr* const request = BuilderOf(self).current();
    if (request != nullptr) request->qp_type.xrc.remote_srqn = number;
  };
  qp->wr_set_ud_addr = [](ibv_qp_ex* self, ibv_ah* ah, uint32_t qpn, uint32_t qkey) {
    ibv_send_wr* const request = BuilderOf(self).current();
    if (request == nullptr) return;
    request->wr.ud.ah = ah;
    request->wr.ud.remote_qpn = qpn;
    request->wr.ud.remote_qkey = qkey;
  };
  qp->wr_set_sge = [](ibv_qp_ex* self, uint32_t lkey, uint64_t addr, uint32_t length) {
    const ibv_sge piece{.addr = addr, .length = length, .lkey = lkey};
    BuilderOf(self).SetPieces({&piece, 1});
  };
  qp->wr_set_sge_list = [](ibv_qp_ex* self, size_t count, const ibv_sge* pieces) {
    BuilderOf(self).SetPieces({pieces, count});
  };
  qp->wr_set_inline_data = [](ibv_qp_ex* self, void* addr, size_t length) {
    const ibv_data_buf buffer{.addr = addr, .length = length};
    BuilderOf(self).SetInline({&buffer, 1});
  };
  qp->wr_set_inline_data_list = [](ibv_qp_ex* self, size_t count, const ibv_data_buf* buffers) {
    BuilderOf(self).SetInline({buffers, count});
  };
}

}  // namespace

ibv_qp* CreateQpEx(ibv_context* context, ibv_qp_init_attr_ex* attr) {
  constexpr uint32_t kKnown = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_XRCD |
                              IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  const uint32_t mask = attr->comp_mask;
  const bool extended = (mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) != 0;
  if ((mask & ~kKnown) != 0 ||
      ((mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) != 0 && attr->create_flags != 0) ||
      (extended && (attr->send_ops_flags & ~SendOperationsOf(attr->qp_type)) != 0)) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  const bool target = attr->qp_type == IBV_QPT_XRC_RECV;
  const bool has_domain = target ? (mask & IBV_QP_INIT_ATTR_XRCD) != 0 && attr->xrcd != nullptr &&
                                       attr->xrcd->context == context
                                 : (mask & IBV_QP_INIT_ATTR_PD) != 0 && attr->pd != nullptr &&
                                       attr->pd->context == context;
  if (!has_domain || (!target && (mask & IBV_QP_INIT_ATTR_XRCD) != 0)) {
    errno = EINVAL;
    return nullptr;
  }
  ibv_qp_init_attr plain{.qp_context = attr->qp_context,
                         .send_cq = attr->send_cq,
                         .recv_cq = attr->recv_cq,
                         .srq = attr->srq,
                         .cap = attr->cap,
                         .qp_type = attr->qp_type,
                         .sq_sig_all = attr->sq_sig_all};
  ibv_qp* const qp = target ? CreateXrcTarget(attr->xrcd, &plain) : CreateQp(attr->pd, &plain);
  if (qp == nullptr || !extended) {
    attr->cap = plain.cap;
    return qp;
  }
  auto& soft = *static_cast<SoftQueuePair*>(qp);
  auto* const builder =
      OrNoMemory([&] { return new WorkRequestBuilder(soft.engine, soft.init_attr.cap); });
  if (builder == nullptr) {
    DestroyQp(qp);
    errno = ENOMEM;
    return nullptr;
  }
  soft.builder.reset(builder);
  attr->cap = plain.cap;
  FillOperations(QpToQpEx(qp));
  return qp;
}

ibv_qp_ex* QpToQpEx(ibv_qp* qp) {
  if (static_cast<SoftQueuePair*>(qp)->builder == nullptr) return nullptr;
  return reinterpret_cast<ibv_qp_ex*>(qp);
}

}  // namespace sumac::soft_nic
