// One rank's side of the operations in shared memory: who has arrived at which, where the others'
// data are, which chunks are through.
//
// Used by the algorithms of this folder; owned by HostRunner. All ranks go through the same
// operations, numbered on and on. At each, a rank *arrives*: it writes a line into one of
// kArrivalSlots slots, with what the others need to know, and its small data. It may do so only
// when nobody can still be reading what was there: when all have arrived at the operation before.
//
// Threads: the communicator's. Functions that wait return false when they can't go on; status()
// says why. Hot path: nothing here allocates, locks or formats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"

#include "collectives/host/layout.h"
#include "collectives/host/method.h"
#include "runtime/host/host_group.h"

namespace sumac::collectives {

class HostSession {
 public:
  explicit HostSession(runtime::HostGroup& group, HostCopies wanted = HostCopies::kNever);

  const runtime::HostGroup& group() const { return group_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  RankArea& own() { return *areas_[static_cast<size_t>(rank_)]; }
  const RankArea& area(int rank) const { return *areas_[static_cast<size_t>(rank)]; }
  const absl::Status& status() const { return status_.ok() ? group_.status() : status_; }

  // --- Arrivals
  // At the next operation, with up to kSlotBytes of data.
  bool Arrive(uint32_t signature, const void* data, size_t bytes);
  bool AwaitArrival(int peer);
  // The data that came with the arrival of a peer that was waited for.
  const std::byte* Data(int peer, size_t bytes) const {
    const ArrivalSlot& slot = area(peer).slots[number_ % kArrivalSlots];
    return bytes <= kInlineBytes ? slot.arrival.bytes : slot.data;
  }
  // The line that the next arrival is written to is fetched ahead of it.
  void PrepareNext() {
    __builtin_prefetch(&own().slots[(number_ + 1) % kArrivalSlots].arrival, 1, 3);
  }
  // A peer's announced buffer, mapped, or null with `ok` if it is private.
  std::byte* Reach(int peer, const Placement& placement, size_t bytes, bool& ok);
  // From a peer's private memory.
  bool CopyFrom(int peer, uint64_t address, std::byte* into, size_t bytes) {
    return group_.CopyFrom(peer, address, into, bytes);
  }

  // --- Chunks of large operations
  uint64_t chunks() const { return chunks_; }  // of all operations before
  void Publish(Progress& progress, uint64_t chunks) { group_.Publish(progress.chunks, chunks); }
  bool Await(const Progress RankArea::*progress, uint64_t chunks, int peer) {
    return group_.Await((area(peer).*progress).chunks, chunks, peer);
  }
  bool AwaitAll(const Progress RankArea::*progress, uint64_t chunks) {
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank_ && !Await(progress, chunks, peer)) return false;
    }
    return true;
  }
  // The operation had so many chunks, and this rank has done its part in all.
  void FinishChunks(uint64_t count);

  // Scratch for pointers, one a rank.
  std::vector<const void*> from;
  std::vector<void*> to;
  std::vector<const std::byte*> sends;  // announced buffers of large operations; null: private
  std::vector<std::byte*> recvs;
  std::vector<uint64_t> private_sends;  // addresses of those that are private
  std::vector<uint64_t> private_recvs;
  std::vector<std::byte> copies;  // of peers' private data; made when first needed
  MethodChooser methods;

 private:
  runtime::HostGroup& group_;
  const int rank_;
  const int size_;
  std::vector<RankArea*> areas_;
  std::vector<uint64_t> arrived_;  // the last operation that each peer was seen to arrive at
  uint64_t number_ = 0;            // of the operation
  uint32_t signature_ = 0;
  uint64_t chunks_ = 0;
  absl::Status status_;
};

}  // namespace sumac::collectives
