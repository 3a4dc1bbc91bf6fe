// Two links on real interfaces: a veth pair between two network namespaces that live as long as
// this test.

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "verbs/soft_nic/link/link_test_support.h"
#include "verbs/soft_nic/link/reuseport_group.h"
#include "verbs/soft_nic/link/udp_link.h"

namespace sumac::soft_nic {
namespace {

constexpr int kSkip = 77;
constexpr uint32_t kPackets = 200;

bool Run(const std::string& command) { return std::system(command.c_str()) == 0; }

void FillPattern(uint32_t i, std::vector<std::byte>* data) {
  data->resize(i * 5 % 1025);
  for (size_t k = 0; k < data->size(); ++k) (*data)[k] = static_cast<std::byte>(k * 3 + i);
}

// Sends every packet back to where it came from.
class Echo : public PacketHandler {
 public:
  explicit Echo(UdpLink& link) : link_(link) {}
  void OnPacket(const Gid& source, const PacketView& packet) override {
    Path path;
    path.destination = source;
    const iovec piece{const_cast<std::byte*>(packet.payload.data()), packet.payload.size()};
    OutgoingPacket back;
    back.path = &path;
    back.header = packet.header;
    back.payload = {&piece, 1};
    (void)link_.Transmit(back);
  }

 private:
  UdpLink& link_;
};

std::unique_ptr<UdpLink> OpenOn(const std::string& interface) {
  UdpLinkOptions options;
  options.interface = interface;
  auto link = UdpLink::Open(options);
  if (link.ok()) return *std::move(link);
  std::fprintf(stderr, "%s\n", link.status().ToString().c_str());
  return nullptr;
}

// The far end, in a namespace of its own. `ready` is written when the namespace exists; `go` when
// the interface does.
[[noreturn]] void RunFarEnd(int ready, int go) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  char byte = 0;
  if (::unshare(CLONE_NEWNET) != 0) ::_exit(1);
  if (::write(ready, &byte, 1) != 1 || ::read(go, &byte, 1) != 1) ::_exit(1);
  if (!Run("ip addr add 10.77.0.2/24 dev far && ip link set far up")) ::_exit(1);
  auto link = OpenOn("far");
  if (link == nullptr) ::_exit(1);
  if (::write(ready, &byte, 1) != 1) ::_exit(1);
  Echo echo(*link);
  for (;;) {
    pollfd polled{link->poll_fd(), POLLIN, 0};
    ::poll(&polled, 1, 1000);
    link->Receive(echo, 64);
    link->Flush();
  }
}

int Fail(const char* what) {
  std::fprintf(stderr, "near end: %s\n", what);
  return 1;
}

int ExchangeFrom(UdpLink& link) {
  Path path;
  path.destination = GidOfIpv4(10, 77, 0, 2);
  path.traffic_class = 0x68;
  RecordingHandler handler;
  std::vector<std::byte> data;
  for (uint32_t i = 0; i < kPackets; ++i) {
    FillPattern(i, &data);
    const iovec piece{data.data(), data.size()};
    OutgoingPacket packet;
    packet.path = &path;
    packet.header.dest_qpn = 2;
    packet.header.psn = i;
    packet.payload = {&piece, 1};
    if (!link.Transmit(packet)) return Fail("no room to send");
    link.Flush();
    if (!ReceiveUntil(link, handler, i + 1)) return Fail("no echo");
    if (handler.packets[i].payload != data) return Fail("wrong payload");
    if (handler.packets[i].source != path.destination) return Fail("wrong source");
  }
  const LinkCounters counters = link.counters();
  if (counters.packets_received != kPackets) return Fail("wrong count");
  if (counters.icrc_by_identification != 0) return Fail("identification was not 0");
  return 0;
}

int RunNearEnd() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return kSkip;
  int ready[2];
  int go[2];
  if (::pipe(ready) != 0 || ::pipe(go) != 0) return Fail("pipe");
  const pid_t far_end = ::fork();
  if (far_end == 0) RunFarEnd(ready[1], go[0]);
  char byte = 0;
  ::close(ready[1]);
  if (::read(ready[0], &byte, 1) != 1) return Fail("no second namespace");
  if (!Run(absl::StrCat("ip link add near type veth peer name far netns ", far_end,
                        " && ip addr add 10.77.0.1/24 dev near && ip link set near up"))) {
    return kSkip;
  }
  if (::write(go[1], &byte, 1) != 1 || ::read(ready[0], &byte, 1) != 1) return Fail("far end");
  {
    auto link = OpenOn("near");
    if (link == nullptr) return Fail("did not open");
    if (link->mtu_bytes() != 1024) return Fail("path MTU of a veth with MTU 1500 is not 1024");
    if (ExchangeFrom(*link) != 0) return 1;
  }
  // On a real interface there is no other address to fall back to.
  const auto stranger = BindExclusively(ToSocketAddress(GidOfIpv4(10, 77, 0, 1), kRoceUdpPort, 0));
  if (!stranger.ok()) return Fail("the port is still taken");
  UdpLinkOptions options;
  options.interface = "near";
  if (!absl::IsAlreadyExists(UdpLink::Open(options).status())) return Fail("port conflict missed");
  ::kill(far_end, SIGKILL);
  ::waitpid(far_end, nullptr, 0);
  return 0;
}

TEST(UdpLinkVethTest, TwoNamespaces) {
  const pid_t near_end = ::fork();
  if (near_end == 0) ::_exit(RunNearEnd());
  int status = 0;
  ASSERT_EQ(::waitpid(near_end, &status, 0), near_end);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kSkip) GTEST_SKIP() << "may not make network namespaces here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace sumac::soft_nic
