// A flat exchange: everybody's data beside its arrival.

#include "collectives/host/algorithms.h"
#include "collectives/reduce/reduce.h"

namespace sumac::collectives {
namespace {

// What one rank gives the others.
size_t GivenBytes(const HostCall& call, int ranks, int rank) {
  const Arguments& a = call.arguments;
  const size_t whole = a.count * SizeOf(a.type);
  switch (call.collective) {
    case Collective::kAllGather:
      return whole / static_cast<size_t>(ranks);
    case Collective::kBroadcast:
      return rank == call.root ? whole : 0;
    case Collective::kBarrier:
      return 0;
    default:
      return whole;
  }
}

// output = the others' data at `offset`, and ours, reduced.
bool ReduceAll(HostSession& session, const Arguments& a, size_t bytes, size_t offset,
               size_t count) {
  for (int peer = 0; peer < session.size(); ++peer) {
    const std::byte* data = static_cast<const std::byte*>(a.input);
    if (peer != session.rank()) {
      if (!session.AwaitArrival(peer)) return false;
      data = session.Data(peer, bytes);
    }
    session.from[static_cast<size_t>(peer)] = data + offset;
  }
  session.to[0] = a.output;
  ReduceFused(FusionOf(session, a, 1, count));
  return true;
}

void CopyUnlessSame(void* to, const void* from, size_t bytes) {
  if (to != from) std::memcpy(to, from, bytes);
}

}  // namespace

bool IsSmall(const HostCall& call, int ranks) {
  return GivenBytes(call, ranks, call.root) <= kSlotBytes;
}

bool RunSmall(HostSession& session, const HostCall& call) {
  const Arguments& a = call.arguments;
  const int ranks = session.size();
  const int rank = session.rank();
  const size_t bytes = GivenBytes(call, ranks, rank);
  if (!session.Arrive(call.signature, a.input, bytes)) return false;
  auto* const output = static_cast<std::byte*>(a.output);
  bool done = true;
  switch (call.collective) {
    case Collective::kAllReduce:
      done = ReduceAll(session, a, bytes, 0, a.count);
      break;
    case Collective::kReduceScatter: {
      const size_t share = a.count / static_cast<size_t>(ranks);
      const size_t offset = share * static_cast<size_t>(rank) * SizeOf(a.type);
      done = ReduceAll(session, a, bytes, offset, share);
      break;
    }
    case Collective::kAllGather:
      for (int peer = 0; peer < ranks && done; ++peer) {
        std::byte* const to = output + bytes * static_cast<size_t>(peer);
        if (peer == rank) {
          CopyUnlessSame(to, a.input, bytes);
        } else {
          done = session.AwaitArrival(peer);
          if (done) std::memcpy(to, session.Data(peer, bytes), bytes);
        }
      }
      break;
    case Collective::kBroadcast: {
      const size_t whole = a.count * SizeOf(a.type);
      if (rank == call.root) {
        CopyUnlessSame(output, a.input, whole);
      } else {
        done = session.AwaitArrival(call.root);
        if (done) std::memcpy(output, session.Data(call.root, whole), whole);
      }
      break;
    }
    case Collective::kBarrier:
      for (int peer = 0; peer < ranks && done; ++peer) {
        done = peer == rank || session.AwaitArrival(peer);
      }
      break;
  }
  if (done) session.PrepareNext();
  return done;
}

}  // namespace sumac::collectives
