#include "verbs/soft_nic/wire/grh.h"

#include <algorithm>
#include <array>

namespace sumac::soft_nic {
namespace {

constexpr size_t kIpv4At = 20;  // in the 40 bytes
constexpr size_t kIpv4Bytes = 20;
constexpr size_t kUdpBytes = 8;
constexpr uint8_t kIpv4WithoutOptions = 0x45;
constexpr uint8_t kUdp = 17;
constexpr uint8_t kDontFragment = 0x40;
constexpr size_t kChecksumAt = 10;
constexpr size_t kMappedBytes = 12;  // of a GID, before the IPv4 address

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

void Put(Bytes out, size_t at, uint8_t value) { out[at] = std::byte{value}; }
void Put16(Bytes out, size_t at, size_t value) {
  Put(out, at, static_cast<uint8_t>(value >> 8));
  Put(out, at + 1, static_cast<uint8_t>(value));
}
uint8_t Get(ConstBytes in, size_t at) { return std::to_integer<uint8_t>(in[at]); }

// The ones' complement sum over an IPv4 header, checksum included (RFC 791): 0xffff when it is
// right.
uint32_t SumOf(ConstBytes header) {
  uint32_t sum = 0;
  for (size_t i = 0; i < header.size(); i += 2) {
    sum += static_cast<uint32_t>(Get(header, i)) << 8 | Get(header, i + 1);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

void PutAddress(Bytes out, std::span<const uint8_t> address) {
  std::ranges::transform(address, out.begin(), [](uint8_t byte) { return std::byte{byte}; });
}

Gid Ipv4Gid(ConstBytes address) {
  Gid gid{};
  gid[10] = gid[11] = 0xff;
  for (size_t i = 0; i < address.size(); ++i) gid[kMappedBytes + i] = Get(address, i);
  return gid;
}
Gid Ipv6Gid(ConstBytes address) {
  Gid gid{};
  for (size_t i = 0; i < gid.size(); ++i) gid[i] = Get(address, i);
  return gid;
}

}  // namespace

void WriteGrh(const GrhFields& fields, size_t udp_payload_bytes,
              std::span<std::byte, kGrhBytes> out) {
  std::ranges::fill(out, std::byte{0});
  const size_t udp_bytes = udp_payload_bytes + kUdpBytes;
  if (IsIpv4Mapped(fields.destination)) {
    const Bytes ip = out.subspan(kIpv4At);
    Put(ip, 0, kIpv4WithoutOptions);
    Put(ip, 1, fields.traffic_class);
    Put16(ip, 2, udp_bytes + kIpv4Bytes);
    Put(ip, 6, kDontFragment);
    Put(ip, 8, fields.hop_limit);
    Put(ip, 9, kUdp);
    PutAddress(ip.subspan(12), std::span(fields.source).subspan(kMappedBytes));
    PutAddress(ip.subspan(16), std::span(fields.destination).subspan(kMappedBytes));
    Put16(ip, kChecksumAt, ~SumOf(ip) & 0xffff);
    return;
  }
  Put(out, 0, static_cast<uint8_t>(6u << 4 | fields.traffic_class >> 4));
  Put(out, 1, static_cast<uint8_t>(fields.traffic_class << 4 | (fields.flow_label >> 16 & 0xf)));
  Put16(out, 2, fields.flow_label & 0xffff);
  Put16(out, 4, udp_bytes);
  Put(out, 6, kUdp);
  Put(out, 7, fields.hop_limit);
  PutAddress(out.subspan(8), fields.source);
  PutAddress(out.subspan(24), fields.destination);
}

std::optional<GrhFields> ReadGrh(std::span<const std::byte, kGrhBytes> grh) {
  GrhFields fields;
  // The first 20 bytes beside an IPv4 header may hold anything, so its checksum decides. An IPv6
  // header whose addresses look like one has a chance of 2^-16 beside that of the first byte.
  const ConstBytes ip = grh.subspan(kIpv4At);
  if (Get(ip, 0) == kIpv4WithoutOptions && SumOf(ip) == 0xffff) {
    fields.traffic_class = Get(ip, 1);
    fields.hop_limit = Get(ip, 8);
    fields.source = Ipv4Gid(ip.subspan(12, 4));
    fields.destination = Ipv4Gid(ip.subspan(16, 4));
    return fields;
  }
  if (Get(grh, 0) >> 4 != 6) return std::nullopt;
  fields.traffic_class = static_cast<uint8_t>(Get(grh, 0) << 4 | Get(grh, 1) >> 4);
  fields.flow_label = static_cast<uint32_t>(Get(grh, 1) & 0xf) << 16 |
                      static_cast<uint32_t>(Get(grh, 2)) << 8 | Get(grh, 3);
  fields.hop_limit = Get(grh, 7);
  fields.source = Ipv6Gid(ConstBytes(grh).subspan(8, 16));
  fields.destination = Ipv6Gid(ConstBytes(grh).subspan(24, 16));
  return fields;
}

}  // namespace sumac::soft_nic
