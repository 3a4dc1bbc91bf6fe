#include "tests/simulation/virtual_network.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace sumac::soft_nic::simulation {
namespace {

// What Ethernet, IPv4 and UDP add to a packet.
constexpr uint64_t kOuterHeaderBytes = 42;
// The byte of BTH that the ICRC leaves out, because switches may change it (FECN, BECN).
constexpr size_t kVariantByte = 4;

IcrcHeaders HeadersOf(const LinkOptions& link) {
  IcrcHeaders headers;
  headers.source = NodeAddress(link.from);
  headers.destination = NodeAddress(link.to);
  headers.source_port = 0xc123;
  return headers;
}

std::vector<std::byte> EncodePacket(const LinkOptions& link, const OutgoingPacket& packet) {
  std::vector<std::byte> bytes(HeaderBytes(packet.header.opcode));
  EncodeHeader(packet.header, bytes);
  for (const iovec& piece : packet.payload) {
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    bytes.insert(bytes.end(), from, from + piece.iov_len);
  }
  bytes.resize(bytes.size() + packet.header.pad_bytes);
  const uint32_t icrc = ComputeIcrc(HeadersOf(link), bytes, {});
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<std::byte>(icrc >> (8 * i)));
  return bytes;
}

bool Within(const std::vector<Period>& periods, Time now) {
  return std::any_of(periods.begin(), periods.end(), [now](const Period& period) {
    return now >= period.first && now < period.second;
  });
}

}  // namespace

Gid NodeAddress(uint32_t node) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, static_cast<uint8_t>(node + 1)};
}

void VirtualNetwork::At(Time time, std::function<void()> action) {
  events_.push(Event{std::max(time, now_), order_++, std::move(action)});
}

bool VirtualNetwork::Step() {
  if (events_.empty()) return false;
  const Event event = events_.top();
  events_.pop();
  now_ = event.time;
  event.action();
  return true;
}

size_t VirtualNetwork::AddPort(const PortOptions& options) {
  ports_.push_back(Port{options, {}});
  return ports_.size() - 1;
}

size_t VirtualNetwork::AddLink(const LinkOptions& options) {
  links_.push_back(Link{options, {}, {}, {}});
  return links_.size() - 1;
}

void VirtualNetwork::AddReceiver(size_t link, uint32_t qpn, Receiver receiver) {
  links_[link].receivers.emplace_back(qpn, std::move(receiver));
}

bool VirtualNetwork::Passes(const Faults& faults, uint64_t payload_bytes) {
  if (Within(faults.blackouts, now_)) {
    ++counters_.blacked_out;
    return false;
  }
  if (payload_bytes > faults.narrow_bytes && Within(faults.narrow, now_)) {
    ++counters_.too_long;
    return false;
  }
  return true;
}

Time VirtualNetwork::Queue(Time arrival, Time& free_at, uint64_t bytes_per_second,
                           uint64_t queue_bytes, uint64_t bytes) {
  if (bytes_per_second == 0) return arrival;
  const auto time_of = [bytes_per_second](uint64_t count) {
    return Duration(static_cast<int64_t>(count * 1'000'000'000 / bytes_per_second));
  };
  const Time start = std::max(free_at, arrival);
  if (queue_bytes != 0 && start - arrival > time_of(queue_bytes)) {
    ++counters_.queue_lost;
    return kNever;
  }
  free_at = start + time_of(bytes + kOuterHeaderBytes);
  return free_at;
}

void VirtualNetwork::Send(size_t index, const OutgoingPacket& packet) {
  Link& link = links_[index];
  const LinkOptions& options = link.options;
  const Faults& faults = options.faults;
  ++counters_.sent;
  Copy original{EncodePacket(options, packet)};
  const uint64_t bytes = original.bytes.size();
  Trace(static_cast<uint64_t>(now_.time_since_epoch().count()));
  Trace(packet.header.psn | bytes << 32 | uint64_t{index} << 48);
  ReleaseHeld(index);

  if (!Passes(faults, bytes - HeaderBytes(packet.header.opcode) - kIcrcBytes)) return;
  Time through = Queue(now_, link.free_at, options.bytes_per_second, options.queue_bytes, bytes);
  if (through != kNever && options.port != kNoPort) {
    Port& port = ports_[options.port];
    const uint64_t room = now_ < port.options.until ? port.options.queue_bytes : 0;
    through = Queue(through, port.free_at, port.options.bytes_per_second, room, bytes);
  }
  if (through == kNever) return;

  const bool faulty = now_ < faults.until;
  if (faulty && random.Chance(faults.loss)) {
    ++counters_.lost;
    return;
  }
  if (faulty && faults.mark != 0 && random.Chance(faults.mark)) {
    ++counters_.marked;
    original.marked = true;
  }
  const int copies = faulty && random.Chance(faults.duplicate) ? 2 : 1;
  if (copies == 2) ++counters_.duplicated;
  for (int i = 0; i < copies; ++i) {
    SendCopy(index, std::make_shared<Copy>(original), through - now_ + options.delay, faulty);
  }
}

void VirtualNetwork::SendCopy(size_t index, const std::shared_ptr<Copy>& copy, Duration delay,
                              bool faulty) {
  const Faults& faults = links_[index].options.faults;
  bool held = false;
  if (faulty && random.Chance(faults.reorder)) {
    ++counters_.reordered;
    held = faults.reorder_depth != 0;
    const auto most = static_cast<uint64_t>(faults.reorder_delay_max.count());
    delay +=
        held ? faults.reorder_delay_max : Duration(static_cast<int64_t>(random.Below(most + 1)));
  }
  if (faulty && random.Chance(faults.corrupt)) Damage(*copy);
  if (held) {
    copy->overtaken_by = random.Between(1, faults.reorder_depth);
    links_[index].held.push_back(copy);
  }
  After(delay, [this, index, copy, held] {
    if (held && copy->overtaken_by == 0) return;  // released before
    if (held) std::erase(links_[index].held, copy);
    Deliver(index, *copy);
  });
}

void VirtualNetwork::Damage(Copy& copy) {
  ++counters_.corrupted;
  if (random.Chance(2000)) {
    copy.bytes.resize(random.Below(copy.bytes.size()));
    copy.damaged = true;
    return;
  }
  const std::vector<std::byte> before = copy.bytes;
  for (uint64_t flips = random.Between(1, 4); flips > 0; --flips) {
    copy.bytes[random.Below(copy.bytes.size())] ^= static_cast<std::byte>(1u << random.Below(8));
  }
  for (size_t i = 0; i < before.size(); ++i) {
    copy.damaged |= i != kVariantByte && copy.bytes[i] != before[i];
  }
}

// A packet is about to be sent: those that waited to be overtaken by it follow it.
void VirtualNetwork::ReleaseHeld(size_t index) {
  std::vector<std::shared_ptr<Copy>>& held = links_[index].held;
  for (const auto& copy : held) {
    if (--copy->overtaken_by != 0) continue;
    After(links_[index].options.delay + Duration(1),
          [this, index, copy] { Deliver(index, *copy); });
  }
  std::erase_if(held, [](const auto& copy) { return copy->overtaken_by == 0; });
}

void VirtualNetwork::Deliver(size_t index, const Copy& copy) {
  const LinkOptions& options = links_[index].options;
  PacketView packet;
  if (!VerifyIcrc(HeadersOf(options), copy.bytes) ||
      Decode(copy.bytes, &packet) != DecodeError::kNone) {
    ++counters_.refused;
    return;
  }
  counters_.damaged_accepted += copy.damaged;
  packet.congestion_experienced = copy.marked;
  for (const auto& [qpn, receiver] : links_[index].receivers) {
    if (qpn != packet.header.dest_qpn) continue;
    ++counters_.delivered;
    Trace(static_cast<uint64_t>(packet.header.opcode) << 24 | packet.header.psn);
    receiver(packet, NodeAddress(options.from));
    return;
  }
  ++counters_.refused;
}

}  // namespace sumac::soft_nic::simulation
