// One packet of a SEND or WRITE as it goes out: what RC, UC and UD have in common.
//
// Pure functions over a posted request, inline because they run for every packet. The opcodes are
// RC's; those of UC differ in the transport bits only (IBTA vol. 1, table 38).
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "verbs/soft_nic/engine/scatter_gather.h"
#include "verbs/soft_nic/engine/send_queue.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {

inline Opcode MessageOpcode(ibv_wr_opcode work, bool first, bool last) {
  switch (work) {
    case IBV_WR_SEND_WITH_IMM:
      if (last) return first ? Opcode::kRcSendOnlyWithImmediate : Opcode::kRcSendLastWithImmediate;
      break;
    case IBV_WR_SEND_WITH_INV:
      if (last) {
        return first ? Opcode::kRcSendOnlyWithInvalidate : Opcode::kRcSendLastWithInvalidate;
      }
      break;
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      if (last)
        return first ? Opcode::kRcWriteOnlyWithImmediate : Opcode::kRcWriteLastWithImmediate;
      [[fallthrough]];
    case IBV_WR_RDMA_WRITE:
      if (first) return last ? Opcode::kRcWriteOnly : Opcode::kRcWriteFirst;
      return last ? Opcode::kRcWriteLast : Opcode::kRcWriteMiddle;
    default:
      break;
  }
  if (first) return last ? Opcode::kRcSendOnly : Opcode::kRcSendFirst;
  return last ? Opcode::kRcSendLast : Opcode::kRcSendMiddle;
}

// Fills in what follows from the request: opcode, pad, SE bit, RETH, immediate or key to
// invalidate.
inline void DescribeMessagePacket(const SendRequest& request, uint32_t bytes, bool first, bool last,
                                  PacketHeader* header) {
  header->opcode = MessageOpcode(request.opcode, first, last);
  header->pad_bytes = static_cast<uint8_t>(-bytes & 3u);
  header->solicited = last && (request.send_flags & IBV_SEND_SOLICITED) != 0;
  header->remote_addr = request.remote_addr;
  header->dma_length = request.length;
  header->rkey = request.rkey;
  if (request.opcode == IBV_WR_SEND_WITH_INV) {
    header->rkey = request.immediate;
  } else {
    header->immediate = request.immediate;
  }
}

// Points `payload` at [offset, offset + bytes) of the request's data, by way of `pieces` (room for
// one piece per sge). False when local memory refuses.
[[nodiscard]] inline bool GatherPayload(Memory& memory, SendRequest& request, uint64_t offset,
                                        uint32_t bytes, std::span<iovec> pieces,
                                        std::span<const iovec>* payload) {
  int count = 0;
  if (request.inline_data) {
    // iovec has no const form; the link only reads.
    if (bytes != 0) {
      pieces[count++] = iovec{const_cast<std::byte*>(request.inline_bytes() + offset), bytes};
    }
  } else {
    count = ResolveRange(memory, request.sges(), offset, bytes, false, pieces);
    if (count < 0) return false;
  }
  *payload = pieces.first(static_cast<size_t>(count));
  return true;
}

}  // namespace sumac::soft_nic
