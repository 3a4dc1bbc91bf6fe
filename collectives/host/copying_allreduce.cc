// Allreduce of large vectors in private memory by the kernel's copies: each rank copies the others'
// data of its share, reduces them into its own result, and copies the others' shares from theirs.
//
// A byte of the others' crosses once, and no line is written that others will read in shared
// memory. In place is safe: of a rank's input the others read only their own shares, and its copy
// of such a share is overwritten after they have said that they reduced it.

#include <algorithm>

#include "collectives/host/algorithms.h"
#include "collectives/host/chunks.h"
#include "collectives/reduce/reduce.h"

namespace sumac::collectives {
namespace {

// As much as stays in a core's cache beside input and result; a system call for each.
constexpr size_t kPieceBytesMax = 128 * 1024;
constexpr size_t kCopiesBytesMax = 4 << 20;  // of all peers together

class CopyingAllReduce {
 public:
  CopyingAllReduce(HostSession& session, const HostCall& call)
      : session_(session),
        a_(call.arguments),
        ranks_(session.size()),
        rank_(session.rank()),
        element_(SizeOf(a_.type)),
        piece_(PieceBytes(std::min(kPieceBytesMax * static_cast<size_t>(ranks_), kCopiesBytesMax),
                          ranks_) /
               element_),
        // Of the largest share, so that all ranks count alike.
        pieces_((ShareOf(0, ranks_, a_.count, element_).count + piece_ - 1) / piece_),
        base_(session.chunks()) {}

  bool Run() {
    session_.copies.resize(static_cast<size_t>(ranks_) * piece_ * element_);
    // A piece is fetched while the next one is reduced: the others had time for theirs.
    for (uint64_t i = 0; i <= pieces_; ++i) {
      if (i < pieces_ && !ReducePiece(i)) return false;
      if (i > 0 && !FetchPiece(i - 1)) return false;
    }
    // The caller may change its buffers when nobody reads them any more.
    session_.Publish(session_.own().taken, base_ + pieces_);
    if (!session_.AwaitAll(&RankArea::taken, base_ + pieces_)) return false;
    session_.FinishChunks(pieces_);
    return true;
  }

 private:
  Share PieceOf(int rank, uint64_t piece) const {
    const Share share = ShareOf(rank, ranks_, a_.count, element_);
    const size_t before = std::min(static_cast<size_t>(piece) * piece_, share.count);
    return {share.begin + before, std::min(piece_, share.count - before)};
  }

  bool ReducePiece(uint64_t number) {
    const Share piece = PieceOf(rank_, number);
    const size_t offset = piece.begin * element_;
    for (int peer = 0; peer < ranks_ && piece.count > 0; ++peer) {
      const auto p = static_cast<size_t>(peer);
      const std::byte* from = peer == rank_ ? Input() : session_.sends[p];
      if (from != nullptr) {
        session_.from[p] = from + offset;
        continue;
      }
      std::byte* const copy = session_.copies.data() + p * piece_ * element_;
      if (!session_.CopyFrom(peer, session_.private_sends[p] + offset, copy,
                             piece.count * element_)) {
        return false;
      }
      session_.from[p] = copy;
    }
    if (piece.count > 0) {
      session_.to[0] = Output() + offset;
      ReduceFused(FusionOf(session_, a_, 1, piece.count));
    }
    session_.Publish(session_.own().consumed, base_ + number + 1);
    return true;
  }

  bool FetchPiece(uint64_t number) {
    for (int step = 1; step < ranks_; ++step) {
      const int peer = (rank_ + step) % ranks_;
      const auto p = static_cast<size_t>(peer);
      if (!session_.Await(&RankArea::consumed, base_ + number + 1, peer)) return false;
      const Share piece = PieceOf(peer, number);
      const size_t offset = piece.begin * element_;
      const size_t bytes = piece.count * element_;
      if (session_.recvs[p] != nullptr) {
        Copy(Output() + offset, session_.recvs[p] + offset, bytes, false);
      } else if (!session_.CopyFrom(peer, session_.private_recvs[p] + offset, Output() + offset,
                                    bytes)) {
        return false;
      }
    }
    return true;
  }

  const std::byte* Input() const { return static_cast<const std::byte*>(a_.input); }
  std::byte* Output() const { return static_cast<std::byte*>(a_.output); }

  HostSession& session_;
  const Arguments& a_;
  const int ranks_;
  const int rank_;
  const size_t element_;
  const size_t piece_;  // elements
  const uint64_t pieces_;
  const uint64_t base_;
};

}  // namespace

bool RunCopyingAllReduce(HostSession& session, const HostCall& call) {
  return CopyingAllReduce(session, call).Run();
}

}  // namespace sumac::collectives
