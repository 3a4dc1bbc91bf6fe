#include "verbs/soft_nic/wire/packet.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace sumac::soft_nic {
namespace {

static_assert(std::endian::native == std::endian::little, "LoadBig/StoreBig swap unconditionally");

constexpr uint8_t kSolicitedBit = 0x80;  // BTH byte 1
constexpr uint8_t kMigrationBit = 0x40;
constexpr unsigned kPadShift = 4;
constexpr uint8_t kVersionMask = 0x0f;
constexpr uint8_t kFecnBit = 0x80;  // BTH byte 4
constexpr uint8_t kBecnBit = 0x40;
constexpr uint8_t kAckRequestBit = 0x80;    // BTH byte 8
constexpr uint16_t kPkeyBaseMask = 0x7fff;  // the top bit is full membership (10.9.1.1)
constexpr size_t kCnpReservedBytes = 16;    // Annex A17.9.3
constexpr uint32_t kMask24 = 0xffffff;

uint16_t Swap(uint16_t v) { return __builtin_bswap16(v); }
uint32_t Swap(uint32_t v) { return __builtin_bswap32(v); }
uint64_t Swap(uint64_t v) { return __builtin_bswap64(v); }

// Walks the headers. The caller has checked that all of them are there.
class Reader {
 public:
  explicit Reader(const std::byte* at) : at_(at) {}
  uint8_t U8() { return static_cast<uint8_t>(*at_++); }
  uint16_t U16() { return Big<uint16_t>(); }
  uint32_t U32() { return Big<uint32_t>(); }
  uint64_t U64() { return Big<uint64_t>(); }
  uint32_t Raw32() {
    uint32_t v;
    std::memcpy(&v, at_, sizeof(v));
    at_ += sizeof(v);
    return v;
  }

 private:
  template <typename T>
  T Big() {
    T v;
    std::memcpy(&v, at_, sizeof(v));
    at_ += sizeof(v);
    return Swap(v);
  }
  const std::byte* at_;
};

class Writer {
 public:
  explicit Writer(std::byte* at) : at_(at) {}
  void U8(uint8_t v) { *at_++ = static_cast<std::byte>(v); }
  void U16(uint16_t v) { Big(v); }
  void U32(uint32_t v) { Big(v); }
  void U64(uint64_t v) { Big(v); }
  void Raw32(uint32_t v) {
    std::memcpy(at_, &v, sizeof(v));
    at_ += sizeof(v);
  }

 private:
  template <typename T>
  void Big(T v) {
    v = Swap(v);
    std::memcpy(at_, &v, sizeof(v));
    at_ += sizeof(v);
  }
  std::byte* at_;
};

constexpr size_t HeaderBytesOf(uint32_t flags) {
  size_t bytes = kBthBytes;
  if (flags & kHasXrcEth) bytes += 4;
  if (flags & kHasDeth) bytes += 8;
  if (flags & kHasReth) bytes += 16;
  if (flags & kHasAtomicEth) bytes += 28;
  if (flags & kHasAeth) bytes += 4;
  if (flags & kHasAtomicAckEth) bytes += 8;
  if (flags & kHasImmediate) bytes += 4;
  if (flags & kHasIeth) bytes += 4;
  return bytes;
}

std::array<uint8_t, 256> MakeHeaderBytesTable() {
  std::array<uint8_t, 256> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<uint8_t>(HeaderBytesOf(FlagsOf(static_cast<Opcode>(i))));
  }
  return table;
}

void ReadExtendedHeaders(uint32_t flags, Reader& in, PacketHeader* h) {
  if (flags & kHasXrcEth) h->xrc_srqn = in.U32() & kMask24;
  if (flags & kHasDeth) {
    h->qkey = in.U32();
    h->source_qpn = in.U32() & kMask24;
  }
  if (flags & kHasReth) {
    h->remote_addr = in.U64();
    h->rkey = in.U32();
    h->dma_length = in.U32();
  }
  if (flags & kHasAtomicEth) {
    h->remote_addr = in.U64();
    h->rkey = in.U32();
    h->swap_or_add = in.U64();
    h->compare = in.U64();
  }
  if (flags & kHasAeth) {
    const uint32_t aeth = in.U32();
    h->syndrome = static_cast<uint8_t>(aeth >> 24);
    h->msn = aeth & kMask24;
  }
  if (flags & kHasAtomicAckEth) h->atomic_result = in.U64();
  if (flags & kHasImmediate) h->immediate = in.Raw32();
  if (flags & kHasIeth) h->rkey = in.U32();
}

void WriteExtendedHeaders(uint32_t flags, const PacketHeader& h, Writer& out) {
  if (flags & kHasXrcEth) out.U32(h.xrc_srqn & kMask24);
  if (flags & kHasDeth) {
    out.U32(h.qkey);
    out.U32(h.source_qpn & kMask24);
  }
  if (flags & kHasReth) {
    out.U64(h.remote_addr);
    out.U32(h.rkey);
    out.U32(h.dma_length);
  }
  if (flags & kHasAtomicEth) {
    out.U64(h.remote_addr);
    out.U32(h.rkey);
    out.U64(h.swap_or_add);
    out.U64(h.compare);
  }
  if (flags & kHasAeth) out.U32(static_cast<uint32_t>(h.syndrome) << 24 | (h.msn & kMask24));
  if (flags & kHasAtomicAckEth) out.U64(h.atomic_result);
  if (flags & kHasImmediate) out.Raw32(h.immediate);
  if (flags & kHasIeth) out.U32(h.rkey);
}

}  // namespace

AckKind KindOfSyndrome(uint8_t syndrome) {
  // Bit 7 is reserved; bits 6-5 choose (table 43).
  switch (syndrome >> 5) {
    case 0:
      return AckKind::kAck;
    case 1:
      return AckKind::kRnrNak;
    case 3:
      return AckKind::kNak;
    default:
      return AckKind::kReserved;
  }
}

const char* NameOf(DecodeError error) {
  switch (error) {
    case DecodeError::kNone:
      return "none";
    case DecodeError::kTooShort:
      return "too short";
    case DecodeError::kBadVersion:
      return "bad transport version";
    case DecodeError::kUnknownOpcode:
      return "unknown opcode";
    case DecodeError::kBadPad:
      return "bad pad count";
    case DecodeError::kBadPkey:
      return "bad partition key";
    case DecodeError::kBadPayload:
      return "bad payload length";
  }
  return "?";
}

size_t HeaderBytes(Opcode opcode) {
  static const std::array<uint8_t, 256> table = MakeHeaderBytesTable();
  return table[static_cast<uint8_t>(opcode)];
}

size_t EncodeHeader(const PacketHeader& header, std::span<std::byte> out) {
  const uint32_t flags = FlagsOf(header.opcode);
  Writer w(out.data());
  w.U8(static_cast<uint8_t>(header.opcode));
  w.U8(static_cast<uint8_t>((header.solicited ? kSolicitedBit : 0) |
                            (header.migration ? kMigrationBit : 0) |
                            (header.pad_bytes & 3) << kPadShift));
  w.U16(header.pkey);
  w.U32(static_cast<uint32_t>((header.fecn ? kFecnBit : 0) | (header.becn ? kBecnBit : 0)) << 24 |
        (header.dest_qpn & kMask24));
  w.U32((header.ack_request ? uint32_t{kAckRequestBit} << 24 : 0) | (header.psn & kMask24));
  WriteExtendedHeaders(flags, header, w);
  return HeaderBytesOf(flags);
}

DecodeError Decode(std::span<const std::byte> udp_payload, PacketView* out) {
  // From memory: one that is made on the stack first is written in pieces and read as a whole,
  // which stalls (70 ns on Intel processors).
  static constexpr PacketView kBlank;
  *out = kBlank;
  if (udp_payload.size() < kBthBytes + kIcrcBytes) return DecodeError::kTooShort;
  PacketHeader& h = out->header;
  Reader in(udp_payload.data());
  h.opcode = static_cast<Opcode>(in.U8());
  const uint8_t bits = in.U8();
  h.pkey = in.U16();
  const uint32_t qpn = in.U32();
  const uint32_t psn = in.U32();
  h.solicited = bits & kSolicitedBit;
  h.migration = bits & kMigrationBit;
  h.pad_bytes = (bits >> kPadShift) & 3;
  h.fecn = (qpn >> 24) & kFecnBit;
  h.becn = (qpn >> 24) & kBecnBit;
  h.dest_qpn = qpn & kMask24;
  h.ack_request = (psn >> 24) & kAckRequestBit;
  h.psn = psn & kMask24;

  const uint32_t flags = FlagsOf(h.opcode);
  if (flags == 0) return DecodeError::kUnknownOpcode;
  if (bits & kVersionMask) return DecodeError::kBadVersion;
  if ((h.pkey & kPkeyBaseMask) != (kDefaultPkey & kPkeyBaseMask)) return DecodeError::kBadPkey;
  const size_t header_bytes = HeaderBytesOf(flags);
  if (udp_payload.size() < header_bytes + kIcrcBytes) return DecodeError::kTooShort;
  const size_t padded = udp_payload.size() - header_bytes - kIcrcBytes;
  if (padded % 4 != 0 || h.pad_bytes > padded) return DecodeError::kBadPad;
  const size_t payload_bytes = padded - h.pad_bytes;
  if (h.opcode == Opcode::kCnp && payload_bytes != kCnpReservedBytes) {
    return DecodeError::kBadPayload;
  }
  if (payload_bytes > kMtuBytesMax || (padded != 0 && !(flags & kMayCarryPayload))) {
    return DecodeError::kBadPayload;
  }
  ReadExtendedHeaders(flags, in, &h);
  out->flags = flags;
  out->payload = udp_payload.subspan(header_bytes, payload_bytes);
  return DecodeError::kNone;
}

}  // namespace sumac::soft_nic
