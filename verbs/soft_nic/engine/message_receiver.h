// Carries out the SENDs and WRITEs of a connected peer, packet by packet: the part of a responder
// that RC and UC have in common (IBTA vol. 1, 9.7.4 and 9.8.2).
//
// Owned by responder.h and unreliable_connection.h, which look at PSNs first: what comes here is
// next in order. It says what became of a packet, and its owner says what follows from that (a NAK,
// a message dropped). Owner-only; no allocation after construction.
//
// Invariant: a refused packet changes no byte. Keys are resolved for every packet.
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "verbs/soft_nic/engine/queue_pair_parts.h"

namespace sumac::soft_nic {

// What became of a request.
enum class RequestOutcome : uint8_t {
  kDone,
  kDropped,   // as if it had been lost
  kNotReady,  // no receive buffer
  kInvalid,   // it breaks a rule: opcode order, length, a right of the queue pair
  kRefused,   // key, range or right of the remote memory
  kFault,     // the receive buffer's own key refuses
};

class MessageReceiver {
 public:
  explicit MessageReceiver(QueuePairParts& parts);

  void Start() { mtu_ = parts_.receive_config.mtu_bytes; }
  // Forgets the message under way. The buffer that a SEND used stays posted, for the next message.
  void Abandon() { message_ = Message::kNone; }
  bool under_way() const { return message_ != Message::kNone; }

  // `packet` is a SEND or WRITE request. A SEND that is too long for its buffer completes that with
  // IBV_WC_LOC_LEN_ERR, and is kInvalid.
  [[nodiscard]] RequestOutcome Take(const PacketView& packet);
  // The message under way can't go on: completes the buffer that it uses, if it is a SEND.
  void Fail(ibv_wc_status status);

 private:
  enum class Message : uint8_t { kNone, kSend, kWrite };

  RequestOutcome TakeSend(const PacketView& packet);
  RequestOutcome TakeWrite(const PacketView& packet);
  RequestOutcome StartWrite(const PacketHeader& header, size_t payload_bytes);
  bool LengthFits(const PacketView& packet) const;
  void Complete(const PacketView& packet, ibv_wc_opcode opcode, uint64_t bytes);

  QueuePairParts& parts_;
  std::vector<iovec> pieces_;
  uint32_t mtu_ = 0;

  // The message under way.
  Message message_ = Message::kNone;
  uint64_t received_ = 0;  // SEND: bytes placed so far
  uint64_t write_addr_ = 0;
  uint64_t write_remaining_ = 0;
  uint64_t write_length_ = 0;
  uint32_t write_rkey_ = 0;
};

}  // namespace sumac::soft_nic
