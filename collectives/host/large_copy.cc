// All-gather and broadcast of large vectors: each rank fetches what the others give.

#include <algorithm>

#include "collectives/host/algorithms.h"
#include "collectives/host/chunks.h"
#include "collectives/reduce/reduce.h"

namespace sumac::collectives {
namespace {

// A chunk is a piece of what each source gives. Sources are all ranks, or the root.
class LargeCopy {
 public:
  LargeCopy(HostSession& session, const HostCall& call)
      : session_(session),
        a_(call.arguments),
        root_(call.collective == Collective::kBroadcast ? call.root : -1),
        ranks_(session.size()),
        rank_(session.rank()),
        given_(a_.count * SizeOf(a_.type) / static_cast<size_t>(root_ < 0 ? ranks_ : 1)),
        piece_(ChunkBytes(session, given_)),
        chunks_((given_ + piece_ - 1) / piece_),
        base_(session.chunks()),
        stream_(WorthStreaming(a_.count * SizeOf(a_.type))) {}

  bool Run(const BufferTable& buffers, uint32_t signature) {
    const bool source = IsSource(rank_);
    Announcement own;
    if (source) own.send = PlacementOf(buffers, a_.input, given_);
    if (!source) own.recv = PlacementOf(buffers, a_.output, given_);
    // A root with nothing to copy for itself will help the others.
    if (root_ == rank_ && a_.input == a_.output && IsSharedWork()) own.recv = own.send;
    if (!session_.Arrive(signature, &own, sizeof own)) return false;
    const bool direct = own.send.region.valid();
    const bool fill = source && !direct;
    if (fill && !Fill(0)) return false;
    bool all_direct = !fill;
    Placement root_recv = own.recv;  // of a broadcast: valid when the root helps
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_ || !IsSource(peer)) continue;
      if (!session_.AwaitArrival(peer)) return false;
      Announcement announced;
      std::memcpy(&announced, session_.Data(peer, sizeof announced), sizeof announced);
      bool ok = true;
      std::byte* const send = session_.Reach(peer, announced.send, given_, ok);
      if (!ok) return false;
      session_.sends[static_cast<size_t>(peer)] = send;
      all_direct = all_direct && send != nullptr;
      root_recv = announced.recv;
    }
    if (source && OutputOf(rank_) != a_.input) Copy(OutputOf(rank_), a_.input, given_, stream_);
    if (root_ >= 0 && all_direct && root_recv.region.valid()) {
      return source ? GiveParts() : TakeParts(own.recv.region.valid());
    }
    const uint64_t chunks = all_direct ? 1 : chunks_;
    for (uint64_t i = 0; i <= chunks; ++i) {
      if (fill && i > 0 && i < chunks && !Fill(i)) return false;
      if (i > 0 && !Fetch(i - 1, all_direct ? given_ : piece_)) return false;
    }
    // Others may still be reading our buffer; a stage they may read for as long as they like.
    if (direct && !session_.AwaitAll(&RankArea::consumed, base_ + chunks)) return false;
    session_.FinishChunks(chunks);
    return true;
  }

 private:
  // A broadcast in place from memory that all reach: the root would have nothing to do but to wait,
  // so it writes the last part of each result that it can reach.
  bool IsSharedWork() const {
    return given_ >= kSharedCopyBytesMin && !session_.group().oversubscribed();
  }
  size_t OwnPart() const {
    const size_t n = static_cast<size_t>(ranks_);
    return given_ / n * (n - 1) / kLineBytes * kLineBytes;
  }
  bool GiveParts() {
    const size_t begin = OwnPart();
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_) continue;
      if (!session_.AwaitArrival(peer)) return false;
      Announcement announced;
      std::memcpy(&announced, session_.Data(peer, sizeof announced), sizeof announced);
      bool ok = true;
      std::byte* const recv = session_.Reach(peer, announced.recv, given_, ok);
      if (!ok) return false;
      if (recv == nullptr) continue;
      Copy(recv + begin, static_cast<const std::byte*>(a_.input) + begin, given_ - begin, stream_);
    }
    session_.Publish(session_.own().consumed, base_ + 1);
    if (!session_.AwaitAll(&RankArea::consumed, base_ + 1)) return false;
    session_.FinishChunks(1);
    return true;
  }
  bool TakeParts(bool helped) {
    const std::byte* const from = session_.sends[static_cast<size_t>(root_)];
    Copy(a_.output, from, helped ? OwnPart() : given_, stream_);
    session_.Publish(session_.own().consumed, base_ + 1);
    if (helped && !session_.Await(&RankArea::consumed, base_ + 1, root_)) return false;
    session_.FinishChunks(1);
    return true;
  }

  bool IsSource(int rank) const { return root_ < 0 || rank == root_; }
  std::byte* OutputOf(int source) const {
    auto* const output = static_cast<std::byte*>(a_.output);
    return root_ < 0 ? output + static_cast<size_t>(source) * given_ : output;
  }

  bool Fill(uint64_t chunk) {
    if (!AwaitReuse(session_, &RankArea::consumed, base_ + chunk)) return false;
    const size_t begin = chunk * piece_;
    std::memcpy(session_.own().stage[(base_ + chunk) % kStageSlots],
                static_cast<const std::byte*>(a_.input) + begin, std::min(piece_, given_ - begin));
    session_.Publish(session_.own().filled, base_ + chunk + 1);
    return true;
  }

  bool Fetch(uint64_t chunk, size_t piece) {
    const size_t begin = chunk * piece;
    const size_t bytes = std::min(piece, given_ - begin);
    for (int step = 1; step < ranks_; ++step) {
      const int peer = (rank_ + step) % ranks_;
      if (!IsSource(peer)) continue;
      const std::byte* from = session_.sends[static_cast<size_t>(peer)];
      if (from != nullptr) {
        from += begin;
      } else {
        if (!session_.Await(&RankArea::filled, base_ + chunk + 1, peer)) return false;
        from = session_.area(peer).stage[(base_ + chunk) % kStageSlots];
      }
      Copy(OutputOf(peer) + begin, from, bytes, stream_);
    }
    session_.Publish(session_.own().consumed, base_ + chunk + 1);
    return true;
  }

  HostSession& session_;
  const Arguments& a_;
  const int root_;  // -1: all ranks are sources
  const int ranks_;
  const int rank_;
  const size_t given_;  // bytes, by each source
  const size_t piece_;  // bytes
  const uint64_t chunks_;
  const uint64_t base_;
  const bool stream_;
};

}  // namespace

bool RunLargeCopy(HostSession& session, const BufferTable& buffers, const HostCall& call) {
  return LargeCopy(session, call).Run(buffers, call.signature);
}

Placement PlacementOf(const BufferTable& buffers, const void* addr, size_t bytes) {
  const BufferTable::Entry* const entry = buffers.Find(addr, bytes);
  if (entry == nullptr) return {};
  return {entry->region, static_cast<size_t>(static_cast<const std::byte*>(addr) - entry->begin)};
}

bool WorthStreaming(size_t bytes) { return bytes >= kStreamBytesMin; }

}  // namespace sumac::collectives
