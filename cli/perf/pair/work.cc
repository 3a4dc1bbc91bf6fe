#include "cli/perf/pair/work.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace sumac::cli {

absl::StatusOr<transport::Ticket> Work::Post(Lane& lane, uint64_t number) {
  const size_t at = OffsetOf(number);
  switch (options_.operation) {
    case PairOperation::kPut:
      return lane.domain->Put(lane.peer, at, lane.Out(at, bytes_));
    case PairOperation::kGet:
      return lane.domain->Get(lane.peer, at, lane.Out(at, bytes_));
    case PairOperation::kAtomic: {
      // Domain's atomics block; several in flight are the endpoint's.
      const transport::RemoteSlice counter{lane.peer.base, lane.peer.rkey};
      if (options_.compare_swap) {
        return lane.endpoint->CompareSwap(lane.Out(0, bytes_), counter, number, number + 1);
      }
      return lane.endpoint->FetchAdd(lane.Out(0, bytes_), counter, 1);
    }
    case PairOperation::kSend:
      break;
  }
  return absl::InternalError("messages are not posted");
}

bool Work::SourceIsHere() const {
  const bool both = options_.ping_pong() || options_.bidirectional;
  return both || session_.initiator() == (options_.operation != PairOperation::kGet);
}

bool Work::DestinationIsHere() const {
  const bool both = options_.ping_pong() || options_.bidirectional;
  return both || session_.initiator() == (options_.operation == PairOperation::kGet);
}

// A get goes the other way: from the incoming window, which is the one that the peer may read.
std::span<std::byte> Work::Source(const Lane& lane) const {
  return options_.operation == PairOperation::kGet ? lane.incoming() : lane.outgoing();
}
std::span<std::byte> Work::Destination(const Lane& lane) const {
  return options_.operation == PairOperation::kGet ? lane.outgoing() : lane.incoming();
}

void Work::Prepare(const Phase& phase) {
  for (size_t i = 0; i < session_.lanes().size(); ++i) {
    Lane& lane = session_.lane(i);
    const size_t used = (slots_ - 1) * stride_ + bytes_;
    if (DestinationIsHere()) std::memset(Destination(lane).data(), 0, used);
    if (!SourceIsHere() || options_.operation == PairOperation::kAtomic) continue;
    for (size_t slot = 0; slot < slots_; ++slot) {
      FillPattern(Source(lane).subspan(OffsetOf(slot), bytes_),
                  SaltOf(phase, session_.rank(), i, slot));
    }
  }
}

uint64_t Work::CountWrongIn(const Phase& phase, size_t index, uint64_t done, uint64_t peer_done) {
  const std::span<std::byte> bytes = Destination(session_.lane(index));
  const uint64_t arrived = options_.operation == PairOperation::kGet ? done : peer_done;
  if (options_.operation == PairOperation::kAtomic) {
    uint64_t counter = 0;
    std::memcpy(&counter, bytes.data(), sizeof(counter));
    return counter == arrived ? 0 : 1;
  }
  uint64_t wrong = 0;
  const bool flagged = options_.put_latency == PutLatency::kPingPong;
  for (size_t slot = 0; slot < std::min<uint64_t>(slots_, arrived); ++slot) {
    const size_t checked = bytes_ - (flagged ? 1 : 0);
    wrong += CountWrong(bytes.subspan(OffsetOf(slot), checked),
                        SaltOf(phase, session_.peer_rank(), index, slot));
  }
  if (flagged && arrived > 0 && bytes[bytes_ - 1] != FlagOf(arrived - 1)) ++wrong;
  return wrong;
}

absl::StatusOr<uint64_t> Work::Verify(const Phase& phase, const std::vector<uint64_t>& done) {
  const auto peer = session_.Swap(absl::StrJoin(done, " "));
  if (!peer.ok()) return peer.status();
  const std::vector<std::string> fields = absl::StrSplit(*peer, ' ');
  uint64_t wrong = 0;
  for (size_t i = 0; DestinationIsHere() && i < done.size(); ++i) {
    uint64_t peer_done = 0;
    if (i >= fields.size() || !absl::SimpleAtoi(fields[i], &peer_done)) {
      return absl::InternalError("the other side did not say what it did");
    }
    wrong += CountWrongIn(phase, i, done[i], peer_done);
  }
  const auto theirs = session_.Swap(absl::StrCat(wrong));
  if (!theirs.ok()) return theirs.status();
  uint64_t wrong_there = 0;
  if (!absl::SimpleAtoi(*theirs, &wrong_there)) {
    return absl::InternalError("the other side did not say what it found");
  }
  return wrong + wrong_there;
}

}  // namespace sumac::cli
