// The unreliable datagram (UD; IBTA vol. 1, 9.8.3): one packet a message, to whom the
// request's address handle says, from anyone.
//
// As transport_service.h says. A request completes when its packet was handed to the link. What
// arrives with a wrong Q_Key, or finds no receive buffer, is dropped and counted. Every receive
// buffer starts with 40 bytes for the sender's addresses (wire/grh.h). A buffer that is too small
// completes with IBV_WC_LOC_LEN_ERR, and the queue pair goes on; a local key that refuses ends it
// (IBTA's SQE state is not offered).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "verbs/soft_nic/engine/transport_service.h"

namespace sumac::soft_nic {

class UnreliableDatagram : public TransportService {
 public:
  explicit UnreliableDatagram(QueuePairParts& parts);

  void StartReceiving() override {}
  void StartSending() override { next_psn_ = parts_.send_config.first_psn & kPsnMask; }
  void Reset() override;
  void Flush() override;
  void OnPacket(const PacketView& packet, const Gid& source, ibv_qp_state state, Time now) override;
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                  uint32_t budget) override;
  uint32_t next_send_psn() const override { return next_psn_; }
  uint32_t expected_psn() const override { return 0; }  // UD looks at no PSN

 private:
  bool BuildPacket(uint64_t index, OutgoingPacket* packet);
  void Deliver(const PacketView& packet, const Gid& source);

  QueuePairParts& parts_;
  std::vector<iovec> send_pieces_;
  std::vector<iovec> receive_pieces_;
  uint32_t next_psn_ = 0;
};

}  // namespace sumac::soft_nic
