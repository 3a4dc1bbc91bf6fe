// Fuzzes an end of a connection of the connection manager: a program's calls, a hostile peer's
// datagrams, and time.
//
// Promises: whatever comes, a datagram is a message or none; what is one encodes back; a connection
// answers with at most two messages, says at most one thing to its program, never anything once it
// is abandoned, and comes to an end when nobody says anything any more.
#include <algorithm>
#include <array>

#include "tests/fuzz/fuzz_target.h"
#include "verbs/soft_nic/cm/connection.h"

namespace sumac::fuzz {

using soft_nic::CmKind;
using soft_nic::CmMessage;
using soft_nic::Connection;
using soft_nic::Mad;
using soft_nic::Time;

namespace {

constexpr uint32_t kOurs = 5;
constexpr uint32_t kTheirs = 6;

class Counter : public Connection::Output {
 public:
  void Transmit(const CmMessage& message) override {
    ++sent;
    Mad mad;
    CmMessage back;
    EncodeCmMessage(message, mad);
    SUMAC_FUZZ_CHECK(DecodeCmMessage(mad, &back) == soft_nic::CmDecodeError::kNone);
    SUMAC_FUZZ_CHECK(back.kind == message.kind);
  }
  void Raise(soft_nic::ConnectionEvent, int, const CmMessage*) override { ++raised; }
  int sent = 0;
  int raised = 0;
};

// The next bytes over a datagram that would make sense.
CmMessage NextMessage(InputReader& input) {
  CmMessage message;
  message.kind = static_cast<CmKind>(0x10 + input.Byte() % 9);
  message.local_id = kTheirs;
  message.remote_id = kOurs;
  Mad mad;
  EncodeCmMessage(message, mad);
  for (int changes = input.Byte() % 8; changes > 0; --changes) {
    const uint8_t at = input.Byte();
    mad[at] ^= static_cast<std::byte>(input.Byte());
  }
  if (DecodeCmMessage(mad, &message) != soft_nic::CmDecodeError::kNone) return {};
  Mad again;
  CmMessage back;
  EncodeCmMessage(message, again);
  SUMAC_FUZZ_CHECK(DecodeCmMessage(again, &back) == soft_nic::CmDecodeError::kNone);
  SUMAC_FUZZ_CHECK(back.private_data == message.private_data && back.qpn == message.qpn);
  return message;
}

}  // namespace

std::vector<Bytes> Seeds() {
  std::vector<Bytes> seeds;
  // Kinds, by their order: REP 3, RTU 4, DREQ 5, DREP 6. Operations as below.
  for (const uint8_t service : {0, 1}) {
    seeds.push_back({service, 0, 0, 3, 0, 3, 6, 0, 6, 0});              // asks, is ready, parts
    seeds.push_back({service, 1, 2, 0, 4, 0, 0, 5, 0, 6});              // is asked, and is parted
    seeds.push_back({service, 0, 0, 1, 0, 7, 7, 0, 2, 0});              // waits, is refused
    seeds.push_back({service, 1, 4, 7, 7, 7, 7, 8, 0, 0});              // refuses
    seeds.push_back({service, 0, 0, 3, 0, 3, 8, 7, 7, 7, 0, 5, 0, 7});  // abandons
  }
  return seeds;
}

}  // namespace sumac::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sumac::fuzz;
  InputReader input(data, size);
  Connection connection(kOurs, 1);
  Counter counter;
  Time now{};
  bool abandoned = false;
  CmMessage request;
  request.kind = input.Byte() % 2 != 0 ? CmKind::kServiceRequest : CmKind::kRequest;
  if (input.Byte() % 2 == 0) {
    connection.Connect(request, now, counter);
  } else {
    request.local_id = kTheirs;
    connection.TakeRequest(request);
  }
  while (!input.empty()) {
    const Counter before = counter;
    switch (input.Byte() % 9) {
      case 0:
      case 1:
        connection.OnMessage(NextMessage(input), now, counter);
        break;
      case 2: {
        CmMessage reply;
        reply.kind = connection.datagram() ? CmKind::kServiceReply : CmKind::kReply;
        static_cast<void>(connection.Accept(reply, now, counter));
        break;
      }
      case 3:
        static_cast<void>(connection.MakeReady(counter));
        break;
      case 4:
        static_cast<void>(connection.Reject({}, counter));
        break;
      case 5:
        static_cast<void>(connection.Establish(counter));
        break;
      case 6:
        static_cast<void>(connection.Disconnect(now, counter));
        break;
      case 7:
        now = std::min(connection.NextTimeout(), now + std::chrono::seconds(input.Byte()));
        connection.OnTimeout(now, counter);
        break;
      case 8:
        connection.Abandon(now, counter);
        abandoned = true;
        break;
    }
    SUMAC_FUZZ_CHECK(counter.sent - before.sent <= 2);
    SUMAC_FUZZ_CHECK(counter.raised - before.raised <= 1);
    SUMAC_FUZZ_CHECK(!abandoned || counter.raised == before.raised);
  }
  connection.Abandon(now, counter);
  for (int i = 0; connection.NextTimeout() != sumac::soft_nic::kNever; ++i) {
    SUMAC_FUZZ_CHECK(i < 100);
    now = connection.NextTimeout();
    connection.OnTimeout(now, counter);
  }
  SUMAC_FUZZ_CHECK(connection.state() == Connection::State::kClosed);
  return 0;
}
