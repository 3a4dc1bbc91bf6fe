#include "verbs/soft_nic/engine/responder.h"

#include <algorithm>
#include <atomic>

#include "verbs/soft_nic/engine/dma.h"
#include "verbs/soft_nic/engine/placement.h"
#include "verbs/soft_nic/engine/scatter_gather.h"

namespace sumac::soft_nic {

Responder::Responder(QueuePairParts& parts)
    : parts_(parts),
      pieces_(std::max<uint32_t>(parts.limits.max_recv_sge, 1)),
      responses_(parts.limits.max_dest_rd_atomic) {}

void Responder::Start() {
  mtu_ = parts_.receive_config.mtu_bytes;
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
  message_ = Message::kNone;
  out_of_step_ = false;
  dropped_end_ = 0;
  failed_ = false;
}

void Responder::Stop() {
  responses_.Clear();
  ack_owed_ = nak_owed_ = false;
}

void Responder::Flush() {
  while (!parts_.receive_queue.empty()) FailReceive(IBV_WC_WR_FLUSH_ERR);
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

// The rules of opcode order (9.7.4.1.2, figure 83): a message starts only when none is under way,
// goes on only as what it is, and READ and atomic requests stand between messages.
Responder::Outcome Responder::Execute(const PacketView& packet) {
  const uint32_t flags = packet.flags;
  const bool starts = (flags & kStartsMessage) != 0;
  if ((flags & kIsRead) != 0 || (flags & kIsAtomic) != 0) {
    if (message_ != Message::kNone) return Outcome::kInvalid;
    return (flags & kIsRead) != 0 ? ExecuteRead(packet) : ExecuteAtomic(packet);
  }
  const Message kind = (flags & kIsSend) != 0 ? Message::kSend : Message::kWrite;
  if (message_ != (starts ? Message::kNone : kind) || !LengthFits(packet)) return Outcome::kInvalid;
  return kind == Message::kSend ? ExecuteSend(packet) : ExecuteWrite(packet);
}

// FIRST and MIDDLE are full; LAST carries 1 ... MTU bytes, ONLY 0 ... MTU (9.7.4.1.6, length
// checks).
bool Responder::LengthFits(const PacketView& packet) const {
  const size_t bytes = packet.payload.size();
  if ((packet.flags & kEndsMessage) == 0) return bytes == mtu_;
  if ((packet.flags & kStartsMessage) == 0 && bytes == 0) return false;
  return bytes <= mtu_;
}

Responder::Outcome Responder::ExecuteSend(const PacketView& packet) {
  if ((packet.flags & kStartsMessage) != 0) {
    if (parts_.receive_queue.empty()) return Outcome::kNotReady;
    message_ = Message::kSend;
    received_ = 0;
  }
  ReceiveRequest& receive = parts_.receive_queue.front();
  const size_t bytes = packet.payload.size();
  if (received_ + bytes > receive.length) {
    FailReceive(
        IBV_WC_LOC_LEN_ERR);  // the peer gets "invalid request" (9.9.6.3, table 59: length error)
    return Outcome::kInvalid;
  }
  const int count = ResolveRange(parts_.memory, receive.sges(), received_, bytes, true, pieces_);
  if (count < 0) return Outcome::kFault;
  // Before the bytes are placed: a refused packet changes none. The pieces stay what they are even
  // if this key was theirs.
  if ((packet.flags & kHasIeth) != 0 && !parts_.memory.Invalidate(packet.header.rkey)) {
    return Outcome::kRefused;
  }
  CopyToPieces(std::span<const iovec>(pieces_.data(), static_cast<size_t>(count)), packet.payload);
  received_ += bytes;
  if ((packet.flags & kEndsMessage) == 0) return Outcome::kDone;
  msn_ = (msn_ + 1) & kPsnMask;
  message_ = Message::kNone;
  CompleteReceive(packet, IBV_WC_RECV, received_);
  return Outcome::kDone;
}

Responder::Outcome Responder::ExecuteWrite(const PacketView& packet) {
  const bool starts = (packet.flags & kStartsMessage) != 0;
  const bool ends = (packet.flags & kEndsMessage) != 0;
  const size_t bytes = packet.payload.size();
  // A WRITE with immediate takes a receive buffer at its end; without one nothing of that packet
  // happens.
  if ((packet.flags & kHasImmediate) != 0 && parts_.receive_queue.empty()) {
    return Outcome::kNotReady;
  }
  if (starts) {
    const Outcome outcome = StartWrite(packet.header, bytes);
    if (outcome != Outcome::kDone) return outcome;
  }
  // What RETH announced must be what comes.
  if (ends ? bytes != write_remaining_ : bytes >= write_remaining_) return Outcome::kInvalid;
  if (bytes != 0) {
    std::byte* to = parts_.memory.Remote(write_rkey_, write_addr_, bytes, IBV_ACCESS_REMOTE_WRITE);
    if (to == nullptr) return Outcome::kRefused;
    PlaceBytes(to, packet.payload.data(), bytes);
  }
  write_addr_ += bytes;
  write_remaining_ -= bytes;
  message_ = ends ? Message::kNone : Message::kWrite;
  if (!ends) return Outcome::kDone;
  msn_ = (msn_ + 1) & kPsnMask;
  if ((packet.flags & kHasImmediate) != 0) {
    CompleteReceive(packet, IBV_WC_RECV_RDMA_WITH_IMM, write_length_);
  }
  return Outcome::kDone;
}

// The whole range is checked before the first byte is written (9.7.4.1.5: R_Key validation).
Responder::Outcome Responder::StartWrite(const PacketHeader& header, size_t payload_bytes) {
  if ((parts_.receive_config.access_flags & IBV_ACCESS_REMOTE_WRITE) == 0 ||
      header.dma_length > kMessageBytesMax || payload_bytes > header.dma_length) {
    return Outcome::kInvalid;
  }
  if (header.dma_length != 0 &&
      parts_.memory.Remote(header.rkey, header.remote_addr, header.dma_length,
                           IBV_ACCESS_REMOTE_WRITE) == nullptr) {
    return Outcome::kRefused;
  }
  write_addr_ = header.remote_addr;
  write_rkey_ = header.rkey;
  write_length_ = write_remaining_ = header.dma_length;
  return Outcome::kDone;
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

void Responder::CompleteReceive(const PacketView& packet, ibv_wc_opcode opcode, uint64_t bytes) {
  ibv_wc completion{};
  completion.wr_id = parts_.receive_queue.front().wr_id;
  completion.status = IBV_WC_SUCCESS;
  completion.opcode = opcode;
  completion.byte_len = static_cast<uint32_t>(bytes);
  completion.qp_num = parts_.limits.qpn;
  completion.src_qp = parts_.receive_config.remote_qpn;
  if ((packet.flags & kHasImmediate) != 0) {
    completion.wc_flags = IBV_WC_WITH_IMM;
    completion.imm_data = packet.header.immediate;
  } else if ((packet.flags & kHasIeth) != 0) {
    completion.wc_flags = IBV_WC_WITH_INV;
    completion.invalidated_rkey = packet.header.rkey;
  }
  parts_.receive_queue.PopFront();
  parts_.receive_completions.Push(completion, packet.header.solicited);
}

// Completes the oldest buffer with an error.
void Responder::FailReceive(ibv_wc_status status) {
  ibv_wc completion{};
  completion.wr_id = parts_.receive_queue.front().wr_id;
  completion.status = status;
  completion.opcode = IBV_WC_RECV;
  completion.qp_num = parts_.limits.qpn;
  completion.src_qp = parts_.receive_config.remote_qpn;
  message_ = Message::kNone;
  parts_.receive_queue.PopFront();
  parts_.receive_completions.Push(completion, true);
}

}  // namespace sumac::soft_nic
