// The reliable connection (RC; IBTA vol. 1, 9.7): a requester and a responder that fail together.
//
// As transport_service.h says. A responder that failed still has its NAK to send, also in the error
// state; one whose requester failed is silent.
#pragma once

#include "verbs/soft_nic/engine/requester.h"
#include "verbs/soft_nic/engine/responder.h"
#include "verbs/soft_nic/engine/transport_service.h"

namespace sumac::soft_nic {

class ReliableConnection : public TransportService {
 public:
  explicit ReliableConnection(QueuePairParts& parts, uint8_t transport_bits = kReliableConnection)
      : TransportService(transport_bits),
        counters_(parts.counters),
        responder_(parts),
        requester_(parts) {}

  void StartReceiving() override { responder_.Start(); }
  void StartSending() override { requester_.Start(); }
  void Reset() override;
  void Stop() override { responder_.Stop(); }
  void Flush() override;

  void OnPacket(const PacketView& packet, const Gid& source, ibv_qp_state state, Time now) override;
  void OnCongestion(Time now) override { requester_.OnCongestion(now); }
  void OnTimeout(Time now) override;
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                  uint32_t budget) override;
  Time NextTimeout() const override { return requester_.NextTimeout(); }
  [[nodiscard]] bool RunDirect() override { return requester_.RunAllDirect(); }

  void SetDraining(bool draining) override { requester_.SetDraining(draining); }
  bool drained() const override { return requester_.drained(); }
  uint8_t fatal_nak() const override { return responder_.fatal_nak(); }

  uint32_t next_send_psn() const override { return requester_.next_psn(); }
  uint32_t expected_psn() const override { return responder_.expected_psn(); }

 protected:
  QueuePairCounters& counters_;
  Responder responder_;

 private:
  void FailTogether();

  Requester requester_;
};

}  // namespace sumac::soft_nic
