// The transport part of a RoCE v2 packet: BTH, extended headers, payload, pad, ICRC (IBTA vol.
// 1, 9.2-9.6; Annex A17).
//
// Two levels: PacketHeader is the validated representation that the engine reads and writes; Encode
// and Decode turn it to and from bytes. Pure functions, no allocation. The UDP payload is
//
//   BTH (12) | XRCETH 4 | RETH 16 / AETH 4 / AtomicETH 28 / AtomicAckETH 8 / ImmDt 4 / IETH 4 /
//   DETH 8 | payload | pad 0-3 | ICRC 4
//
// What comes off the wire is checked, never asserted on: Decode says why it refused, and callers
// count it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "verbs/soft_nic/wire/opcode.h"

namespace sumac::soft_nic {

inline constexpr uint16_t kRoceUdpPort = 4791;
inline constexpr uint16_t kDefaultPkey = 0xffff;
inline constexpr size_t kBthBytes = 12;
inline constexpr size_t kIcrcBytes = 4;
inline constexpr size_t kMtuBytesMax = 4096;
// BTH + the largest set of extended headers (atomic request: 28 bytes, after 4 of XRC; UD with
// immediate: 12; WRITE with immediate: 20).
inline constexpr size_t kHeaderBytesMax = kBthBytes + 4 + 28;
// The longest UDP payload that a well-formed packet can have.
inline constexpr size_t kPacketBytesMax = kHeaderBytesMax + kMtuBytesMax + kIcrcBytes;

// AETH syndrome (IBTA vol. 1, 9.7.5.1.1): the top bits choose ACK, RNR NAK or NAK; the low five
// carry a value.
enum class AckKind : uint8_t { kAck, kRnrNak, kNak, kReserved };
inline constexpr uint8_t kSyndromeAckNoCredits =
    0x1f;  // "invalid credit count": end-to-end credits are not used
inline constexpr uint8_t kSyndromeRnrNak = 0x20;  // | 5-bit timer code
inline constexpr uint8_t kSyndromeNakSequence = 0x60;
inline constexpr uint8_t kSyndromeNakInvalidRequest = 0x61;
inline constexpr uint8_t kSyndromeNakRemoteAccess = 0x62;
inline constexpr uint8_t kSyndromeNakRemoteOperation = 0x63;
inline constexpr uint8_t kSyndromeNakInvalidRd = 0x64;
AckKind KindOfSyndrome(uint8_t syndrome);

// Every header field in host order. Which extended fields mean something follows from the opcode's
// flags.
struct PacketHeader {
  Opcode opcode = Opcode::kRcSendOnly;
  bool solicited = false;
  bool migration = false;
  bool fecn = false;
  bool becn = false;
  bool ack_request = false;
  uint8_t pad_bytes = 0;  // 0-3; Encode callers set it so that payload + pad is a multiple of 4
  uint16_t pkey = kDefaultPkey;
  uint32_t dest_qpn = 0;
  uint32_t psn = 0;

  uint64_t remote_addr = 0;    // RETH, AtomicETH
  uint32_t rkey = 0;           // RETH, AtomicETH; IETH: the key to invalidate
  uint32_t dma_length = 0;     // RETH
  uint64_t swap_or_add = 0;    // AtomicETH
  uint64_t compare = 0;        // AtomicETH
  uint8_t syndrome = 0;        // AETH
  uint32_t msn = 0;            // AETH, 24 bits
  uint64_t atomic_result = 0;  // AtomicAckETH
  uint32_t immediate =
      0;  // ImmDt, as the four bytes stand on the wire (ibv_wc.imm_data's convention: big-endian)
  uint32_t qkey = 0;        // DETH
  uint32_t source_qpn = 0;  // DETH
  uint32_t xrc_srqn = 0;    // XRCETH, 24 bits: whose receives
};

enum class DecodeError : uint8_t {
  kNone,
  kTooShort,    // shorter than its own headers and ICRC
  kBadVersion,  // TVer other than 0 (9.2.3)
  kUnknownOpcode,
  kBadPad,      // pad count larger than what is there, or payload with pad not a multiple of 4
  kBadPkey,     // not the default partition
  kBadPayload,  // payload on an opcode that carries none
};
const char* NameOf(DecodeError error);

// A decoded packet. `payload` points into the bytes that were decoded, without pad and ICRC.
struct PacketView {
  PacketHeader header;
  uint32_t flags = 0;  // FlagsOf(header.opcode)
  std::span<const std::byte> payload;
  bool congestion_experienced = false;  // by the IP header; who receives it knows, not Decode
};

// Bytes that Encode writes for this opcode: BTH and extended headers.
size_t HeaderBytes(Opcode opcode);

// Writes BTH and extended headers to `out` (at least HeaderBytes(header.opcode) long). Returns the
// bytes written.
size_t EncodeHeader(const PacketHeader& header, std::span<std::byte> out);

// Reads a whole UDP payload, ICRC included. The ICRC is not verified here (see icrc.h): it needs
// the IP header.
[[nodiscard]] DecodeError Decode(std::span<const std::byte> udp_payload, PacketView* out);

}  // namespace sumac::soft_nic
