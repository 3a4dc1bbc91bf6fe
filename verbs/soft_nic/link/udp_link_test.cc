#include "verbs/soft_nic/link/udp_link.h"

#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "verbs/soft_nic/link/link_test_support.h"
#include "verbs/soft_nic/link/reuseport_group.h"

namespace sumac::soft_nic {
namespace {

using ::testing::HasSubstr;

UdpLinkOptions OptionsAt(const Gid& address) {
  UdpLinkOptions options;
  options.address = address;
  return options;
}

std::unique_ptr<UdpLink> OpenOrDie(const UdpLinkOptions& options) {
  auto link = UdpLink::Open(options);
  EXPECT_TRUE(link.ok()) << link.status();
  return link.ok() ? *std::move(link) : nullptr;
}

std::vector<std::byte> Pattern(size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 13 + bytes);
  return data;
}

OutgoingPacket PacketTo(const Path& path, uint32_t qpn, uint32_t psn) {
  OutgoingPacket packet;
  packet.path = &path;
  packet.header.dest_qpn = qpn;
  packet.header.psn = psn;
  return packet;
}

void ExchangeEverySize(UdpLink& from, UdpLink& to) {
  Path path;
  path.destination = to.local_gid();
  RecordingHandler handler;
  size_t sent = 0;
  for (size_t bytes = 0; bytes <= kMtuBytesMax; bytes += bytes < 70 ? 1 : 211) {
    auto data = Pattern(bytes);
    // In two pieces, one of odd length.
    const iovec pieces[] = {{data.data(), bytes / 3}, {data.data() + bytes / 3, bytes - bytes / 3}};
    OutgoingPacket packet = PacketTo(path, to.first_qpn() + 5, static_cast<uint32_t>(sent));
    packet.payload = pieces;
    ASSERT_TRUE(from.Transmit(packet));
    std::fill(data.begin(), data.end(), std::byte{0xee});  // Transmit has copied
    from.Flush();
    ASSERT_TRUE(ReceiveUntil(to, handler, ++sent)) << bytes << " bytes did not arrive";
    const ReceivedPacket& got = handler.packets.back();
    EXPECT_EQ(got.source, from.local_gid());
    EXPECT_EQ(got.header.psn, sent - 1);
    EXPECT_EQ(got.header.pad_bytes, (4 - bytes % 4) % 4);
    EXPECT_EQ(got.payload, Pattern(bytes));
  }
  EXPECT_EQ(from.counters().packets_sent, sent);
  EXPECT_EQ(from.counters().send_errors, 0u);
  EXPECT_EQ(to.counters().packets_received, sent);
  EXPECT_EQ(to.counters().bytes_received, from.counters().bytes_sent);
  EXPECT_EQ(to.counters().icrc_by_identification, 0u);
}

TEST(UdpLinkTest, TwoLinksShareOneAddress) {
  const Gid address = OwnLoopbackAddress();
  auto a = OpenOrDie(OptionsAt(address));
  ASSERT_NE(a, nullptr);
  ControlThread serve(*a);
  auto b = OpenOrDie(OptionsAt(address));
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(a->local_gid(), b->local_gid());
  EXPECT_EQ(a->mtu_bytes(), 4096u);
  EXPECT_EQ(a->first_qpn(), 2u);
  EXPECT_EQ(b->first_qpn(), 1u << 18);
  EXPECT_EQ(b->qpn_count(), 1u << 18);
  EXPECT_TRUE(b->shares_port());
  ExchangeEverySize(*a, *b);
}

TEST(UdpLinkTest, TwoAddresses) {
  auto a = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  auto b = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  ASSERT_TRUE(a != nullptr && b != nullptr);
  ExchangeEverySize(*a, *b);
}

TEST(UdpLinkTest, Ipv6ToItself) {
  auto loopback = ParseGid("::1");
  ASSERT_TRUE(loopback.ok());
  if (!InterfaceOfAddress(*loopback).ok()) GTEST_SKIP() << "no IPv6 on this machine";
  auto link = UdpLink::Open(OptionsAt(*loopback));
  ASSERT_TRUE(link.ok()) << link.status();
  ControlThread serve(**link);  // another run of this test may join
  ExchangeEverySize(**link, **link);
}

TEST(UdpLinkTest, BatchesKeepOrderPerSourcePort) {
  auto a = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  auto b = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  ASSERT_TRUE(a != nullptr && b != nullptr);
  Path paths[3];
  for (int i = 0; i < 3; ++i) {
    paths[i].destination = b->local_gid();
    paths[i].source_port = static_cast<uint16_t>(0xc000 + 77 * i);
    paths[i].traffic_class = i == 2 ? 0xb9 : 0;
  }
  RecordingHandler handler;
  constexpr uint32_t kPackets = 300;
  for (uint32_t i = 0; i < kPackets; ++i) {
    ASSERT_TRUE(a->Transmit(PacketTo(paths[i % 3], 2 + i % 3, i)));
  }
  a->Flush();
  ASSERT_TRUE(ReceiveUntil(*b, handler, kPackets));
  uint32_t next[3] = {0, 1, 2};
  for (const ReceivedPacket& got : handler.packets) {
    uint32_t& expected = next[got.header.dest_qpn - 2];
    EXPECT_EQ(got.header.psn, expected);
    expected += 3;
  }
}

TEST(UdpLinkTest, BudgetBoundsReceive) {
  UdpLinkOptions options = OptionsAt(OwnLoopbackAddress());
  options.segmentation = Segmentation::kOff;
  auto link = OpenOrDie(options);
  ASSERT_NE(link, nullptr);
  Path path;
  path.destination = link->local_gid();
  for (uint32_t i = 0; i < 50; ++i) ASSERT_TRUE(link->Transmit(PacketTo(path, 2, i)));
  link->Flush();
  RecordingHandler handler;
  ASSERT_TRUE(ReceiveUntil(*link, handler, 1, 3));
  EXPECT_LE(handler.packets.size(), 3u);
  ASSERT_TRUE(ReceiveUntil(*link, handler, 50, 40));
  EXPECT_EQ(link->Receive(handler, 40), 0u);
}

// Runs of every shape: equal lengths, a short last one, growing lengths, two queue pairs in turn,
// more than one call takes.
void ExchangeRuns(bool sender_batches, bool receiver_batches) {
  UdpLinkOptions options = OptionsAt(OwnLoopbackAddress());
  options.segmentation = sender_batches ? Segmentation::kOn : Segmentation::kOff;
  auto a = OpenOrDie(options);
  options = OptionsAt(OwnLoopbackAddress());
  options.segmentation = receiver_batches ? Segmentation::kOn : Segmentation::kOff;
  auto b = OpenOrDie(options);
  ASSERT_TRUE(a != nullptr && b != nullptr);
  std::vector<size_t> lengths;
  for (size_t i = 0; i < 20; ++i) lengths.push_back(4096);
  lengths.push_back(17);
  for (size_t i = 0; i < 100; ++i) lengths.push_back(256);
  for (size_t i = 0; i < 30; ++i) lengths.push_back(i * 8);
  for (size_t i = 30; i > 0; --i) lengths.push_back(i * 8);
  for (size_t i = 0; i < 40; ++i) lengths.push_back(0);
  Path path;
  path.destination = b->local_gid();
  for (uint32_t i = 0; i < lengths.size(); ++i) {
    auto data = Pattern(lengths[i]);
    const iovec piece{data.data(), data.size()};
    OutgoingPacket packet = PacketTo(path, i % 7 == 0 ? 3 : 2, i);
    packet.payload = {&piece, 1};
    ASSERT_TRUE(a->Transmit(packet));
  }
  a->Flush();
  RecordingHandler handler;
  ASSERT_TRUE(ReceiveUntil(*b, handler, lengths.size()));
  for (uint32_t i = 0; i < lengths.size(); ++i) {
    EXPECT_EQ(handler.packets[i].header.psn, i);
    EXPECT_EQ(handler.packets[i].header.dest_qpn, i % 7 == 0 ? 3u : 2u);
    EXPECT_EQ(handler.packets[i].payload, Pattern(lengths[i]));
  }
  EXPECT_EQ(a->counters().packets_sent, lengths.size());
  EXPECT_EQ(a->counters().send_errors, 0u);
  EXPECT_EQ(b->counters().packets_received, lengths.size());
  EXPECT_EQ(b->counters().bytes_received, a->counters().bytes_sent);
}

TEST(UdpLinkTest, RunsOfPackets) {
  for (bool sender : {true, false}) {
    for (bool receiver : {true, false}) {
      SCOPED_TRACE(::testing::Message()
                   << "batching: sender " << sender << " receiver " << receiver);
      ExchangeRuns(sender, receiver);
    }
  }
}

TEST(UdpLinkTest, WhatCannotBeSentIsCounted) {
  auto link = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  ASSERT_NE(link, nullptr);
  Path ipv6;
  ipv6.destination = *ParseGid("fe80::1");
  EXPECT_TRUE(link->Transmit(PacketTo(ipv6, 2, 0)));
  EXPECT_EQ(link->counters().send_errors, 1u);

  Path away;  // from a loopback address, so the kernel refuses
  away.destination = GidOfIpv4(192, 0, 2, 77);
  Path fine;
  fine.destination = link->local_gid();
  EXPECT_TRUE(link->Transmit(PacketTo(away, 2, 0)));
  EXPECT_TRUE(link->Transmit(PacketTo(fine, 2, 1)));
  link->Flush();
  EXPECT_EQ(link->counters().send_errors, 2u);
  RecordingHandler handler;
  EXPECT_TRUE(ReceiveUntil(*link, handler, 1));  // the one behind it went out

  std::vector<std::byte> huge(kMtuBytesMax + 1);
  const iovec piece{huge.data(), huge.size()};
  OutgoingPacket packet = PacketTo(fine, 2, 2);
  packet.payload = {&piece, 1};
  EXPECT_TRUE(link->Transmit(packet));
  EXPECT_EQ(link->counters().send_errors, 3u);
}

// A plain UDP socket beside the link: what it sends has whatever ICRC the test likes.
class ForeignSender {
 public:
  explicit ForeignSender(const UdpLink& to) : to_(to), address_(OwnLoopbackAddress()) {
    for (uint16_t port = 0xc100; !fd_.valid() && port != 0; ++port) {
      auto bound = BindExclusively(ToSocketAddress(address_, port, 0));
      if (bound.ok()) fd_ = *std::move(bound), port_ = port;
    }
  }

  std::vector<std::byte> Packet(uint32_t qpn, uint16_t identification, size_t payload = 32) const {
    PacketHeader header;
    header.dest_qpn = qpn;
    std::vector<std::byte> bytes(kBthBytes + payload + kIcrcBytes, std::byte{0x5a});
    EncodeHeader(header, bytes);
    IcrcHeaders ip;
    ip.source = address_;
    ip.destination = to_.local_gid();
    ip.source_port = port_;
    ip.ipv4_identification = identification;
    const uint32_t icrc = ComputeIcrc(ip, std::span(bytes).first(bytes.size() - kIcrcBytes), {});
    std::memcpy(bytes.data() + bytes.size() - kIcrcBytes, &icrc, kIcrcBytes);
    return bytes;
  }

  void Send(const std::vector<std::byte>& bytes) const {
    const SocketAddress to = ToSocketAddress(to_.local_gid(), kRoceUdpPort, 0);
    ASSERT_EQ(::sendto(fd_.get(), bytes.data(), bytes.size(), 0, &to.any, to.size()),
              static_cast<ssize_t>(bytes.size()));
  }

 private:
  const UdpLink& to_;
  const Gid address_;
  UniqueFd fd_;
  uint16_t port_ = 0;
};

class RefusalTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(link_, nullptr); }

  // Sends, and returns how many packets came through.
  size_t Through(const std::vector<std::byte>& bytes) {
    foreign_.Send(bytes);
    RecordingHandler handler;
    pollfd polled{link_->poll_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&polled, 1, 10000), 1);
    EXPECT_EQ(link_->Receive(handler, 10), 1u);
    return handler.packets.size();
  }

  std::unique_ptr<UdpLink> link_ = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  ForeignSender foreign_{*link_};
};

TEST_F(RefusalTest, DamagedPacketsAreCounted) {
  EXPECT_EQ(Through(foreign_.Packet(2, 0)), 1u);
  const auto good = foreign_.Packet(2, 0);
  // Every byte of the packet but BTH byte 4, which may change on the way.
  uint64_t damaged = 0;
  for (size_t at = kBthBytes; at < good.size(); ++at) {
    auto bytes = good;
    bytes[at] ^= std::byte{0x10};
    EXPECT_EQ(Through(bytes), 0u) << at;
    EXPECT_EQ(link_->counters().dropped_bad_icrc, ++damaged);
  }
  EXPECT_EQ(link_->counters().packets_received, 1u);
}

TEST_F(RefusalTest, GarbageIsCounted) {
  EXPECT_EQ(Through({}), 0u);
  EXPECT_EQ(Through(std::vector<std::byte>(3)), 0u);
  EXPECT_EQ(Through(std::vector<std::byte>(200, std::byte{0x03})), 0u);  // to a QPN of our slot
  auto cut = foreign_.Packet(2, 0);
  cut.resize(cut.size() - 3);
  EXPECT_EQ(Through(cut), 0u);
  EXPECT_EQ(link_->counters().dropped_malformed, 4u);
  EXPECT_EQ(Through(std::vector<std::byte>(kPacketBytesMax + 1, std::byte{0x03})), 0u);
  EXPECT_EQ(link_->counters().dropped_truncated, 1u);
  EXPECT_EQ(link_->counters().packets_received, 0u);
}

TEST_F(RefusalTest, OtherSlotsPacketsDoNotArrive) {
  for (uint32_t qpn : {0u, 1u, 1u << 18}) foreign_.Send(foreign_.Packet(qpn, 0));
  RecordingHandler none;
  EXPECT_EQ(link_->Receive(none, 10), 0u);
}
TEST_F(RefusalTest, SendersThatNumberTheirPacketsAreUnderstood) {
  for (uint16_t id : {0x4329, 0x432a, 0xffff}) EXPECT_EQ(Through(foreign_.Packet(2, id)), 1u);
  EXPECT_EQ(link_->counters().icrc_by_identification, 3u);
  EXPECT_EQ(link_->counters().packets_received, 3u);
}

// A source that sends identification 0 does not get the weaker check later.
TEST_F(RefusalTest, SendersOfIdentificationZeroStayStrict) {
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Through(foreign_.Packet(2, 0)), 1u);
  EXPECT_EQ(Through(foreign_.Packet(2, 0x4329)), 0u);
  EXPECT_EQ(link_->counters().dropped_bad_icrc, 1u);
  EXPECT_EQ(Through(foreign_.Packet(2, 7)), 1u);  // the 8th segment of one UDP_SEGMENT call
  EXPECT_EQ(link_->counters().icrc_by_identification, 1u);
}

// What the IP header really carries, seen by a raw socket.
TEST(UdpLinkTest, IpHeaderIsWhatTheIcrcSays) {
  const UniqueFd raw(::socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!raw.valid()) GTEST_SKIP() << "needs CAP_NET_RAW";
  UdpLinkOptions options = OptionsAt(OwnLoopbackAddress());
  options.segmentation = Segmentation::kOff;  // as on a real interface
  auto link = OpenOrDie(options);
  ASSERT_NE(link, nullptr);
  const SocketAddress here = ToSocketAddress(link->local_gid(), 0, 0);
  ASSERT_EQ(::bind(raw.get(), &here.any, here.size()), 0);
  DrainSocket(raw.get());  // what others sent before it was bound
  Path path;
  path.destination = link->local_gid();
  path.traffic_class = 0xb9;
  path.hop_limit = 17;
  ASSERT_TRUE(link->Transmit(PacketTo(path, 2, 0xabc)));
  link->Flush();
  pollfd polled{raw.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&polled, 1, 10000), 1);
  uint8_t bytes[256];
  ASSERT_EQ(::recv(raw.get(), bytes, sizeof(bytes), 0), 20 + 8 + 12 + 4);
  EXPECT_EQ(bytes[1], 0xb9);                      // TOS
  EXPECT_EQ(bytes[4] << 8 | bytes[5], 0);         // identification
  EXPECT_EQ(bytes[6] << 8 | bytes[7], 0x4000);    // DF
  EXPECT_EQ(bytes[8], 17);                        // TTL
  EXPECT_GE(bytes[20] << 8 | bytes[21], 0xc000);  // source port
  EXPECT_EQ(bytes[22] << 8 | bytes[23], 4791);
  EXPECT_EQ(bytes[26] << 8 | bytes[27], 0);  // UDP checksum
}

TEST(UdpLinkTest, FallsBackToAnAddressOfItsOwn) {
  const Gid address = OwnLoopbackAddress();
  auto stranger = BindExclusively(ToSocketAddress(address, kRoceUdpPort, 0));
  ASSERT_TRUE(stranger.ok());
  UdpLinkOptions options = OptionsAt(address);
  options.own_address_fallback = false;
  const auto refused = UdpLink::Open(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("a socket of uid "));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("UDP port 4791"));

  auto moved = OpenOrDie(OptionsAt(address));
  auto other = OpenOrDie(OptionsAt(OwnLoopbackAddress()));
  ASSERT_TRUE(moved != nullptr && other != nullptr);
  EXPECT_FALSE(moved->shares_port());
  EXPECT_EQ(moved->control_fd(), -1);
  EXPECT_NE(moved->local_gid(), address);
  EXPECT_TRUE(IsLoopback(moved->local_gid()));
  EXPECT_EQ(moved->first_qpn() + moved->qpn_count(), 1u << 24);
  ExchangeEverySize(*other, *moved);
  Path path;
  path.destination = other->local_gid();
  ASSERT_TRUE(moved->Transmit(PacketTo(path, 2, 0)));
  moved->Flush();
  RecordingHandler handler;
  EXPECT_TRUE(ReceiveUntil(*other, handler, 1));
  const ForeignSender from(*moved);
  for (uint32_t qpn : {1u, 2u}) from.Send(from.Packet(qpn, 0));
  EXPECT_TRUE(ReceiveUntil(*moved, handler, 2));
  EXPECT_EQ(moved->counters().dropped_wrong_qpn, 1u);
}

TEST(UdpLinkTest, FullGroupFallsBackToo) {
  UdpLinkOptions options = OptionsAt(OwnLoopbackAddress());
  options.slots = 1;
  auto first = OpenOrDie(options);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->qpn_count(), (1u << 24) - 2);
  ControlThread serve(*first);
  auto second = OpenOrDie(options);
  ASSERT_NE(second, nullptr);
  EXPECT_FALSE(second->shares_port());
  options.own_address_fallback = false;
  EXPECT_EQ(UdpLink::Open(options).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(UdpLinkTest, BadOptionsAreNamed) {
  UdpLinkOptions options = OptionsAt(OwnLoopbackAddress());
  options.interface = "nonesuch0";
  auto link = UdpLink::Open(options);
  EXPECT_EQ(link.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(link.status().message()), HasSubstr("there are: "));
  link = UdpLink::Open(OptionsAt(GidOfIpv4(203, 0, 113, 9)));
  EXPECT_EQ(link.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(link.status().message()), HasSubstr("203.0.113.9"));

  options = OptionsAt(OwnLoopbackAddress());
  options.slots = 3;
  EXPECT_EQ(UdpLink::Open(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = OptionsAt(OwnLoopbackAddress());
  options.transmit_sockets = 0;
  EXPECT_EQ(UdpLink::Open(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(UdpLinkTest, NamedInterface) {
  auto loopback = AddressOfInterface("lo");
  ASSERT_TRUE(loopback.ok()) << loopback.status();
  EXPECT_TRUE(IsLoopback(loopback->gid));
  EXPECT_GE(loopback->interface_mtu_bytes, 1500u);
}

TEST(AddressTest, ParsesAndPrints) {
  EXPECT_EQ(*ParseGid("10.9.0.1"), GidOfIpv4(10, 9, 0, 1));
  EXPECT_EQ(ToString(GidOfIpv4(10, 9, 0, 1)), "10.9.0.1");
  EXPECT_EQ(ToString(*ParseGid("fe80::a")), "fe80::a");
  EXPECT_FALSE(ParseGid("10.9.0").ok());
  EXPECT_FALSE(ParseGid("").ok());
}

TEST(AddressTest, PathMtu) {
  EXPECT_EQ(PathMtuBytes(65536, true), 4096u);
  EXPECT_EQ(PathMtuBytes(9000, false), 4096u);
  EXPECT_EQ(PathMtuBytes(4200, true), 4096u);
  EXPECT_EQ(PathMtuBytes(4096, true), 2048u);
  EXPECT_EQ(PathMtuBytes(1500, true), 1024u);
  EXPECT_EQ(PathMtuBytes(1500, false), 1024u);
  EXPECT_EQ(PathMtuBytes(576, true), 512u);
  EXPECT_EQ(PathMtuBytes(256, true), 0u);
}

}  // namespace
}  // namespace sumac::soft_nic
