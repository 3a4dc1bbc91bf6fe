#include "verbs/soft_nic/engine/unreliable_datagram.h"

#include <algorithm>
#include <array>

#include "verbs/soft_nic/engine/message_packet.h"
#include "verbs/soft_nic/engine/work_completions.h"
#include "verbs/soft_nic/wire/grh.h"

namespace sumac::soft_nic {
namespace {

// Which header the GRH area holds: Annex A17.4.5.1 wants a flag, ibv_wc has no field for it, and
// ConnectX puts it here (bit 3: RoCE v2; bits 0-2: the header). UCX drops what has another value.
constexpr uint8_t kCameByIpv6 = 0x8 | 1;
constexpr uint8_t kCameByIpv4 = 0x8 | 2;

// A Q_Key with this bit set is a privileged one: a request that has it in its address asks for the
// queue pair's own instead (IBTA vol. 1, 10.2.5).
constexpr uint32_t kUseOwnQkey = 0x80000000;

}  // namespace

UnreliableDatagram::UnreliableDatagram(QueuePairParts& parts)
    : TransportService(kUnreliableDatagram),
      parts_(parts),
      send_pieces_(std::max<uint32_t>(parts.limits.max_send_sge, 1)),
      receive_pieces_(std::max<uint32_t>(parts.limits.max_recv_sge, 1)) {}

void UnreliableDatagram::Reset() {
  parts_.send_queue.Clear();
  parts_.receive_queue.Clear();
  failed_ = false;
}

void UnreliableDatagram::Flush() {
  FlushSends(parts_);
  FlushReceives(parts_);
}

void UnreliableDatagram::OnPacket(const PacketView& packet, const Gid& source, ibv_qp_state state,
                                  Time) {
  QueuePairCounters& counters = parts_.counters;
  if (state != IBV_QPS_RTR && state != IBV_QPS_RTS) {
    ++counters.dropped_wrong_state;
  } else if (packet.payload.size() > parts_.receive_config.mtu_bytes) {
    ++counters.dropped_malformed;
  } else if (packet.header.qkey != parts_.receive_config.qkey) {
    ++counters.dropped_bad_qkey;
  } else if (!parts_.receive_queue.Take()) {
    ++counters.dropped_no_receive;
  } else {
    Deliver(packet, source);
  }
}

void UnreliableDatagram::Deliver(const PacketView& packet, const Gid& source) {
  const ReceiveRequest& receive = parts_.receive_queue.front();
  const size_t bytes = kGrhBytes + packet.payload.size();
  if (bytes > receive.length) return FailOldestReceive(parts_, IBV_WC_LOC_LEN_ERR);
  const int count =
      ResolveRange(parts_.receive_memory, receive.sges(), 0, bytes, true, receive_pieces_);
  if (count < 0) {
    failed_ = true;
    return FailOldestReceive(parts_, IBV_WC_LOC_PROT_ERR);
  }
  std::array<std::byte, kGrhBytes> grh;
  const size_t on_wire = HeaderBytes(packet.header.opcode) + packet.payload.size() +
                         packet.header.pad_bytes + kIcrcBytes;
  WriteGrh({.source = source, .destination = parts_.receive_config.path.source}, on_wire, grh);
  const auto pieces = std::span<const iovec>(receive_pieces_.data(), static_cast<size_t>(count));
  CopyIntoPieces(pieces, 0, grh);
  CopyIntoPieces(pieces, kGrhBytes, packet.payload);
  ibv_wc completion{};
  completion.opcode = IBV_WC_RECV;
  completion.byte_len = static_cast<uint32_t>(bytes);
  completion.src_qp = packet.header.source_qpn;
  completion.wc_flags = IBV_WC_GRH;
  completion.sl = IsIpv4Mapped(source) ? kCameByIpv4 : kCameByIpv6;
  CompleteOldestReceive(parts_, packet, completion);
}

bool UnreliableDatagram::PollTransmit(TransmitSink& sink, ibv_qp_state state, Time,
                                      uint32_t budget) {
  if (state != IBV_QPS_RTS) return false;
  SendQueue& queue = parts_.send_queue;
  while (queue.begin() != queue.end()) {
    if (budget-- == 0) return true;
    // Too long for one packet: none goes out, and it is no error (IBTA vol. 1, C10-93.1.1).
    if (queue.at(queue.begin()).length > parts_.receive_config.mtu_bytes) {
      ++parts_.counters.unsent_too_long;
      CompleteOldestSend(parts_, IBV_WC_SUCCESS);
      continue;
    }
    OutgoingPacket packet;
    if (!BuildPacket(queue.begin(), &packet)) {
      CompleteOldestSend(parts_, IBV_WC_LOC_PROT_ERR);
      failed_ = true;
      return false;
    }
    if (!sink.Transmit(packet)) return true;
    ++parts_.counters.packets_sent;
    next_psn_ = PsnAdd(next_psn_, 1);
    CompleteOldestSend(parts_, IBV_WC_SUCCESS);
  }
  return false;
}

// False when local memory refuses.
bool UnreliableDatagram::BuildPacket(uint64_t index, OutgoingPacket* packet) {
  SendRequest& request = parts_.send_queue.at(index);
  DatagramAddress& to = parts_.send_queue.address_at(index);
  PacketHeader& header = packet->header;
  DescribeMessagePacket(request, request.length, true, true, &header);
  header.opcode = static_cast<Opcode>(static_cast<uint8_t>(header.opcode) | kUnreliableDatagram);
  header.dest_qpn = to.qpn;
  header.psn = next_psn_;
  header.qkey = (to.qkey & kUseOwnQkey) != 0 ? parts_.receive_config.qkey : to.qkey;
  header.source_qpn = parts_.limits.qpn;
  to.path.source_port = parts_.receive_config.path.source_port;  // one flow a queue pair, as RC
  packet->path = &to.path;
  return GatherPayload(parts_.memory, request, 0, request.length, send_pieces_, &packet->payload);
}

}  // namespace sumac::soft_nic
