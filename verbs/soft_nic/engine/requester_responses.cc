// What answers and silence do to a requester (IBTA vol. 1, 9.7.5 and 9.7.6).
#include <algorithm>
#include <cstring>

#include "verbs/soft_nic/engine/planted_bug.h"
#include "verbs/soft_nic/engine/requester.h"
#include "verbs/soft_nic/engine/scatter_gather.h"
#include "verbs/soft_nic/engine/timers.h"
#include "verbs/soft_nic/engine/work_completions.h"

namespace sumac::soft_nic {
namespace {

constexpr uint8_t kRnrRetryForEver = 7;

ibv_wc_status StatusOfNak(uint8_t syndrome) {
  switch (syndrome) {
    case kSyndromeNakInvalidRequest:
      return IBV_WC_REM_INV_REQ_ERR;
    case kSyndromeNakRemoteAccess:
      return IBV_WC_REM_ACCESS_ERR;
    case kSyndromeNakRemoteOperation:
      return IBV_WC_REM_OP_ERR;
    case kSyndromeNakInvalidRd:
      return IBV_WC_REM_INV_RD_REQ_ERR;
    default:
      return IBV_WC_BAD_RESP_ERR;
  }
}

}  // namespace

void Requester::OnResponse(const PacketView& packet, Time now) {
  if (failed_) return;
  uint64_t sequence = ExtendPsn(packet.header.psn, acked_);
  if (Planted(PlantedBug::kPsnWithoutWrap)) {
    sequence = (acked_ & ~uint64_t{kPsnMask}) | packet.header.psn;
  }
  if (sequence >= highest_) {  // answers something that was never sent: a ghost
    ++parts_.counters.dropped_malformed;
    return;
  }
  if (sequence < acked_) {  // answered before
    ++parts_.counters.duplicates_received;
    return;
  }
  if (packet.header.opcode == Opcode::kRcAcknowledge) {
    OnAcknowledge(packet.header, sequence, now);
  } else if (packet.header.opcode == Opcode::kRcAtomicAcknowledge) {
    OnAtomicResponse(packet, sequence, now);
  } else {
    OnReadResponse(packet, sequence, now);
  }
}

void Requester::OnAcknowledge(const PacketHeader& header, uint64_t sequence, Time now) {
  switch (KindOfSyndrome(header.syndrome)) {
    case AckKind::kAck:
      if (!Acknowledge(sequence + 1, now)) OnMissingResponse(now);
      return;
    case AckKind::kNak:
      OnNak(header.syndrome, sequence, now);
      return;
    case AckKind::kRnrNak:
      OnRnrNak(header.syndrome & 0x1f, sequence, now);
      return;
    case AckKind::kReserved:
      ++parts_.counters.dropped_malformed;
  }
}

// Takes everything before `to` as acknowledged. False when a READ or atomic whose answer is missing
// lies before it: then only what precedes that one counts.
bool Requester::Acknowledge(uint64_t to, Time now) {
  const uint64_t cost_before = AckedCost();
  const uint64_t in_flight = CursorCost() - cost_before;
  const uint64_t acked_before = acked_;
  bool complete = true;
  while (acked_ < to && parts_.send_queue.begin() != assigned_) {
    const SendRequest& request = parts_.send_queue.at(parts_.send_queue.begin());
    if (request.is_read() || request.is_atomic()) {
      complete = false;
      break;
    }
    acked_ = std::min(to, request.end());
    if (acked_ == request.end()) CompleteOldestSend(parts_, IBV_WC_SUCCESS);
  }
  if (acked_ != acked_before) OnProgress(cost_before, in_flight, now);
  return complete;
}

// After acked_ moved: timers, retry counts, window, and the cursor when it was overtaken.
void Requester::OnProgress(uint64_t cost_before, uint64_t in_flight, Time now) {
  retries_left_ = parts_.send_config.retry_count;
  rnr_retries_left_ = parts_.send_config.rnr_retry;
  rnr_deadline_ = kNever;
  if (cursor_ < acked_) {  // an answer to what we were about to send again
    cursor_ = acked_;
    cursor_index_ = parts_.send_queue.begin();
    reads_in_flight_ = 0;
  }
  window_.OnAck(AckedCost() - cost_before, in_flight);
  ArmTimers(now);
  if (stalled_ != IBV_WC_SUCCESS && parts_.send_queue.begin() == cursor_index_) {
    FailOldest(stalled_);
  }
}

void Requester::OnNak(uint8_t syndrome, uint64_t sequence, Time now) {
  const bool known = Acknowledge(sequence, now);
  if (failed_) return;
  if (syndrome == kSyndromeNakSequence) {
    ++parts_.counters.sequence_naks_received;
    if (!known) return OnMissingResponse(now);
    if (cursor_ == acked_) return;  // already gone back
    SignalLoss();
    Retry();
    return;
  }
  const uint64_t oldest = parts_.send_queue.begin();
  if (oldest == assigned_) return;
  const bool about_oldest = sequence < parts_.send_queue.at(oldest).end();
  if (known || about_oldest) {
    FailOldest(StatusOfNak(syndrome));
  } else {
    OnMissingResponse(now);
  }
}

void Requester::OnRnrNak(uint8_t code, uint64_t sequence, Time now) {
  ++parts_.counters.rnr_naks_received;
  const bool known = Acknowledge(sequence, now);
  if (failed_) return;
  if (!known) return OnMissingResponse(now);
  if (rnr_deadline_ != kNever || cursor_ == acked_)
    return;  // already waiting, or about to ask again
  if (rnr_retries_left_ == 0) return FailOldest(IBV_WC_RNR_RETRY_EXC_ERR);
  if (rnr_retries_left_ != kRnrRetryForEver) --rnr_retries_left_;
  GoBack();
  rnr_deadline_ = now + RnrWait(code);
}

void Requester::OnReadResponse(const PacketView& packet, uint64_t sequence, Time now) {
  if (!Acknowledge(sequence, now)) return OnMissingResponse(now);
  if (failed_) return;
  SendRequest& request = parts_.send_queue.at(parts_.send_queue.begin());
  const uint64_t chunk_end = request.is_read() ? ReadChunkEnd(request, sequence) : 0;
  const uint64_t offset = (sequence - request.first) * mtu_;
  // FIRST and MIDDLE are taken alike, and LAST and ONLY: after a retry a responder may start the
  // count anew or go on.
  const bool ends = (packet.flags & kEndsMessage) != 0;
  const bool has_aeth = (packet.flags & kHasAeth) != 0;
  if (!request.is_read() || ends != (sequence + 1 == chunk_end) ||
      packet.payload.size() != std::min<uint64_t>(request.length - offset, mtu_) ||
      (has_aeth && KindOfSyndrome(packet.header.syndrome) != AckKind::kAck)) {
    ++parts_.counters.dropped_malformed;
    return;
  }
  const int count =
      ResolveRange(parts_.memory, request.sges(), offset, packet.payload.size(), true, pieces_);
  if (count < 0) return FailOldest(IBV_WC_LOC_PROT_ERR);
  CopyToPieces(std::span<const iovec>(pieces_.data(), static_cast<size_t>(count)), packet.payload);
  AnswerArrived(request, now);
}

void Requester::OnAtomicResponse(const PacketView& packet, uint64_t sequence, Time now) {
  if (!Acknowledge(sequence, now)) return OnMissingResponse(now);
  if (failed_) return;
  SendRequest& request = parts_.send_queue.at(parts_.send_queue.begin());
  if (!request.is_atomic() || KindOfSyndrome(packet.header.syndrome) != AckKind::kAck) {
    ++parts_.counters.dropped_malformed;
    return;
  }
  const uint64_t original = packet.header.atomic_result;
  const int count = ResolveRange(parts_.memory, request.sges(), 0, sizeof(original), true, pieces_);
  if (count < 0) return FailOldest(IBV_WC_LOC_PROT_ERR);
  std::byte bytes[sizeof(original)];
  std::memcpy(bytes, &original, sizeof(original));
  CopyToPieces(std::span<const iovec>(pieces_.data(), static_cast<size_t>(count)), bytes);
  AnswerArrived(request, now);
}

// The response packet at acked_ has come and is in memory.
void Requester::AnswerArrived(SendRequest& request, Time now) {
  const uint64_t cost_before = AckedCost();
  const uint64_t in_flight = CursorCost() - cost_before;
  const uint64_t chunk_end = request.is_read() ? ReadChunkEnd(request, acked_) : request.end();
  ++acked_;
  if (acked_ == chunk_end && cursor_ >= acked_ && reads_in_flight_ > 0) --reads_in_flight_;
  if (acked_ == request.end()) CompleteOldestSend(parts_, IBV_WC_SUCCESS);
  OnProgress(cost_before, in_flight, now);
}

// A later answer shows that the one at acked_ was lost: an implied NAK. Answers to requests sent
// before keep arriving after we have gone back, so only the first sign at each position counts; the
// timer covers a second loss.
void Requester::OnMissingResponse(Time) {
  if (failed_) return;
  if (missing_at_ == acked_ || cursor_ == acked_) return;
  missing_at_ = acked_;
  ++parts_.counters.implied_naks;
  SignalLoss();
  Retry();
}

void Requester::SignalLoss() {
  if (acked_ < recover_) return;
  recover_ = highest_;
  window_.OnLoss();
}

void Requester::Retry() {
  if (retries_left_ == 0) return FailOldest(IBV_WC_RETRY_EXC_ERR);
  --retries_left_;
  GoBack();
}

void Requester::GoBack() {
  cursor_ = acked_;
  cursor_index_ = parts_.send_queue.begin();
  reads_in_flight_ = 0;
  since_ack_request_ = 0;
  stalled_ = IBV_WC_SUCCESS;
  StopTimers();
}

void Requester::OnTimeout(Time now) {
  if (failed_) return;
  if (rnr_deadline_ <= now) rnr_deadline_ = kNever;
  if (probe_deadline_ <= now) {
    probe_due_ = true;
    probe_wait_ *= 2;
    probe_deadline_ = now + probe_wait_ < ack_deadline_ ? now + probe_wait_ : kNever;
  }
  if (ack_deadline_ > now) return;
  ++parts_.counters.timeouts;
  recover_ = highest_;
  window_.OnTimeout();
  Retry();
}

void Requester::FailOldest(ibv_wc_status status) {
  failed_ = true;
  StopTimers();
  CompleteOldestSend(parts_, status);
}

}  // namespace sumac::soft_nic
