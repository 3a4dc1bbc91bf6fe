#include "tests/simulation/endpoint.h"

namespace sumac::soft_nic::simulation {

Endpoint::Endpoint(VirtualNetwork& network, size_t out, size_t in, const QueuePairLimits& limits,
                   OnCompletion on_send, OnCompletion on_receive)
    : network_(network),
      out_(out),
      on_send_(std::move(on_send)),
      on_receive_(std::move(on_receive)),
      qp_(std::make_unique<QueuePair>(limits, keys, on_send_, on_receive_)) {
  network_.AddReceiver(in, limits.qpn, [this](const PacketView& packet) {
    ++delivered;
    qp_->OnPacket(packet, network_.now());
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
  network_.Send(out_, packet);
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
