#include "verbs/soft_nic/engine/unreliable_connection.h"

#include <algorithm>

#include "verbs/soft_nic/engine/message_packet.h"
#include "verbs/soft_nic/engine/planted_bug.h"
#include "verbs/soft_nic/engine/work_completions.h"

namespace sumac::soft_nic {

UnreliableConnection::UnreliableConnection(QueuePairParts& parts)
    : TransportService(kUnreliableConnection),
      parts_(parts),
      receiver_(parts),
      pieces_(std::max<uint32_t>(parts.limits.max_send_sge, 1)) {}

void UnreliableConnection::StartReceiving() {
  receiver_.Start();
  expected_psn_ = parts_.receive_config.expected_psn & kPsnMask;
}

void UnreliableConnection::StartSending() { next_psn_ = parts_.send_config.first_psn & kPsnMask; }

void UnreliableConnection::Reset() {
  parts_.send_queue.Clear();
  parts_.receive_queue.Clear();
  receiver_.Abandon();
  sent_ = 0;
  dropping_ = false;
  failed_ = false;
}

void UnreliableConnection::Flush() {
  FlushSends(parts_);
  receiver_.Abandon();
  FlushReceives(parts_);
}

void UnreliableConnection::OnPacket(const PacketView& packet, const Gid&, ibv_qp_state state,
                                    Time) {
  if (state != IBV_QPS_RTR && state != IBV_QPS_RTS) {
    ++parts_.counters.dropped_wrong_state;
    return;
  }
  if (!IsNext(packet)) return;
  expected_psn_ = PsnAdd(packet.header.psn, 1);
  const RequestOutcome outcome = receiver_.Take(packet);
  switch (outcome) {
    case RequestOutcome::kDone:
      return;
    case RequestOutcome::kNotReady:
      ++parts_.counters.dropped_no_receive;
      break;
    case RequestOutcome::kRefused:
      ++parts_.counters.dropped_bad_key;
      break;
    case RequestOutcome::kFault:
      receiver_.Fail(IBV_WC_LOC_PROT_ERR);
      failed_ = true;
      return;
    case RequestOutcome::kDropped:
    case RequestOutcome::kInvalid:
      ++parts_.counters.dropped_malformed;
      break;
  }
  Abandon();
}

// Whether the message under way, if any, goes on with this packet, or a new one starts.
bool UnreliableConnection::IsNext(const PacketView& packet) {
  if ((packet.flags & kStartsMessage) != 0) {
    if (receiver_.under_way()) Abandon();  // its end was lost
    dropping_ = false;
    return true;
  }
  if (dropping_) {
    ++parts_.counters.dropped_with_message;
    return false;
  }
  if (packet.header.psn == expected_psn_ || Planted(PlantedBug::kGapUnseen)) return true;
  ++parts_.counters.dropped_out_of_order;
  Abandon();
  return false;
}

void UnreliableConnection::Abandon() {
  if (receiver_.under_way()) ++parts_.counters.messages_cut_short;
  receiver_.Abandon();
  dropping_ = true;
}

bool UnreliableConnection::PollTransmit(TransmitSink& sink, ibv_qp_state state, Time,
                                        uint32_t budget) {
  if (state != IBV_QPS_RTS) return false;
  SendQueue& queue = parts_.send_queue;
  while (queue.begin() != queue.end()) {
    if (budget-- == 0) return true;
    SendRequest& request = queue.at(queue.begin());
    OutgoingPacket packet;
    uint32_t bytes = 0;
    if (!BuildPacket(request, &packet, &bytes)) {
      CompleteOldestSend(parts_, IBV_WC_LOC_PROT_ERR);
      failed_ = true;
      return false;
    }
    if (!sink.Transmit(packet)) return true;
    ++parts_.counters.packets_sent;
    next_psn_ = PsnAdd(next_psn_, 1);
    sent_ += bytes;
    if (sent_ != request.length) continue;
    sent_ = 0;
    CompleteOldestSend(parts_, IBV_WC_SUCCESS);
  }
  return false;
}

// The next packet of the oldest request. False when local memory refuses.
bool UnreliableConnection::BuildPacket(SendRequest& request, OutgoingPacket* packet,
                                       uint32_t* bytes) {
  const ReceiveConfig& config = parts_.receive_config;
  *bytes = static_cast<uint32_t>(std::min<uint64_t>(request.length - sent_, config.mtu_bytes));
  PacketHeader& header = packet->header;
  DescribeMessagePacket(request, *bytes, sent_ == 0, sent_ + *bytes == request.length, &header);
  header.opcode = static_cast<Opcode>(static_cast<uint8_t>(header.opcode) | kUnreliableConnection);
  header.dest_qpn = config.remote_qpn;
  header.psn = next_psn_;
  packet->path = &config.path;
  return GatherPayload(parts_.memory, request, sent_, *bytes, pieces_, &packet->payload);
}

}  // namespace sumac::soft_nic
