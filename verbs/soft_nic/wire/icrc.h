// The invariant CRC of a RoCE v2 packet (IBTA vol. 1, 7.8.1; Annex A17.3.3).
//
// CRC-32 (Ethernet polynomial, reflected) over eight 0xff bytes, the IP and UDP headers with their
// mutable fields set to ones, BTH with byte 4 set to ones, and everything up to the ICRC itself;
// stored little-endian. It covers the IPv4 identification, so the value depends on what the kernel
// puts there (0 for our sockets, see link/udp_link.h).
//
// Pure functions over ISA-L's CRC; safe from any thread; no allocation.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sumac::soft_nic {

// A RoCE v2 GID is an IPv6 address; IPv4 peers are IPv4-mapped (::ffff:a.b.c.d) and travel in IPv4
// packets.
using Gid = std::array<uint8_t, 16>;
bool IsIpv4Mapped(const Gid& gid);

// The invariant fields of the IP and UDP headers around a packet.
struct IcrcHeaders {
  Gid source{};
  Gid destination{};
  uint16_t source_port = 0;
  uint16_t destination_port = 4791;
  uint16_t ipv4_identification = 0;  // ignored for IPv6
  bool dont_fragment = true;         // IPv4 DF bit
};

// The ICRC of a packet whose UDP payload, without the ICRC, is `header` (BTH first) followed by the
// `payload` pieces (pad included). Returned in host order: store it little-endian.
uint32_t ComputeIcrc(const IcrcHeaders& ip, std::span<const std::byte> header,
                     std::span<const iovec> payload);

// True when the last four bytes of `udp_payload` are its ICRC.
[[nodiscard]] bool VerifyIcrc(const IcrcHeaders& ip, std::span<const std::byte> udp_payload);

// The IPv4 identification with which the ICRC at the end of `udp_payload` is right, if there is
// one. For receivers that can't see the IP header; the one in `ip` is the caller's guess, and costs
// nothing more than VerifyIcrc when it is right. A CRC is linear, so the difference between the
// ICRC that came and the one for the guess determines the true one: one multiplication in GF(2)[x]
// after the CRC itself. Another answer than the guess proves less than VerifyIcrc: a randomly
// damaged packet has some matching identification with probability 2^-16. IPv6 has no such field:
// there the answer is the guess or nothing.
[[nodiscard]] std::optional<uint16_t> FindIdentification(const IcrcHeaders& ip,
                                                         std::span<const std::byte> udp_payload);

}  // namespace sumac::soft_nic
