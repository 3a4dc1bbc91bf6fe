#include "verbs/soft_nic/engine/send_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "verbs/soft_nic/engine/address_handle.h"
#include "verbs/soft_nic/wire/psn.h"

namespace sumac::soft_nic {
namespace {

// As the program wrote it: one in C may have put any number there, and an enum of C++ must not be
// read with it.
int OpcodeOf(const ibv_send_wr& wr) {
  int opcode = 0;
  static_assert(sizeof(opcode) == sizeof(wr.opcode));
  std::memcpy(&opcode, &wr.opcode, sizeof(opcode));
  return opcode;
}

// Which operations each transport service has (IBTA vol. 1, 9.7 and 9.8).
bool IsSupported(ibv_qp_type type, int opcode) {
  switch (opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM:
      return type != IBV_QPT_XRC_RECV;
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return type != IBV_QPT_UD && type != IBV_QPT_XRC_RECV;
    case IBV_WR_RDMA_READ:
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      return type == IBV_QPT_RC || type == IBV_QPT_XRC_SEND;
    case IBV_WR_SEND_WITH_INV:
    case IBV_WR_BIND_MW:
    case IBV_WR_LOCAL_INV:
      return type == IBV_QPT_RC;
    default:
      return false;
  }
}

size_t AddressOffset(uint32_t max_sge, uint32_t max_inline_bytes) {
  const size_t tail = std::max<size_t>(max_sge * sizeof(ibv_sge), max_inline_bytes);
  constexpr size_t kUnit = alignof(SendRequest);
  static_assert(alignof(DatagramAddress) <= kUnit);
  return sizeof(SendRequest) + (tail + kUnit - 1) / kUnit * kUnit;
}

}  // namespace

SendQueue::SendQueue(ibv_qp_type type, uint32_t max_wr, uint32_t max_sge, uint32_t max_inline_bytes)
    : type_(type),
      max_sge_(max_sge),
      max_inline_bytes_(max_inline_bytes),
      address_offset_(AddressOffset(max_sge, max_inline_bytes)),
      ring_(max_wr, address_offset_ + (type == IBV_QPT_UD ? sizeof(DatagramAddress) : 0)) {}

int SendQueue::Stage(const ibv_send_wr& wr) {
  const bool inline_data = (wr.send_flags & IBV_SEND_INLINE) != 0;
  if (!IsSupported(type_, OpcodeOf(wr)) || wr.num_sge < 0) return EINVAL;
  if (wr.opcode == IBV_WR_BIND_MW || wr.opcode == IBV_WR_LOCAL_INV) return StageLocal(wr);
  if (type_ == IBV_QPT_UD && wr.wr.ud.ah == nullptr) return EINVAL;
  const bool extended = type_ == IBV_QPT_XRC_SEND;
  if (extended && wr.qp_type.xrc.remote_srqn > kPsnMask) return EINVAL;  // 24 bits on the wire
  if (static_cast<uint32_t>(wr.num_sge) > max_sge_) return EINVAL;
  uint64_t length = 0;
  for (int i = 0; i < wr.num_sge; ++i) length += wr.sg_list[i].length;
  if (length > kMessageBytesMax) return EINVAL;
  const bool is_atomic =
      wr.opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
  if (inline_data && (is_atomic || wr.opcode == IBV_WR_RDMA_READ || length > max_inline_bytes_)) {
    return EINVAL;
  }
  // An atomic returns 8 bytes to one place (IBTA vol. 1, 11.4.1.1), at an aligned address.
  if (is_atomic &&
      (wr.num_sge != 1 || length < sizeof(uint64_t) || wr.wr.atomic.remote_addr % 8 != 0)) {
    return EINVAL;
  }

  std::byte* slot = ring_.Reserve(staged_);
  if (slot == nullptr) return ENOMEM;
  auto* request = new (slot) SendRequest{};
  request->wr_id = wr.wr_id;
  request->opcode = wr.opcode;
  request->send_flags = wr.send_flags;
  request->length = static_cast<uint32_t>(is_atomic ? sizeof(uint64_t) : length);
  request->immediate = wr.opcode == IBV_WR_SEND_WITH_INV ? wr.invalidate_rkey : wr.imm_data;
  if (is_atomic) {
    request->remote_addr = wr.wr.atomic.remote_addr;
    request->rkey = wr.wr.atomic.rkey;
    request->compare_add = wr.wr.atomic.compare_add;
    request->swap = wr.wr.atomic.swap;
  } else if (type_ == IBV_QPT_UD) {
    const auto* handle = static_cast<const AddressHandle*>(wr.wr.ud.ah);
    new (slot + address_offset_)
        DatagramAddress{handle->path, wr.wr.ud.remote_qpn, wr.wr.ud.remote_qkey};
  } else {
    request->remote_addr = wr.wr.rdma.remote_addr;
    request->rkey = wr.wr.rdma.rkey;
  }
  if (extended) request->xrc_srqn = wr.qp_type.xrc.remote_srqn;
  request->inline_data = inline_data;
  std::byte* tail = slot + sizeof(SendRequest);
  if (inline_data) {
    for (int i = 0; i < wr.num_sge; ++i) {
      const ibv_sge& sge = wr.sg_list[i];
      if (sge.length == 0) continue;
      std::memcpy(tail, reinterpret_cast<const void*>(sge.addr), sge.length);
      tail += sge.length;
    }
  } else {
    request->sge_count = static_cast<uint16_t>(wr.num_sge);
    if (wr.num_sge != 0) std::memcpy(tail, wr.sg_list, wr.num_sge * sizeof(ibv_sge));
  }
  ++staged_;
  return 0;
}

// The objects are looked at now: they may be gone when the request is carried out. Their keys are
// then resolved.
int SendQueue::StageLocal(const ibv_send_wr& wr) {
  const bool bind = wr.opcode == IBV_WR_BIND_MW;
  const auto& [window, rkey, info] = wr.bind_mw;
  // A bind gives new low 8 bits to the key of this window (IBTA vol. 1, 10.6.7.2.1).
  if (bind && (window == nullptr || (rkey ^ window->rkey) >> 8 != 0)) return EINVAL;
  std::byte* slot = ring_.Reserve(staged_);
  if (slot == nullptr) return ENOMEM;
  auto* request = new (slot) SendRequest{};
  request->wr_id = wr.wr_id;
  request->opcode = wr.opcode;
  request->send_flags = wr.send_flags;
  if (bind) {
    request->remote_addr = info.addr;
    request->compare_add = info.length;
    request->swap = info.mr != nullptr ? info.mr->lkey : 0;
    request->rkey = rkey;
    request->immediate = info.mw_access_flags;
  } else {
    request->immediate = wr.invalidate_rkey;
  }
  ++staged_;
  return 0;
}

}  // namespace sumac::soft_nic
