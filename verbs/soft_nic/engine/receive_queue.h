// The receive queue of a queue pair: buffers posted by PostReceive, consumed in order by the
// responder.
//
// Threads: Post by one producer at a time; the rest by the engine's owner. No allocation after
// construction.
//
// Of a queue pair that has a shared receive queue it holds only the buffer in use.
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

class SharedReceiveQueue;

class ReceiveQueue {
 public:
  // `shared`, or null, is where Take finds buffers; then Post is not for use. An XRC target's
  // changes.
  ReceiveQueue(uint32_t max_wr, uint32_t max_sge, SharedReceiveQueue* shared = nullptr);

  // 0, EINVAL (too many pieces) or ENOMEM (full).
  [[nodiscard]] int Post(const ibv_recv_wr& wr);

  // A message needs a buffer: true when front() is one.
  bool Take() { return !empty() || (shared_ != nullptr && TakeShared()); }
  void SetShared(SharedReceiveQueue* shared) { shared_ = shared; }
  bool empty() const { return ring_.begin() == ring_.end(); }
  // The oldest buffer; only when not empty.
  ReceiveRequest& front() { return *reinterpret_cast<ReceiveRequest*>(ring_.Slot(ring_.begin())); }
  uint64_t size() const { return ring_.end() - ring_.begin(); }
  // Moves the oldest buffer, of which there is one, behind those of another queue with room.
  void MoveFrontTo(ReceiveQueue& other);
  void PopFront() { ring_.ReleaseUpTo(ring_.begin() + 1); }
  void Clear() { ring_.ReleaseUpTo(ring_.end()); }

 private:
  bool TakeShared();

  const uint32_t max_sge_;
  SharedReceiveQueue* shared_;
  SlotRing ring_;
};

}  // namespace sumac::soft_nic
