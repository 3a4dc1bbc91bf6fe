// What a packet to an XRC target stands for: each names a shared receive queue, and that queue's
// receives, completion queue and protection domain are the queue pair's own while it is carried out
// (IBTA vol. 1, Annex A14). To the responder it all looks like that of a reliable connection.
//
// Owned by QueuePair, used by the responder and its parts. Owner-only; no allocation.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/engine/receive_queue.h"

namespace sumac::soft_nic {

class SharedReceiveQueue;

// The queues that packets can name.
class XrcQueues {
 public:
  virtual ~XrcQueues() = default;
  // Null: there is none of this number.
  virtual SharedReceiveQueue* Find(uint32_t number) = 0;
};

class XrcSelection {
 public:
  // `receives` takes buffers from whichever queue is selected.
  XrcSelection(XrcQueues& queues, ReceiveQueue& receives) : queues_(queues), receives_(receives) {}

  // False: no such queue, or another one than that of the message under way.
  [[nodiscard]] bool Select(uint32_t number);
  // The queue is about to be destroyed. True: it was selected, and a message under way is lost.
  bool Forget(const SharedReceiveQueue& queue);
  // Of the queue of that number; null when there is none.
  Memory* MemoryOf(uint32_t number);

  // What QueuePairParts refer to: those of the selected queue.
  Memory& memory() { return memory_; }
  CompletionSink& completions() { return completions_; }

 private:
  class SelectedMemory : public Memory {
   public:
    std::byte* Local(uint32_t lkey, uint64_t addr, size_t length, bool write) override {
      return of != nullptr ? of->Local(lkey, addr, length, write) : nullptr;
    }
    std::byte* Remote(uint32_t rkey, uint64_t addr, size_t length, int access) override {
      return of != nullptr ? of->Remote(rkey, addr, length, access) : nullptr;
    }
    // Memory windows are not for XRC.
    bool Invalidate(uint32_t) override { return false; }
    Memory* of = nullptr;
  };
  class SelectedCompletions : public CompletionSink {
   public:
    void Push(const ibv_wc& completion, bool solicited) override {
      if (of != nullptr) of->Push(completion, solicited);
    }
    CompletionSink* of = nullptr;
  };

  XrcQueues& queues_;
  ReceiveQueue& receives_;
  SharedReceiveQueue* selected_ = nullptr;
  SelectedMemory memory_;
  SelectedCompletions completions_;
};

}  // namespace sumac::soft_nic
