#include "verbs/soft_nic/engine/requester.h"

#include <algorithm>

#include "verbs/soft_nic/engine/message_packet.h"
#include "verbs/soft_nic/engine/scatter_gather.h"
#include "verbs/soft_nic/engine/timers.h"
#include "verbs/soft_nic/engine/work_completions.h"

namespace sumac::soft_nic {
namespace {

// PSNs that may be outstanding: a quarter of the space, so that old and new can't be taken for each
// other (9.7.1).
constexpr uint64_t kOutstandingPsnsMax = uint64_t{1} << 22;
constexpr uint64_t kNowhere = ~uint64_t{0};

}  // namespace

Requester::Requester(QueuePairParts& parts)
    : parts_(parts), pieces_(std::max<uint32_t>(parts.limits.max_send_sge, 1)) {}

void Requester::Start() {
  const SendConfig& config = parts_.send_config;
  const CongestionOptions& congestion = config.congestion;
  mtu_ = parts_.receive_config.mtu_bytes;
  chunk_packets_ = std::max<uint32_t>(congestion.read_chunk_bytes / mtu_, 1);
  ack_timeout_ = AckTimeout(config.timeout);
  window_.Reset(congestion, mtu_ + congestion.packet_overhead_bytes);
  acked_ = cursor_ = highest_ = recover_ = last_read_end_ = FirstSequence(config.first_psn);
  missing_at_ = kNowhere;
  by_packets_ = kNowhere;
  unsuited_end_ = try_direct_again_ = 0;
  direct_refusals_ = 0;
  direct_done_ = 0;
  cursor_index_ = assigned_ = parts_.send_queue.begin();
  retries_left_ = config.retry_count;
  rnr_retries_left_ = config.rnr_retry;
}

void Requester::Reset() {
  parts_.send_queue.Clear();
  acked_ = cursor_ = highest_ = 0;
  cursor_index_ = assigned_ = parts_.send_queue.begin();
  cost_total_ = 0;
  reads_in_flight_ = since_ack_request_ = 0;
  direct_done_ = 0;
  stalled_ = IBV_WC_SUCCESS;
  failed_ = draining_ = false;
  StopTimers();
}

void Requester::Flush() {
  StopTimers();
  FlushSends(parts_);
  direct_done_ = 0;
  cursor_index_ = assigned_ = parts_.send_queue.begin();
}

bool Requester::PollTransmit(TransmitSink& sink, Time now, uint32_t* budget) {
  if (probe_due_) {
    if (*budget == 0 || !SendProbe(sink)) return true;
    --*budget;
  }
  for (;;) {
    if (parts_.limits.direct != nullptr) {
      if (RunDirect(budget)) return true;
      if (WaitsForDirect()) break;
    }
    if (!MaySendNext()) break;
    if (*budget == 0) return true;
    SendRequest& request = parts_.send_queue.at(cursor_index_);
    OutgoingPacket packet;
    if (!BuildPacket(request, &packet)) {
      // A local key, range or right refuses. Older requests complete first (10.8.3.3.1).
      stalled_ = IBV_WC_LOC_PROT_ERR;
      if (cursor_index_ == parts_.send_queue.begin()) FailOldest(stalled_);
      return false;
    }
    if (!sink.Transmit(packet)) return true;
    --*budget;
    if (cursor_ < highest_) ++parts_.counters.retransmitted_packets;
    ++parts_.counters.packets_sent;
    since_ack_request_ = packet.header.ack_request ? 0 : since_ack_request_ + 1;
    AfterTransmit(request, now);
  }
  return false;
}

// Whether the packet at the cursor may go out now.
bool Requester::MaySendNext() {
  if (failed_ || stalled_ != IBV_WC_SUCCESS || rnr_deadline_ != kNever) return false;
  if (cursor_index_ == parts_.send_queue.end()) return false;
  SendRequest& request = parts_.send_queue.at(cursor_index_);
  if (cursor_index_ == assigned_) {
    if (draining_) return false;
    if (request.is_local()) return RunLocal() && MaySendNext();
    // A fence waits for every earlier READ and atomic (10.8.3.3: ordering).
    if ((request.send_flags & IBV_SEND_FENCE) != 0 && last_read_end_ > acked_) return false;
    if (request.is_read() || request.is_atomic()) {
      if (parts_.send_config.max_rd_atomic == 0) {
        stalled_ = IBV_WC_LOC_QP_OP_ERR;
        if (cursor_index_ == parts_.send_queue.begin()) FailOldest(stalled_);
        return false;
      }
    }
    Assign(request);
  }
  if ((request.is_read() || request.is_atomic()) &&
      reads_in_flight_ >= parts_.send_config.max_rd_atomic) {
    return false;
  }
  const uint64_t after = SequenceAfterNext(request);
  if (after - acked_ > kOutstandingPsnsMax) return false;
  return cursor_ == acked_ || CostAt(request, after) - AckedCost() <= window_.bytes();
}

// Carries out the binds and invalidations at the cursor, each when everything before it is
// complete: more order than is asked for (10.8.3.3, table 79), and no question of what a retry may
// still touch. True when a request that needs packets comes next.
bool Requester::RunLocal() {
  for (; cursor_index_ != parts_.send_queue.end(); ++cursor_index_, ++assigned_) {
    const SendRequest& request = parts_.send_queue.at(cursor_index_);
    if (!request.is_local()) return true;
    if (cursor_index_ != parts_.send_queue.begin()) return false;
    const bool done = request.opcode == IBV_WR_LOCAL_INV
                          ? parts_.memory.Invalidate(request.immediate)
                          : parts_.memory.Bind({.rkey = request.rkey,
                                                .region_key = static_cast<uint32_t>(request.swap),
                                                .addr = request.remote_addr,
                                                .length = request.compare_add,
                                                .access = static_cast<int>(request.immediate)});
    if (!done) {
      FailOldest(IBV_WC_MW_BIND_ERR);
      return false;
    }
    CompleteOldestSend(parts_, IBV_WC_SUCCESS);
  }
  return false;
}

// Gives a request its sequence numbers, when it is about to reach the wire for the first time.
void Requester::Assign(SendRequest& request) {
  request.first = cursor_;
  request.packets = request.is_atomic() ? 1 : PacketsOf(request.length, mtu_);
  request.cost_before = cost_total_;
  cost_total_ = CostAt(request, request.end());
  if (request.is_read() || request.is_atomic()) last_read_end_ = request.end();
  NoteAssigned(request);
  ++assigned_;
}

// A READ goes out in chunks whose bounds do not depend on where a retry starts, so that a retried
// chunk never reaches beyond what the responder has seen of the message.
uint64_t Requester::ReadChunkEnd(const SendRequest& request, uint64_t sequence) const {
  const uint64_t chunk = (sequence - request.first) / chunk_packets_;
  return std::min(request.first + (chunk + 1) * chunk_packets_, request.end());
}

uint64_t Requester::SequenceAfterNext(const SendRequest& request) const {
  return request.is_read() ? ReadChunkEnd(request, cursor_) : cursor_ + 1;
}

uint64_t Requester::CostAt(const SendRequest& request, uint64_t sequence) const {
  const uint64_t packets = sequence - request.first;
  const uint64_t bytes = std::min<uint64_t>(packets * mtu_, request.length);
  return request.cost_before + bytes +
         packets * parts_.send_config.congestion.packet_overhead_bytes;
}

uint64_t Requester::CursorCost() {
  return cursor_index_ == assigned_ ? cost_total_
                                    : CostAt(parts_.send_queue.at(cursor_index_), cursor_);
}

uint64_t Requester::AckedCost() {
  const uint64_t oldest = parts_.send_queue.begin();
  return oldest == assigned_ ? cost_total_ : CostAt(parts_.send_queue.at(oldest), acked_);
}

// False when local memory refuses.
bool Requester::BuildPacket(SendRequest& request, OutgoingPacket* packet) {
  PacketHeader& header = packet->header;
  packet->path = &parts_.receive_config.path;
  header.dest_qpn = parts_.receive_config.remote_qpn;
  header.psn = PsnOf(cursor_);
  header.xrc_srqn = request.xrc_srqn;
  const uint64_t offset = (cursor_ - request.first) * mtu_;
  if (request.is_read() || request.is_atomic()) {
    // The answer's place must be writable before the request goes out.
    const uint64_t end = (SequenceAfterNext(request) - request.first) * mtu_;
    const uint64_t bytes = std::min<uint64_t>(end, request.length) - offset;
    if (ResolveRange(parts_.memory, request.sges(), offset, bytes, true, pieces_) < 0) return false;
    BuildReadOrAtomic(request, &header);
    return true;
  }

  const uint32_t bytes = static_cast<uint32_t>(std::min<uint64_t>(request.length - offset, mtu_));
  const bool first = cursor_ == request.first;
  const bool last = cursor_ + 1 == request.end();
  DescribeMessagePacket(request, bytes, first, last, &header);
  const CongestionOptions& congestion = parts_.send_config.congestion;
  const uint64_t in_flight_next =
      CursorCost() - AckedCost() + bytes + 2 * congestion.packet_overhead_bytes + mtu_;
  header.ack_request = last || since_ack_request_ + 1 >= congestion.ack_interval_packets ||
                       in_flight_next > window_.bytes();
  // A program may not touch what it sends before the completion. One that does loses the packet
  // once: what goes out again is copied.
  packet->payload_stays = cursor_ >= highest_;
  return GatherPayload(parts_.memory, request, offset, bytes, pieces_, &packet->payload);
}

void Requester::BuildReadOrAtomic(const SendRequest& request, PacketHeader* header) {
  header->ack_request = true;
  header->rkey = request.rkey;
  header->remote_addr = request.remote_addr;
  if (request.is_read()) {
    // A retry asks from the first missing packet on, with address and length moved (9.7.5.1.2).
    const uint64_t offset = (cursor_ - request.first) * mtu_;
    const uint64_t end = (ReadChunkEnd(request, cursor_) - request.first) * mtu_;
    header->opcode = Opcode::kRcReadRequest;
    header->remote_addr += offset;
    header->dma_length = static_cast<uint32_t>(std::min<uint64_t>(end, request.length) - offset);
    return;
  }
  // On the wire the first operand is swap or add, the second compare (9.4.5, AtomicETH).
  if (request.opcode == IBV_WR_ATOMIC_CMP_AND_SWP) {
    header->opcode = Opcode::kRcCompareSwap;
    header->swap_or_add = request.swap;
    header->compare = request.compare_add;
  } else {
    header->opcode = Opcode::kRcFetchAdd;
    header->swap_or_add = request.compare_add;
  }
}

void Requester::AfterTransmit(const SendRequest& request, Time now) {
  cursor_ = SequenceAfterNext(request);
  highest_ = std::max(highest_, cursor_);
  if (request.is_read() || request.is_atomic()) ++reads_in_flight_;
  if (cursor_ == request.end()) ++cursor_index_;
  if (ack_deadline_ == kNever) {
    ArmTimers(now);
  } else if (probe_deadline_ != kNever) {
    probe_deadline_ = now + probe_wait_;  // silence begins with the last packet
  }
}

// The last packet, or the last READ chunk, once more. Whatever the peer makes of it tells where it
// stands: an ACK or a response when all had come, a sequence NAK when something is missing. False
// when the link has no room.
bool Requester::SendProbe(TransmitSink& sink) {
  const uint64_t cursor = cursor_;
  uint64_t index = cursor_index_;
  if (index == assigned_ || parts_.send_queue.at(index).first == cursor) --index;
  SendRequest& request = parts_.send_queue.at(index);
  OutgoingPacket packet;
  --cursor_;
  if (request.is_read()) {
    const uint64_t chunk = (cursor_ - request.first) / chunk_packets_;
    cursor_ = std::max(acked_, request.first + chunk * chunk_packets_);
  }
  const bool built = BuildPacket(request, &packet);
  cursor_ = cursor;
  packet.header.ack_request = true;
  if (built && !sink.Transmit(packet)) return false;
  probe_due_ = false;
  parts_.counters.packets_sent += built;
  parts_.counters.retransmitted_packets += built;
  parts_.counters.tail_probes += built;
  return true;
}

// Counts from now: something went out, or the peer gave a sign.
void Requester::ArmTimers(Time now) {
  probe_due_ = false;
  probe_wait_ = std::chrono::microseconds(parts_.send_config.congestion.tail_probe_us);
  const bool in_flight = cursor_ > acked_;
  ack_deadline_ = in_flight && ack_timeout_ != Duration::max() ? now + ack_timeout_ : kNever;
  probe_deadline_ = in_flight && probe_wait_ != Duration::zero() && probe_wait_ < ack_timeout_
                        ? now + probe_wait_
                        : kNever;
}

void Requester::StopTimers() {
  ack_deadline_ = probe_deadline_ = rnr_deadline_ = kNever;
  probe_due_ = false;
}

}  // namespace sumac::soft_nic
