// The receive queue of a queue pair: buffers posted by PostReceive, consumed in order by the
// responder.
//
// Threads: Post by one producer at a time; the rest by the engine's owner. No allocation after
// construction.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <span>

#include "verbs/soft_nic/engine/slot_ring.h"

namespace sumac::soft_nic {

// A posted buffer. Its scatter list follows it in the slot.
struct ReceiveRequest {
  uint64_t wr_id;
  uint64_t length;  // room in all pieces
  uint32_t sge_count;

  std::span<const ibv_sge> sges() const {
    return {reinterpret_cast<const ibv_sge*>(this + 1), sge_count};
  }
};

class ReceiveQueue {
 public:
  ReceiveQueue(uint32_t max_wr, uint32_t max_sge);

  // 0, EINVAL (too many pieces) or ENOMEM (full).
  [[nodiscard]] int Post(const ibv_recv_wr& wr);

  bool empty() const { return ring_.begin() == ring_.end(); }
  // The oldest buffer; only when not empty.
  ReceiveRequest& front() { return *reinterpret_cast<ReceiveRequest*>(ring_.Slot(ring_.begin())); }
  void PopFront() { ring_.ReleaseUpTo(ring_.begin() + 1); }
  void Clear() { ring_.ReleaseUpTo(ring_.end()); }

 private:
  const uint32_t max_sge_;
  SlotRing ring_;
};

}  // namespace sumac::soft_nic
