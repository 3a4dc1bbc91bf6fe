#include "verbs/soft_nic/wire/icrc.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

#include "tests/golden/capture.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

CapturedPacket FromHex(const std::string& hex) {
  const std::string raw = absl::HexStringToBytes(hex);
  const auto bytes = std::as_bytes(std::span(raw));
  return ParseFrame({bytes.begin(), bytes.end()});
}

// A congestion notification packet captured from a ConnectX-4 Lx: ICRC bytes 82fd002a.
TEST(IcrcTest, ConnectX4Cnp) {
  const CapturedPacket cnp = FromHex(
      "e41d2dab2bc27cfe90643b32080045c2003c718c4000401191610a0011010a00"
      "1201000012b7002800008100ffff400001180000000000000000000000000000"
      "00000000000082fd002a");
  EXPECT_TRUE(VerifyIcrc(cnp.ip, cnp.udp_payload()));
  EXPECT_EQ(FindIdentification(cnp.ip, cnp.udp_payload()), 0x718c);
  PacketView view;
  ASSERT_EQ(Decode(cnp.udp_payload(), &view), DecodeError::kNone);
  EXPECT_EQ(view.header.opcode, Opcode::kCnp);
  EXPECT_TRUE(view.header.becn);
  EXPECT_EQ(view.header.dest_qpn, 0x118u);
  EXPECT_EQ(view.payload.size(), 16u);
}

// A UC SEND_ONLY with ECN set, from another adapter: ICRC bytes 78f353f3.
TEST(IcrcTest, UcSendOnly) {
  const CapturedPacket uc = FromHex(
      "248a07a8fa22248a07a8fa22080045010040047840004011b4d5c0a80007c0a8"
      "0007c00012b7002caca22460ffff000000d300cf17104630818be28935d90e9a"
      "95505401be885e50000078f353f3");
  EXPECT_TRUE(VerifyIcrc(uc.ip, uc.udp_payload()));
  PacketView view;
  ASSERT_EQ(Decode(uc.udp_payload(), &view), DecodeError::kNone);
  EXPECT_EQ(view.header.opcode, Opcode::kUcSendOnly);
  EXPECT_EQ(view.header.pad_bytes, 2);
  EXPECT_EQ(view.payload.size(), 18u);
}

std::vector<std::byte> RandomPacket(std::mt19937& random, size_t payload_bytes) {
  std::vector<std::byte> bytes(kBthBytes + payload_bytes + kIcrcBytes);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

void Seal(const IcrcHeaders& ip, std::vector<std::byte>& bytes) {
  const auto covered = std::span(bytes).first(bytes.size() - kIcrcBytes);
  const uint32_t icrc = ComputeIcrc(ip, covered, {});
  std::memcpy(covered.data() + covered.size(), &icrc, kIcrcBytes);
}

IcrcHeaders Ipv4Headers() {
  IcrcHeaders ip;
  ip.source = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 1};
  ip.destination = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 2};
  ip.source_port = 0xc123;
  return ip;
}

TEST(IcrcTest, FindsEveryIdentification) {
  std::mt19937 random(7);
  IcrcHeaders ip = Ipv4Headers();
  for (uint32_t id = 0; id <= 0xffff; id += 251) {
    auto bytes = RandomPacket(random, random() % 1025 * 4);
    ip.ipv4_identification = static_cast<uint16_t>(id);
    Seal(ip, bytes);
    ASSERT_TRUE(VerifyIcrc(ip, bytes));
    EXPECT_EQ(FindIdentification(Ipv4Headers(), bytes), id) << bytes.size();
  }
}

// Damage passes for another identification once in 2^16, not oftener.
TEST(IcrcTest, DamagedPacketsHaveNoIdentification) {
  std::mt19937 random(11);
  int found = 0;
  constexpr int kTrials = 20000;
  for (int i = 0; i < kTrials; ++i) {
    auto bytes = RandomPacket(random, 64);
    Seal(Ipv4Headers(), bytes);
    bytes[kBthBytes + random() % 64] ^= static_cast<std::byte>(1 + random() % 255);
    found += FindIdentification(Ipv4Headers(), bytes).has_value();
  }
  EXPECT_LE(found, 5) << "expected about " << kTrials / 65536.0;
}

TEST(IcrcTest, ShortOrOddInputIsRefused) {
  const IcrcHeaders ip = Ipv4Headers();
  for (size_t length = 0; length < kBthBytes + kIcrcBytes; ++length) {
    const std::vector<std::byte> bytes(length);
    EXPECT_FALSE(VerifyIcrc(ip, bytes));
    EXPECT_FALSE(FindIdentification(ip, bytes).has_value());
  }
  EXPECT_FALSE(FindIdentification(ip, std::vector<std::byte>(kPacketBytesMax + 4)).has_value());
  EXPECT_FALSE(FindIdentification(ip, std::vector<std::byte>(33)).has_value());
}

TEST(IcrcTest, Ipv4Mapped) {
  EXPECT_TRUE(IsIpv4Mapped(Ipv4Headers().source));
  EXPECT_FALSE(IsIpv4Mapped(Gid{}));
  EXPECT_FALSE(IsIpv4Mapped(Gid{0xfe, 0x80}));
}

}  // namespace
}  // namespace sumac::soft_nic
