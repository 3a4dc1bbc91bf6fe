// Two connections in virtual time, over a wire that may lose.

#include "verbs/soft_nic/cm/connection.h"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using State = Connection::State;

struct Raised {
  ConnectionEvent event;
  int status;
  bool operator==(const Raised&) const = default;
};

class End : public Connection::Output {
 public:
  explicit End(uint32_t id) : connection(id, id) {}
  void Transmit(const CmMessage& message) override { sent.push_back(message); }
  void Raise(ConnectionEvent event, int status, const CmMessage*) override {
    raised.push_back({event, status});
  }
  std::vector<CmKind> Kinds() const {
    std::vector<CmKind> kinds;
    for (const CmMessage& message : sent) kinds.push_back(message.kind);
    return kinds;
  }
  Connection connection;
  std::deque<CmMessage> sent;
  std::vector<Raised> raised;
};

class ConnectionTest : public testing::Test {
 protected:
  // Carries messages both ways until none is on its way. `loses` says which get lost.
  void Carry(const std::function<bool(const CmMessage&)>& loses = {}) {
    while (!client_.sent.empty() || !server_.sent.empty()) {
      for (const auto& [from, to] : {std::pair(&client_, &server_), {&server_, &client_}}) {
        while (!from->sent.empty()) {
          const CmMessage message = from->sent.front();
          from->sent.pop_front();
          if (loses && loses(message)) continue;
          if (to->connection.state() == State::kIdle && message.kind == request_.kind) {
            to->connection.TakeRequest(message);
          } else if (to->connection.state() != State::kIdle) {
            to->connection.OnMessage(message, now_, *to);
          }
        }
      }
    }
  }
  // To the next timeout of either; false when there is none.
  bool Advance() {
    const Time next = std::min(client_.connection.NextTimeout(), server_.connection.NextTimeout());
    if (next == kNever) return false;
    now_ = next;
    client_.connection.OnTimeout(now_, client_);
    server_.connection.OnTimeout(now_, server_);
    return true;
  }
  void Establish() {
    client_.connection.Connect(request_, now_, client_);
    Carry();
    ASSERT_TRUE(server_.connection.Accept(reply_, now_, server_));
    Carry();
    ASSERT_TRUE(client_.connection.MakeReady(client_));
    Carry();
    ASSERT_EQ(client_.connection.state(), State::kEstablished);
    ASSERT_EQ(server_.connection.state(), State::kEstablished);
  }

  Time now_{};
  CmMessage request_{.kind = CmKind::kRequest, .transaction_id = 9, .qpn = 0x11};
  CmMessage reply_{.kind = CmKind::kReply, .qpn = 0x22};
  End client_{100};
  End server_{200};
};

TEST_F(ConnectionTest, ConnectsAndDisconnects) {
  Establish();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kReplied, 0}));
  EXPECT_THAT(server_.raised, ElementsAre(Raised{ConnectionEvent::kEstablished, 0}));
  EXPECT_EQ(client_.connection.reply().qpn, 0x22u);
  EXPECT_EQ(server_.connection.request().qpn, 0x11u);
  EXPECT_EQ(client_.connection.reply().starting_psn, 200u);
  EXPECT_EQ(server_.connection.request().starting_psn, 100u);
  EXPECT_EQ(client_.connection.NextTimeout(), kNever);
  EXPECT_EQ(server_.connection.NextTimeout(), kNever);

  client_.raised.clear();
  server_.raised.clear();
  ASSERT_TRUE(client_.connection.Disconnect(now_, client_));
  EXPECT_EQ(client_.sent.front().qpn, 0x22u);  // DREQ names the receiver's
  Carry();
  EXPECT_THAT(server_.raised, ElementsAre(Raised{ConnectionEvent::kDisconnected, 0}));
  EXPECT_THAT(client_.raised, IsEmpty());  // until the other side disconnects as well
  ASSERT_TRUE(server_.connection.Disconnect(now_, server_));
  Carry();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kDisconnected, 0}));
  while (Advance()) Carry();
  EXPECT_EQ(client_.connection.state(), State::kClosed);
  EXPECT_EQ(server_.connection.state(), State::kClosed);
  EXPECT_EQ(client_.raised.back(), (Raised{ConnectionEvent::kOver, 0}));
  EXPECT_EQ(server_.raised.back(), (Raised{ConnectionEvent::kOver, 0}));
}

TEST_F(ConnectionTest, EachMessageMayGetLostOnce) {
  for (const CmKind lost : {CmKind::kRequest, CmKind::kReply, CmKind::kReady,
                            CmKind::kDisconnectRequest, CmKind::kDisconnectReply}) {
    SCOPED_TRACE(NameOf(lost));
    End client(1), server(2);
    bool gone = false, disconnected = false;
    Time now{};
    std::deque<std::pair<End*, CmMessage>> wire;
    client.connection.Connect(request_, now, client);
    for (int step = 0; step < 200; ++step) {
      for (End* end : {&client, &server}) {
        for (const CmMessage& message : end->sent) {
          if (message.kind == lost && !gone) {
            gone = true;
            continue;
          }
          wire.emplace_back(end == &client ? &server : &client, message);
        }
        end->sent.clear();
      }
      if (wire.empty()) {
        const Time next =
            std::min(client.connection.NextTimeout(), server.connection.NextTimeout());
        if (next == kNever) break;
        now = next;
        client.connection.OnTimeout(now, client);
        server.connection.OnTimeout(now, server);
        continue;
      }
      const auto [to, message] = wire.front();
      wire.pop_front();
      if (to->connection.state() == State::kIdle) {
        to->connection.TakeRequest(message);
        ASSERT_TRUE(to->connection.Accept(reply_, now, *to));
      } else {
        to->connection.OnMessage(message, now, *to);
      }
      if (client.connection.state() == State::kReplyReceived) {
        ASSERT_TRUE(client.connection.MakeReady(client));
      }
      if (server.connection.state() == State::kEstablished && !disconnected) {
        disconnected = true;
        ASSERT_TRUE(server.connection.Disconnect(now, server));
      }
      if (client.connection.state() == State::kDisconnectReceived) {
        ASSERT_TRUE(client.connection.Disconnect(now, client));
      }
    }
    EXPECT_TRUE(gone);
    EXPECT_THAT(client.raised, ElementsAre(Raised{ConnectionEvent::kReplied, 0},
                                           Raised{ConnectionEvent::kDisconnected, 0},
                                           Raised{ConnectionEvent::kOver, 0}));
    EXPECT_THAT(server.raised, ElementsAre(Raised{ConnectionEvent::kEstablished, 0},
                                           Raised{ConnectionEvent::kDisconnected, 0},
                                           Raised{ConnectionEvent::kOver, 0}));
  }
}

TEST_F(ConnectionTest, NobodyAnswers) {
  client_.connection.Connect(request_, now_, client_);
  while (Advance()) {
  }
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kUnreachable, -ETIMEDOUT}));
  EXPECT_EQ(client_.connection.state(), State::kClosed);
  const auto kinds = client_.Kinds();
  EXPECT_EQ(std::count(kinds.begin(), kinds.end(), CmKind::kRequest), Connection::kRetriesMax + 1);
  EXPECT_EQ(kinds.back(), CmKind::kReject);  // should the peer be there after all
  EXPECT_LT(now_ - Time{}, seconds(70));
  EXPECT_GT(now_ - Time{}, seconds(40));
}

TEST_F(ConnectionTest, ReplyIsNotAnswered) {
  client_.connection.Connect(request_, now_, client_);
  Carry();
  ASSERT_TRUE(server_.connection.Accept(reply_, now_, server_));
  while (server_.connection.NextTimeout() != kNever) {
    now_ = server_.connection.NextTimeout();
    server_.connection.OnTimeout(now_, server_);
  }
  EXPECT_THAT(server_.raised, ElementsAre(Raised{ConnectionEvent::kUnreachable, -ETIMEDOUT}));
}

TEST_F(ConnectionTest, WhoIsSlowSaysSo) {
  client_.connection.Connect(request_, now_, client_);
  Carry();
  // Asked again, the server has nothing to say yet but that it is there.
  ASSERT_TRUE(Advance());
  EXPECT_LE(now_ - Time{}, milliseconds(320));
  Carry();
  EXPECT_EQ(client_.connection.state(), State::kRequestSent);
  EXPECT_GT(client_.connection.NextTimeout() - now_, seconds(60));
  ASSERT_TRUE(server_.connection.Accept(reply_, now_, server_));
  Carry();
  EXPECT_EQ(client_.connection.state(), State::kReplyReceived);
  // The same at the other end.
  ASSERT_TRUE(Advance());
  Carry();
  EXPECT_GT(server_.connection.NextTimeout() - now_, seconds(60));
  ASSERT_TRUE(client_.connection.MakeReady(client_));
  Carry();
  EXPECT_EQ(server_.connection.state(), State::kEstablished);
}

TEST_F(ConnectionTest, APeersLongestWaitIsBounded) {
  client_.connection.Connect(request_, now_, client_);
  Carry();
  CmMessage slow{.kind = CmKind::kProcessing, .local_id = 200, .remote_id = 100};
  slow.about = CmAbout::kRequest;
  slow.service_timeout = 31;  // more than two hours
  client_.connection.OnMessage(slow, now_, client_);
  EXPECT_LT(client_.connection.NextTimeout() - now_, seconds(150));
}

TEST_F(ConnectionTest, Refusal) {
  client_.connection.Connect(request_, now_, client_);
  Carry();
  CmMessage rejection{.reason = kCmConsumerDefined};
  rejection.private_data[0] = std::byte{42};
  ASSERT_TRUE(server_.connection.Reject(rejection, server_));
  EXPECT_EQ(server_.sent.front().private_data[0], std::byte{42});
  Carry();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kRejected, kCmConsumerDefined}));
  EXPECT_EQ(client_.connection.state(), State::kClosed);
  EXPECT_EQ(server_.connection.state(), State::kClosed);
}

TEST_F(ConnectionTest, BothDisconnectAtOnce) {
  Establish();
  client_.raised.clear();
  server_.raised.clear();
  ASSERT_TRUE(client_.connection.Disconnect(now_, client_));
  ASSERT_TRUE(server_.connection.Disconnect(now_, server_));
  Carry();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kDisconnected, 0}));
  EXPECT_THAT(server_.raised, ElementsAre(Raised{ConnectionEvent::kDisconnected, 0}));
}

TEST_F(ConnectionTest, APeerThatIsGoneIsGivenUp) {
  Establish();
  client_.raised.clear();
  ASSERT_TRUE(client_.connection.Disconnect(now_, client_));
  const Time began = now_;
  while (Advance()) client_.sent.clear();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kDisconnected, 0},
                                          Raised{ConnectionEvent::kOver, 0}));
  EXPECT_LT(now_ - began, seconds(30));
}

TEST_F(ConnectionTest, AbandonedOnesTellThePeerAndNobodyElse) {
  Establish();
  client_.raised.clear();
  client_.connection.Abandon(now_, client_);
  Carry();
  EXPECT_EQ(server_.raised.back(), (Raised{ConnectionEvent::kDisconnected, 0}));
  server_.connection.Abandon(now_, server_);
  Carry();
  while (Advance()) Carry();
  EXPECT_EQ(client_.connection.state(), State::kClosed);
  EXPECT_EQ(server_.connection.state(), State::kClosed);
  EXPECT_THAT(client_.raised, IsEmpty());
}

TEST_F(ConnectionTest, AbandonedRequestsAreRefused) {
  client_.connection.Connect(request_, now_, client_);
  Carry();
  server_.connection.Abandon(now_, server_);
  Carry();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kRejected, kCmConsumerDefined}));
}

TEST_F(ConnectionTest, MessagesOfOthersChangeNothing) {
  Establish();
  const size_t raised = server_.raised.size();
  for (const CmKind kind :
       {CmKind::kRequest, CmKind::kReply, CmKind::kReady, CmKind::kReject, CmKind::kProcessing,
        CmKind::kDisconnectRequest, CmKind::kDisconnectReply, CmKind::kServiceRequest,
        CmKind::kServiceReply}) {
    // Right ID of ours, wrong one of theirs.
    server_.connection.OnMessage({.kind = kind, .local_id = 7, .remote_id = 200}, now_, server_);
    EXPECT_EQ(server_.connection.state(), State::kEstablished) << NameOf(kind);
  }
  EXPECT_EQ(server_.raised.size(), raised);
  EXPECT_TRUE(server_.sent.empty());
}

TEST_F(ConnectionTest, TrafficProvesReadiness) {
  client_.connection.Connect(request_, now_, client_);
  Carry();
  ASSERT_TRUE(server_.connection.Accept(reply_, now_, server_));
  ASSERT_TRUE(server_.connection.Establish(server_));
  EXPECT_THAT(server_.raised, ElementsAre(Raised{ConnectionEvent::kEstablished, 0}));
}

TEST_F(ConnectionTest, AServiceIsFound) {
  request_.kind = CmKind::kServiceRequest;
  client_.connection.Connect(request_, now_, client_);
  Carry();
  reply_.kind = CmKind::kServiceReply;
  reply_.qkey = 5;
  ASSERT_TRUE(server_.connection.Accept(reply_, now_, server_));
  server_.sent.clear();  // lost
  ASSERT_TRUE(Advance());
  Carry();
  EXPECT_THAT(client_.raised, ElementsAre(Raised{ConnectionEvent::kReplied, 0}));
  EXPECT_EQ(client_.connection.reply().qkey, 5u);
  EXPECT_EQ(client_.connection.reply().qpn, 0x22u);
}

TEST_F(ConnectionTest, AServiceRefuses) {
  request_.kind = CmKind::kServiceRequest;
  client_.connection.Connect(request_, now_, client_);
  Carry();
  ASSERT_TRUE(server_.connection.Reject({}, server_));
  Carry();
  EXPECT_THAT(client_.raised,
              ElementsAre(Raised{ConnectionEvent::kUnreachable, kCmServiceRejected}));
}

}  // namespace
}  // namespace sumac::soft_nic
