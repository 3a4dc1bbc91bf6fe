#include "verbs/soft_nic/engine/queue_pair.h"

#include <atomic>
#include <cerrno>

#include "verbs/soft_nic/engine/queue_pair_parts.h"
#include "verbs/soft_nic/engine/requester.h"
#include "verbs/soft_nic/engine/responder.h"

namespace sumac::soft_nic {

struct QueuePair::Impl {
  Impl(const QueuePairLimits& limits, Memory& memory, CompletionSink& send_completions,
       CompletionSink& receive_completions)
      : parts{.limits = limits,
              .memory = memory,
              .send_completions = send_completions,
              .receive_completions = receive_completions,
              .send_queue{limits.max_send_wr, limits.max_send_sge, limits.max_inline_bytes},
              .receive_queue{limits.max_recv_wr, limits.max_recv_sge},
              .receive_config = {},
              .send_config = {},
              .counters = {}},
        requester(parts),
        responder(parts) {}

  ibv_qp_state CurrentState() const { return state.load(std::memory_order_acquire); }

  void EnterError() {
    state.store(IBV_QPS_ERR, std::memory_order_release);
    FlushBoth();
  }

  void FlushBoth() {
    requester.Flush();
    responder.Flush();
  }

  // One side gave up: the other stops as well. A responder that failed still has its NAK to send.
  void EnterErrorIfFailed() {
    if (CurrentState() == IBV_QPS_ERR) return;
    if (!requester.failed() && !responder.failed()) return;
    if (!responder.failed()) responder.Stop();
    EnterError();
  }

  QueuePairParts parts;
  Requester requester;
  Responder responder;
  std::atomic<ibv_qp_state> state{IBV_QPS_RESET};  // written by the owner, read by producers
};

QueuePair::QueuePair(const QueuePairLimits& limits, Memory& memory,
                     CompletionSink& send_completions, CompletionSink& receive_completions)
    : impl_(std::make_unique<Impl>(limits, memory, send_completions, receive_completions)) {}

QueuePair::~QueuePair() = default;

int QueuePair::PostSend(const ibv_send_wr& wr) {
  const ibv_qp_state now = state();
  if (now != IBV_QPS_RTS && now != IBV_QPS_ERR) return EINVAL;
  return impl_->parts.send_queue.Post(wr);
}

int QueuePair::StageSend(const ibv_send_wr& wr) {
  const ibv_qp_state now = state();
  if (now != IBV_QPS_RTS && now != IBV_QPS_ERR) return EINVAL;
  return impl_->parts.send_queue.Stage(wr);
}

void QueuePair::CommitSends() { impl_->parts.send_queue.Commit(); }

void QueuePair::DropSends() { impl_->parts.send_queue.Drop(); }

int QueuePair::PostReceive(const ibv_recv_wr& wr) {
  if (state() == IBV_QPS_RESET) return EINVAL;
  return impl_->parts.receive_queue.Post(wr);
}

void QueuePair::ToInit() { impl_->state.store(IBV_QPS_INIT, std::memory_order_release); }

void QueuePair::ToReadyToReceive(const ReceiveConfig& config) {
  impl_->parts.receive_config = config;
  impl_->responder.Start();
  impl_->state.store(IBV_QPS_RTR, std::memory_order_release);
}

void QueuePair::ToReadyToSend(const SendConfig& config) {
  impl_->parts.send_config = config;
  impl_->requester.Start();
  impl_->state.store(IBV_QPS_RTS, std::memory_order_release);
}

void QueuePair::SetReceiveRights(int access_flags, uint8_t min_rnr_timer) {
  impl_->parts.receive_config.access_flags = access_flags;
  impl_->parts.receive_config.min_rnr_timer = min_rnr_timer;
}

void QueuePair::ToError(Time) {
  impl_->responder.Stop();
  impl_->EnterError();
}

void QueuePair::ToReset() {
  impl_->state.store(IBV_QPS_RESET, std::memory_order_release);
  impl_->requester.Reset();
  impl_->responder.Reset();
}

ibv_qp_state QueuePair::state() const { return impl_->CurrentState(); }

void QueuePair::OnPacket(const PacketView& packet, Time now) {
  Impl& impl = *impl_;
  QueuePairCounters& counters = impl.parts.counters;
  ++counters.packets_received;
  const ibv_qp_state state = impl.CurrentState();
  const bool is_request = (packet.flags & kIsRequest) != 0;
  const bool request_taken =
      state == IBV_QPS_RTR || state == IBV_QPS_RTS || impl.responder.failed();
  const bool response_taken = state == IBV_QPS_RTS;
  if (packet.header.opcode == Opcode::kCnp) {
    if (response_taken) impl.requester.OnCongestion();
    return;
  }
  constexpr uint8_t kTransportBits = 0xe0;  // RC is 000 (table 38)
  if ((static_cast<uint8_t>(packet.header.opcode) & kTransportBits) != 0 ||
      (packet.flags & (kIsRequest | kIsResponse)) == 0) {
    ++counters.dropped_malformed;
    return;
  }
  if (!(is_request ? request_taken : response_taken)) {
    ++counters.dropped_wrong_state;
    return;
  }
  if (is_request) {
    impl.responder.OnRequest(packet);
  } else {
    impl.requester.OnResponse(packet, now);
  }
  impl.EnterErrorIfFailed();
}

void QueuePair::OnTimeout(Time now) {
  if (state() != IBV_QPS_RTS) return;
  impl_->requester.OnTimeout(now);
  impl_->EnterErrorIfFailed();
}

void QueuePair::OnDoorbell(Time) {
  if (state() == IBV_QPS_ERR) impl_->FlushBoth();
}

bool QueuePair::PollTransmit(TransmitSink& sink, Time now, uint32_t budget) {
  Impl& impl = *impl_;
  const ibv_qp_state state = impl.CurrentState();
  if (state == IBV_QPS_RESET || state == IBV_QPS_INIT) return false;
  // Responses first, but a peer that reads without end must not silence our own requests.
  const uint32_t for_requests = state == IBV_QPS_RTS ? budget / 4 : 0;
  budget -= for_requests;
  bool more = impl.responder.PollTransmit(sink, &budget);
  const bool refused = more && budget != 0;
  budget += for_requests;
  if (state == IBV_QPS_RTS && !refused) more |= impl.requester.PollTransmit(sink, now, &budget);
  impl.EnterErrorIfFailed();
  return more;
}

Time QueuePair::NextTimeout() const {
  return state() == IBV_QPS_RTS ? impl_->requester.NextTimeout() : kNever;
}

uint32_t QueuePair::qpn() const { return impl_->parts.limits.qpn; }
const Path& QueuePair::path() const { return impl_->parts.receive_config.path; }
const QueuePairCounters& QueuePair::counters() const { return impl_->parts.counters; }
const ReceiveConfig& QueuePair::receive_config() const { return impl_->parts.receive_config; }
const SendConfig& QueuePair::send_config() const { return impl_->parts.send_config; }
uint32_t QueuePair::next_send_psn() const { return impl_->requester.next_psn(); }
uint32_t QueuePair::expected_psn() const { return impl_->responder.expected_psn(); }

}  // namespace sumac::soft_nic
