// The send queue of a queue pair: work requests copied in by PostSend, read by the requester until
// acknowledged.
//
// Threads: Post, Stage, Commit and Drop by one producer at a time; the rest by the engine's owner.
// Inline data is copied at post; other data stays in the poster's memory until the request
// completes (IBTA vol. 1, 10.8.3). No allocation after construction.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <span>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/engine/slot_ring.h"

namespace sumac::soft_nic {

// The longest message (IBTA vol. 1, 9.7.1: 2^31 bytes).
inline constexpr uint64_t kMessageBytesMax = uint64_t{1} << 31;

// A posted request, in host order. Its scatter/gather list or inline bytes follow it in the slot.
// Of a bind, remote_addr, compare_add, swap, rkey and immediate are address, length, the region's
// key, the window's new key and the rights.
struct SendRequest {
  uint64_t wr_id;
  uint64_t remote_addr;
  uint64_t compare_add;
  uint64_t swap;
  uint32_t rkey;
  uint32_t immediate;  // as on the wire; for an invalidation the key, in host order
  uint32_t length;     // bytes of the message; 8 for an atomic
  uint32_t send_flags;
  ibv_wr_opcode opcode;
  uint16_t sge_count;  // 0 when the data is inline
  bool inline_data;

  // Set by the requester when the request first reaches the wire. Sequence numbers are PSNs
  // extended to 64 bits.
  uint64_t first;
  uint64_t cost_before;  // congestion-window cost of everything before it (requester.h)
  uint32_t packets;      // PSNs that it takes: packets sent, or response packets of a READ
  uint32_t xrc_srqn;     // XRC: for whose receives

  bool is_read() const { return opcode == IBV_WR_RDMA_READ; }
  bool is_atomic() const {
    return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
  }
  // Carried out here, without a packet.
  bool is_local() const { return opcode == IBV_WR_BIND_MW || opcode == IBV_WR_LOCAL_INV; }
  uint64_t end() const { return first + packets; }
  std::span<const ibv_sge> sges() const {
    return {reinterpret_cast<const ibv_sge*>(this + 1), sge_count};
  }
  const std::byte* inline_bytes() const { return reinterpret_cast<const std::byte*>(this + 1); }
};

// Where a UD request goes, copied from its address handle.
struct DatagramAddress {
  Path path;
  uint32_t qpn;
  uint32_t qkey;
};

class SendQueue {
 public:
  SendQueue(ibv_qp_type type, uint32_t max_wr, uint32_t max_sge, uint32_t max_inline_bytes);

  // 0, EINVAL (opcode, lengths, a UD request without address) or ENOMEM (full).
  [[nodiscard]] int Post(const ibv_send_wr& wr) {
    const int error = Stage(wr);
    if (error == 0) Commit();
    return error;
  }
  // The same in two steps, for requests that go together or not at all: what is staged is unseen
  // until Commit, and Drop forgets it.
  [[nodiscard]] int Stage(const ibv_send_wr& wr);
  void Commit() {
    ring_.Publish(staged_);
    staged_ = 0;
  }
  void Drop() { staged_ = 0; }

  uint64_t begin() const { return ring_.begin(); }
  uint64_t end() const { return ring_.end(); }
  SendRequest& at(uint64_t index) { return *reinterpret_cast<SendRequest*>(ring_.Slot(index)); }
  DatagramAddress& address_at(uint64_t index) {  // UD only
    return *reinterpret_cast<DatagramAddress*>(ring_.Slot(index) + address_offset_);
  }
  void PopFront() { ring_.ReleaseUpTo(ring_.begin() + 1); }
  void Clear() { ring_.ReleaseUpTo(ring_.end()); }

 private:
  int StageLocal(const ibv_send_wr& wr);

  const ibv_qp_type type_;
  const uint32_t max_sge_;
  const uint32_t max_inline_bytes_;
  const size_t address_offset_;  // in a slot, behind list or inline data
  SlotRing ring_;
  uint64_t staged_ = 0;  // producer's
};

}  // namespace sumac::soft_nic
