// Verifies the ICRC of every packet of a capture under the IP header that was on the wire, and says
// what each sender's packets have in common.
//
//   verify_capture FILE.pcap     exit status 1: a bad packet, or packets in one direction only

#include <cstdio>
#include <exception>
#include <map>
#include <set>
#include <string>

#include "absl/strings/str_join.h"

#include "tests/golden/capture.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

struct Sender {
  size_t packets = 0;
  std::set<int> hop_limits;
  std::set<int> identifications;  // IPv4
  size_t asked = 0;               // SENDs and WRITEs that ask for an ACK
  size_t acks = 0;
};

int Run(const char* file) {
  size_t bad = 0;
  size_t count = 0;
  std::map<Gid, Sender> senders;
  for (const CapturedPacket& packet : ReadCapture(file)) {
    ++count;
    Sender& sender = senders[packet.ip.source];
    ++sender.packets;
    sender.hop_limits.insert(packet.hop_limit());
    if (packet.ipv4) sender.identifications.insert(packet.ip.ipv4_identification);
    PacketView view;
    const DecodeError error = Decode(packet.udp_payload(), &view);
    if (error == DecodeError::kNone && VerifyIcrc(packet.ip, packet.udp_payload())) {
      if (view.header.ack_request && (view.flags & (kIsSend | kIsWrite)) != 0) ++sender.asked;
      if (view.header.opcode == Opcode::kRcAcknowledge &&
          KindOfSyndrome(view.header.syndrome) == AckKind::kAck) {
        ++sender.acks;
      }
      continue;
    }
    if (++bad <= 10) {
      std::printf("packet %zu: %s\n", count,
                  error == DecodeError::kNone ? "wrong ICRC" : NameOf(error));
    }
  }
  for (const auto& [gid, sender] : senders) {
    std::printf(
        "%s: %zu packets, hop limit %s, %zu identifications, %zu asked for an ACK, %zu ACKs\n",
        ToString(gid).c_str(), sender.packets, absl::StrJoin(sender.hop_limits, "/").c_str(),
        sender.identifications.size(), sender.asked, sender.acks);
  }
  std::printf("%zu packets, %zu bad\n", count, bad);
  return bad == 0 && senders.size() > 1 ? 0 : 1;
}

}  // namespace
}  // namespace sumac::soft_nic

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: verify_capture FILE.pcap\n");
    return 2;
  }
  return sumac::soft_nic::Run(argv[1]);
} catch (const std::exception& error) {
  std::fprintf(stderr, "verify_capture: %s\n", error.what());
  return 2;
}
