#include "verbs/soft_nic/link/udp_link.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "verbs/log.h"
#include "verbs/soft_nic/link/reuseport_group.h"

namespace sumac::soft_nic {
namespace {

constexpr size_t kReceiveBatch = 32;
constexpr size_t kDatagramBytesMax = 65536;
constexpr size_t kReceiveBytes = kReceiveBatch * ((kPacketBytesMax + 63) / 64 * 64);

#ifndef UDP_GRO
constexpr int UDP_GRO = 104;
#endif
constexpr uint32_t kReservedQpns = 2;
constexpr uint32_t kQpns = 1u << 24;

absl::StatusOr<InterfaceAddress> WhereToListen(const UdpLinkOptions& options) {
  return options.interface.empty() ? InterfaceOfAddress(options.address)
                                   : AddressOfInterface(options.interface);
}

}  // namespace

struct UdpLink::ReceiveSlot {
  SocketAddress source{};
  iovec piece{};
  // UDP_GRO's segment length; the byte with the ECN bits.
  alignas(cmsghdr) std::array<char, 2 * CMSG_SPACE(sizeof(int))> control;
  bool congestion_experienced = false;
  uint16_t next_identification = 0;  // of the packets in one datagram
};

UdpLink::UdpLink() = default;

UdpLink::~UdpLink() { Flush(); }

absl::StatusOr<std::unique_ptr<UdpLink>> UdpLink::Open(const UdpLinkOptions& options) {
  if (options.transmit_sockets == 0 || options.transmit_sockets > 1024) {
    return absl::InvalidArgumentError(absl::StrCat(
        "soft NIC: transmit_sockets = ", options.transmit_sockets, ": must be 1 to 1024"));
  }
  auto where = WhereToListen(options);
  if (!where.ok()) return where.status();
  std::unique_ptr<UdpLink> link(new UdpLink());
  link->mtu_bytes_ = PathMtuBytes(where->interface_mtu_bytes, IsIpv4Mapped(where->gid));
  if (link->mtu_bytes_ == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "soft NIC on ", where->interface, ": MTU ", where->interface_mtu_bytes,
        " is too small for RoCE v2 packets with 256 bytes; raise it (ip link set mtu)"));
  }
  if (auto listening = link->Listen(options, *where); !listening.ok()) return listening;
  link->SetReceiveBuffer(options.receive_buffer_bytes);
  const bool batching =
      MaySegment(options.segmentation, link->interface_, IsIpv4Mapped(link->gid_));
  link->PrepareReceive(batching);
  const TransmitSocket::Options transmit{link->gid_, link->scope_id_, options.send_buffer_bytes,
                                         batching};
  for (uint32_t i = 0; i < options.transmit_sockets; ++i) {
    auto socket = TransmitSocket::Open(transmit, &link->counters_);
    if (!socket.ok()) return socket.status();
    link->transmit_sockets_.push_back(*std::move(socket));
  }
  Log().info(
      "soft NIC listens on {} ({}), QPNs 0x{:06x}-0x{:06x}, path MTU {} bytes, receive "
      "buffer {} bytes",
      ToString(link->gid_), link->interface_, link->first_qpn_,
      link->first_qpn_ + link->qpn_count_ - 1, link->mtu_bytes_, link->receive_buffer_bytes_);
  return link;
}

absl::Status UdpLink::Listen(const UdpLinkOptions& options, const InterfaceAddress& where) {
  interface_ = where.interface;
  gid_ = where.gid;
  scope_id_ = where.scope_id;
  UdpPortShareOptions share;
  share.address = gid_;
  share.scope_id = scope_id_;
  share.slots = options.slots;
  share.join_timeout = options.join_timeout;
  share.answer_timeout = options.answer_timeout;
  auto joined = UdpPortShare::Join(share);
  if (joined.ok()) {
    share_ = *std::move(joined);
    receive_fd_ = share_->receive_fd();
    first_qpn_ = share_->first_qpn();
    qpn_count_ = share_->qpn_count();
    return absl::OkStatus();
  }
  const absl::Status& why = joined.status();
  const bool can_move = options.own_address_fallback && IsLoopback(gid_) && IsIpv4Mapped(gid_) &&
                        !absl::IsInvalidArgument(why);
  if (!can_move) {
    return absl::Status(why.code(), absl::StrCat("soft NIC on ", interface_, ": ", why.message()));
  }
  const std::string wanted = ToString(gid_);
  if (auto own = TakeOwnAddress(options.join_timeout); !own.ok()) {
    return absl::Status(own.code(), absl::StrCat("soft NIC: ", why.message(),
                                                 "; and no address of its own: ", own.message()));
  }
  Log().warn(
      "soft NIC: can't share {}: {}. Using {} alone instead, which peers on this machine "
      "reach as well",
      wanted, std::string(why.message()), ToString(gid_));
  return absl::OkStatus();
}

absl::Status UdpLink::TakeOwnAddress(std::chrono::milliseconds timeout) {
  std::random_device random;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  absl::Status last;
  do {
    const auto byte = [&random](uint32_t low, uint32_t high) {
      return static_cast<uint8_t>(low + random() % (high - low + 1));
    };
    // Not 127.0.0.x, where people put things by hand.
    gid_ = GidOfIpv4(127, byte(1, 254), byte(0, 255), byte(1, 254));
    auto socket = BindExclusively(ToSocketAddress(gid_, kRoceUdpPort, 0));
    if (socket.ok()) {
      own_socket_ = *std::move(socket);
      receive_fd_ = own_socket_.get();
      first_qpn_ = kReservedQpns;
      qpn_count_ = kQpns - kReservedQpns;
      return absl::OkStatus();
    }
    last = socket.status();
  } while (absl::IsAlreadyExists(last) && std::chrono::steady_clock::now() < deadline);
  return last;
}

void UdpLink::SetReceiveBuffer(uint32_t bytes) {
  const int asked = static_cast<int>(std::min<uint32_t>(bytes, INT32_MAX / 2));
  if (::setsockopt(receive_fd_, SOL_SOCKET, SO_RCVBUFFORCE, &asked, sizeof(asked)) != 0) {
    ::setsockopt(receive_fd_, SOL_SOCKET, SO_RCVBUF, &asked, sizeof(asked));
  }
  int given = 0;
  socklen_t size = sizeof(given);
  ::getsockopt(receive_fd_, SOL_SOCKET, SO_RCVBUF, &given, &size);
  receive_buffer_bytes_ = static_cast<uint32_t>(given);
  if (given < asked) {
    Log().info(
        "soft NIC: asked for a receive buffer of {} bytes, got {}; raise "
        "net.core.rmem_max for more",
        asked, given);
  }
}

bool UdpLink::Transmit(const OutgoingPacket& packet) {
  // The real source port is the socket's; the path's chooses the socket, so a queue pair keeps its
  // flow.
  const uint32_t hash = packet.path->source_port * 0x9e3779b1u;
  return transmit_sockets_[(hash >> 16) % transmit_sockets_.size()]->Queue(packet);
}

void UdpLink::Flush() {
  for (const auto& socket : transmit_sockets_) {
    if (!socket->empty()) socket->Flush();
  }
}

// With batching one datagram may hold many packets: few large buffers instead of many small ones.
void UdpLink::PrepareReceive(bool batching) {
  const int yes = 1;
  ::setsockopt(receive_fd_, IPPROTO_IP, IP_RECVTOS, &yes, sizeof(yes));
  if (!IsIpv4Mapped(gid_)) {
    ::setsockopt(receive_fd_, IPPROTO_IPV6, IPV6_RECVTCLASS, &yes, sizeof(yes));
  }
  // The socket may have been another process's, so this is also switched off.
  const int on = batching;
  const bool grouped =
      ::setsockopt(receive_fd_, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0 && batching;
  const size_t slots = grouped ? kReceiveBytes / kDatagramBytesMax : kReceiveBatch;
  const size_t bytes = kReceiveBytes / slots;
  receive_bytes_.resize(kReceiveBytes);
  receive_slots_ = std::vector<ReceiveSlot>(slots);
  receive_messages_ = std::vector<mmsghdr>(slots);
  for (size_t i = 0; i < slots; ++i) {
    ReceiveSlot& slot = receive_slots_[i];
    slot.piece = {&receive_bytes_[i * bytes], bytes};
    msghdr& header = receive_messages_[i].msg_hdr;
    header.msg_name = &slot.source;
    header.msg_iov = &slot.piece;
    header.msg_iovlen = 1;
    header.msg_control = slot.control.data();
  }
}

size_t UdpLink::Receive(PacketHandler& handler, size_t budget) {
  size_t total = 0;
  while (total < budget) {
    const auto want = static_cast<unsigned>(std::min(budget - total, receive_slots_.size()));
    for (unsigned i = 0; i < want; ++i) {
      receive_messages_[i].msg_hdr.msg_namelen = sizeof(SocketAddress);
      receive_messages_[i].msg_hdr.msg_controllen = sizeof(ReceiveSlot::control);
    }
    // Not by the library's recvmmsg: a cancellation point costs a tenth of a poll that finds
    // nothing.
    const long got =
        ::syscall(SYS_recvmmsg, receive_fd_, receive_messages_.data(), want, MSG_DONTWAIT, nullptr);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    for (long i = 0; i < got; ++i) total += Split(static_cast<size_t>(i), handler);
    if (static_cast<unsigned>(got) < want) break;
  }
  return total;
}

// Takes the packets of one datagram. Returns how many.
size_t UdpLink::Split(size_t index, PacketHandler& handler) {
  ReceiveSlot& slot = receive_slots_[index];
  mmsghdr& message = receive_messages_[index];
  if (message.msg_hdr.msg_flags & MSG_TRUNC) {
    ++counters_.dropped_truncated;
    return 1;
  }
  int segment_bytes = 0;
  slot.congestion_experienced = false;
  slot.next_identification = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message.msg_hdr); c != nullptr;
       c = CMSG_NXTHDR(&message.msg_hdr, c)) {
    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
      std::memcpy(&segment_bytes, CMSG_DATA(c), sizeof(segment_bytes));
    } else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) ||
               (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)) {
      // A byte for IPv4, an int for IPv6; hosts of ours are little-endian.
      constexpr uint8_t kCongestionExperienced = 3;  // RFC 3168, section 5
      slot.congestion_experienced = (*CMSG_DATA(c) & 3) == kCongestionExperienced;
    }
  }
  auto left = std::span(static_cast<const std::byte*>(slot.piece.iov_base), message.msg_len);
  const size_t step = segment_bytes > 0 ? static_cast<size_t>(segment_bytes) : left.size();
  size_t packets = 0;
  do {
    const auto packet = left.first(std::min(step, left.size()));
    left = left.subspan(packet.size());
    ++packets;
    Accept(slot, packet, handler);
  } while (!left.empty());
  return packets;
}

void UdpLink::DropBad(const Gid& source, uint64_t& counter) {
  ++counter;
  NoteBad(source);
}

void UdpLink::NoteBad(const Gid& source) {
  if (!guard_.OnBad(source, std::chrono::steady_clock::now())) return;
  flooded_ = true;
  if (flood_warned_) return;
  flood_warned_ = true;
  Log().warn(
      "soft NIC: {} sends more than {} bad packets in {} ms; what no queue pair expects of it is "
      "dropped unexamined until it stops (counter dropped_flood). Further floods are not logged",
      ToString(source), FloodGuard::kBadMax,
      std::chrono::duration_cast<std::chrono::milliseconds>(FloodGuard::kInterval).count());
}

void UdpLink::Accept(ReceiveSlot& slot, std::span<const std::byte> bytes, PacketHandler& handler) {
  if (bytes.size() > kPacketBytesMax) {
    DropBad(GidOf(slot.source), counters_.dropped_truncated);
    return;
  }
  IcrcHeaders ip;
  ip.source = GidOf(slot.source);
  PacketView view;
  if (Decode(bytes, &view) != DecodeError::kNone) {
    DropBad(ip.source, counters_.dropped_malformed);
    return;
  }
  const uint32_t qpn = view.header.dest_qpn;
  const bool ours = qpn - first_qpn_ < qpn_count_;
  const auto claim = ours ? handler.ClaimOn(ip.source, qpn) : PacketHandler::Claim::kNobody;
  if (claim != PacketHandler::Claim::kThisSource && flooded_ &&
      guard_.Floods(ip.source, std::chrono::steady_clock::now())) {
    DropBad(ip.source, counters_.dropped_flood);
    return;
  }
  ip.destination = gid_;
  ip.source_port = PortOf(slot.source);
  ip.ipv4_identification = slot.next_identification;
  uint16_t identification = 0;
  const IcrcChecker::Verdict verdict = checker_.Check(ip, bytes, &identification);
  if (verdict == IcrcChecker::Verdict::kDamaged) {
    DropBad(ip.source, counters_.dropped_bad_icrc);
    return;
  }
  slot.next_identification = static_cast<uint16_t>(identification + 1);
  if (!ours) {
    DropBad(ip.source, counters_.dropped_wrong_qpn);
    return;
  }
  if (claim == PacketHandler::Claim::kNobody) NoteBad(ip.source);  // and the handler counts it
  if (verdict == IcrcChecker::Verdict::kIntactByIdentification) ++counters_.icrc_by_identification;
  ++counters_.packets_received;
  counters_.bytes_received += bytes.size();
  if (slot.congestion_experienced) {
    view.congestion_experienced = true;
    ++counters_.congestion_experienced;
  }
  handler.OnPacket(ip.source, view);
}

}  // namespace sumac::soft_nic
