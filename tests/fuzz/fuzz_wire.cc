// Fuzzes the codec and the ICRC with UDP payloads. Seeds: all packets of the golden captures, and
// those of RC once more as XRC (which kernel rxe does not speak).
//
// Promises: whatever comes, Decode says yes or why not; a payload it returns lies inside the input;
// what it accepted encodes back to the same bytes, reserved bits apart; an identification that
// FindIdentification found verifies.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "tests/fuzz/fuzz_target.h"
#include "tests/golden/capture.h"
#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::fuzz {

using soft_nic::Decode;
using soft_nic::DecodeError;
using soft_nic::IcrcHeaders;
using soft_nic::PacketView;

// The same packet over an extended reliable connection, with a shared receive queue's number in its
// requests.
Bytes AsXrc(Bytes packet) {
  constexpr uint8_t kXrc = 0xa0;
  packet[0] |= kXrc;
  const uint32_t flags = soft_nic::FlagsOf(static_cast<soft_nic::Opcode>(packet[0]));
  if ((flags & soft_nic::kHasXrcEth) != 0) {
    const uint8_t number[] = {0, 0x12, 0x34, 0x56};
    packet.insert(packet.begin() + soft_nic::kBthBytes, std::begin(number), std::end(number));
  }
  return packet;
}

std::vector<Bytes> Seeds() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(SUMAC_GOLDEN_DIR)) {
    if (entry.path().extension() == ".pcap") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());  // the folder's order differs from machine to machine
  std::vector<Bytes> seeds;
  for (const std::string& path : paths) {
    for (const soft_nic::CapturedPacket& packet : soft_nic::ReadCapture(path)) {
      const auto payload = packet.udp_payload();
      const auto* bytes = reinterpret_cast<const uint8_t*>(payload.data());
      seeds.emplace_back(bytes, bytes + payload.size());
    }
  }
  SUMAC_FUZZ_CHECK(seeds.size() >= 100);
  for (size_t i = 0, captured = seeds.size(); i < captured; ++i) {
    constexpr uint8_t kTransportBits = 0xe0;
    if ((seeds[i][0] & kTransportBits) == 0) seeds.push_back(AsXrc(seeds[i]));
  }
  return seeds;
}

void CheckView(const PacketView& view, std::span<const std::byte> input) {
  const std::byte* begin = input.data();
  const std::byte* end = begin + input.size();
  SUMAC_FUZZ_CHECK(view.payload.empty() || (view.payload.data() >= begin &&
                                            view.payload.data() + view.payload.size() <= end));
  const size_t header_bytes = soft_nic::HeaderBytes(view.header.opcode);
  SUMAC_FUZZ_CHECK(header_bytes + view.payload.size() + view.header.pad_bytes +
                       soft_nic::kIcrcBytes ==
                   input.size());
  SUMAC_FUZZ_CHECK(view.flags == soft_nic::FlagsOf(view.header.opcode));
  SUMAC_FUZZ_CHECK(soft_nic::NameOf(view.header.opcode) != nullptr);

  std::byte encoded[soft_nic::kHeaderBytesMax];
  SUMAC_FUZZ_CHECK(soft_nic::EncodeHeader(view.header, encoded) == header_bytes);
  // Decoding what was encoded gives the same header: reserved bits are all that may have been lost.
  std::vector<std::byte> again(input.begin(), input.end());
  std::memcpy(again.data(), encoded, header_bytes);
  PacketView second;
  SUMAC_FUZZ_CHECK(Decode(again, &second) == DecodeError::kNone);
  std::byte encoded_again[soft_nic::kHeaderBytesMax];
  SUMAC_FUZZ_CHECK(soft_nic::EncodeHeader(second.header, encoded_again) == header_bytes);
  SUMAC_FUZZ_CHECK(std::memcmp(encoded, encoded_again, header_bytes) == 0);
}

}  // namespace sumac::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sumac::fuzz;
  const auto input = std::as_bytes(std::span(data, size));
  PacketView view;
  const DecodeError error = Decode(input, &view);
  SUMAC_FUZZ_CHECK(sumac::soft_nic::NameOf(error) != nullptr);
  if (error == DecodeError::kNone) CheckView(view, input);

  IcrcHeaders ip;
  ip.source_port = 0xc000;
  static_cast<void>(sumac::soft_nic::VerifyIcrc(ip, input));
  for (sumac::soft_nic::Gid* gid : {&ip.source, &ip.destination}) (*gid)[10] = (*gid)[11] = 0xff;
  static_cast<void>(sumac::soft_nic::VerifyIcrc(ip, input));
  if (const auto identification = sumac::soft_nic::FindIdentification(ip, input)) {
    ip.ipv4_identification = *identification;
    SUMAC_FUZZ_CHECK(sumac::soft_nic::VerifyIcrc(ip, input));
  }
  return 0;
}
