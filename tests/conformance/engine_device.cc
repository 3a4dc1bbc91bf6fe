#include "tests/conformance/engine_device.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "verbs/soft_nic/engine/address_handle.h"

namespace sumac::conformance {
namespace {

using soft_nic::QueuePairCounters;
using soft_nic::Time;

constexpr uint32_t kQpn = 0x11;
constexpr soft_nic::Path kPath{
    .source = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1},
    .destination = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2}};
// By which a packet may be longer than the longest MTU.
constexpr size_t kBytesTooMany = 16;
constexpr uint32_t kFirstKey = 0x1000;
constexpr uint32_t kDrainBudget = 64;
// More deadlines than that without a packet are a timer that stands still.
constexpr int kStepsMax = 100000;

struct NamedCounter {
  const char* name;
  uint64_t QueuePairCounters::*value;
};
constexpr NamedCounter kCounters[] = {
    {"packets_sent", &QueuePairCounters::packets_sent},
    {"packets_received", &QueuePairCounters::packets_received},
    {"retransmitted_packets", &QueuePairCounters::retransmitted_packets},
    {"tail_probes", &QueuePairCounters::tail_probes},
    {"timeouts", &QueuePairCounters::timeouts},
    {"sequence_naks_sent", &QueuePairCounters::sequence_naks_sent},
    {"sequence_naks_received", &QueuePairCounters::sequence_naks_received},
    {"rnr_naks_sent", &QueuePairCounters::rnr_naks_sent},
    {"rnr_naks_received", &QueuePairCounters::rnr_naks_received},
    {"access_naks_sent", &QueuePairCounters::access_naks_sent},
    {"invalid_request_naks_sent", &QueuePairCounters::invalid_request_naks_sent},
    {"operation_naks_sent", &QueuePairCounters::operation_naks_sent},
    {"duplicates_received", &QueuePairCounters::duplicates_received},
    {"dropped_wrong_state", &QueuePairCounters::dropped_wrong_state},
    {"dropped_out_of_order", &QueuePairCounters::dropped_out_of_order},
    {"dropped_malformed", &QueuePairCounters::dropped_malformed},
    {"dropped_no_receive", &QueuePairCounters::dropped_no_receive},
    {"dropped_bad_key", &QueuePairCounters::dropped_bad_key},
    {"dropped_bad_qkey", &QueuePairCounters::dropped_bad_qkey},
    {"dropped_with_message", &QueuePairCounters::dropped_with_message},
    {"messages_cut_short", &QueuePairCounters::messages_cut_short},
    {"unsent_too_long", &QueuePairCounters::unsent_too_long},
};

}  // namespace

EngineDevice::EngineDevice(const Setup& setup) : type_(setup.limits.type), path_(kPath) {
  for (size_t i = 0; i < memory_.size(); ++i) memory_[i] = PatternAt(i);
  soft_nic::Memory& memory = *this;
  soft_nic::QueuePairLimits limits = setup.limits;
  limits.qpn = kQpn;
  qp_ = std::make_unique<soft_nic::QueuePair>(limits, memory, sends_, receives_);
  if (setup.state == IBV_QPS_RESET) return;
  qp_->ToInit();
  if (setup.state == IBV_QPS_INIT) return;
  soft_nic::ReceiveConfig receive = setup.receive;
  receive.path = path_;
  qp_->ToReadyToReceive(receive);
  if (setup.state == IBV_QPS_RTR) return;
  qp_->ToReadyToSend(setup.send);
}

std::vector<ibv_sge> EngineDevice::SgesOf(const std::vector<Range>& ranges, Key key) const {
  std::vector<ibv_sge> sges;
  for (const Range& range : ranges) {
    sges.push_back({address() + range.offset, range.length, KeyOf(key)});
  }
  return sges;
}

int EngineDevice::Post(const SendWork& work) {
  std::vector<ibv_sge> sges = SgesOf(work.from, work.local_key);
  soft_nic::AddressHandle to{};
  to.path = path_;
  const ibv_send_wr wr = ToVerbs(work, sges, type_ == IBV_QPT_UD ? &to : nullptr);
  const int error = qp_->PostSend(wr);
  qp_->OnDoorbell(now_);
  Drain();
  return error;
}

int EngineDevice::PostReceive(const ReceiveWork& work) {
  std::vector<ibv_sge> sges = SgesOf(work.into, work.local_key);
  const ibv_recv_wr wr = ToVerbs(work, sges);
  const int error = qp_->PostReceive(wr);
  qp_->OnDoorbell(now_);
  Drain();
  return error;
}

void EngineDevice::Enter(ibv_qp_state state) {
  if (state == IBV_QPS_ERR) {
    qp_->ToError(now_);
  } else {
    qp_->ToReset();
  }
  Drain();
}

void EngineDevice::SetRights(int access_flags) {
  qp_->SetReceiveRights(access_flags, qp_->receive_config().min_rnr_timer);
}

void EngineDevice::Deregister(Key key) { dead_keys_.push_back(KeyOf(key)); }

void EngineDevice::SetLink(bool free) {
  link_free_ = free;
  Drain();
}

// Through the wire format; what does not decode never reaches a queue pair.
void EngineDevice::Inject(const Packet& packet) {
  std::array<std::byte, soft_nic::kPacketBytesMax + kBytesTooMany> bytes{};
  soft_nic::PacketHeader header = packet.header;
  header.pad_bytes = static_cast<uint8_t>(-packet.payload.size() & 3u);
  const size_t size = soft_nic::EncodeHeader(header, bytes);
  if (packet.payload.size() > soft_nic::kMtuBytesMax + kBytesTooMany)
    throw ScriptError("too many bytes");
  std::copy(packet.payload.begin(), packet.payload.end(), bytes.begin() + size);
  const size_t total = size + packet.payload.size() + header.pad_bytes + soft_nic::kIcrcBytes;
  soft_nic::PacketView view;
  const soft_nic::DecodeError error = soft_nic::Decode(std::span(bytes).first(total), &view);
  if (error == soft_nic::DecodeError::kNone && view.header.dest_qpn == kQpn) {
    qp_->OnPacket(view, path_.destination, now_);
  }
  Drain();
}

bool EngineDevice::Transmit(const soft_nic::OutgoingPacket& packet) {
  if (!link_free_) return false;
  Packet copy{packet.header, {}, now()};
  for (const iovec& piece : packet.payload) {
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    copy.payload.insert(copy.payload.end(), from, from + piece.iov_len);
  }
  sent_.push_back(std::move(copy));
  return true;
}

void EngineDevice::Drain() {
  while (link_free_ && qp_->PollTransmit(*this, now_, kDrainBudget)) {
  }
}

bool EngineDevice::Step(Time end) {
  const Time due = qp_->NextTimeout();
  if (due == soft_nic::kNever || due > end) {
    now_ = end;
    return false;
  }
  now_ = std::max(now_, due);
  qp_->OnTimeout(now_);
  Drain();
  return true;
}

void EngineDevice::Wait(Duration duration) {
  const Time end = now_ + duration;
  for (int steps = 0; Step(end); ++steps) {
    if (steps == kStepsMax) throw std::runtime_error("a timer stands still");
  }
}

std::optional<Packet> EngineDevice::NextPacket(Duration patience) {
  const Time end = now_ + patience;
  for (int steps = 0; sent_.empty() && Step(end); ++steps) {
    if (steps == kStepsMax) throw std::runtime_error("a timer stands still");
  }
  if (sent_.empty()) return std::nullopt;
  Packet packet = std::move(sent_.front());
  sent_.pop_front();
  return packet;
}

std::optional<Completion> EngineDevice::NextCompletion(bool receive, Duration patience) {
  std::deque<Completion>& list = receive ? receives_.list : sends_.list;
  const Time end = now_ + patience;
  for (int steps = 0; list.empty() && Step(end); ++steps) {
    if (steps == kStepsMax) throw std::runtime_error("a timer stands still");
  }
  if (list.empty()) return std::nullopt;
  Completion completion = list.front();
  list.pop_front();
  return completion;
}

uint32_t EngineDevice::KeyOf(Key key) const { return kFirstKey + static_cast<uint32_t>(key); }

std::optional<uint64_t> EngineDevice::Counter(const std::string& name) const {
  for (const NamedCounter& counter : kCounters) {
    if (name == counter.name) return qp_->counters().*counter.value;
  }
  throw ScriptError("no counter '" + name + "'");
}

std::byte* EngineDevice::Find(uint32_t key, uint64_t addr, size_t length, int access) {
  if (key < kFirstKey || key >= KeyOf(Key::kUnknown)) return nullptr;
  if (std::count(dead_keys_.begin(), dead_keys_.end(), key) != 0) return nullptr;
  if ((RightsOf(static_cast<Key>(key - kFirstKey)) & access) != access) return nullptr;
  if (addr < address() || length > kMemoryBytes || addr - address() > kMemoryBytes - length) {
    return nullptr;
  }
  return memory_.data() + (addr - address());
}

std::byte* EngineDevice::Local(uint32_t lkey, uint64_t addr, size_t length, bool write) {
  return Find(lkey, addr, length, write ? IBV_ACCESS_LOCAL_WRITE : 0);
}

std::byte* EngineDevice::Remote(uint32_t rkey, uint64_t addr, size_t length, int access) {
  if (length == 0) throw std::logic_error("a zero-length access asked for a key");
  return Find(rkey, addr, length, access);
}

bool EngineDevice::Invalidate(uint32_t rkey) {
  if (Find(rkey, address(), 1, 0) == nullptr) return false;
  dead_keys_.push_back(rkey);
  return true;
}

}  // namespace sumac::conformance
