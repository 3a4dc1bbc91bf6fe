// Verifies the ICRC of every packet of a capture under the IP header that was on the wire.
//
//   verify_capture FILE.pcap

#include <cstdio>
#include <exception>

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
  for (const CapturedPacket& packet : ReadCapture(argv[1])) {
    ++count;
    PacketView view;
    const DecodeError error = Decode(packet.udp_payload(), &view);
    if (error == DecodeError::kNone && VerifyIcrc(packet.ip, packet.udp_payload())) continue;
    if (++bad <= 10)
      std::printf("packet %zu: %s\n", count,
                  error == DecodeError::kNone ? "wrong ICRC" : NameOf(error));
  }
  std::printf("%zu packets, %zu bad\n", count, bad);
  return bad == 0 && count > 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "verify_capture: %s\n", error.what());
  return 2;
}
