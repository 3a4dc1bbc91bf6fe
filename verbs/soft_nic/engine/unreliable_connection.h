// The unreliable connection (UC; IBTA vol. 1, 9.8.2): SEND and WRITE in order, without
// acknowledgements.
//
// As transport_service.h says. A request completes when its last packet was handed to the link. On
// the other side a message arrives whole or not at all, as far as completions go: a packet that is
// not the next one ends the message under way, silently, and what is left of it is dropped; the
// next FIRST or ONLY packet starts afresh at whatever PSN it has. So a packet that the network
// repeats is a new message: UC has no duplicates to compare with. A SEND that ended early leaves
// its buffer to the next one; bytes of a WRITE that ended early stay where they are.
//
// The peer can't end the connection: what it may not do is dropped and counted. Only a local key
// that refuses does (IBTA's SQE state is not offered).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "verbs/soft_nic/engine/message_receiver.h"
#include "verbs/soft_nic/engine/transport_service.h"

namespace sumac::soft_nic {

class UnreliableConnection : public TransportService {
 public:
  explicit UnreliableConnection(QueuePairParts& parts);

  void StartReceiving() override;
  void StartSending() override;
  void Reset() override;
  void Flush() override;
  void OnPacket(const PacketView& packet, const Gid& source, ibv_qp_state state, Time now) override;
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                  uint32_t budget) override;
  uint32_t next_send_psn() const override { return next_psn_; }
  uint32_t expected_psn() const override { return expected_psn_; }

 private:
  bool IsNext(const PacketView& packet);
  void Abandon();
  bool BuildPacket(SendRequest& request, OutgoingPacket* packet, uint32_t* bytes);

  QueuePairParts& parts_;
  MessageReceiver receiver_;
  std::vector<iovec> pieces_;
  uint32_t next_psn_ = 0;
  uint64_t sent_ = 0;  // bytes of the oldest request that are out
  uint32_t expected_psn_ = 0;
  bool dropping_ = false;  // until a message starts
};

}  // namespace sumac::soft_nic
