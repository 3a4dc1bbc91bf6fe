// Reads the RoCE v2 packets of a small pcap file, for tests. Header-only; fails by throwing
// std::runtime_error.
//
// Understands what the golden captures are: little-endian pcap with microseconds, Ethernet, IPv4 or
// IPv6 without options, UDP to port 4791.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

struct CapturedPacket {
  std::vector<std::byte> frame;  // from the Ethernet header
  size_t ip_offset = 14;
  size_t udp_offset = 0;
  bool ipv4 = true;
  IcrcHeaders ip;

  std::span<const std::byte> udp_payload() const {
    return std::span(frame).subspan(udp_offset + 8);
  }
  int hop_limit() const { return std::to_integer<int>(frame[ip_offset + (ipv4 ? 8 : 7)]); }
};

namespace capture_internal {

inline size_t Big16(std::span<const std::byte> bytes, size_t at) {
  return std::to_integer<size_t>(bytes[at]) << 8 | std::to_integer<size_t>(bytes[at + 1]);
}

inline uint32_t Little32(std::span<const std::byte> bytes, size_t at) {
  uint32_t value;
  std::memcpy(&value, bytes.subspan(at, 4).data(), 4);
  return value;
}

}  // namespace capture_internal

// Finds the headers in `frame`; trailing Ethernet padding is cut.
inline CapturedPacket ParseFrame(std::vector<std::byte> frame) {
  using capture_internal::Big16;
  CapturedPacket packet;
  packet.frame = std::move(frame);
  std::span<const std::byte> f(packet.frame);
  if (f.size() < 14 + 20 + 8) throw std::runtime_error("frame too short");
  const size_t ip = packet.ip_offset;
  packet.ipv4 = Big16(f, 12) == 0x0800;
  size_t ip_bytes = 0;
  if (packet.ipv4) {
    packet.udp_offset = ip + 20;
    ip_bytes = Big16(f, ip + 2);
    packet.ip.ipv4_identification = static_cast<uint16_t>(Big16(f, ip + 4));
    packet.ip.dont_fragment = (Big16(f, ip + 6) & 0x4000) != 0;
    for (Gid* gid : {&packet.ip.source, &packet.ip.destination}) (*gid)[10] = (*gid)[11] = 0xff;
    std::memcpy(packet.ip.source.data() + 12, f.data() + ip + 12, 4);
    std::memcpy(packet.ip.destination.data() + 12, f.data() + ip + 16, 4);
  } else {
    if (Big16(f, 12) != 0x86dd) throw std::runtime_error("not IP");
    if (f.size() < ip + 40 + 8) throw std::runtime_error("frame too short");
    packet.udp_offset = ip + 40;
    ip_bytes = 40 + Big16(f, ip + 4);
    std::memcpy(packet.ip.source.data(), f.data() + ip + 8, 16);
    std::memcpy(packet.ip.destination.data(), f.data() + ip + 24, 16);
  }
  if (packet.frame.size() < ip + ip_bytes) throw std::runtime_error("frame cut short");
  packet.frame.resize(ip + ip_bytes);
  packet.ip.source_port = static_cast<uint16_t>(Big16(packet.frame, packet.udp_offset));
  packet.ip.destination_port = static_cast<uint16_t>(Big16(packet.frame, packet.udp_offset + 2));
  return packet;
}

inline std::vector<CapturedPacket> ReadCapture(const std::string& path) {
  using capture_internal::Little32;
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("can't open " + path);
  const std::vector<char> raw{std::istreambuf_iterator<char>(in), {}};
  const auto bytes = std::as_bytes(std::span(raw));
  constexpr size_t kFileHeader = 24;
  constexpr size_t kRecordHeader = 16;
  if (bytes.size() < kFileHeader || Little32(bytes, 0) != 0xa1b2c3d4 || Little32(bytes, 20) != 1) {
    throw std::runtime_error(path + ": not a little-endian Ethernet pcap");
  }
  std::vector<CapturedPacket> packets;
  for (size_t at = kFileHeader; at < bytes.size();) {
    if (bytes.size() - at < kRecordHeader) throw std::runtime_error(path + ": cut short");
    const size_t length = Little32(bytes, at + 8);
    at += kRecordHeader;
    if (bytes.size() - at < length) throw std::runtime_error(path + ": cut short");
    const auto frame = bytes.subspan(at, length);
    packets.push_back(ParseFrame({frame.begin(), frame.end()}));
    at += length;
  }
  return packets;
}

}  // namespace sumac::soft_nic
