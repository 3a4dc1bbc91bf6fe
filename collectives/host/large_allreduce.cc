// Allreduce of large vectors: each rank reduces its share of the vector, or of each chunk.

#include <algorithm>
#include <chrono>

#include "collectives/host/algorithms.h"
#include "collectives/host/chunks.h"
#include "collectives/reduce/reduce.h"

namespace sumac::collectives {
namespace {

class LargeAllReduce {
 public:
  LargeAllReduce(HostSession& session, const HostCall& call)
      : session_(session),
        call_(call),
        a_(call.arguments),
        ranks_(session.size()),
        rank_(session.rank()),
        element_(SizeOf(a_.type)),
        bytes_(a_.count * element_),
        chunk_(ChunkBytes(session, bytes_) / element_),
        chunks_((a_.count + chunk_ - 1) / chunk_),
        base_(session.chunks()),
        stream_(WorthStreaming(bytes_)),
        copying_(session.methods.current(bytes_) == HostMethod::kCopy) {}

  bool Run(const BufferTable& buffers, uint32_t signature) {
    using Clock = std::chrono::steady_clock;
    const bool measures = rank_ == 0 && session_.methods.measures(bytes_);
    const Clock::time_point began = measures ? Clock::now() : Clock::time_point{};
    own_ = {PlacementOf(buffers, a_.input, bytes_), PlacementOf(buffers, a_.output, bytes_),
            static_cast<uint32_t>(session_.methods.Next(bytes_))};
    fill_ = !own_.send.region.valid();
    take_ = !own_.recv.region.valid();
    if (fill_) own_.send.offset = reinterpret_cast<uintptr_t>(a_.input);
    if (take_) own_.recv.offset = reinterpret_cast<uintptr_t>(a_.output);
    next_method_ = own_.next_method;
    if (!session_.Arrive(signature, &own_, sizeof own_)) return false;
    if (fill_ && !copying_ && !Fill(0)) return false;
    if (!Meet()) return false;
    if (all_direct_) return ReduceWhole() && Finish(1);
    if (!(copying_ ? RunCopyingAllReduce(session_, call_) : RunChunks() && Finish(chunks_))) {
      return false;
    }
    session_.methods.OnCall(bytes_, static_cast<HostMethod>(next_method_),
                            measures ? Clock::now() - began : Clock::duration{});
    return true;
  }

 private:
  bool Finish(uint64_t chunks) {
    if (!session_.AwaitAll(&RankArea::consumed, base_ + chunks)) return false;
    session_.FinishChunks(chunks);
    return true;
  }

  // Waits for everybody, and maps what they announce.
  bool Meet() {
    all_direct_ = !fill_ && !take_;
    for (int peer = 0; peer < ranks_; ++peer) {
      const auto p = static_cast<size_t>(peer);
      if (peer == rank_) continue;
      if (!session_.AwaitArrival(peer)) return false;
      Announcement announced;
      std::memcpy(&announced, session_.Data(peer, sizeof announced), sizeof announced);
      bool ok = true;
      session_.sends[p] = session_.Reach(peer, announced.send, bytes_, ok);
      session_.recvs[p] = session_.Reach(peer, announced.recv, bytes_, ok);
      session_.private_sends[p] = announced.send.offset;
      session_.private_recvs[p] = announced.recv.offset;
      if (peer == 0) next_method_ = announced.next_method;
      if (!ok) return false;
      all_direct_ = all_direct_ && session_.sends[p] != nullptr && session_.recvs[p] != nullptr;
      to_results_ = to_results_ || session_.recvs[p] == nullptr;
    }
    return true;
  }

  bool ReduceWhole() {
    const Share share = ShareOf(rank_, ranks_, a_.count, element_);
    Reduce(share.begin, share.count, nullptr, nullptr);
    session_.Publish(session_.own().consumed, base_ + 1);
    return true;
  }

  bool RunChunks() {
    // Chunk i is filled while i - 1 is reduced and i - 2 fetched: the others had time for theirs.
    for (uint64_t i = 0; i < chunks_ + 2; ++i) {
      if (fill_ && i > 0 && i < chunks_ && !Fill(i)) return false;
      if (i >= 1 && i <= chunks_ && !ReduceChunk(i - 1)) return false;
      if (take_ && i >= 2 && !Take(i - 2)) return false;
    }
    return true;
  }

  size_t CountOf(uint64_t chunk) const { return std::min(chunk_, a_.count - chunk * chunk_); }

  bool Fill(uint64_t chunk) {
    if (!AwaitReuse(session_, &RankArea::consumed, base_ + chunk)) return false;
    std::byte* const stage = session_.own().stage[(base_ + chunk) % kStageSlots];
    const std::byte* const input = Input() + chunk * chunk_ * element_;
    const size_t count = CountOf(chunk);
    // All but the own share, which nobody else reads.
    const Share own = ShareOf(rank_, ranks_, count, element_);
    std::memcpy(stage, input, own.begin * element_);
    const size_t after = own.begin + own.count;
    std::memcpy(stage + after * element_, input + after * element_, (count - after) * element_);
    session_.Publish(session_.own().filled, base_ + chunk + 1);
    return true;
  }

  bool ReduceChunk(uint64_t chunk) {
    const uint64_t number = base_ + chunk;
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_ || session_.sends[static_cast<size_t>(peer)] != nullptr) continue;
      if (!session_.Await(&RankArea::filled, number + 1, peer)) return false;
    }
    std::byte* results = nullptr;
    if (to_results_) {
      if (!AwaitTaken(number)) return false;
      results = session_.own().results[number % kStageSlots];
    }
    const Share share = ShareOf(rank_, ranks_, CountOf(chunk), element_);
    Reduce(chunk * chunk_ + share.begin, share.count, results, &share.begin);
    session_.Publish(session_.own().consumed, number + 1);
    return true;
  }

  // As AwaitReuse; but of this call's chunks only those with private buffers take any, while all
  // count those of calls before.
  bool AwaitTaken(uint64_t number) {
    if (number < kStageSlots) return true;
    const uint64_t target = number + 1 - kStageSlots;
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_) continue;
      const bool takes = session_.recvs[static_cast<size_t>(peer)] == nullptr;
      const uint64_t at_least = takes ? target : std::min(target, base_);
      if (!session_.Await(&RankArea::taken, at_least, peer)) return false;
    }
    return true;
  }

  // `count` elements from `begin`. Private data of others lie in their stages, from element
  // `in_chunk` of the chunk; `results`: where those with private buffers fetch them, or null.
  void Reduce(size_t begin, size_t count, std::byte* results, const size_t* in_chunk) {
    if (count == 0) return;
    const uint64_t slot = (base_ + begin / chunk_) % kStageSlots;
    int outputs = 0;
    for (int peer = 0; peer < ranks_; ++peer) {
      const auto p = static_cast<size_t>(peer);
      if (peer == rank_) {
        session_.from[p] = Input() + begin * element_;
        session_.to[static_cast<size_t>(outputs++)] = Output() + begin * element_;
        continue;
      }
      session_.from[p] = session_.sends[p] != nullptr
                             ? session_.sends[p] + begin * element_
                             : session_.area(peer).stage[slot] + *in_chunk * element_;
      if (session_.recvs[p] != nullptr) {
        session_.to[static_cast<size_t>(outputs++)] = session_.recvs[p] + begin * element_;
      }
    }
    if (results != nullptr) session_.to[static_cast<size_t>(outputs++)] = results;
    Fusion fusion = FusionOf(session_, a_, outputs, count);
    fusion.stream = stream_ && all_direct_;
    ReduceFused(fusion);
  }

  bool Take(uint64_t chunk) {
    const uint64_t number = base_ + chunk;
    const size_t count = CountOf(chunk);
    std::byte* const output = Output() + chunk * chunk_ * element_;
    for (int step = 1; step < ranks_; ++step) {
      const int peer = (rank_ + step) % ranks_;
      const Share share = ShareOf(peer, ranks_, count, element_);
      if (!session_.Await(&RankArea::consumed, number + 1, peer)) return false;
      Copy(output + share.begin * element_, session_.area(peer).results[number % kStageSlots],
           share.count * element_, stream_);
    }
    session_.Publish(session_.own().taken, number + 1);
    return true;
  }

  const std::byte* Input() const { return static_cast<const std::byte*>(a_.input); }
  std::byte* Output() const { return static_cast<std::byte*>(a_.output); }

  HostSession& session_;
  const HostCall& call_;
  const Arguments& a_;
  const int ranks_;
  const int rank_;
  const size_t element_;
  const size_t bytes_;
  const size_t chunk_;  // elements
  const uint64_t chunks_;
  const uint64_t base_;
  const bool stream_;
  const bool copying_;  // private data go by the kernel's copies
  Announcement own_;
  uint32_t next_method_ = 0;  // as rank 0 says
  bool fill_ = false;         // our input goes through our stage
  bool take_ = false;         // we fetch results
  bool all_direct_ = false;   // no rank needs a stage
  bool to_results_ = false;   // some other rank fetches results
};

}  // namespace

bool RunLargeAllReduce(HostSession& session, const BufferTable& buffers, const HostCall& call) {
  return LargeAllReduce(session, call).Run(buffers, call.signature);
}

}  // namespace sumac::collectives
