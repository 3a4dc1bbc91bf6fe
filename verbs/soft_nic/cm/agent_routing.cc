// Which process, and which of its connections, a message is for.

#include <cstring>
#include <vector>

#include "verbs/log.h"
#include "verbs/soft_nic/cm/agent.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {
namespace {

constexpr Duration kTryAgainAfter = std::chrono::milliseconds(1);
constexpr Duration kLookAgainAfter = std::chrono::milliseconds(5);
constexpr Duration kTryFor = std::chrono::seconds(2);

bool IsQuestion(CmKind kind) { return kind == CmKind::kRequest || kind == CmKind::kServiceRequest; }

}  // namespace

bool Agent::HandOn(const std::string& name, const Gid& source,
                   std::span<const std::byte, kMadBytes> mad) {
  HandedOn message;
  message.source = source;
  std::memcpy(message.mad.data(), mad.data(), mad.size());
  const Time now = std::chrono::steady_clock::now();
  const SendResult result = waiting_.empty() || waiting_.back().name != name
                                ? SendToName(handed_on_.get(), name, &message, sizeof(message))
                                : SendResult::kNoRoom;
  if (result == SendResult::kSent) ++counters_.handed_on;
  if (result == SendResult::kNoRoom) {
    if (waiting_.size() >= kWaitingMax) {
      ++counters_.dropped_no_room;
    } else {
      waiting_.push_back({name, message, now + kTryFor});
      try_again_ = now + kTryAgainAfter;
    }
  }
  return result != SendResult::kNobody;
}

void Agent::HandOnWaiting(Time now) {
  if (now < try_again_) return;
  std::deque<Waiting> left;
  for (Waiting& each : waiting_) {
    const bool stuck = !left.empty() && left.back().name == each.name;
    const SendResult result =
        stuck ? SendResult::kNoRoom
              : SendToName(handed_on_.get(), each.name, &each.message, sizeof(each.message));
    if (result == SendResult::kNoRoom && now < each.until) {
      left.push_back(std::move(each));
    } else {
      ++(result == SendResult::kSent ? counters_.handed_on : counters_.dropped_no_room);
    }
  }
  waiting_ = std::move(left);
  try_again_ = waiting_.empty() ? kNever : now + kTryAgainAfter;
}

void Agent::ReadHandedOn(int fd) {
  constexpr int kAtOnce = 64;
  const Time now = std::chrono::steady_clock::now();
  for (int i = 0; i < kAtOnce; ++i) {
    HandedOn message;
    const size_t size = ReceiveFromOwnUser(fd, &message, sizeof(message));
    if (size == 0) return;
    if (size != sizeof(message) || message.magic != HandedOn{}.magic) {
      ++counters_.dropped_malformed;
      continue;
    }
    OnDatagram(message.source, message.mad, true, now);
  }
}

void Agent::OnDatagram(const Gid& source, std::span<const std::byte, kMadBytes> mad, bool handed_on,
                       Time now) {
  CmMessage message;
  if (DecodeCmMessage(mad, &message) != CmDecodeError::kNone) {
    ++counters_.dropped_malformed;
    return;
  }
  Log().debug("rdma_cm: {} from {}, IDs {:08x} {:08x}{}", soft_nic::NameOf(message.kind),
              ToString(source), message.local_id, message.remote_id,
              handed_on ? ", handed on" : "");
  if (IsQuestion(message.kind)) return OnQuestion(source, message, mad, handed_on, now);
  const uint32_t id = message.remote_id;
  if (NumberOf(id) != number_ && !handed_on && id != 0) {
    if (!HandOn(NameOf(NumberOf(id)), source, mad)) AnswerForNobody(source, message);
    return;
  }
  Endpoint* const endpoint = Find(id);
  if (endpoint == nullptr || endpoint->peer != source) return AnswerForNobody(source, message);
  endpoint->connection.OnMessage(message, now, *endpoint);
  Settle(id);
}

void Agent::OnQuestion(const Gid& source, const CmMessage& message,
                       std::span<const std::byte, kMadBytes> mad, bool handed_on, Time now) {
  const auto known = requests_.find({source, message.local_id, message.transaction_id});
  if (known != requests_.end()) {
    const uint32_t id = known->second;
    Endpoint& endpoint = *endpoints_.at(id);
    endpoint.connection.OnMessage(message, now, endpoint);
    return Settle(id);
  }
  if (FindListener(source, message, mad, handed_on)) return;
  if (early_.size() >= kEarlyMax) return Refuse(source, message, kCmInvalidServiceId);
  Early& early = early_.emplace_back(Early{source, {}, handed_on, now + kEarlyTime});
  std::memcpy(early.mad.data(), mad.data(), mad.size());
  look_again_ = std::min(look_again_, now + kLookAgainAfter);
}

// True: somebody has the request.
bool Agent::FindListener(const Gid& source, const CmMessage& message,
                         std::span<const std::byte, kMadBytes> mad, bool handed_on) {
  const CmPort port{static_cast<uint16_t>(message.service_id >> 16),
                    static_cast<uint16_t>(message.service_id)};
  if (message.service_id != CmServiceId(port.space, port.number)) return false;
  const auto claimed = claimed_.find(port);
  if (claimed == claimed_.end()) return !handed_on && HandOn(NameOf(port), source, mad);
  if (!claimed->second.listens) return false;
  TakeQuestion(source, message, port);
  return true;
}

void Agent::LookAgain(Time now) {
  if (now < look_again_) return;
  std::deque<Early> left;
  std::swap(left, early_);
  for (const Early& early : left) {
    CmMessage message;
    if (DecodeCmMessage(early.mad, &message) != CmDecodeError::kNone) continue;
    if (requests_.contains({early.source, message.local_id, message.transaction_id})) continue;
    if (FindListener(early.source, message, early.mad, early.handed_on)) continue;
    if (now < early.until) {
      early_.push_back(early);
    } else {
      Refuse(early.source, message, kCmInvalidServiceId);
    }
  }
  look_again_ = early_.empty() ? kNever : now + kLookAgainAfter;
}

void Agent::TakeQuestion(const Gid& source, const CmMessage& message, CmPort port) {
  const bool datagram = message.kind == CmKind::kServiceRequest;
  CmAddresses addresses;
  if (!ReadCmAddresses(std::span(message.private_data).first<kCmAddressesBytes>(), &addresses)) {
    return Refuse(source, message, kCmUnsupported);
  }
  if (!datagram) {
    if (message.transport != kCmReliableConnection &&
        message.transport != kCmUnreliableConnection) {
      return Refuse(source, message, kCmInvalidTransportType);
    }
    // What we send goes to where the request came from and to nobody else.
    if (message.local_gid != source || message.remote_gid != gid_) {
      return Refuse(source, message, kCmInvalidGid);
    }
  }
  size_t half_open = 0;
  for (const auto& [key, id] : requests_) {
    half_open += endpoints_.at(id)->connection.state() == Connection::State::kRequestReceived;
  }
  if (half_open >= kHalfOpenMax || endpoints_.size() >= kConnectionsMax) {
    ++counters_.dropped_no_room;
    return;
  }
  Endpoint& endpoint = NewEndpoint(source, message.traffic_class);
  const uint32_t id = endpoint.connection.local_id();
  endpoint.connection.TakeRequest(message);
  requests_[{source, message.local_id, message.transaction_id}] = id;
  if (!events_.OnRequest(port, endpoint, addresses)) {
    CmMessage rejection;
    rejection.reason = kCmNoResources;
    (void)endpoint.connection.Reject(rejection, endpoint);
    ++counters_.refused;
  }
  Settle(id);
}

void Agent::Refuse(const Gid& source, const CmMessage& question, CmRejectReason reason) {
  ++counters_.refused;
  CmMessage answer;
  answer.kind = question.kind == CmKind::kServiceRequest ? CmKind::kServiceReply : CmKind::kReject;
  answer.transaction_id = question.transaction_id;
  answer.remote_id = question.local_id;
  answer.service_id = question.service_id;
  answer.status = kCmServiceUnknown;
  answer.about = CmAbout::kRequest;
  answer.reason = reason;
  Send(source, question.traffic_class, answer);
}

void Agent::AnswerForNobody(const Gid& source, const CmMessage& message) {
  CmMessage answer;
  answer.transaction_id = message.transaction_id;
  answer.local_id = message.remote_id;
  answer.remote_id = message.local_id;
  if (message.kind == CmKind::kDisconnectRequest) {
    answer.kind = CmKind::kDisconnectReply;
  } else if (message.kind == CmKind::kReply) {
    answer.kind = CmKind::kReject;
    answer.about = CmAbout::kReply;
    answer.reason = kCmInvalidCommunicationId;
  } else {
    ++counters_.dropped_unknown;
    return;
  }
  Send(source, 0, answer);
}

}  // namespace sumac::soft_nic
