// A receive queue that several queue pairs take from (IBTA vol. 1, 10.2.9).
//
// A queue pair takes a buffer when a message needs one, in the order in which messages arrive at
// any of them, and keeps it in its own ReceiveQueue until it completes. Owned by the device's
// object behind an ibv_srq, which outlives the queue pairs that use it.
//
// Threads: Post by one producer at a time; the rest by the engine's owner. No allocation after
// construction but in Resize.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/engine/receive_queue.h"

namespace sumac::soft_nic {

class SharedReceiveQueue {
 public:
  // `memory` resolves the buffers' keys: the queue's protection domain counts, not those of the
  // queue pairs. `on_limit`: fewer buffers than SetLimit said.
  // XRC: `memory` also resolves the keys of peers, and receives complete to `completions`.
  SharedReceiveQueue(uint32_t max_wr, uint32_t max_sge, Memory& memory,
                     std::function<void()> on_limit, CompletionSink* completions = nullptr)
      : max_sge_(max_sge),
        memory_(memory),
        completions_(completions),
        on_limit_(std::move(on_limit)),
        buffers_(std::make_unique<ReceiveQueue>(max_wr, max_sge)) {}

  // 0, EINVAL (too many pieces) or ENOMEM (full).
  [[nodiscard]] int Post(const ibv_recv_wr& wr) { return buffers_->Post(wr); }

  // Moves the oldest buffer to a queue pair's own queue. False: there is none.
  bool MoveFrontTo(ReceiveQueue& taker);
  Memory& memory() const { return memory_; }
  CompletionSink* completions() const { return completions_; }
  uint32_t max_sge() const { return max_sge_; }

  // Reports once when taking a buffer leaves fewer than `limit`; 0 disarms.
  void SetLimit(uint32_t limit) { limit_ = limit; }
  uint32_t limit() const { return limit_; }
  // Room for `max_wr`, keeping what is posted; false when that is more. While nobody posts.
  bool Resize(uint32_t max_wr);

 private:
  const uint32_t max_sge_;
  Memory& memory_;
  CompletionSink* const completions_;
  const std::function<void()> on_limit_;
  std::unique_ptr<ReceiveQueue> buffers_;
  uint32_t limit_ = 0;
};

}  // namespace sumac::soft_nic
