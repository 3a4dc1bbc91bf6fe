// The extended reliable connection (XRC; IBTA vol. 1, Annex A14): a reliable connection of which
// one end only requests (the initiator) and the other only responds (the target), and whose
// requests name the shared receive queue that they are for.
//
// As transport_service.h says. Requester and responder are those of reliable_connection.h, which
// see the opcodes of RC; those of XRC differ in the transport bits only, put on and taken off here.
#pragma once

#include "verbs/soft_nic/engine/reliable_connection.h"

namespace sumac::soft_nic {

class ExtendedReliableConnection : public ReliableConnection {
 public:
  explicit ExtendedReliableConnection(QueuePairParts& parts)
      : ReliableConnection(parts, kExtendedReliableConnection),
        is_target_(parts.limits.type == IBV_QPT_XRC_RECV),
        selection_(parts.xrc) {}

  void OnPacket(const PacketView& packet, const Gid& source, ibv_qp_state state, Time now) override;
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                  uint32_t budget) override;
  void ForgetReceives(const SharedReceiveQueue& queue) override;

 private:
  const bool is_target_;
  XrcSelection* const selection_;  // of a target
};

}  // namespace sumac::soft_nic
