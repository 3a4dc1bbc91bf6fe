#include "verbs/soft_nic/wire/icrc.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "isa-l/crc.h"

#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

constexpr uint8_t kIpProtocolUdp = 17;
constexpr size_t kIpv4HeaderBytes = 20;
constexpr size_t kIpv6HeaderBytes = 40;
constexpr size_t kUdpHeaderBytes = 8;
constexpr size_t kOnesBytes = 8;  // stand for the LRH that RoCE does not have (7.8.1, A17.3.3)
constexpr size_t kPrefixBytesMax = kOnesBytes + kIpv6HeaderBytes + kUdpHeaderBytes;
constexpr size_t kBthMaskedByte = 4;  // FECN, BECN and reserved bits change on the way
constexpr size_t kIpv4IdentificationOffset = 4;

// ISA-L's AVX-512 code leaves the upper halves of the vector registers in use. Every SSE
// instruction after it then waits to merge with them: some 100 ns a packet (Intel 64 and IA-32
// Optimization Reference Manual, "Mixing Intel AVX and Intel SSE").
#if defined(__x86_64__)
const bool kHasAvx = __builtin_cpu_supports("avx") != 0;
__attribute__((target("avx"))) void ZeroUpperHalves() { _mm256_zeroupper(); }
void LeaveVectorCode() {
  if (kHasAvx) ZeroUpperHalves();
}
#else
void LeaveVectorCode() {}
#endif

// ISA-L takes and returns the CRC as zlib does: 0 to start, complemented inside, so calls chain.
uint32_t Extend(uint32_t crc, const void* data, size_t bytes) {
  const uint32_t extended = crc32_gzip_refl(crc, static_cast<const unsigned char*>(data), bytes);
  LeaveVectorCode();
  return extended;
}

void Put16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

// The eight ones and the IP and UDP headers, mutable fields set to ones. Returns the length.
size_t BuildPrefix(const IcrcHeaders& ip, size_t udp_payload_bytes, uint8_t* out) {
  const size_t udp_bytes = kUdpHeaderBytes + udp_payload_bytes;
  std::memset(out, 0xff, kPrefixBytesMax);
  uint8_t* at = out + kOnesBytes;
  if (IsIpv4Mapped(ip.source)) {
    at[0] = 0x45;
    Put16(at + 2, kIpv4HeaderBytes + udp_bytes);
    Put16(at + kIpv4IdentificationOffset, ip.ipv4_identification);
    Put16(at + 6, ip.dont_fragment ? 0x4000 : 0);
    at[9] = kIpProtocolUdp;
    std::memcpy(at + 12, ip.source.data() + 12, 4);
    std::memcpy(at + 16, ip.destination.data() + 12, 4);
    at += kIpv4HeaderBytes;
  } else {
    at[0] = 0x6f;  // version; traffic class and flow label are ones
    Put16(at + 4, udp_bytes);
    at[6] = kIpProtocolUdp;
    std::memcpy(at + 8, ip.source.data(), 16);
    std::memcpy(at + 24, ip.destination.data(), 16);
    at += kIpv6HeaderBytes;
  }
  Put16(at, ip.source_port);
  Put16(at + 2, ip.destination_port);
  Put16(at + 4, udp_bytes);
  return static_cast<size_t>(at + kUdpHeaderBytes - out);
}

// CRC of the prefix and the part of `header` from the BTH on, with BTH byte 4 as ones.
uint32_t CrcOfHeaders(const IcrcHeaders& ip, std::span<const std::byte> header,
                      size_t udp_payload_bytes) {
  uint8_t head[kPrefixBytesMax + kBthBytes];
  const size_t prefix = BuildPrefix(ip, udp_payload_bytes, head);
  const size_t bth = std::min(header.size(), kBthBytes);
  std::memcpy(head + prefix, header.data(), bth);
  if (bth > kBthMaskedByte) head[prefix + kBthMaskedByte] = 0xff;
  const uint32_t crc = Extend(0, head, prefix + bth);
  const auto rest = header.subspan(bth);
  return rest.empty() ? crc : Extend(crc, rest.data(), rest.size());
}

uint32_t StoredIcrc(std::span<const std::byte> udp_payload) {
  uint32_t stored;
  std::memcpy(&stored, udp_payload.data() + udp_payload.size() - kIcrcBytes, kIcrcBytes);
  return stored;  // little-endian on the wire, and so are we (packet.cc asserts it)
}

// --- Arithmetic modulo the CRC polynomial, bits reflected: bit 31 is x^0, bit 0 is x^31. ---
constexpr uint32_t kPolynomial = 0xedb88320;

constexpr uint32_t DivideByX(uint32_t a) {
  return (a & 0x80000000u) ? ((a ^ kPolynomial) << 1) | 1 : a << 1;
}

constexpr uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int i = 31; i >= 0; --i) {
    product ^= b & (0u - ((a >> i) & 1));
    b = (b & 1) ? (b >> 1) ^ kPolynomial : b >> 1;  // b * x
  }
  return product;
}

// After the identification come `n` more bytes. A difference D in its 16 bits makes the difference
// D * x^(8n+32) in the CRC, so the inverse power brings D back. n = 14 + 8 + the UDP payload
// without ICRC, which is a multiple of 4.
constexpr size_t kBytesAfterIdentification = kIpv4HeaderBytes - kIpv4IdentificationOffset - 2;
constexpr size_t kWordsMax = (kPacketBytesMax - kIcrcBytes) / 4;
using InversePowers = std::array<uint32_t, kWordsMax + 1>;

constexpr InversePowers MakeInversePowers() {
  InversePowers powers{};
  uint32_t value = 0x80000000u;  // x^0
  for (size_t i = 0; i < 8 * (kBytesAfterIdentification + kUdpHeaderBytes) + 32; ++i) {
    value = DivideByX(value);
  }
  for (uint32_t& power : powers) {
    power = value;
    for (int i = 0; i < 32; ++i) value = DivideByX(value);
  }
  return powers;
}
constexpr InversePowers kInversePowers = MakeInversePowers();

}  // namespace

bool IsIpv4Mapped(const Gid& gid) {
  static constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.data(), kMappedPrefix, sizeof(kMappedPrefix)) == 0;
}

uint32_t ComputeIcrc(const IcrcHeaders& ip, std::span<const std::byte> header,
                     std::span<const iovec> payload) {
  size_t bytes = header.size() + kIcrcBytes;
  for (const iovec& piece : payload) bytes += piece.iov_len;
  uint32_t crc = CrcOfHeaders(ip, header, bytes);
  for (const iovec& piece : payload) {
    if (piece.iov_len != 0) crc = Extend(crc, piece.iov_base, piece.iov_len);
  }
  return crc;
}

bool VerifyIcrc(const IcrcHeaders& ip, std::span<const std::byte> udp_payload) {
  if (udp_payload.size() < kBthBytes + kIcrcBytes) return false;
  const auto covered = udp_payload.first(udp_payload.size() - kIcrcBytes);
  return CrcOfHeaders(ip, covered, udp_payload.size()) == StoredIcrc(udp_payload);
}

std::optional<uint16_t> FindIdentification(const IcrcHeaders& ip,
                                           std::span<const std::byte> udp_payload) {
  if (udp_payload.size() < kBthBytes + kIcrcBytes) return std::nullopt;
  const auto covered = udp_payload.first(udp_payload.size() - kIcrcBytes);
  const uint32_t difference =
      CrcOfHeaders(ip, covered, udp_payload.size()) ^ StoredIcrc(udp_payload);
  if (difference == 0) return ip.ipv4_identification;
  if (!IsIpv4Mapped(ip.source) || udp_payload.size() > kPacketBytesMax ||
      udp_payload.size() % 4 != 0) {
    return std::nullopt;
  }
  const uint32_t at_field = Multiply(difference, kInversePowers[covered.size() / 4]);
  // Degree below 16: the two bytes of the field, first byte in bits 16-23.
  if ((at_field & 0xffff) != 0) return std::nullopt;
  return ip.ipv4_identification ^ __builtin_bswap16(static_cast<uint16_t>(at_field >> 16));
}

}  // namespace sumac::soft_nic
