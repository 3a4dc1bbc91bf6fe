// A single-producer single-consumer ring of fixed-size slots: the memory of a send or receive
// queue.
//
// Used by send_queue.h and receive_queue.h. All memory is taken at construction. Threads: Reserve
// and Publish belong to the producer; everything else to the consumer (the engine's owner). Indices
// only grow; a slot's index modulo the ring's size is its place. The consumer may hold many slots
// at once ([begin, end)) and release them from the front.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sumac::soft_nic {

class SlotRing {
 public:
  SlotRing(uint32_t capacity, size_t slot_bytes)
      : capacity_(capacity),
        mask_(std::bit_ceil(capacity == 0 ? 1u : capacity) - 1),
        lines_per_slot_((slot_bytes + sizeof(Line) - 1) / sizeof(Line)),
        lines_((mask_ + 1) * lines_per_slot_) {}
  SlotRing(const SlotRing&) = delete;
  SlotRing& operator=(const SlotRing&) = delete;

  // --- Producer ---
  // The next free slot, or the one `ahead` places behind it; null when the ring is full before.
  std::byte* Reserve(uint64_t ahead = 0) {
    const uint64_t head = head_.load(std::memory_order_relaxed) + ahead;
    if (head - tail_seen_ >= capacity_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head - tail_seen_ >= capacity_) return nullptr;
    }
    return Slot(head);
  }
  void Publish(uint64_t count = 1) {
    head_.store(head_.load(std::memory_order_relaxed) + count, std::memory_order_release);
  }

  // --- Consumer ---
  uint64_t begin() const { return tail_.load(std::memory_order_relaxed); }
  uint64_t end() const { return head_.load(std::memory_order_acquire); }
  std::byte* Slot(uint64_t index) { return lines_[(index & mask_) * lines_per_slot_].bytes; }
  // Gives the slots before `index` back to the producer.
  void ReleaseUpTo(uint64_t index) { tail_.store(index, std::memory_order_release); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };

  const uint64_t capacity_;
  const uint64_t mask_;
  const size_t lines_per_slot_;
  std::vector<Line> lines_;
  alignas(64) std::atomic<uint64_t> head_{0};
  uint64_t tail_seen_ = 0;  // producer's last look at tail_: saves a shared cache line per post
  alignas(64) std::atomic<uint64_t> tail_{0};
};

}  // namespace sumac::soft_nic
