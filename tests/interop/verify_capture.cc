// Verifies the ICRC of every packet of a capture under the IP header that was on the wire.
//
//   verify_capture FILE.pcap     exit status 1: a bad packet, or packets in one direction only

#include <cstdio>
#include <exception>
#include <map>
#include <string>

#include "tests/golden/capture.h"
#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

int main(int argc, char** argv) try {
  using namespace sumac::soft_nic;  // NOLINT: a program of one function
  if (argc != 2) {
    std::fprintf(stderr, "usage: verify_capture FILE.pcap\n");
    return 2;
  }
  size_t bad = 0;
  size_t count = 0;
  std::map<std::string, size_t> senders;  // by IP address
  for (const CapturedPacket& packet : ReadCapture(argv[1])) {
    ++count;
    const size_t source = packet.ip_offset + (packet.ipv4 ? 12 : 8);
    std::string address;
    for (size_t i = 0; i < (packet.ipv4 ? 4 : 16); ++i) {
      char digits[3];
      std::snprintf(digits, sizeof(digits), "%02x",
                    std::to_integer<unsigned>(packet.frame[source + i]));
      address += digits;
    }
    ++senders[address];
    PacketView view;
    const DecodeError error = Decode(packet.udp_payload(), &view);
    if (error == DecodeError::kNone && VerifyIcrc(packet.ip, packet.udp_payload())) continue;
    if (++bad <= 10)
      std::printf("packet %zu: %s\n", count,
                  error == DecodeError::kNone ? "wrong ICRC" : NameOf(error));
  }
  for (const auto& [address, packets] : senders) {
    std::printf("%zu packets from %s\n", packets, address.c_str());
  }
  std::printf("%zu packets, %zu bad\n", count, bad);
  return bad == 0 && senders.size() > 1 ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "verify_capture: %s\n", error.what());
  return 2;
}
