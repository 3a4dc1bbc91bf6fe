// Requests that the requester carries out itself in the peer's memory, without packets.
#include <algorithm>
#include <array>
#include <cstring>

#include "verbs/soft_nic/engine/requester.h"
#include "verbs/soft_nic/engine/scatter_gather.h"
#include "verbs/soft_nic/engine/work_completions.h"

namespace sumac::soft_nic {
namespace {

// A longer request gives way to other queue pairs after so many bytes: some ten microseconds.
constexpr uint64_t kTurnBytes = 256 << 10;

// Of a posting thread, before the other queue pairs have their turn.
constexpr uint32_t kRequestsAtOnce = 32;

// So many requests as packets, and then one waits for the answers to try the direct path once more;
// twice as many after each refusal.
constexpr uint64_t kRequestsBeforeAgain = 8;
constexpr uint32_t kDoublingsMax = 16;

bool MayBeDirect(const SendRequest& request) {
  return request.length != 0 &&
         (request.opcode == IBV_WR_RDMA_WRITE || request.is_read() || request.is_atomic());
}

}  // namespace

// Only when nothing is unanswered: then everything before has been carried out, no retry can come
// after, and the order of requests, fences and completions is that of the posts.
bool Requester::MayRunDirect() const {
  const uint64_t oldest = parts_.send_queue.begin();
  return parts_.limits.direct->up() && oldest == cursor_index_ && oldest == assigned_ &&
         acked_ == highest_ && acked_ == cursor_ && !parts_.paced && !failed_ &&
         stalled_ == IBV_WC_SUCCESS && rnr_deadline_ == kNever && (!draining_ || direct_done_ != 0);
}

// Whether only the path was missing for it. What goes out behind a request that had to be packets
// counts as such: it is no reason to wait. But not for ever, as a refusal may be the last one: a
// target that was not ready for its first request, for instance.
bool Requester::FitsDirect(const SendRequest& request) const {
  return MayBeDirect(request) && assigned_ != by_packets_ &&
         (parts_.send_queue.begin() >= unsuited_end_ || assigned_ >= try_direct_again_);
}

void Requester::NoteAssigned(const SendRequest& request) {
  if (!FitsDirect(request)) unsuited_end_ = assigned_ + 1;
  if (!MayBeDirect(request) || assigned_ == by_packets_) {
    try_direct_again_ = assigned_ + (kRequestsBeforeAgain << direct_refusals_);
  }
}

// A program that never lets its queue run empty would use packets for ever if it began before the
// path was up. So the next request waits for the answers, once, and the rest is direct.
bool Requester::WaitsForDirect() {
  return cursor_index_ == assigned_ && assigned_ != parts_.send_queue.end() &&
         parts_.send_queue.begin() != assigned_ && !parts_.paced && parts_.limits.direct->up() &&
         FitsDirect(parts_.send_queue.at(assigned_)) && parts_.send_config.max_rd_atomic != 0;
}

bool Requester::RunAllDirect() {
  uint32_t budget = kRequestsAtOnce;
  return !RunDirect(&budget) && parts_.send_queue.begin() == parts_.send_queue.end();
}

// True: the turn is over, and there is more to do.
bool Requester::RunDirect(uint32_t* budget) {
  if (!MayRunDirect()) return false;
  const uint64_t end = parts_.send_queue.end();
  for (; assigned_ != end && assigned_ != by_packets_; cursor_index_ = ++assigned_) {
    if (draining_ && direct_done_ == 0) return false;
    const SendRequest& request = parts_.send_queue.at(assigned_);
    if (!MayBeDirect(request)) return false;
    if (*budget == 0) return true;
    --*budget;
    // READs and atomics that the queue pair may not have are refused on the usual way.
    const bool allowed =
        request.opcode == IBV_WR_RDMA_WRITE || parts_.send_config.max_rd_atomic != 0;
    if (!allowed || !(request.is_atomic() ? DirectAtomic(request) : DirectTurn(request))) {
      by_packets_ = assigned_;  // all of it, from its first byte
      direct_done_ = 0;
      direct_refusals_ = std::min(direct_refusals_ + 1, kDoublingsMax);
      return false;
    }
    if (direct_done_ < request.length) return true;
    direct_done_ = 0;
    direct_refusals_ = 0;
    ++parts_.counters.direct_requests;
    parts_.counters.direct_bytes += request.length;
    CompleteOldestSend(parts_, IBV_WC_SUCCESS);
  }
  return false;
}

bool Requester::DirectTurn(const SendRequest& request) {
  const uint64_t bytes = std::min<uint64_t>(request.length - direct_done_, kTurnBytes);
  int count = 1;
  if (request.inline_data) {
    pieces_[0] = iovec{const_cast<std::byte*>(request.inline_bytes() + direct_done_), bytes};
  } else {
    count = ResolveRange(parts_.memory, request.sges(), direct_done_, bytes, request.is_read(),
                         pieces_);
  }
  if (count < 0) return false;
  const std::span<const iovec> pieces(pieces_.data(), static_cast<size_t>(count));
  const RemoteRange range{request.rkey, request.remote_addr, request.length};
  DirectMemory& peer = *parts_.limits.direct;
  if (!(request.is_read() ? peer.Read(range, direct_done_, pieces)
                          : peer.Write(range, direct_done_, pieces))) {
    return false;
  }
  direct_done_ += bytes;
  return true;
}

bool Requester::DirectAtomic(const SendRequest& request) {
  uint64_t original = 0;
  const int count = ResolveRange(parts_.memory, request.sges(), 0, sizeof(original), true, pieces_);
  if (count < 0) return false;
  DirectMemory& peer = *parts_.limits.direct;
  const bool done =
      request.opcode == IBV_WR_ATOMIC_CMP_AND_SWP
          ? peer.CompareSwap(request.rkey, request.remote_addr, request.compare_add, request.swap,
                             &original)
          : peer.FetchAdd(request.rkey, request.remote_addr, request.compare_add, &original);
  if (!done) return false;
  std::array<std::byte, sizeof(original)> bytes;
  std::memcpy(bytes.data(), &original, sizeof(original));
  CopyToPieces(std::span<const iovec>(pieces_.data(), static_cast<size_t>(count)), bytes);
  direct_done_ = request.length;
  return true;
}

}  // namespace sumac::soft_nic
