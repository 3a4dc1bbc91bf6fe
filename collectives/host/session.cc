#include "collectives/host/session.h"

#include "absl/strings/str_cat.h"

namespace sumac::collectives {

namespace {

// Where ranks share CPUs each piece would cost changes of processes: 4 ranks on 2 CPUs took twice
// to four times as long.
HostCopies Allowed(const runtime::HostGroup& group, HostCopies wanted) {
  if (!group.can_copy()) return HostCopies::kNever;
  const bool measured = wanted == HostCopies::kMeasured;
  return measured && group.oversubscribed() ? HostCopies::kNever : wanted;
}

}  // namespace

HostSession::HostSession(runtime::HostGroup& group, HostCopies wanted)
    : from(static_cast<size_t>(group.size())),
      to(static_cast<size_t>(group.size())),
      sends(static_cast<size_t>(group.size())),
      recvs(static_cast<size_t>(group.size())),
      private_sends(static_cast<size_t>(group.size())),
      private_recvs(static_cast<size_t>(group.size())),
      methods(Allowed(group, wanted)),
      group_(group),
      rank_(group.rank()),
      size_(group.size()),
      arrived_(static_cast<size_t>(group.size())) {
  for (int rank = 0; rank < size_; ++rank) {
    areas_.push_back(reinterpret_cast<RankArea*>(group.area(rank)));
  }
}

bool HostSession::Arrive(uint32_t signature, const void* data, size_t bytes) {
  const uint64_t before = number_++;
  signature_ = signature;
  for (int peer = 0; peer < size_; ++peer) {
    uint64_t& arrived = arrived_[static_cast<size_t>(peer)];
    if (peer == rank_ || arrived >= before) continue;
    const Arrival& arrival = area(peer).slots[before % kArrivalSlots].arrival;
    if (!group_.Await(arrival.number, before, peer)) return false;
    arrived = before;
  }
  ArrivalSlot& slot = own().slots[number_ % kArrivalSlots];
  slot.arrival.signature = signature;
  slot.arrival.withdrawals = group_.withdrawals();
  if (bytes > 0) {
    std::memcpy(bytes <= kInlineBytes ? slot.arrival.bytes : slot.data, data, bytes);
  }
  group_.Publish(slot.arrival.number, number_);
  return true;
}

bool HostSession::AwaitArrival(int peer) {
  const Arrival& arrival = area(peer).slots[number_ % kArrivalSlots].arrival;
  if (!group_.Await(arrival.number, number_, peer)) return false;
  arrived_[static_cast<size_t>(peer)] = number_;
  if (arrival.signature != signature_) {
    status_ = absl::FailedPreconditionError(
        absl::StrCat("rank ", peer,
                     " makes another call at this point: all ranks must make the same calls with "
                     "the same count, type, operation and root"));
    return false;
  }
  group_.ForgetWithdrawn(peer, arrival.withdrawals);
  return true;
}

std::byte* HostSession::Reach(int peer, const Placement& placement, size_t bytes, bool& ok) {
  if (!placement.region.valid()) return nullptr;
  std::byte* const data = group_.Reach(peer, placement.region, placement.offset, bytes);
  ok = ok && data != nullptr;
  return data;
}

void HostSession::FinishChunks(uint64_t count) {
  chunks_ += count;
  for (Progress* progress : {&own().filled, &own().consumed, &own().taken}) {
    if (progress->chunks.load(std::memory_order_relaxed) != chunks_) Publish(*progress, chunks_);
  }
}

}  // namespace sumac::collectives
