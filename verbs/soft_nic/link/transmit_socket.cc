#include "verbs/soft_nic/link/transmit_socket.h"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/link/reuseport_group.h"

namespace sumac::soft_nic {
namespace {

constexpr uint16_t kFirstSourcePort =
    0xc000;  // the range for ECMP entropy (Annex A17.4.3 leaves it open; rxe's)
constexpr uint32_t kSourcePorts = 0x4000;
constexpr int kBindAttempts = 1000;
constexpr uint8_t kPadMask = 3;

bool IsTransient(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS || error == ENOMEM;
}

bool SetInt(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

absl::Status Configure(int fd, bool ipv4, uint32_t send_buffer_bytes) {
  // Without these the ICRC can't be right on IPv4; on IPv6 they only avoid fragments.
  const bool ok = ipv4 ? SetInt(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO) &&
                             SetInt(fd, SOL_SOCKET, SO_NO_CHECK, 1) &&
                             SetInt(fd, IPPROTO_IP, IP_TTL, 64)
                       : SetInt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) &&
                             SetInt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64);
  if (!ok) return absl::ErrnoToStatus(errno, "configuring a socket to send RoCE packets");
  const int bytes = static_cast<int>(std::min<uint32_t>(send_buffer_bytes, INT32_MAX / 2));
  if (!SetInt(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes)) SetInt(fd, SOL_SOCKET, SO_SNDBUF, bytes);
  // Nothing is received here: peers send to 4791. Keep what strays in small.
  SetInt(fd, SOL_SOCKET, SO_RCVBUF, 1);
  return absl::OkStatus();
}

}  // namespace

struct TransmitSocket::Slot {
  SocketAddress destination{};
  iovec piece{};
  alignas(64) std::array<std::byte, kPacketBytesMax> bytes;
};

absl::StatusOr<std::unique_ptr<TransmitSocket>> TransmitSocket::Open(const Gid& source,
                                                                     uint32_t scope_id,
                                                                     uint32_t send_buffer_bytes,
                                                                     LinkCounters* counters) {
  std::random_device random;
  for (int attempt = 0; attempt < kBindAttempts; ++attempt) {
    const auto port = static_cast<uint16_t>(kFirstSourcePort + random() % kSourcePorts);
    auto fd = BindExclusively(ToSocketAddress(source, port, scope_id));
    if (absl::IsAlreadyExists(fd.status())) continue;
    if (!fd.ok()) return fd.status();
    auto configured = Configure(fd->get(), IsIpv4Mapped(source), send_buffer_bytes);
    if (!configured.ok()) return configured;
    return std::unique_ptr<TransmitSocket>(
        new TransmitSocket(*std::move(fd), source, scope_id, port, counters));
  }
  return absl::ResourceExhaustedError(absl::StrCat("no free UDP source port in 49152-65535 on ",
                                                   ToString(source), " after ", kBindAttempts,
                                                   " attempts"));
}

TransmitSocket::TransmitSocket(UniqueFd fd, const Gid& source, uint32_t scope_id, uint16_t port,
                               LinkCounters* counters)
    : fd_(std::move(fd)),
      source_(source),
      ipv4_(IsIpv4Mapped(source)),
      scope_id_(scope_id),
      port_(port),
      counters_(counters),
      slots_(kBatch),
      messages_(kBatch) {
  for (size_t i = 0; i < kBatch; ++i) {
    slots_[i].piece.iov_base = slots_[i].bytes.data();
    msghdr& header = messages_[i].msg_hdr;
    header.msg_name = &slots_[i].destination;
    header.msg_iov = &slots_[i].piece;
    header.msg_iovlen = 1;
  }
}

TransmitSocket::~TransmitSocket() = default;

bool TransmitSocket::Queue(const OutgoingPacket& packet) {
  if (packet.path->traffic_class != traffic_class_ || packet.path->hop_limit != hop_limit_) {
    // Rare: a socket serves few queue pairs, and most of them have the same class.
    Flush();
    if (!empty()) return false;
    if (!SetIpFields(*packet.path)) {
      ++counters_->send_errors;
      return true;
    }
  }
  if (end_ == kBatch) {
    Flush();
    if (end_ == kBatch) return false;
  }
  if (Encode(packet, slots_[end_])) {
    messages_[end_].msg_hdr.msg_namelen = slots_[end_].destination.size();
    ++end_;
  } else {
    ++counters_->send_errors;
  }
  return true;
}

// False: no such packet can be sent from here (other address family, too long).
bool TransmitSocket::Encode(const OutgoingPacket& packet, Slot& slot) {
  size_t payload_bytes = 0;
  for (const iovec& piece : packet.payload) payload_bytes += piece.iov_len;
  if (payload_bytes > kMtuBytesMax || IsIpv4Mapped(packet.path->destination) != ipv4_) return false;
  PacketHeader header = packet.header;
  header.pad_bytes = static_cast<uint8_t>(-payload_bytes) & kPadMask;
  size_t bytes = EncodeHeader(header, slot.bytes);
  for (const iovec& piece : packet.payload) {
    if (piece.iov_len != 0) std::memcpy(&slot.bytes[bytes], piece.iov_base, piece.iov_len);
    bytes += piece.iov_len;
  }
  std::memset(&slot.bytes[bytes], 0, kPadMask);  // there is room: the ICRC comes after
  bytes += header.pad_bytes;
  IcrcHeaders ip;
  ip.source = source_;
  ip.destination = packet.path->destination;
  ip.source_port = port_;
  const uint32_t icrc = ComputeIcrc(ip, std::span(slot.bytes).first(bytes), {});
  std::memcpy(&slot.bytes[bytes], &icrc, kIcrcBytes);
  slot.piece.iov_len = bytes + kIcrcBytes;
  slot.destination = ToSocketAddress(packet.path->destination, kRoceUdpPort, scope_id_);
  return true;
}

bool TransmitSocket::SetIpFields(const Path& path) {
  const int hops = path.hop_limit == 0 ? 64 : path.hop_limit;
  const bool ok = ipv4_ ? SetInt(fd_.get(), IPPROTO_IP, IP_TOS, path.traffic_class) &&
                              SetInt(fd_.get(), IPPROTO_IP, IP_TTL, hops)
                        : SetInt(fd_.get(), IPPROTO_IPV6, IPV6_TCLASS, path.traffic_class) &&
                              SetInt(fd_.get(), IPPROTO_IPV6, IPV6_UNICAST_HOPS, hops);
  if (!ok) return false;
  traffic_class_ = path.traffic_class;
  hop_limit_ = path.hop_limit;
  return true;
}

void TransmitSocket::Flush() {
  while (first_ != end_) {
    const int sent = ::sendmmsg(fd_.get(), &messages_[first_], static_cast<unsigned>(end_ - first_),
                                MSG_DONTWAIT);
    if (sent > 0) {
      for (size_t i = first_; i < first_ + static_cast<size_t>(sent); ++i) {
        counters_->bytes_sent += slots_[i].piece.iov_len;
      }
      counters_->packets_sent += static_cast<uint64_t>(sent);
      first_ += static_cast<size_t>(sent);
    } else if (errno == EINTR) {
      continue;
    } else if (IsTransient(errno)) {
      return;
    } else {
      // The first packet of the batch is one that the kernel refuses: EPERM (a firewall), EMSGSIZE,
      // ENETUNREACH, ...
      ++counters_->send_errors;
      ++first_;
    }
  }
  first_ = end_ = 0;
}

}  // namespace sumac::soft_nic
