#include "verbs/soft_nic/engine/queue_pair.h"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "verbs/soft_nic/engine/congestion_notifier.h"
#include "verbs/soft_nic/engine/congestion_rate.h"
#include "verbs/soft_nic/engine/pacer.h"
#include "verbs/soft_nic/engine/queue_pair_parts.h"
#include "verbs/soft_nic/engine/shared_receive_queue.h"
#include "verbs/soft_nic/engine/transport_service.h"
#include "verbs/soft_nic/engine/xrc_selection.h"

namespace sumac::soft_nic {
namespace {

// With a shared queue, one buffer at a time is the queue pair's own. Of an XRC connection one end
// only sends, and the other only receives.
QueuePairLimits WithReceivesOf(QueuePairLimits limits) {
  if (limits.shared_receives != nullptr) {
    limits.max_recv_wr = 1;
    limits.max_recv_sge = limits.shared_receives->max_sge();
  }
  if (limits.type == IBV_QPT_XRC_SEND) limits.max_recv_wr = limits.max_recv_sge = 0;
  if (limits.type == IBV_QPT_XRC_RECV) {
    limits.max_recv_wr = 1;
    limits.max_send_wr = limits.max_send_sge = limits.max_inline_bytes = 0;
  }
  return limits;
}

}  // namespace

struct QueuePair::Impl {
  Impl(const QueuePairLimits& limits, Memory& memory, CompletionSink& send_completions,
       CompletionSink& receive_completions)
      : xrc(limits.xrc_queues != nullptr
                ? std::make_unique<XrcSelection>(*limits.xrc_queues, parts.receive_queue)
                : nullptr),
        parts{.limits = limits,
              .memory = xrc != nullptr ? xrc->memory() : memory,
              .send_completions = send_completions,
              .receive_completions = xrc != nullptr ? xrc->completions() : receive_completions,
              .send_queue{limits.type, limits.max_send_wr, limits.max_send_sge,
                          limits.max_inline_bytes},
              .receive_queue{limits.max_recv_wr, limits.max_recv_sge, limits.shared_receives},
              .receive_memory = limits.shared_receives != nullptr
                                    ? limits.shared_receives->memory()
                                    : (xrc != nullptr ? xrc->memory() : memory),
              .receive_config = {},
              .send_config = {},
              .counters = {},
              .xrc = xrc.get()},
        has_receives(limits.shared_receives == nullptr && limits.type != IBV_QPT_XRC_SEND &&
                     limits.type != IBV_QPT_XRC_RECV),
        service(MakeTransportService(parts)) {}

  ibv_qp_state CurrentState() const { return state.load(std::memory_order_acquire); }

  void EnterError() {
    state.store(IBV_QPS_ERR, std::memory_order_release);
    service->Flush();
  }

  // The lower of what the program set and what the network asks for, before a turn of sending.
  void SetPace(Time now) {
    const uint64_t network = congestion.Current(now);
    const uint64_t limit = rate_limit;
    pacer.SetRate(network == 0 || limit == 0 ? std::max(network, limit) : std::min(network, limit));
    if (now - sample_time < kRateSample) return;
    const auto packets = parts.counters.packets_sent - sample_packets;
    sent_lately =
        static_cast<uint64_t>(static_cast<double>(packets * parts.receive_config.mtu_bytes) /
                              std::chrono::duration<double>(now - sample_time).count());
    sample_packets = parts.counters.packets_sent;
    sample_time = now;
  }

  bool Send(TransmitSink& sink, ibv_qp_state now_in, Time now, uint32_t budget) {
    if (parts.limits.type == IBV_QPT_UC || rate_limit != 0) SetPace(now);
    held_back = false;
    if (!pacer.paced()) return service->PollTransmit(sink, now_in, now, budget);
    PacedSink paced(sink, pacer, now);
    const bool more = service->PollTransmit(paced, now_in, now, budget);
    held_back = paced.held_back();
    return more && !held_back;
  }

  // A datagram's sender may be anybody, and its own congestion control is its program's affair.
  bool HasOnePeer() const { return parts.limits.type != IBV_QPT_UD; }

  void EnterErrorIfFailed() {
    if (service->failed() && CurrentState() != IBV_QPS_ERR) EnterError();
  }

  const std::unique_ptr<XrcSelection> xrc;  // XRC_RECV
  QueuePairParts parts;
  const bool has_receives;  // PostReceive is for use
  const std::unique_ptr<TransportService> service;
  CongestionNotifier notifier;

  static constexpr Duration kRateSample = std::chrono::microseconds(200);
  uint64_t rate_limit = 0;    // the program's, in bytes per second
  CongestionRate congestion;  // UC
  Pacer pacer;
  bool held_back = false;  // something waits for the pacer
  // UC: what it sent in the last while.
  uint64_t sent_lately = 0;
  uint64_t sample_packets = 0;
  Time sample_time{};

  std::atomic<ibv_qp_state> state{IBV_QPS_RESET};  // written by the owner, read by producers
};

QueuePair::QueuePair(const QueuePairLimits& limits, Memory& memory,
                     CompletionSink& send_completions, CompletionSink& receive_completions)
    : impl_(std::make_unique<Impl>(WithReceivesOf(limits), memory, send_completions,
                                   receive_completions)) {}

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
  if (state() == IBV_QPS_RESET || !impl_->has_receives) return EINVAL;
  return impl_->parts.receive_queue.Post(wr);
}

void QueuePair::ToInit() { impl_->state.store(IBV_QPS_INIT, std::memory_order_release); }

void QueuePair::ToReadyToReceive(const ReceiveConfig& config) {
  impl_->parts.receive_config = config;
  impl_->service->StartReceiving();
  impl_->state.store(IBV_QPS_RTR, std::memory_order_release);
}

void QueuePair::ToReadyToSend(const SendConfig& config) {
  impl_->parts.send_config = config;
  impl_->service->StartSending();
  impl_->state.store(IBV_QPS_RTS, std::memory_order_release);
}

void QueuePair::SetReceiveRights(int access_flags, uint8_t min_rnr_timer) {
  impl_->parts.receive_config.access_flags = access_flags;
  impl_->parts.receive_config.min_rnr_timer = min_rnr_timer;
}

void QueuePair::SetRateLimit(uint64_t bytes_per_second) {
  impl_->rate_limit = bytes_per_second;
  impl_->parts.paced = bytes_per_second != 0;
  impl_->pacer.SetRate(bytes_per_second);
}

void QueuePair::SetQkey(uint32_t qkey) { impl_->parts.receive_config.qkey = qkey; }

void QueuePair::SetDraining(bool draining) { impl_->service->SetDraining(draining); }

bool QueuePair::drained() const { return impl_->service->drained(); }

uint8_t QueuePair::fatal_nak() const { return impl_->service->fatal_nak(); }

void QueuePair::ToError(Time) {
  impl_->service->Stop();
  impl_->EnterError();
}

void QueuePair::ForgetReceives(const SharedReceiveQueue& queue) {
  impl_->service->ForgetReceives(queue);
}

void QueuePair::ToReset() {
  impl_->state.store(IBV_QPS_RESET, std::memory_order_release);
  impl_->notifier.Reset();
  impl_->congestion = {};
  impl_->held_back = false;
  SetRateLimit(0);
  impl_->service->Reset();
}

ibv_qp_state QueuePair::state() const { return impl_->CurrentState(); }

void QueuePair::OnPacket(const PacketView& packet, Time now) {
  static constexpr Gid kOfThePath{};  // only UD looks
  OnPacket(packet, kOfThePath, now);
}

void QueuePair::OnPacket(const PacketView& packet, const Gid& source, Time now) {
  Impl& impl = *impl_;
  QueuePairCounters& counters = impl.parts.counters;
  ++counters.packets_received;
  const ibv_qp_state state = impl.CurrentState();
  if (packet.header.opcode == Opcode::kCnp) {
    ++counters.cnps_received;
    if (state != IBV_QPS_RTS) return;
    impl.service->OnCongestion(now);
    if (impl.parts.limits.type == IBV_QPT_UC) {
      impl.congestion.OnNotification(impl.sent_lately, now);
    }
    return;
  }
  if (packet.congestion_experienced && impl.HasOnePeer()) impl.notifier.OnMarkedPacket(now);
  if (!impl.service->Speaks(packet.header.opcode) ||
      (packet.flags & (kIsRequest | kIsResponse)) == 0) {
    ++counters.dropped_malformed;
    return;
  }
  impl.service->OnPacket(packet, source, state, now);
  impl.EnterErrorIfFailed();
}

void QueuePair::OnTimeout(Time now) {
  if (state() != IBV_QPS_RTS || impl_->service->NextTimeout() > now) return;
  impl_->service->OnTimeout(now);
  impl_->EnterErrorIfFailed();
}

void QueuePair::OnDoorbell(Time) {
  if (state() == IBV_QPS_ERR) impl_->service->Flush();
}

bool QueuePair::RunDirect() {
  Impl& impl = *impl_;
  return impl.parts.limits.direct != nullptr && impl.CurrentState() == IBV_QPS_RTS &&
         impl.service->RunDirect();
}

bool QueuePair::PollTransmit(TransmitSink& sink, Time now, uint32_t budget) {
  Impl& impl = *impl_;
  const ibv_qp_state state = impl.CurrentState();
  if (state == IBV_QPS_RESET || state == IBV_QPS_INIT) return false;
  if (impl.notifier.owed()) {
    const ReceiveConfig& config = impl.parts.receive_config;
    if (!impl.notifier.Transmit(sink, config.path, config.remote_qpn, now)) return true;
    ++impl.parts.counters.cnps_sent;
  }
  const bool more = impl.Send(sink, state, now, budget);
  impl.EnterErrorIfFailed();
  return more;
}

Time QueuePair::NextTimeout() const {
  const Time service = state() == IBV_QPS_RTS ? impl_->service->NextTimeout() : kNever;
  return impl_->held_back ? std::min(service, impl_->pacer.next()) : service;
}

uint32_t QueuePair::qpn() const { return impl_->parts.limits.qpn; }
const Path& QueuePair::path() const { return impl_->parts.receive_config.path; }
const QueuePairCounters& QueuePair::counters() const { return impl_->parts.counters; }
const ReceiveConfig& QueuePair::receive_config() const { return impl_->parts.receive_config; }
const SendConfig& QueuePair::send_config() const { return impl_->parts.send_config; }
uint32_t QueuePair::next_send_psn() const { return impl_->service->next_send_psn(); }
uint32_t QueuePair::expected_psn() const { return impl_->service->expected_psn(); }

}  // namespace sumac::soft_nic
