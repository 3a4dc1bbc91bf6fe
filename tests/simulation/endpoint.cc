#include "tests/simulation/endpoint.h"

namespace sumac::soft_nic::simulation {

Endpoint::Endpoint(VirtualNetwork& network, Way way, const QueuePairLimits& limits,
                   OnCompletion on_send, OnCompletion on_receive, testing::TestMemory* shared_keys)
    : network_(network),
      out_(way.out),
      on_send_(std::move(on_send)),
      on_receive_(std::move(on_receive)),
      qp_(std::make_unique<QueuePair>(limits, shared_keys != nullptr ? *shared_keys : keys,
                                      on_send_, on_receive_)) {
  ReceiveFrom(way.in);
}

void Endpoint::AddWay(const Gid& destination, Way way) {
  ways_.emplace_back(destination, way.out);
  ReceiveFrom(way.in);
}

void Endpoint::ReceiveFrom(size_t link) {
  network_.AddReceiver(link, qp_->qpn(), [this](const PacketView& packet, const Gid& source) {
    ++delivered;
    if (watch) watch(packet);
    qp_->OnPacket(packet, source, network_.now());
    Poll();
  });
}

void Endpoint::Connect(const ReceiveConfig& receive, const SendConfig& send) {
  qp_->ToInit();
  qp_->ToReadyToReceive(receive);
  qp_->ToReadyToSend(send);
}

void Endpoint::Ring() {
  qp_->OnDoorbell(network_.now());
  Poll();
}

bool Endpoint::Transmit(const OutgoingPacket& packet) {
  if (refuse_rate != 0 && network_.random.Chance(refuse_rate)) return false;
  size_t out = out_;
  for (const auto& [destination, link] : ways_) {
    if (packet.path->destination == destination) out = link;
  }
  network_.Send(out, packet);
  return true;
}

void Endpoint::Poll() {
  const auto budget = static_cast<uint32_t>(network_.random.Between(1, budget_max));
  if (qp_->PollTransmit(*this, network_.now(), budget)) SchedulePoll(Duration(500));
  const Time due = qp_->NextTimeout();
  if (due == kNever || due == timer_scheduled_) return;
  timer_scheduled_ = due;
  network_.At(due, [this, due] {
    if (timer_scheduled_ == due) timer_scheduled_ = kNever;
    if (qp_->NextTimeout() > network_.now()) return;  // moved since
    qp_->OnTimeout(network_.now());
    Poll();
  });
}

void Endpoint::SchedulePoll(Duration delay) {
  if (poll_scheduled_) return;
  poll_scheduled_ = true;
  network_.After(delay, [this] {
    poll_scheduled_ = false;
    Poll();
  });
}

}  // namespace sumac::soft_nic::simulation
