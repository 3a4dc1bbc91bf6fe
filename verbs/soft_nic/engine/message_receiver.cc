#include "verbs/soft_nic/engine/message_receiver.h"

#include <algorithm>

#include "verbs/soft_nic/engine/placement.h"
#include "verbs/soft_nic/engine/scatter_gather.h"
#include "verbs/soft_nic/engine/work_completions.h"

namespace sumac::soft_nic {

MessageReceiver::MessageReceiver(QueuePairParts& parts)
    : parts_(parts), pieces_(std::max<uint32_t>(parts.limits.max_recv_sge, 1)) {}

// The rules of opcode order (9.7.4.1.2, figure 83): a message starts only when none is under way,
// and goes on only as what it is.
RequestOutcome MessageReceiver::Take(const PacketView& packet) {
  const bool starts = (packet.flags & kStartsMessage) != 0;
  const Message kind = (packet.flags & kIsSend) != 0 ? Message::kSend : Message::kWrite;
  if (message_ != (starts ? Message::kNone : kind) || !LengthFits(packet)) {
    return RequestOutcome::kInvalid;
  }
  return kind == Message::kSend ? TakeSend(packet) : TakeWrite(packet);
}

// FIRST and MIDDLE are full; LAST carries 1 ... MTU bytes, ONLY 0 ... MTU (9.7.4.1.6, length
// checks).
bool MessageReceiver::LengthFits(const PacketView& packet) const {
  const size_t bytes = packet.payload.size();
  if ((packet.flags & kEndsMessage) == 0) return bytes == mtu_;
  if ((packet.flags & kStartsMessage) == 0 && bytes == 0) return false;
  return bytes <= mtu_;
}

RequestOutcome MessageReceiver::TakeSend(const PacketView& packet) {
  if ((packet.flags & kStartsMessage) != 0) {
    if (!parts_.receive_queue.Take()) return RequestOutcome::kNotReady;
    message_ = Message::kSend;
    received_ = 0;
  }
  ReceiveRequest& receive = parts_.receive_queue.front();
  const size_t bytes = packet.payload.size();
  if (received_ + bytes > receive.length) {
    Fail(IBV_WC_LOC_LEN_ERR);  // RC tells the peer "invalid request" (9.9.6.3, table 59)
    return RequestOutcome::kInvalid;
  }
  const int count =
      ResolveRange(parts_.receive_memory, receive.sges(), received_, bytes, true, pieces_);
  if (count < 0) return RequestOutcome::kFault;
  // Before the bytes are placed: a refused packet changes none. The pieces stay what they are even
  // if this key was theirs.
  if ((packet.flags & kHasIeth) != 0 && !parts_.memory.Invalidate(packet.header.rkey)) {
    return RequestOutcome::kRefused;
  }
  CopyToPieces(std::span<const iovec>(pieces_.data(), static_cast<size_t>(count)), packet.payload);
  received_ += bytes;
  if ((packet.flags & kEndsMessage) == 0) return RequestOutcome::kDone;
  message_ = Message::kNone;
  Complete(packet, IBV_WC_RECV, received_);
  return RequestOutcome::kDone;
}

RequestOutcome MessageReceiver::TakeWrite(const PacketView& packet) {
  const bool starts = (packet.flags & kStartsMessage) != 0;
  const bool ends = (packet.flags & kEndsMessage) != 0;
  const size_t bytes = packet.payload.size();
  // A WRITE with immediate takes a receive buffer at its end; without one nothing of that packet
  // happens.
  if ((packet.flags & kHasImmediate) != 0 && !parts_.receive_queue.Take()) {
    return RequestOutcome::kNotReady;
  }
  if (starts) {
    const RequestOutcome outcome = StartWrite(packet.header, bytes);
    if (outcome != RequestOutcome::kDone) return outcome;
  }
  // What RETH announced must be what comes.
  if (ends ? bytes != write_remaining_ : bytes >= write_remaining_) return RequestOutcome::kInvalid;
  if (bytes != 0) {
    std::byte* to = parts_.memory.Remote(write_rkey_, write_addr_, bytes, IBV_ACCESS_REMOTE_WRITE);
    if (to == nullptr) return RequestOutcome::kRefused;
    PlaceBytes(to, packet.payload.data(), bytes);
  }
  write_addr_ += bytes;
  write_remaining_ -= bytes;
  message_ = ends ? Message::kNone : Message::kWrite;
  if (!ends) return RequestOutcome::kDone;
  if ((packet.flags & kHasImmediate) != 0) {
    Complete(packet, IBV_WC_RECV_RDMA_WITH_IMM, write_length_);
  }
  return RequestOutcome::kDone;
}

// The whole range is checked before the first byte is written (9.7.4.1.5: R_Key validation).
RequestOutcome MessageReceiver::StartWrite(const PacketHeader& header, size_t payload_bytes) {
  if ((parts_.receive_config.access_flags & IBV_ACCESS_REMOTE_WRITE) == 0 ||
      header.dma_length > kMessageBytesMax || payload_bytes > header.dma_length) {
    return RequestOutcome::kInvalid;
  }
  if (header.dma_length != 0 &&
      parts_.memory.Remote(header.rkey, header.remote_addr, header.dma_length,
                           IBV_ACCESS_REMOTE_WRITE) == nullptr) {
    return RequestOutcome::kRefused;
  }
  write_addr_ = header.remote_addr;
  write_rkey_ = header.rkey;
  write_length_ = write_remaining_ = header.dma_length;
  return RequestOutcome::kDone;
}

void MessageReceiver::Complete(const PacketView& packet, ibv_wc_opcode opcode, uint64_t bytes) {
  ibv_wc completion{};
  completion.opcode = opcode;
  completion.byte_len = static_cast<uint32_t>(bytes);
  completion.src_qp = parts_.receive_config.remote_qpn;
  CompleteOldestReceive(parts_, packet, completion);
}

void MessageReceiver::Fail(ibv_wc_status status) {
  if (message_ == Message::kSend) FailOldestReceive(parts_, status);
  message_ = Message::kNone;
}

}  // namespace sumac::soft_nic
