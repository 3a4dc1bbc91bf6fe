#include "verbs/soft_nic/engine/responder.h"

#include <algorithm>
#include <atomic>

#include "verbs/soft_nic/engine/dma.h"
#include "verbs/soft_nic/engine/work_completions.h"
#include "verbs/soft_nic/engine/xrc_selection.h"

namespace sumac::soft_nic {

Responder::Responder(QueuePairParts& parts)
    : parts_(parts), receiver_(parts), responses_(parts.limits.max_dest_rd_atomic) {}

void Responder::Start() {
  mtu_ = parts_.receive_config.mtu_bytes;
  receiver_.Start();
  reads_max_ = std::min(parts_.receive_config.max_dest_rd_atomic, parts_.limits.max_dest_rd_atomic);
  expected_ = FirstSequence(parts_.receive_config.expected_psn);
  responses_.LimitResults(reads_max_);
}

void Responder::Reset() {
  Stop();
  parts_.receive_queue.Clear();
  responses_.Clear();
  expected_ = 0;
  msn_ = 0;
  receiver_.Abandon();
  out_of_step_ = false;
  dropped_end_ = 0;
  failed_ = false;
}

void Responder::Stop() {
  responses_.Clear();
  ack_owed_ = nak_owed_ = false;
}

void Responder::Flush() {
  receiver_.Abandon();
  FlushReceives(parts_);
}

void Responder::OnRequest(const PacketView& packet) {
  if (failed_) {  // the peer has not seen the NAK that ended this connection
    nak_owed_ = true;
    return;
  }
  const uint64_t sequence = ExtendPsn(packet.header.psn, expected_);
  if (sequence > expected_) {
    ++parts_.counters.dropped_out_of_order;
    dropped_end_ = std::max(dropped_end_, sequence + 1);
    if (!out_of_step_) {  // one NAK per gap (9.7.5.1.3)
      out_of_step_ = true;
      ++parts_.counters.sequence_naks_sent;
      Owe(kSyndromeNakSequence, expected_);
    }
    return;
  }
  if (sequence < expected_) {
    ++parts_.counters.duplicates_received;
    OnDuplicate(packet, sequence);
    return;
  }

  const uint64_t at = expected_;
  const Outcome outcome = Execute(packet);
  if (outcome == Outcome::kDropped) return;
  const bool sequence_nak_owed = nak_owed_ && nak_syndrome_ == kSyndromeNakSequence;
  out_of_step_ = false;
  nak_owed_ = false;
  switch (outcome) {
    case Outcome::kDone: {
      const bool answered_by_response = (packet.flags & (kIsRead | kIsAtomic)) != 0;
      if (!answered_by_response) {
        ++expected_;
        if (packet.header.ack_request) ack_owed_ = true;
      }
      // The packet that was missed came before the NAK went out, but what had overtaken it is lost:
      // the NAK asks for that instead, or the peer would wait for its timer.
      if (sequence_nak_owed && expected_ < dropped_end_) {
        out_of_step_ = true;
        Owe(kSyndromeNakSequence, expected_);
      }
      return;
    }
    case Outcome::kNotReady:
      out_of_step_ = true;
      ++parts_.counters.rnr_naks_sent;
      Owe(kSyndromeRnrNak | (parts_.receive_config.min_rnr_timer & 0x1f), at);
      return;
    case Outcome::kInvalid:
      return Fail(kSyndromeNakInvalidRequest, at, IBV_WC_REM_INV_REQ_ERR);
    case Outcome::kRefused:
      return Fail(kSyndromeNakRemoteAccess, at, IBV_WC_REM_ACCESS_ERR);
    case Outcome::kFault:
      return Fail(kSyndromeNakRemoteOperation, at, IBV_WC_LOC_PROT_ERR);
    case Outcome::kDropped:
      return;
  }
}

// READ and atomic requests stand between messages (9.7.4.1.2, figure 83).
Responder::Outcome Responder::Execute(const PacketView& packet) {
  const uint32_t flags = packet.flags;
  if (parts_.xrc != nullptr && !parts_.xrc->Select(packet.header.xrc_srqn)) {
    return Outcome::kInvalid;
  }
  if ((flags & (kIsRead | kIsAtomic)) != 0) {
    if (receiver_.under_way()) return Outcome::kInvalid;
    return (flags & kIsRead) != 0 ? ExecuteRead(packet) : ExecuteAtomic(packet);
  }
  const Outcome outcome = receiver_.Take(packet);
  if (outcome == Outcome::kDone && (flags & kEndsMessage) != 0) msn_ = (msn_ + 1) & kPsnMask;
  return outcome;
}

bool Responder::MayTakeAnotherRead() const { return responses_.first_time_jobs() < reads_max_; }

Responder::Outcome Responder::ExecuteRead(const PacketView& packet) {
  const PacketHeader& header = packet.header;
  if ((parts_.receive_config.access_flags & IBV_ACCESS_REMOTE_READ) == 0 ||
      header.dma_length > kMessageBytesMax || !MayTakeAnotherRead()) {
    return Outcome::kInvalid;
  }
  if (header.dma_length != 0 &&
      parts_.memory.Remote(header.rkey, header.remote_addr, header.dma_length,
                           IBV_ACCESS_REMOTE_READ) == nullptr) {
    return Outcome::kRefused;
  }
  ResponseJob job;
  job.next = expected_;
  job.end = expected_ + PacketsOf(header.dma_length, mtu_);
  job.addr = header.remote_addr;
  job.rkey = header.rkey;
  job.xrc_srqn = header.xrc_srqn;
  job.remaining = header.dma_length;
  job.msn = (msn_ + 1) & kPsnMask;
  if (!responses_.Insert(job)) return Outcome::kDropped;
  msn_ = job.msn;
  expected_ = job.end;
  return Outcome::kDone;
}

Responder::Outcome Responder::ExecuteAtomic(const PacketView& packet) {
  const PacketHeader& header = packet.header;
  if ((parts_.receive_config.access_flags & IBV_ACCESS_REMOTE_ATOMIC) == 0 ||
      header.remote_addr % sizeof(uint64_t) != 0 || !MayTakeAnotherRead()) {
    return Outcome::kInvalid;
  }
  std::byte* bytes = parts_.memory.Remote(header.rkey, header.remote_addr, sizeof(uint64_t),
                                          IBV_ACCESS_REMOTE_ATOMIC);
  if (bytes == nullptr) return Outcome::kRefused;
  // An address can be aligned where the memory behind it is not (a registration with another I/O
  // address).
  if (reinterpret_cast<uintptr_t>(bytes) % sizeof(uint64_t) != 0) return Outcome::kInvalid;
  ResponseJob job;
  job.next = expected_;
  job.end = expected_ + 1;
  job.atomic = true;
  job.msn = (msn_ + 1) & kPsnMask;
  if (!responses_.Insert(job)) return Outcome::kDropped;
  // Atomic against the local CPU too: the same instruction that a local std::atomic uses.
  std::atomic_ref<uint64_t> word(*reinterpret_cast<uint64_t*>(bytes));
  uint64_t original = header.compare;
  {
    const ScopedDma dma;
    if (header.opcode == Opcode::kRcCompareSwap) {
      word.compare_exchange_strong(original, header.swap_or_add);
    } else {
      original = word.fetch_add(header.swap_or_add);
    }
  }
  responses_.SetResult(expected_, original);
  msn_ = job.msn;
  expected_ = job.end;
  return Outcome::kDone;
}

}  // namespace sumac::soft_nic
