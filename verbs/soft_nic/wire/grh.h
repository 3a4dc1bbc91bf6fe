// The 40 bytes before a datagram's payload in the receive buffer: whom it came from (IBTA vol. 1,
// 8.3; Annex A17).
//
// An IPv6 packet leaves its header there; an IPv4 packet leaves 20 bytes of zeroes and its header,
// with a checksum that tells the two apart. Programs read it with ibv_init_ah_from_wc or with code
// of their own. Our sockets don't show the headers of what arrives, so one is made up from what is
// known: the addresses and the length are true, the hop limit is 64, traffic class and flow label
// are 0. Pure functions, no allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

inline constexpr size_t kGrhBytes = 40;

struct GrhFields {
  Gid source{};
  Gid destination{};
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 64;
  uint32_t flow_label = 0;  // 20 bits; IPv6 only
};

// `udp_payload_bytes`: BTH up to and with the ICRC. IPv4 or IPv6 as the destination is.
void WriteGrh(const GrhFields& fields, size_t udp_payload_bytes,
              std::span<std::byte, kGrhBytes> out);

// What a device of any make left there, or nothing when it is neither kind of header.
[[nodiscard]] std::optional<GrhFields> ReadGrh(std::span<const std::byte, kGrhBytes> grh);

}  // namespace sumac::soft_nic
