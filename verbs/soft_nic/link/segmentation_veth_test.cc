// Batches on a real interface: two links in two network namespaces joined by a veth, and a packet
// socket beside the receiver that sees what crosses: the batch whole, as a veth carries it, or the
// packets into which the kernel cut it, each of which must have a right ICRC under its own IP
// header.
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "verbs/soft_nic/link/link_test_support.h"
#include "verbs/soft_nic/link/udp_link.h"

namespace sumac::soft_nic {
namespace {

constexpr int kSkip = 77;
constexpr uint32_t kPackets = 40;
constexpr size_t kEthernetBytes = 14;
constexpr size_t kUdpBytes = 8;

struct Case {
  bool ipv4;
  size_t mtu;
  bool cut;
};

int Fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  return 1;
}

bool Run(const std::string& command) { return std::system(command.c_str()) == 0; }

std::string AddressOf(const Case& c, int host) {
  return absl::StrCat(c.ipv4 ? "10.78.0." : "fd78::", host);
}

std::unique_ptr<UdpLink> OpenAt(const Case& c, int host) {
  UdpLinkOptions options;
  options.address = *ParseGid(AddressOf(c, host));
  auto link = UdpLink::Open(options);
  if (link.ok()) return *std::move(link);
  std::fprintf(stderr, "%s\n", link.status().ToString().c_str());
  return nullptr;
}

// One end of a veth in the calling process's present namespace.
bool SetUp(const Case& c, int host) {
  const char* const family = c.ipv4 ? "" : "nodad";
  return Run(absl::StrCat("ip addr add ", AddressOf(c, host), c.ipv4 ? "/24 " : "/64 ", family,
                          " dev wire0 && ip link set wire0 mtu ", c.mtu,
                          c.cut ? " gso_max_segs 1" : "", " up"));
}

UniqueFd OpenTap(bool ipv4) {
  const int protocol = htons(ipv4 ? ETH_P_IP : ETH_P_IPV6);
  UniqueFd tap(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, protocol));
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = static_cast<uint16_t>(protocol);
  where.sll_ifindex = static_cast<int>(::if_nametoindex("wire0"));
  const int bytes = 16 << 20;
  ::setsockopt(tap.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
  if (::bind(tap.get(), reinterpret_cast<sockaddr*>(&where), sizeof(where)) != 0) tap.Reset();
  return tap;
}

uint16_t Read16(const std::vector<std::byte>& frame, size_t at) {
  return static_cast<uint16_t>(static_cast<uint16_t>(frame[at]) << 8 |
                               static_cast<uint16_t>(frame[at + 1]));
}

// What the tap saw.
struct Frames {
  size_t packets = 0;
  size_t longest = 0;
  size_t wrong_icrc = 0;
  std::set<uint16_t> identifications;
};

Frames TakeFrames(int tap, const Case& c, const UdpLink& from, const UdpLink& to) {
  Frames seen;
  std::vector<std::byte> frame(1 << 17);
  const size_t ip_bytes = c.ipv4 ? 20 : 40;
  const size_t protocol_at = kEthernetBytes + (c.ipv4 ? 9 : 6);
  for (;;) {
    const ssize_t got = ::recv(tap, frame.data(), frame.size(), 0);
    if (got <= 0) return seen;
    const auto bytes = static_cast<size_t>(got);
    const size_t udp = kEthernetBytes + ip_bytes;
    if (bytes < udp + kUdpBytes || frame[protocol_at] != std::byte{IPPROTO_UDP} ||
        Read16(frame, udp + 2) != kRoceUdpPort) {
      continue;
    }
    ++seen.packets;
    seen.longest = std::max(seen.longest, bytes);
    IcrcHeaders ip;
    ip.source = from.local_gid();
    ip.destination = to.local_gid();
    ip.source_port = Read16(frame, udp);
    if (c.ipv4) ip.ipv4_identification = Read16(frame, kEthernetBytes + 4);
    seen.identifications.insert(ip.ipv4_identification);
    const auto payload =
        std::span(frame).subspan(udp + kUdpBytes, Read16(frame, udp + 4) - kUdpBytes);
    if (!VerifyIcrc(ip, payload)) ++seen.wrong_icrc;
  }
}

int CheckReceived(const RecordingHandler& handler, const std::vector<std::byte>& data) {
  for (uint32_t i = 0; i < kPackets; ++i) {
    if (handler.packets[i].header.psn != i) return Fail("out of order");
    if (handler.packets[i].payload != data) return Fail("wrong payload");
  }
  return 0;
}

int Exchange(const Case& c, UdpLink& from, UdpLink& to, int tap) {
  if (from.mtu_bytes() != (c.mtu < 4096 ? 1024u : 4096u)) return Fail("path MTU");
  std::vector<std::byte> data(from.mtu_bytes());
  for (size_t k = 0; k < data.size(); ++k) data[k] = static_cast<std::byte>(k * 3);
  const iovec piece{data.data(), data.size()};
  Path path;
  path.destination = to.local_gid();
  OutgoingPacket packet;
  packet.path = &path;
  packet.header.dest_qpn = to.first_qpn();
  packet.payload = {&piece, 1};
  for (uint32_t i = 0; i < kPackets; ++i) {
    packet.header.psn = i;
    packet.payload_stays = i % 3 != 0;
    if (!from.Transmit(packet)) return Fail("no room to send");
  }
  from.Flush();
  RecordingHandler handler;
  if (!ReceiveUntil(to, handler, kPackets)) return Fail("not all came");
  if (CheckReceived(handler, data) != 0) return 1;
  const Frames seen = TakeFrames(tap, c, from, to);
  if (!c.cut) {
    if (seen.longest <= c.mtu + kEthernetBytes) return Fail("no batch crossed whole");
    if (to.counters().icrc_by_identification != 0) return Fail("the place in a batch not guessed");
    return 0;
  }
  if (seen.packets != kPackets) return Fail(absl::StrCat(seen.packets, " packets on the wire"));
  if (seen.longest > c.mtu + kEthernetBytes) return Fail("longer than the MTU");
  if (seen.wrong_icrc != 0) return Fail(absl::StrCat(seen.wrong_icrc, " wrong ICRCs"));
  if (c.ipv4 && seen.identifications.size() < 2) return Fail("nothing was cut");
  return 0;
}

int RunCase(const Case& c) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return kSkip;
  const UniqueFd far_space(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (::unshare(CLONE_NEWNET) != 0) return kSkip;
  if (!Run(absl::StrCat("ip link add wire0 type veth peer name wire0 netns /proc/", ::getpid(),
                        "/fd/", far_space.get()))) {
    return kSkip;
  }
  if (!SetUp(c, 1)) return Fail("near address");
  const UniqueFd near_space(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (::setns(far_space.get(), CLONE_NEWNET) != 0 || !SetUp(c, 2)) return Fail("far address");
  const UniqueFd tap = OpenTap(c.ipv4);
  if (!tap.valid()) return kSkip;
  const auto to = OpenAt(c, 2);
  if (::setns(near_space.get(), CLONE_NEWNET) != 0) return Fail("setns");
  const auto from = OpenAt(c, 1);
  if (from == nullptr || to == nullptr) return Fail("did not open");
  return Exchange(c, *from, *to, tap.get());
}

class SegmentationVethTest : public ::testing::TestWithParam<std::tuple<bool, int, bool>> {};

TEST_P(SegmentationVethTest, EveryPacketIsIntact) {
  const auto& [ipv4, mtu, cut] = GetParam();
  const Case c{ipv4, static_cast<size_t>(mtu), cut};
  const pid_t child = ::fork();
  if (child == 0) ::_exit(RunCase(c));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kSkip) GTEST_SKIP() << "may not make network namespaces here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

std::string NameOfCase(const ::testing::TestParamInfo<std::tuple<bool, int, bool>>& tested) {
  return absl::StrCat(std::get<0>(tested.param) ? "Ipv4" : "Ipv6", "Mtu", std::get<1>(tested.param),
                      std::get<2>(tested.param) ? "Cut" : "Whole");
}

INSTANTIATE_TEST_SUITE_P(All, SegmentationVethTest,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(1500, 9000),
                                            ::testing::Bool()),
                         NameOfCase);

// Nothing but what was asked, whatever the interface; kAuto on loopback and on IPv6.
TEST(SegmentationTest, WhenToBatch) {
  EXPECT_TRUE(MaySegment(Segmentation::kOn, "there is none", true));
  EXPECT_FALSE(MaySegment(Segmentation::kOff, "lo", true));
  EXPECT_TRUE(MaySegment(Segmentation::kAuto, "lo", true));
  EXPECT_TRUE(MaySegment(Segmentation::kAuto, "there is none", false));
  EXPECT_FALSE(MaySegment(Segmentation::kAuto, "there is none", true));
}

}  // namespace
}  // namespace sumac::soft_nic
