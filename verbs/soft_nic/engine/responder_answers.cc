// What a responder sends: responses in PSN order, then one ACK or NAK (IBTA vol. 1, 9.7.5.1).
#include <algorithm>

#include "verbs/soft_nic/engine/planted_bug.h"
#include "verbs/soft_nic/engine/responder.h"
#include "verbs/soft_nic/engine/xrc_selection.h"

namespace sumac::soft_nic {

// A request that was carried out before (9.7.4.1.3: duplicate requests). SEND and WRITE: the ACK
// was lost, so acknowledge again. READ: read again, from wherever the peer asks. Atomic: the
// remembered result.
void Responder::OnDuplicate(const PacketView& packet, uint64_t sequence) {
  const PacketHeader& header = packet.header;
  ResponseJob job;
  job.next = sequence;
  job.msn = msn_;
  job.repeated = true;
  if ((packet.flags & kIsRead) != 0) {
    job.end = sequence + PacketsOf(header.dma_length, mtu_);
    // A repeated READ lies inside what was asked before, so it ends no later than the expected PSN.
    if (job.end > expected_ || header.dma_length > kMessageBytesMax ||
        (parts_.receive_config.access_flags & IBV_ACCESS_REMOTE_READ) == 0) {
      ++parts_.counters.dropped_malformed;
      return;
    }
    job.addr = header.remote_addr;
    job.rkey = header.rkey;
    job.xrc_srqn = header.xrc_srqn;
    job.remaining = header.dma_length;
  } else if ((packet.flags & kIsAtomic) != 0) {
    const std::optional<uint64_t> result = responses_.ResultOf(sequence);
    if (!result.has_value()) {  // older than anything that the peer may ask for
      ++parts_.counters.dropped_malformed;
      return;
    }
    if (Planted(PlantedBug::kAtomicTwice) && header.opcode == Opcode::kRcFetchAdd) {
      std::byte* word = parts_.memory.Remote(header.rkey, header.remote_addr, sizeof(uint64_t),
                                             IBV_ACCESS_REMOTE_ATOMIC);
      if (word != nullptr) *reinterpret_cast<uint64_t*>(word) += header.swap_or_add;
    }
    job.end = sequence + 1;
    job.atomic = true;
    job.atomic_result = *result;
  } else {
    ack_owed_ = true;
    return;
  }
  if (!responses_.Insert(job)) ++parts_.counters.dropped_out_of_order;
}

void Responder::Owe(uint8_t syndrome, uint64_t sequence) {
  nak_owed_ = true;
  nak_syndrome_ = syndrome;
  nak_sequence_ = sequence;
}

// The end of this connection: the peer is told why, and the buffer in use completes with
// `receive_status`.
void Responder::Fail(uint8_t syndrome, uint64_t sequence, ibv_wc_status receive_status) {
  if (syndrome == kSyndromeNakRemoteAccess) {
    ++parts_.counters.access_naks_sent;
  } else if (syndrome == kSyndromeNakInvalidRequest) {
    ++parts_.counters.invalid_request_naks_sent;
  } else {
    ++parts_.counters.operation_naks_sent;
  }
  failed_ = true;
  Owe(syndrome, sequence);
  receiver_.Fail(receive_status);
}

bool Responder::PollTransmit(TransmitSink& sink, uint32_t* budget) {
  if (!SendJobs(sink, budget)) return true;
  // A NAK acknowledges what lies before it, so it stands for the ACK as well. An ACK waits until
  // all responses before it have gone, or the peer would take them for lost.
  if (!nak_owed_ && !ack_owed_) return false;
  if (*budget == 0) return true;
  if (nak_owed_) {
    if (!SendAnswer(sink, nak_syndrome_, nak_sequence_)) return true;
  } else if (!SendAnswer(sink, kSyndromeAckNoCredits, expected_ - 1)) {
    return true;
  }
  --*budget;
  nak_owed_ = ack_owed_ = false;
  return false;
}

// Sends what the jobs owe. False when packets are left.
bool Responder::SendJobs(TransmitSink& sink, uint32_t* budget) {
  while (!responses_.empty()) {
    if (*budget == 0) return false;
    ResponseJob& job = responses_.front();
    OutgoingPacket packet;
    if (!BuildResponse(job, &packet)) {
      if (!job.repeated) {  // deregistered since the request was accepted
        Fail(kSyndromeNakRemoteAccess, job.next, IBV_WC_REM_ACCESS_ERR);
        responses_.Clear();
        return true;
      }
      // Perhaps a late duplicate of a READ that was answered long ago: no reason to end the
      // connection. If the peer does wait for it, the NAK tells it.
      if (!SendAnswer(sink, kSyndromeNakRemoteAccess, job.next)) return false;
      ++parts_.counters.access_naks_sent;
      --*budget;
      responses_.PopFront();
      continue;
    }
    const uint64_t bytes = std::min<uint64_t>(job.remaining, mtu_);
    if (!sink.Transmit(packet)) return false;
    --*budget;
    ++parts_.counters.packets_sent;
    job.started = true;
    ++job.next;
    job.addr += bytes;
    job.remaining -= bytes;
    if (job.next == job.end) responses_.PopFront();
  }
  return true;
}

// False when memory refuses.
bool Responder::BuildResponse(const ResponseJob& job, OutgoingPacket* packet) {
  PacketHeader& header = packet->header;
  packet->path = &parts_.receive_config.path;
  header.dest_qpn = parts_.receive_config.remote_qpn;
  header.psn = PsnOf(job.next);
  header.syndrome = kSyndromeAckNoCredits;
  header.msn = job.msn;
  if (job.atomic) {
    header.opcode = Opcode::kRcAtomicAcknowledge;
    header.atomic_result = job.atomic_result;
    return true;
  }
  const bool last = job.next + 1 == job.end;
  if (job.started) {
    header.opcode = last ? Opcode::kRcReadResponseLast : Opcode::kRcReadResponseMiddle;
  } else {
    header.opcode = last ? Opcode::kRcReadResponseOnly : Opcode::kRcReadResponseFirst;
  }
  const uint64_t bytes = std::min<uint64_t>(job.remaining, mtu_);
  header.pad_bytes = static_cast<uint8_t>(-bytes & 3u);
  if (bytes == 0) return true;
  // An XRC target may have turned to another queue since.
  Memory* const memory =
      parts_.xrc == nullptr ? &parts_.memory : parts_.xrc->MemoryOf(job.xrc_srqn);
  if (memory == nullptr) return false;
  std::byte* from = memory->Remote(job.rkey, job.addr, bytes, IBV_ACCESS_REMOTE_READ);
  if (from == nullptr) return false;
  response_piece_ = iovec{from, bytes};
  packet->payload = std::span<const iovec>(&response_piece_, 1);
  return true;
}

bool Responder::SendAnswer(TransmitSink& sink, uint8_t syndrome, uint64_t sequence) {
  OutgoingPacket packet;
  packet.path = &parts_.receive_config.path;
  packet.header.opcode = Opcode::kRcAcknowledge;
  packet.header.dest_qpn = parts_.receive_config.remote_qpn;
  packet.header.psn = PsnOf(sequence);
  packet.header.syndrome = syndrome;
  packet.header.msn = msn_;
  if (!sink.Transmit(packet)) return false;
  ++parts_.counters.packets_sent;
  return true;
}

}  // namespace sumac::soft_nic
