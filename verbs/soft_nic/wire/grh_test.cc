#include "verbs/soft_nic/wire/grh.h"

#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>

#include <array>
#include <cstring>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

constexpr Gid kIpv4A = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 1};
constexpr Gid kIpv4B = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 2};
constexpr Gid kIpv6A = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
constexpr Gid kIpv6B = {0xfd, 0, 1, 0, 0, 0, 0, 0, 0x45, 9, 9, 9, 9, 9, 9, 9};

std::array<std::byte, kGrhBytes> Written(const GrhFields& fields, size_t udp_payload_bytes = 56) {
  std::array<std::byte, kGrhBytes> grh;
  grh.fill(std::byte{0xee});
  WriteGrh(fields, udp_payload_bytes, grh);
  return grh;
}

void ExpectSame(const GrhFields& a, const GrhFields& b) {
  EXPECT_EQ(a.source, b.source);
  EXPECT_EQ(a.destination, b.destination);
  EXPECT_EQ(a.traffic_class, b.traffic_class);
  EXPECT_EQ(a.hop_limit, b.hop_limit);
  EXPECT_EQ(a.flow_label, b.flow_label);
}

TEST(GrhTest, Ipv4HeaderStandsAtTwentyAsTheKernelsStructSeesIt) {
  const auto grh = Written({kIpv4A, kIpv4B, 0xb8, 17, 0});
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(grh[i], std::byte{0}) << i;
  iphdr ip;
  std::memcpy(&ip, &grh[20], sizeof(ip));
  EXPECT_EQ(ip.version, 4);
  EXPECT_EQ(ip.ihl, 5);
  EXPECT_EQ(ip.tos, 0xb8);
  EXPECT_EQ(ntohs(ip.tot_len), 20 + 8 + 56);
  EXPECT_EQ(ip.id, 0);
  EXPECT_EQ(ntohs(ip.frag_off), IP_DF);
  EXPECT_EQ(ip.ttl, 17);
  EXPECT_EQ(ip.protocol, IPPROTO_UDP);
  EXPECT_EQ(ntohl(ip.saddr), 0x0a090001u);
  EXPECT_EQ(ntohl(ip.daddr), 0x0a090002u);
  // RFC 1071, over the halves as they lie in memory: right when the sum is all ones.
  uint16_t halves[10];
  std::memcpy(halves, &grh[20], sizeof(halves));
  uint32_t sum = 0;
  for (const uint16_t half : halves) sum += half;
  sum = (sum & 0xffff) + (sum >> 16);
  EXPECT_EQ((sum & 0xffff) + (sum >> 16), 0xffffu);
}

TEST(GrhTest, Ipv6HeaderIsTheWholeArea) {
  const auto grh = Written({kIpv6A, kIpv6B, 0xb9, 17, 0x12345});
  ibv_grh header;
  std::memcpy(&header, grh.data(), sizeof(header));
  EXPECT_EQ(ntohl(header.version_tclass_flow), 0x6b912345u);
  EXPECT_EQ(ntohs(header.paylen), 8 + 56);
  EXPECT_EQ(header.next_hdr, IPPROTO_UDP);
  EXPECT_EQ(header.hop_limit, 17);
  EXPECT_EQ(std::memcmp(header.sgid.raw, kIpv6A.data(), 16), 0);
  EXPECT_EQ(std::memcmp(header.dgid.raw, kIpv6B.data(), 16), 0);
}

TEST(GrhTest, ReadsWhatWasWritten) {
  for (const GrhFields& fields :
       {GrhFields{kIpv4A, kIpv4B, 0, 64, 0}, GrhFields{kIpv4B, kIpv4A, 0xff, 1, 0},
        GrhFields{kIpv6A, kIpv6B, 0, 64, 0}, GrhFields{kIpv6B, kIpv6A, 0xff, 255, 0xfffff}}) {
    for (size_t bytes = 24; bytes <= 4150; ++bytes) {
      const auto read = ReadGrh(Written(fields, bytes));
      ASSERT_TRUE(read.has_value()) << bytes;
      ExpectSame(*read, fields);
    }
  }
}

TEST(GrhTest, Ipv4HeaderIsFoundBehindAnything) {
  // Devices may leave what they like in the first 20 bytes.
  auto grh = Written({kIpv4A, kIpv4B});
  for (size_t i = 0; i < 20; ++i) grh[i] = std::byte{0x66};
  const auto read = ReadGrh(grh);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->source, kIpv4A);
}

TEST(GrhTest, NeitherHeaderIsNothing) {
  std::array<std::byte, kGrhBytes> grh{};
  EXPECT_FALSE(ReadGrh(grh).has_value());
  grh = Written({kIpv4A, kIpv4B});
  for (size_t at = 20; at < kGrhBytes; ++at) {
    auto damaged = grh;
    damaged[at] ^= std::byte{0x10};
    EXPECT_FALSE(ReadGrh(damaged).has_value()) << at;
  }
}

}  // namespace
}  // namespace sumac::soft_nic
