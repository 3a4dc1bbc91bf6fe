// Agents as of several processes, on one address and on two, over real sockets on loopback.

#include "verbs/soft_nic/cm/agent.h"

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/eventually.h"

namespace sumac::soft_nic {
namespace {

using test_support::Eventually;

const Gid kHere = GidOfIpv4(127, 0, 78, 1);
const Gid kThere = GidOfIpv4(127, 0, 78, 2);
constexpr CmPort kPort{0x106, 7000};

// A process: its agent, and what it was told.
class Process : public Agent::Events {
 public:
  // `others` let it in, if it shares their address.
  explicit Process(const Gid& address, std::initializer_list<Process*> others = {},
                   uint32_t room = 1000)
      : room_(room) {
    UdpLinkOptions options;
    options.address = address;
    std::atomic<bool> open = false;
    absl::StatusOr<std::unique_ptr<Agent>> opened;
    std::thread opener([&] {
      opened = Agent::Open(options, 0x0123456789abcdef, *this);
      open = true;
    });
    EXPECT_TRUE(Eventually([&] {
      for (Process* const other : others) other->agent->Serve(Now());
      return open.load();
    }));
    opener.join();
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) agent = *std::move(opened);
  }

  struct Event {
    uint32_t id;
    ConnectionEvent event;
    int status;
  };

  bool OnRequest(CmPort, Agent::Endpoint& endpoint, const CmAddresses& addresses) override {
    if (requests.size() >= room_) return false;
    requests.push_back(endpoint.connection.local_id());
    last_addresses = addresses;
    return true;
  }
  void OnEvent(uint32_t id, ConnectionEvent event, int status, const CmMessage*) override {
    events.push_back({id, event, status});
  }

  CmMessage RequestTo(const Gid& peer, uint16_t port) const {
    CmMessage request;
    request.kind = CmKind::kRequest;
    request.service_id = CmServiceId(0x106, port);
    request.local_gid = agent->gid();
    request.remote_gid = peer;
    request.qpn = 0x1234;
    WriteCmAddresses({.source_port = 40000, .source = agent->gid(), .destination = peer},
                     std::span(request.private_data).first<kCmAddressesBytes>());
    return request;
  }
  uint32_t Connect(const Gid& peer, uint16_t port) {
    const auto id = agent->Connect(peer, RequestTo(peer, port), Now());
    EXPECT_TRUE(id.ok());
    return id.value_or(0);
  }
  static Time Now() { return std::chrono::steady_clock::now(); }
  void Do(uint32_t id, const std::function<bool(Connection&, Connection::Output&)>& what) {
    Agent::Endpoint* const endpoint = agent->Find(id);
    ASSERT_NE(endpoint, nullptr);
    EXPECT_TRUE(what(endpoint->connection, *endpoint));
  }

  const size_t room_;
  std::vector<uint32_t> requests;
  CmAddresses last_addresses;
  std::vector<Event> events;
  std::unique_ptr<Agent> agent;  // last: the first to go
};

template <typename Condition>
bool ServeUntil(std::initializer_list<Process*> processes, Condition condition) {
  return Eventually([&] {
    for (Process* const process : processes) process->agent->Serve(Process::Now());
    return condition();
  });
}

void ConnectAndPart(Process& server, Process& client, std::initializer_list<Process*> all) {
  ASSERT_TRUE(server.agent->Claim(kPort).ok());
  server.agent->Listen(kPort, true);
  const uint32_t id = client.Connect(server.agent->gid(), kPort.number);
  ASSERT_TRUE(ServeUntil(all, [&] { return !server.requests.empty(); }));
  EXPECT_EQ(server.last_addresses.source_port, 40000);
  EXPECT_EQ(server.last_addresses.source, client.agent->gid());
  const uint32_t accepted = server.requests.front();
  EXPECT_EQ(server.agent->Find(accepted)->peer, client.agent->gid());
  server.Do(accepted, [](Connection& connection, Connection::Output& out) {
    return connection.Accept({.kind = CmKind::kReply, .qpn = 0x5678}, Process::Now(), out);
  });
  ASSERT_TRUE(ServeUntil(all, [&] { return !client.events.empty(); }));
  EXPECT_EQ(client.events.back().id, id);
  EXPECT_EQ(client.events.back().event, ConnectionEvent::kReplied);
  EXPECT_EQ(client.agent->Find(id)->connection.reply().qpn, 0x5678u);
  client.Do(id, [](Connection& connection, Connection::Output& out) {
    return connection.MakeReady(out);
  });
  ASSERT_TRUE(ServeUntil(all, [&] { return !server.events.empty(); }));
  EXPECT_EQ(server.events.back().event, ConnectionEvent::kEstablished);

  // The client goes; the server hears of it and goes as well, and nothing stays behind.
  client.agent->Abandon(id, Process::Now());
  ASSERT_TRUE(ServeUntil(all, [&] { return server.events.size() == 2; }));
  EXPECT_EQ(server.events.back().event, ConnectionEvent::kDisconnected);
  server.agent->Abandon(accepted, Process::Now());
  EXPECT_TRUE(ServeUntil(all, [&] {
    return server.agent->Find(accepted) == nullptr && client.agent->Find(id) == nullptr;
  }));
}

TEST(AgentTest, BetweenTwoAddresses) {
  Process server(kHere), client(kThere);
  ConnectAndPart(server, client, {&server, &client});
}

// Who reads a message is chance: a third process sees to it that it is often the wrong one.
TEST(AgentTest, BetweenProcessesOfOneAddress) {
  Process other(kHere), server(kHere, {&other}), client(kHere, {&other});
  ConnectAndPart(server, client, {&other, &server, &client});
  EXPECT_GT(other.agent->counters().handed_on + server.agent->counters().handed_on +
                client.agent->counters().handed_on,
            0u);
}

TEST(AgentTest, WithinOneProcess) {
  Process alone(kHere);
  ASSERT_TRUE(alone.agent->Claim(kPort).ok());
  alone.agent->Listen(kPort, true);
  const uint32_t id = alone.Connect(kHere, kPort.number);
  ASSERT_TRUE(ServeUntil({&alone}, [&] { return !alone.requests.empty(); }));
  alone.Do(alone.requests.front(), [](Connection& connection, Connection::Output& out) {
    return connection.Accept({.kind = CmKind::kReply}, Process::Now(), out);
  });
  ASSERT_TRUE(ServeUntil({&alone}, [&] { return !alone.events.empty(); }));
  EXPECT_EQ(alone.events.back().id, id);
}

TEST(AgentTest, APortBelongsToOneProcessWhileItLives) {
  auto first = std::make_unique<Process>(kHere);
  Process second(kHere, {first.get()});
  ASSERT_TRUE(first->agent->Claim(kPort).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(second.agent->Claim(kPort)));
  EXPECT_TRUE(second.agent->Claim({0x111, kPort.number}).ok());  // another port space
  first.reset();
  EXPECT_TRUE(second.agent->Claim(kPort).ok());
  second.agent->Unclaim(kPort);
  EXPECT_TRUE(second.agent->Claim(kPort).ok());
}

TEST(AgentTest, NobodyListens) {
  Process server(kHere), client(kThere);
  // Bound is not listening.
  ASSERT_TRUE(server.agent->Claim(kPort).ok());
  for (const uint16_t port : {kPort.number, uint16_t{7001}}) {
    client.events.clear();
    client.Connect(kHere, port);
    ASSERT_TRUE(ServeUntil({&server, &client}, [&] { return !client.events.empty(); }));
    EXPECT_EQ(client.events.back().event, ConnectionEvent::kRejected);
    EXPECT_EQ(client.events.back().status, kCmInvalidServiceId);
  }
  EXPECT_EQ(server.agent->counters().refused, 2u);
}

// As perftest does: the next listener is there a moment after its client.
TEST(AgentTest, AListenerMayComeAMomentLater) {
  Process server(kHere), client(kThere);
  client.Connect(kHere, kPort.number);
  client.Connect(kHere, kPort.number);
  ASSERT_TRUE(ServeUntil({&server}, [&] { return server.agent->NextTimeout() != kNever; }));
  ASSERT_TRUE(server.agent->Claim(kPort).ok());
  server.agent->Listen(kPort, true);
  EXPECT_TRUE(ServeUntil({&server}, [&] { return server.requests.size() == 2; }));
  EXPECT_EQ(server.agent->counters().refused, 0u);
}

TEST(AgentTest, NoRoom) {
  Process server(kHere, {}, 0), client(kThere);
  ASSERT_TRUE(server.agent->Claim(kPort).ok());
  server.agent->Listen(kPort, true);
  client.Connect(kHere, kPort.number);
  ASSERT_TRUE(ServeUntil({&server, &client}, [&] { return !client.events.empty(); }));
  EXPECT_EQ(client.events.back().event, ConnectionEvent::kRejected);
  EXPECT_EQ(client.events.back().status, kCmNoResources);
}

TEST(AgentTest, APeerThatSpeaksForAnotherIsRefused) {
  Process server(kHere), client(kThere);
  ASSERT_TRUE(server.agent->Claim(kPort).ok());
  server.agent->Listen(kPort, true);
  CmMessage request = client.RequestTo(kHere, kPort.number);
  request.local_gid = GidOfIpv4(127, 0, 78, 99);  // not where it comes from
  ASSERT_TRUE(client.agent->Connect(kHere, request, Process::Now()).ok());
  ASSERT_TRUE(ServeUntil({&server, &client}, [&] { return !client.events.empty(); }));
  EXPECT_EQ(client.events.back().status, kCmInvalidGid);
  EXPECT_TRUE(server.requests.empty());
}

// Whoever's process was killed: the peer hears that there is no such connection.
TEST(AgentTest, ConnectionsOfAProcessThatIsGone) {
  auto server = std::make_unique<Process>(kHere);
  Process other(kHere, {server.get()}), client(kThere);
  ASSERT_TRUE(server->agent->Claim(kPort).ok());
  server->agent->Listen(kPort, true);
  const uint32_t id = client.Connect(kHere, kPort.number);
  ASSERT_TRUE(
      ServeUntil({server.get(), &other, &client}, [&] { return !server->requests.empty(); }));
  server->Do(server->requests.front(), [](Connection& connection, Connection::Output& out) {
    return connection.Accept({.kind = CmKind::kReply}, Process::Now(), out);
  });
  ASSERT_TRUE(ServeUntil({&client}, [&] { return !client.events.empty(); }));
  client.Do(id, [](Connection& connection, Connection::Output& out) {
    return connection.MakeReady(out);
  });
  server.reset();
  client.Do(id, [](Connection& connection, Connection::Output& out) {
    return connection.Disconnect(Process::Now(), out);
  });
  ASSERT_TRUE(ServeUntil({&other, &client}, [&] { return client.events.size() == 2; }));
  EXPECT_EQ(client.events.back().event, ConnectionEvent::kDisconnected);
}

TEST(AgentTest, BrokenDatagramsAreCountedAndDropped) {
  Process server(kHere);
  // A peer that sends what it likes.
  auto share = BindDatagramName("sumac-agent-test");
  ASSERT_TRUE(share.ok());
  auto socket = ManagementSocket::Open(share->get(), kThere, 0);
  ASSERT_TRUE(socket.ok());
  Mad mad;
  EncodeCmMessage({.kind = CmKind::kReady, .remote_id = 99}, mad);
  (*socket)->Send(kHere, 0, mad);  // no such connection
  mad[1] = std::byte{0x55};
  (*socket)->Send(kHere, 0, mad);  // no message of the connection manager
  // A request without addresses of rdma_cm.
  ASSERT_TRUE(server.agent->Claim(kPort).ok());
  server.agent->Listen(kPort, true);
  CmMessage request = server.RequestTo(kHere, kPort.number);
  request.private_data.fill(std::byte{0xff});
  EncodeCmMessage(request, mad);
  (*socket)->Send(kHere, 0, mad);
  EXPECT_TRUE(ServeUntil({&server}, [&] { return server.agent->counters().refused == 1; }));
  EXPECT_EQ(server.agent->counters().dropped_unknown, 1u);
  EXPECT_EQ(server.agent->counters().dropped_malformed, 1u);
  EXPECT_TRUE(server.requests.empty());
  // Other packets to the management queue pairs.
  LinkCounters counters;
  auto raw = TransmitSocket::Open({.source = kThere, .send_buffer_bytes = 65536}, &counters);
  ASSERT_TRUE(raw.ok());
  Path path;
  path.source = kThere;
  path.destination = kHere;
  const iovec payload{mad.data(), mad.size()};
  OutgoingPacket packet;
  packet.path = &path;
  packet.payload = std::span(&payload, 1);
  packet.header.opcode = Opcode::kUdSendOnly;
  packet.header.dest_qpn = packet.header.source_qpn = kManagementQpn;
  packet.header.qkey = 1;  // wrong
  ASSERT_TRUE((*raw)->Queue(packet));
  packet.header.qkey = kManagementQkey;
  packet.header.dest_qpn = 0;
  ASSERT_TRUE((*raw)->Queue(packet));
  const iovec short_payload{mad.data(), 128};
  packet.header.dest_qpn = kManagementQpn;
  packet.payload = std::span(&short_payload, 1);
  ASSERT_TRUE((*raw)->Queue(packet));
  (*raw)->Flush();
  EXPECT_TRUE(ServeUntil(
      {&server}, [&] { return server.agent->socket_counters().dropped_not_management == 3; }));
}

}  // namespace
}  // namespace sumac::soft_nic
