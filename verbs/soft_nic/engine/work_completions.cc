#include "verbs/soft_nic/engine/work_completions.h"

namespace sumac::soft_nic {
namespace {

ibv_wc_opcode CompletionOpcode(ibv_wr_opcode opcode) {
  switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return IBV_WC_RDMA_WRITE;
    case IBV_WR_RDMA_READ:
      return IBV_WC_RDMA_READ;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
      return IBV_WC_COMP_SWAP;
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      return IBV_WC_FETCH_ADD;
    case IBV_WR_BIND_MW:
      return IBV_WC_BIND_MW;
    case IBV_WR_LOCAL_INV:
      return IBV_WC_LOCAL_INV;
    default:
      return IBV_WC_SEND;
  }
}

}  // namespace

void CompleteOldestSend(QueuePairParts& parts, ibv_wc_status status) {
  const SendRequest& request = parts.send_queue.at(parts.send_queue.begin());
  const bool announced = status != IBV_WC_SUCCESS || parts.limits.signal_all ||
                         (request.send_flags & IBV_SEND_SIGNALED) != 0;
  ibv_wc completion{};
  completion.wr_id = request.wr_id;
  completion.status = status;
  completion.opcode = CompletionOpcode(request.opcode);
  completion.byte_len = request.length;
  completion.qp_num = parts.limits.qpn;
  parts.send_queue.PopFront();
  if (announced) parts.send_completions.Push(completion, status != IBV_WC_SUCCESS);
}

void FlushSends(QueuePairParts& parts) {
  while (parts.send_queue.begin() != parts.send_queue.end()) {
    CompleteOldestSend(parts, IBV_WC_WR_FLUSH_ERR);
  }
}

void FailOldestReceive(QueuePairParts& parts, ibv_wc_status status) {
  ibv_wc completion{};
  completion.wr_id = parts.receive_queue.front().wr_id;
  completion.status = status;
  completion.opcode = IBV_WC_RECV;
  completion.qp_num = parts.limits.qpn;
  completion.src_qp = parts.receive_config.remote_qpn;
  parts.receive_queue.PopFront();
  parts.receive_completions.Push(completion, true);
}

void FlushReceives(QueuePairParts& parts) {
  while (!parts.receive_queue.empty()) FailOldestReceive(parts, IBV_WC_WR_FLUSH_ERR);
}

void CompleteOldestReceive(QueuePairParts& parts, const PacketView& packet, ibv_wc completion) {
  completion.wr_id = parts.receive_queue.front().wr_id;
  completion.status = IBV_WC_SUCCESS;
  completion.qp_num = parts.limits.qpn;
  if ((packet.flags & kHasImmediate) != 0) {
    completion.wc_flags |= IBV_WC_WITH_IMM;
    completion.imm_data = packet.header.immediate;
  } else if ((packet.flags & kHasIeth) != 0) {
    completion.wc_flags |= IBV_WC_WITH_INV;
    completion.invalidated_rkey = packet.header.rkey;
  }
  parts.receive_queue.PopFront();
  parts.receive_completions.Push(completion, packet.header.solicited);
}

}  // namespace sumac::soft_nic
