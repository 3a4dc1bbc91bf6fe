#include "verbs/soft_nic/cm/management_socket.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace sumac::soft_nic {
namespace {

constexpr int kReceiveBufferBytes = 4 << 20;  // the kernel gives at most net.core.rmem_max
constexpr uint32_t kSendBufferBytes = 256 * 1024;
// A sender asks again within this (Connection::kResponseTime).
constexpr int64_t kStaleSeconds = 5;

bool IsStale(msghdr& header) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec arrived, now;
    std::memcpy(&arrived, CMSG_DATA(c), sizeof(arrived));
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - arrived.tv_sec > kStaleSeconds;
  }
  return false;
}

bool IsManagement(const PacketView& packet) {
  return packet.header.opcode == Opcode::kUdSendOnly && packet.header.dest_qpn == kManagementQpn &&
         packet.header.source_qpn == kManagementQpn && packet.header.qkey == kManagementQkey &&
         packet.payload.size() == kMadBytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ManagementSocket>> ManagementSocket::Open(int receive_fd,
                                                                         const Gid& address,
                                                                         uint32_t scope_id) {
  ::setsockopt(receive_fd, SOL_SOCKET, SO_RCVBUF, &kReceiveBufferBytes, sizeof(int));
  std::unique_ptr<ManagementSocket> made(new ManagementSocket(receive_fd, address));
  auto transmit = TransmitSocket::Open(
      {.source = address, .scope_id = scope_id, .send_buffer_bytes = kSendBufferBytes},
      &made->link_counters_);
  if (!transmit.ok()) return transmit.status();
  made->transmit_ = *std::move(transmit);
  return made;
}

void ManagementSocket::Send(const Gid& destination, uint8_t traffic_class,
                            std::span<const std::byte, kMadBytes> mad) {
  Path path;
  path.source = address_;
  path.destination = destination;
  path.traffic_class = traffic_class;
  const iovec payload{const_cast<std::byte*>(mad.data()), mad.size()};
  OutgoingPacket packet;
  packet.path = &path;
  packet.header.opcode = Opcode::kUdSendOnly;
  packet.header.dest_qpn = packet.header.source_qpn = kManagementQpn;
  packet.header.qkey = kManagementQkey;
  packet.header.psn = psn_++ & 0xffffff;
  packet.payload = std::span(&payload, 1);
  // No room is a loss as on a wire: what matters is sent again.
  (void)transmit_->Queue(packet);
  transmit_->Flush();
}

void ManagementSocket::Receive(
    absl::FunctionRef<void(const Gid& source, std::span<const std::byte, kMadBytes>)> take,
    int budget) {
  std::array<std::byte, kPacketBytesMax> bytes;
  for (; budget > 0; --budget) {
    SocketAddress source{};
    iovec piece{bytes.data(), bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(timespec))> control{};
    msghdr header{};
    header.msg_name = &source;
    header.msg_namelen = sizeof(source);
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(receive_fd_, &header, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return;
    const auto packet = std::span(bytes).first(static_cast<size_t>(got));
    PacketView view;
    if ((header.msg_flags & MSG_TRUNC) != 0 || Decode(packet, &view) != DecodeError::kNone) {
      ++counters_.dropped_malformed;
      continue;
    }
    IcrcHeaders ip;
    ip.source = GidOf(source);
    ip.destination = address_;
    ip.source_port = PortOf(source);
    if (checker_.Check(ip, packet) == IcrcChecker::Verdict::kDamaged) {
      ++counters_.dropped_bad_icrc;
    } else if (!IsManagement(view)) {
      ++counters_.dropped_not_management;
    } else if (IsStale(header)) {
      ++counters_.dropped_stale;
    } else {
      ++counters_.received;
      take(ip.source, view.payload.first<kMadBytes>());
    }
  }
}

}  // namespace sumac::soft_nic
