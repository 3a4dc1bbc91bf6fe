// Reduce-scatter of large vectors: each rank reduces its block from everybody's data.

#include <algorithm>

#include "collectives/host/algorithms.h"
#include "collectives/host/chunks.h"
#include "collectives/reduce/reduce.h"

namespace sumac::collectives {
namespace {

// A chunk is a piece of every block.
class LargeReduceScatter {
 public:
  LargeReduceScatter(HostSession& session, const HostCall& call)
      : session_(session),
        a_(call.arguments),
        ranks_(session.size()),
        rank_(session.rank()),
        element_(SizeOf(a_.type)),
        block_(a_.count / static_cast<size_t>(ranks_)),
        piece_(PieceBytes(ChunkBytes(session, a_.count * element_), ranks_) / element_),
        chunks_((block_ + piece_ - 1) / piece_),
        base_(session.chunks()),
        stream_(WorthStreaming(a_.count * element_)) {}

  bool Run(const BufferTable& buffers, uint32_t signature) {
    const size_t bytes = a_.count * element_;
    const Announcement own{PlacementOf(buffers, a_.input, bytes), {}};
    if (!session_.Arrive(signature, &own, sizeof own)) return false;
    const bool fill = !own.send.region.valid();
    if (fill && !Fill(0)) return false;
    bool all_direct = !fill;
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_) continue;
      if (!session_.AwaitArrival(peer)) return false;
      Announcement announced;
      std::memcpy(&announced, session_.Data(peer, sizeof announced), sizeof announced);
      bool ok = true;
      std::byte* const send = session_.Reach(peer, announced.send, bytes, ok);
      if (!ok) return false;
      session_.sends[static_cast<size_t>(peer)] = send;
      all_direct = all_direct && send != nullptr;
    }
    if (all_direct) {
      Reduce(0, block_, 0);
      session_.Publish(session_.own().consumed, base_ + 1);
      return Finish(1);
    }
    for (uint64_t i = 0; i <= chunks_; ++i) {
      if (fill && i > 0 && i < chunks_ && !Fill(i)) return false;
      if (i > 0 && !ReduceChunk(i - 1)) return false;
    }
    return Finish(chunks_);
  }

 private:
  // Nobody reads our input any more.
  bool Finish(uint64_t chunks) {
    if (!session_.AwaitAll(&RankArea::consumed, base_ + chunks)) return false;
    session_.FinishChunks(chunks);
    return true;
  }

  size_t CountOf(uint64_t chunk) const { return std::min(piece_, block_ - chunk * piece_); }
  // Bytes from the vector's beginning.
  size_t OffsetOf(int block, size_t element) const {
    return (static_cast<size_t>(block) * block_ + element) * element_;
  }

  bool Fill(uint64_t chunk) {
    if (!AwaitReuse(session_, &RankArea::consumed, base_ + chunk)) return false;
    std::byte* const stage = session_.own().stage[(base_ + chunk) % kStageSlots];
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_) continue;
      std::memcpy(stage + static_cast<size_t>(peer) * piece_ * element_,
                  Input() + OffsetOf(peer, chunk * piece_), CountOf(chunk) * element_);
    }
    session_.Publish(session_.own().filled, base_ + chunk + 1);
    return true;
  }

  bool ReduceChunk(uint64_t chunk) {
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_ || session_.sends[static_cast<size_t>(peer)] != nullptr) continue;
      if (!session_.Await(&RankArea::filled, base_ + chunk + 1, peer)) return false;
    }
    Reduce(chunk * piece_, CountOf(chunk), (base_ + chunk) % kStageSlots);
    session_.Publish(session_.own().consumed, base_ + chunk + 1);
    return true;
  }

  // `count` elements of our block, from `begin`; private data of others lie in that slot.
  void Reduce(size_t begin, size_t count, uint64_t slot) {
    for (int peer = 0; peer < ranks_; ++peer) {
      const auto p = static_cast<size_t>(peer);
      if (peer == rank_) {
        session_.from[p] = Input() + OffsetOf(rank_, begin);
      } else if (session_.sends[p] != nullptr) {
        session_.from[p] = session_.sends[p] + OffsetOf(rank_, begin);
      } else {
        session_.from[p] =
            session_.area(peer).stage[slot] + static_cast<size_t>(rank_) * piece_ * element_;
      }
    }
    session_.to[0] = static_cast<std::byte*>(a_.output) + begin * element_;
    Fusion fusion = FusionOf(session_, a_, 1, count);
    fusion.stream = stream_;
    ReduceFused(fusion);
  }

  const std::byte* Input() const { return static_cast<const std::byte*>(a_.input); }

  HostSession& session_;
  const Arguments& a_;
  const int ranks_;
  const int rank_;
  const size_t element_;
  const size_t block_;  // elements
  const size_t piece_;  // elements
  const uint64_t chunks_;
  const uint64_t base_;
  const bool stream_;
};

}  // namespace

bool RunLargeReduceScatter(HostSession& session, const BufferTable& buffers, const HostCall& call) {
  return LargeReduceScatter(session, call).Run(buffers, call.signature);
}

}  // namespace sumac::collectives
