// Real processes that share one address and port 4791: joining, dying, being stopped, coming back.

#include "verbs/soft_nic/link/udp_port_share.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/link_test_support.h"
#include "verbs/soft_nic/link/udp_link.h"

namespace sumac::soft_nic {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr int kDeadlineMs = 30000;

// Between a test and its member processes, one message each.
struct Message {
  enum Kind : uint32_t { kJoined, kFailed, kReceived, kSend } kind = kJoined;
  uint32_t qpn = 0;
  uint32_t psn = 0;
  int code = 0;
  char text[400] = {};
};

// What a member process does until its end of the channel closes.
class MemberProcess : public PacketHandler {
 public:
  MemberProcess(int channel, const UdpLinkOptions& options) : channel_(channel) {
    auto link = UdpLink::Open(options);
    Message message;
    if (!link.ok()) {
      message.kind = Message::kFailed;
      message.code = static_cast<int>(link.status().code());
      const std::string text(link.status().message());
      std::strncpy(message.text, text.c_str(), sizeof(message.text) - 1);
      Report(message);
      return;
    }
    link_ = *std::move(link);
    message.qpn = link_->first_qpn();
    Report(message);
    while (Step()) {
    }
  }

 private:
  void Report(const Message& message) { ::send(channel_, &message, sizeof(message), MSG_NOSIGNAL); }

  void OnPacket(const Gid&, const PacketView& packet) override {
    Message message;
    message.kind = Message::kReceived;
    message.qpn = packet.header.dest_qpn;
    message.psn = packet.header.psn;
    Report(message);
  }

  bool Step() {
    pollfd polled[] = {
        {channel_, POLLIN, 0}, {link_->poll_fd(), POLLIN, 0}, {link_->control_fd(), POLLIN, 0}};
    ::poll(polled, 3, 1000);
    if (polled[1].revents) link_->Receive(*this, 64);
    if (polled[2].revents) link_->OnControlReadable();
    if (!polled[0].revents) return true;
    Message command;
    if (::recv(channel_, &command, sizeof(command), 0) <= 0) return false;
    Path path;
    path.destination = link_->local_gid();
    OutgoingPacket packet;
    packet.path = &path;
    packet.header.dest_qpn = command.qpn;
    packet.header.psn = command.psn;
    if (!link_->Transmit(packet)) return false;
    link_->Flush();
    return true;
  }

  const int channel_;
  std::unique_ptr<UdpLink> link_;
};

// Runs `body(channel)` in a process of its own, killed with this object.
class ChildProcess {
 public:
  template <typename Body>
  explicit ChildProcess(Body body) {
    int channel[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(channel[0]);
      body(channel[1]);
      ::_exit(0);
    }
    ::close(channel[1]);
    channel_ = UniqueFd(channel[0]);
  }
  ~ChildProcess() { Kill(); }

  void Signal(int signal) const { ::kill(pid_, signal); }
  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // Nothing when the deadline passes or the child is gone.
  std::optional<Message> Next(int deadline_ms = kDeadlineMs) const {
    pollfd polled{channel_.get(), POLLIN, 0};
    Message message;
    if (::poll(&polled, 1, deadline_ms) != 1) return std::nullopt;
    if (::recv(channel_.get(), &message, sizeof(message), 0) <= 0) return std::nullopt;
    return message;
  }
  void Send(const Message& message) const {
    ASSERT_GT(::send(channel_.get(), &message, sizeof(message), MSG_NOSIGNAL), 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  UniqueFd channel_;
};

class Member : public ChildProcess {
 public:
  explicit Member(const UdpLinkOptions& options)
      : ChildProcess([options](int channel) { MemberProcess run(channel, options); }) {}

  // The slot it got, or nothing.
  std::optional<uint32_t> AwaitJoined() {
    const auto message = Next();
    if (!message || message->kind != Message::kJoined) {
      ADD_FAILURE() << "did not join: " << (message ? message->text : "no word");
      return std::nullopt;
    }
    first_qpn_ = message->qpn;
    return first_qpn_ >> 18;
  }
  uint32_t qpn() const { return first_qpn_ + 10; }

 private:
  uint32_t first_qpn_ = 0;
};

class PortShareTest : public ::testing::Test {
 protected:
  PortShareTest() {
    options_.address = OwnLoopbackAddress();
    options_.own_address_fallback = false;
    options_.transmit_sockets = 1;
  }

  UdpPortShareOptions ShareOptions() const {
    UdpPortShareOptions options;
    options.address = options_.address;
    return options;
  }

  std::string NameOf(const std::string& part) const {
    return absl::StrCat("sumac/soft-nic/", ::geteuid(), "/", ToString(options_.address), "%0/4791/",
                        part);
  }

  std::unique_ptr<Member> Start() { return std::make_unique<Member>(options_); }
  std::unique_ptr<Member> StartAndJoin(uint32_t expected_slot) {
    auto member = Start();
    EXPECT_EQ(member->AwaitJoined(), expected_slot);
    return member;
  }

  void ExpectReaches(const Member& from, const Member& to) {
    Message command;
    command.kind = Message::kSend;
    command.qpn = to.qpn();
    command.psn = ++psn_;
    from.Send(command);
    const auto got = to.Next();
    ASSERT_TRUE(got.has_value()) << "packet to QPN " << to.qpn() << " did not arrive";
    EXPECT_EQ(got->kind, Message::kReceived);
    EXPECT_EQ(got->qpn, to.qpn());
    EXPECT_EQ(got->psn, psn_);
  }

  void ExpectEachReachesEach(const std::vector<std::unique_ptr<Member>>& members) {
    for (const auto& from : members) {
      for (const auto& to : members) ExpectReaches(*from, *to);
    }
  }

  UdpLinkOptions options_;
  uint32_t psn_ = 0;
};

TEST_F(PortShareTest, EightStartAtOnce) {
  std::vector<std::unique_ptr<Member>> members;
  members.reserve(8);
  for (int i = 0; i < 8; ++i) members.push_back(Start());
  std::set<uint32_t> slots;
  for (const auto& member : members) slots.insert(member->AwaitJoined().value_or(99));
  EXPECT_EQ(slots, (std::set<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  ExpectEachReachesEach(members);
}

TEST_F(PortShareTest, SlotOfAKilledMemberIsReused) {
  std::vector<std::unique_ptr<Member>> members;
  members.reserve(8);
  for (uint32_t i = 0; i < 8; ++i) members.push_back(StartAndJoin(i));
  for (size_t victim : {3u, 0u, 7u}) {
    SCOPED_TRACE(victim);
    const uint32_t old_qpn = members[victim]->qpn();
    members[victim]->Kill();
    // Packets for the dead are not the business of whoever comes next.
    Message stale;
    stale.kind = Message::kSend;
    stale.qpn = old_qpn;
    stale.psn = 0xdead;
    members[(victim + 1) % 8]->Send(stale);
    ExpectReaches(*members[(victim + 1) % 8],
                  *members[(victim + 2) % 8]);  // so the stale one is out
    members[victim] = StartAndJoin(static_cast<uint32_t>(victim));
    ExpectEachReachesEach(members);
  }
}

TEST_F(PortShareTest, GroupSurvivesItsFounder) {
  auto founder = StartAndJoin(0);
  auto second = StartAndJoin(1);
  founder->Kill();
  ExpectReaches(*second, *second);
  auto third = StartAndJoin(0);
  ExpectReaches(*second, *third);
  ExpectReaches(*third, *second);
}

TEST_F(PortShareTest, NewGroupAfterTheLastOneLeft) {
  StartAndJoin(0)->Kill();
  StartAndJoin(0)->Kill();
  auto member = StartAndJoin(0);
  ExpectReaches(*member, *member);
}

TEST_F(PortShareTest, StoppedMemberDoesNotBlockAJoiner) {
  auto stopped = StartAndJoin(0);
  auto awake = StartAndJoin(1);
  stopped->Signal(SIGSTOP);
  auto joiner = StartAndJoin(2);
  ExpectReaches(*awake, *joiner);
  Message command;
  command.kind = Message::kSend;
  command.qpn = stopped->qpn();
  command.psn = 77;
  joiner->Send(command);  // waits in the socket of slot 0
  stopped->Signal(SIGCONT);
  const auto got = stopped->Next();
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->psn, 77u);
  ExpectReaches(*stopped, *joiner);
}

TEST_F(PortShareTest, OnlyStoppedMembersAreNamed) {
  auto member = StartAndJoin(0);
  member->Signal(SIGSTOP);
  UdpPortShareOptions options = ShareOptions();
  options.answer_timeout = milliseconds(100);
  const auto refused = UdpPortShare::Join(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr(absl::StrCat("pid ", member->pid())));
  member->Signal(SIGCONT);
  auto second = StartAndJoin(1);
  ExpectReaches(*member, *second);
}

TEST_F(PortShareTest, FullGroupSaysSo) {
  options_.slots = 4;
  std::vector<std::unique_ptr<Member>> members;
  for (uint32_t i = 0; i < 4; ++i) {
    members.push_back(Start());
    ASSERT_TRUE(members.back()->AwaitJoined().has_value());
  }
  ExpectEachReachesEach(members);
  auto fifth = Start();
  const auto refused = fifth->Next();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->kind, Message::kFailed);
  EXPECT_EQ(refused->code, static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(refused->text, HasSubstr("all 4 slots"));
  members[2]->Kill();
  members[2] = Start();
  ASSERT_TRUE(members[2]->AwaitJoined().has_value());
  ExpectEachReachesEach(members);
}

TEST_F(PortShareTest, LaterMembersTakeTheSlotsThatTheyFind) {
  options_.slots = 4;
  auto first = StartAndJoin(0);
  auto second = UdpPortShare::Join(ShareOptions());  // asks for 64
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->slots(), 4u);
  EXPECT_EQ((*second)->slot(), 1u);
  EXPECT_EQ((*second)->first_qpn(), 1u << 22);
  EXPECT_EQ((*second)->qpn_count(), 1u << 22);
}

TEST_F(PortShareTest, JoinerThatHangsIsNamedAndItsDeathFreesTheWay) {
  ChildProcess joiner([this](int channel) {
    const auto name = ListenOnName(NameOf("join"));
    const Message ready;
    ::send(channel, &ready, sizeof(ready), 0);
    ::pause();
  });
  ASSERT_TRUE(joiner.Next().has_value());
  UdpPortShareOptions options = ShareOptions();
  options.join_timeout = milliseconds(100);
  const auto refused = UdpPortShare::Join(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr(absl::StrCat("process ", joiner.pid())));
  joiner.Kill();
  EXPECT_TRUE(UdpPortShare::Join(ShareOptions()).ok());
}

TEST_F(PortShareTest, ImpostorIsPassedOver) {
  ChildProcess impostor([this](int channel) {
    const auto name = ListenOnName(NameOf("0"));
    const Message ready;
    ::send(channel, &ready, sizeof(ready), 0);
    for (;;) {
      pollfd polled{name->get(), POLLIN, 0};
      ::poll(&polled, 1, -1);
      const UniqueFd peer(::accept(name->get(), nullptr, nullptr));
      // The length of an answer, and a descriptor that is no such socket.
      const char junk[16] = "sumacnic";
      SendDescriptors(peer.get(), junk, sizeof(junk), {0});
    }
  });
  ASSERT_TRUE(impostor.Next().has_value());
  auto share = UdpPortShare::Join(ShareOptions());
  ASSERT_TRUE(share.ok()) << share.status();
  EXPECT_EQ((*share)->slot(), 1u);  // a group of its own, without the name that is taken
}

TEST_F(PortShareTest, ServingNeverBlocks) {
  auto share = UdpPortShare::Join(ShareOptions());
  ASSERT_TRUE(share.ok()) << share.status();
  (*share)->OnShareReadable();  // nobody there
  for (int i = 0; i < 3; ++i) {
    UniqueFd gone = ConnectToName(NameOf("0"));
    ASSERT_TRUE(gone.valid());
  }
  (*share)->OnShareReadable();  // gone again
  const UniqueFd asks = ConnectToName(NameOf("0"));
  (*share)->OnShareReadable();
  char answer[16];
  const auto sockets = ReceiveDescriptors(asks.get(), answer, sizeof(answer));
  ASSERT_TRUE(sockets.ok()) << sockets.status();
  EXPECT_EQ(sockets->size(), 65u);
}

// Members of the second kind: what is for the management queue pairs reaches them all, and nothing
// else does.
TEST_F(PortShareTest, ManagementMembersReadOneSocket) {
  auto options = ShareOptions();
  options.management = true;
  auto first = UdpPortShare::Join(options);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->slot(), UdpPortShareOptions::kSlotsMax);
  const UniqueFd sender(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const SocketAddress to = ToSocketAddress(options.address, options.port, 0);
  for (const uint8_t qpn : {0, 1, 2}) {
    const uint8_t packet[24] = {0, 0, 0, 0, 0, 0, 0, qpn};
    ASSERT_EQ(::sendto(sender.get(), packet, sizeof(packet), 0, &to.any, to.size()), 24);
  }
  for (const uint8_t qpn : {0, 1}) {
    uint8_t packet[24] = {};
    ASSERT_EQ(::recv((*first)->receive_fd(), packet, sizeof(packet), 0), 24);
    EXPECT_EQ(packet[7], qpn);
  }
  uint8_t byte;
  EXPECT_EQ(::recv((*first)->receive_fd(), &byte, 1, 0), -1);
}

}  // namespace
}  // namespace sumac::soft_nic
