// What a receiver does about packets that the network marked (RFC 3168: ECN "congestion
// experienced"): it sends the sender a congestion notification packet, at most one per interval.
//
// Annex A17.9.3 has the packet: opcode 0x81, BECN set, PSN 0, 16 reserved bytes, to the QP that
// sends to us. The interval is what NICs keep between two CNPs of a flow (50 us: DCQCN, SIGCOMM
// 2015, section 5). Owner-only; no allocation; time is passed in.
#pragma once

#include <array>
#include <chrono>
#include <span>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

class CongestionNotifier {
 public:
  static constexpr Duration kInterval = std::chrono::microseconds(50);

  void OnMarkedPacket(Time now) {
    if (!sent_before_ || now - sent_ >= kInterval) owed_ = true;
  }
  bool owed() const { return owed_; }

  // Sends what is owed. False: no room now.
  [[nodiscard]] bool Transmit(TransmitSink& sink, const Path& path, uint32_t remote_qpn, Time now) {
    static constexpr std::array<std::byte, 16> kReserved{};
    const iovec reserved{const_cast<std::byte*>(kReserved.data()), kReserved.size()};
    OutgoingPacket packet;
    packet.path = &path;
    packet.header.opcode = Opcode::kCnp;
    packet.header.becn = true;
    packet.header.dest_qpn = remote_qpn;
    packet.payload = std::span(&reserved, 1);
    if (!sink.Transmit(packet)) return false;
    owed_ = false;
    sent_before_ = true;
    sent_ = now;
    return true;
  }
  void Reset() { *this = CongestionNotifier(); }

 private:
  bool owed_ = false;
  bool sent_before_ = false;
  Time sent_{};
};

}  // namespace sumac::soft_nic
