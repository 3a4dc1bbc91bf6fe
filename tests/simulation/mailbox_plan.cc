// Drawing a mailbox's letters, and connecting everybody.
#include <algorithm>
#include <cstring>

#include "tests/simulation/mailbox.h"
#include "verbs/soft_nic/engine/queue_pair_parts.h"
#include "verbs/soft_nic/wire/grh.h"

namespace sumac::soft_nic::simulation {
namespace {

constexpr uint64_t kGuardBytes = 64;
constexpr std::byte kUntouched{0xee};
constexpr uint32_t kNumberBytes = 4;  // a letter without immediate begins with its number

}  // namespace

uint32_t Mailbox::PacketsOfLetter(const Letter& letter) const {
  return letter.sent ? PacketsOf(letter.length, options_.mtu) : 0;
}

void Mailbox::DrawLetters(Sender& sender) {
  static constexpr ibv_wr_opcode kOpcodes[] = {IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE,
                                               IBV_WR_RDMA_WRITE_WITH_IMM};
  uint32_t psn = options_.first_psn;
  for (uint32_t number = 0; number < options_.letters; ++number) {
    Letter letter{};
    letter.opcode = kOpcodes[random_.Below(datagrams() ? 2 : std::size(kOpcodes))];
    // Datagrams longer than the MTU do not go out.
    const uint32_t most = datagrams() ? options_.mtu + options_.mtu / 8 : options_.letter_bytes_max;
    letter.length = static_cast<uint32_t>(
        random_.Between(kNumberBytes, random_.Chance(3000) ? 4 * kNumberBytes : most));
    letter.sent = !datagrams() || letter.length <= options_.mtu;
    letter.bad_qkey = datagrams() && random_.Chance(1000);
    if (random_.Chance(5000)) letter.flags |= IBV_SEND_SIGNALED;
    if (letter.length <= 64 && random_.Chance(5000)) letter.flags |= IBV_SEND_INLINE;
    psn = (psn + PacketsOfLetter(letter)) & kPsnMask;
    letter.last_psn = (psn - 1) & kPsnMask;
    letter.offset = sender.memory.size();
    sender.memory.resize(letter.offset + letter.length);
    if (letter.opcode == IBV_WR_RDMA_WRITE || letter.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
      letter.zone = memory_.size();
      memory_.resize(letter.zone + letter.length + kGuardBytes, kUntouched);
    }
    sender.letters.push_back(letter);
  }
  sender.letters.back().flags |= IBV_SEND_SIGNALED;
  // Never kUntouched: a byte that a WRITE placed can be told from one that it did not.
  for (std::byte& byte : sender.memory) byte = static_cast<std::byte>(random_.Next() & 0x7f);
  for (uint32_t number = 0; number < options_.letters; ++number) {
    std::memcpy(&sender.memory[sender.letters[number].offset], &number, kNumberBytes);
  }
}

void Mailbox::MakeSender(const MailboxSender& place, uint32_t qpn) {
  const size_t index = senders_.size();
  Sender& sender = senders_.emplace_back();
  sender.node = place.node;
  DrawLetters(sender);
  QueuePairLimits limits;
  limits.type = options_.service;
  limits.qpn = qpn;
  limits.max_send_wr = options_.max_wr;
  limits.max_recv_wr = 1;
  sender.endpoint = std::make_unique<Endpoint>(
      network_, place.way, limits,
      [this, index](const ibv_wc& completion, bool) { OnSend(index, completion); },
      [](const ibv_wc&, bool) {});
  sender.endpoint->refuse_rate = options_.refuse_rate;
  sender.key = sender.endpoint->keys.Add(sender.memory.data(), sender.memory.size(), 0);
}

void Mailbox::MakeReceivers(const std::vector<MailboxSender>& senders, uint32_t qpn) {
  const size_t count = datagrams() ? 1 : senders.size();
  completions_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    QueuePairLimits limits;
    limits.type = options_.service;
    limits.qpn = qpn + static_cast<uint32_t>(2 * i);
    limits.max_send_wr = 1;
    limits.max_recv_wr = options_.buffers;
    limits.shared_receives = shared_.get();
    const Way way = senders[i].way;
    auto receiver = std::make_unique<Endpoint>(
        network_, Way{way.in, way.out}, limits,
        [this, i](const ibv_wc&, bool) { Complain(i, "a completion of nothing"); },
        [this, i](const ibv_wc& completion, bool) { OnReceive(i, completion); }, &keys_);
    receiver->watch = [this, i](const PacketView& packet) {
      if ((packet.flags & kIsRequest) == 0 || (packet.flags & kEndsMessage) == 0) return;
      const size_t sender = datagrams() ? (packet.header.source_qpn - qpn_) / 2 : i;
      ++senders_[sender].arrivals[packet.header.psn];
    };
    receivers_.push_back(std::move(receiver));
  }
  std::vector<size_t> known = {senders[0].way.out};
  for (const MailboxSender& sender : senders) {
    if (!datagrams() || std::find(known.begin(), known.end(), sender.way.out) != known.end()) {
      continue;
    }
    known.push_back(sender.way.out);
    receivers_[0]->AddWay(NodeAddress(sender.node), {sender.way.in, sender.way.out});
  }
}

Mailbox::Mailbox(VirtualNetwork& network, uint32_t node, const std::vector<MailboxSender>& senders,
                 uint32_t qpn, const MailboxOptions& options)
    : network_(network), options_(options), node_(node), qpn_(qpn), random_(network.random.Next()) {
  buffer_bytes_ = kGrhBytes + std::max(options_.letter_bytes_max, options_.mtu);
  stride_ = buffer_bytes_ + kGuardBytes;
  memory_.resize(options_.buffers * stride_, kUntouched);
  posted_.resize(options_.buffers);
  if (options_.shared) {
    shared_ = std::make_unique<SharedReceiveQueue>(options_.buffers, 2, keys_, [] {});
  }
  senders_.reserve(senders.size());
  for (const MailboxSender& sender : senders) {
    MakeSender(sender, qpn + static_cast<uint32_t>(2 * senders_.size()));
  }
  MakeReceivers(senders, qpn + 1);
  key_ = keys_.Add(memory_.data(), memory_.size(), testing::kAllAccess);
  handle_.path.source = NodeAddress(node_);
  handle_.path.destination = NodeAddress(node_);
}

void Mailbox::Connect(size_t index) {
  Sender& sender = senders_[index];
  Endpoint& receiver = *receivers_[datagrams() ? 0 : index];
  ReceiveConfig receive;
  receive.mtu_bytes = options_.mtu;
  receive.min_rnr_timer = options_.rnr_timer;
  receive.access_flags = testing::kAllAccess;
  receive.expected_psn = options_.first_psn;
  receive.qkey = qpn_;
  SendConfig send;
  send.first_psn = options_.first_psn;
  send.timeout = options_.ack_timeout;
  send.congestion = options_.congestion;
  receive.remote_qpn = receiver.qp().qpn();
  receive.path.source = NodeAddress(sender.node);
  receive.path.destination = NodeAddress(node_);
  sender.endpoint->Connect(receive, send);
  if (datagrams() && index != 0) return;
  receive.remote_qpn = sender.endpoint->qp().qpn();
  std::swap(receive.path.source, receive.path.destination);
  receiver.Connect(receive, send);
}

}  // namespace sumac::soft_nic::simulation
