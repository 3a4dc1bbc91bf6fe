#include "tests/simulation/virtual_network.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace sumac::soft_nic::simulation {
namespace {

// All simulated hosts share one address pair: the ICRC covers it, the engine does not look at it.
IcrcHeaders Headers() {
  IcrcHeaders headers;
  headers.source = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1};
  headers.destination = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2};
  headers.source_port = 0xc123;
  return headers;
}

std::vector<std::byte> EncodePacket(const OutgoingPacket& packet) {
  std::vector<std::byte> bytes(HeaderBytes(packet.header.opcode));
  EncodeHeader(packet.header, bytes);
  for (const iovec& piece : packet.payload) {
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    bytes.insert(bytes.end(), from, from + piece.iov_len);
  }
  bytes.resize(bytes.size() + packet.header.pad_bytes);
  const uint32_t icrc = ComputeIcrc(Headers(), bytes, {});
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<std::byte>(icrc >> (8 * i)));
  return bytes;
}

}  // namespace

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

size_t VirtualNetwork::AddLink(const LinkOptions& options) {
  links_.push_back(Link{options, {}, {}});
  return links_.size() - 1;
}

void VirtualNetwork::AddReceiver(size_t link, uint32_t qpn, Receiver receiver) {
  links_[link].receivers.emplace_back(qpn, std::move(receiver));
}

void VirtualNetwork::Send(size_t index, const OutgoingPacket& packet) {
  Link& link = links_[index];
  const LinkOptions& options = link.options;
  const Faults& faults = options.faults;
  ++counters_.sent;
  Bytes bytes = EncodePacket(packet);
  Trace(static_cast<uint64_t>(now_.time_since_epoch().count()));
  Trace(packet.header.psn | uint64_t{bytes.size()} << 32);

  for (const auto& [begin, end] : faults.blackouts) {
    if (now_ >= begin && now_ < end) {
      ++counters_.lost;
      return;
    }
  }
  Duration wait{};
  if (options.bytes_per_second != 0) {
    const auto time_of = [&options](uint64_t count) {
      return Duration(static_cast<int64_t>(count * 1'000'000'000 / options.bytes_per_second));
    };
    const Time start = std::max(link.free_at, now_);
    if (options.queue_bytes != 0 && start - now_ > time_of(options.queue_bytes)) {
      ++counters_.queue_lost;
      return;
    }
    link.free_at = start + time_of(bytes.size() + 42);  // Ethernet, IPv4 and UDP headers
    wait = link.free_at - now_;
  }

  const bool faulty = now_ < faults.until;
  if (faulty && random.Chance(faults.loss)) {
    ++counters_.lost;
    return;
  }
  const int copies = faulty && random.Chance(faults.duplicate) ? 2 : 1;
  if (copies == 2) ++counters_.duplicated;
  for (int i = 0; i < copies; ++i) {
    Duration delay = wait + options.delay;
    if (faulty && random.Chance(faults.reorder)) {
      ++counters_.reordered;
      delay += Duration(static_cast<int64_t>(
          random.Below(static_cast<uint64_t>(faults.reorder_delay_max.count()) + 1)));
    }
    auto copy = std::make_shared<Bytes>(bytes);
    if (faulty && random.Chance(faults.corrupt)) {
      ++counters_.corrupted;
      if (random.Chance(2000)) {
        copy->resize(random.Below(copy->size()));
      } else {
        for (uint64_t flips = random.Between(1, 4); flips > 0; --flips) {
          (*copy)[random.Below(copy->size())] ^= static_cast<std::byte>(1u << random.Below(8));
        }
      }
    }
    After(delay, [this, index, copy] { Deliver(index, *copy); });
  }
}

void VirtualNetwork::Deliver(size_t index, const Bytes& bytes) {
  PacketView packet;
  if (!VerifyIcrc(Headers(), bytes) || Decode(bytes, &packet) != DecodeError::kNone) {
    ++counters_.refused;
    return;
  }
  for (const auto& [qpn, receiver] : links_[index].receivers) {
    if (qpn != packet.header.dest_qpn) continue;
    ++counters_.delivered;
    Trace(static_cast<uint64_t>(packet.header.opcode) << 24 | packet.header.psn);
    receiver(packet);
    return;
  }
  ++counters_.refused;
}

}  // namespace sumac::soft_nic::simulation
