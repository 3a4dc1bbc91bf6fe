#include "verbs/soft_nic/link/transmit_socket.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/engine/dma.h"
#include "verbs/soft_nic/link/reuseport_group.h"

namespace sumac::soft_nic {
namespace {

constexpr uint16_t kFirstSourcePort =
    0xc000;  // the range for ECMP entropy (Annex A17.4.3 leaves it open; rxe's)
constexpr uint32_t kSourcePorts = 0x4000;
constexpr int kBindAttempts = 1000;
constexpr uint8_t kPadMask = 3;
constexpr size_t kSegmentsMax = 64;          // UDP_MAX_SEGMENTS of kernels before 6.9
constexpr size_t kCopiedBytes = 512;         // less is cheaper copied than pointed to
constexpr size_t kDatagramBytesMax = 65000;  // below what IP can carry, headers included

#ifndef UDP_SEGMENT
constexpr int UDP_SEGMENT = 103;
#endif

bool IsTransient(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS || error == ENOMEM;
}

bool SetInt(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

absl::Status Configure(int fd, const TransmitSocket::Options& options) {
  const bool ipv4 = IsIpv4Mapped(options.source);
  // Without these the ICRC can't be right on IPv4; on IPv6 they only avoid fragments.
  const bool ok = ipv4 ? SetInt(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO) &&
                             SetInt(fd, SOL_SOCKET, SO_NO_CHECK, !options.segmentation) &&
                             SetInt(fd, IPPROTO_IP, IP_TTL, 64)
                       : SetInt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) &&
                             SetInt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64);
  if (!ok) return absl::ErrnoToStatus(errno, "configuring a socket to send RoCE packets");
  const int bytes = static_cast<int>(std::min<uint32_t>(options.send_buffer_bytes, INT32_MAX / 2));
  if (!SetInt(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes)) SetInt(fd, SOL_SOCKET, SO_SNDBUF, bytes);
  // Nothing is received here: peers send to 4791. Keep what strays in small.
  SetInt(fd, SOL_SOCKET, SO_RCVBUF, 1);
  return absl::OkStatus();
}

}  // namespace

struct TransmitSocket::Slot {
  Slot() {}  // leaves `bytes` as they are: memory that is never used is never touched
  // Where pad and ICRC stand: after the payload, or after the headers while the payload is
  // elsewhere.
  std::byte* tail() {
    return bytes.data() + (piece_count == 1 && pieces[0].iov_len == length
                               ? length - kIcrcBytes - pad_bytes
                               : header_bytes);
  }
  SocketAddress destination{};
  Gid destination_gid{};
  uint32_t dest_qpn = 0;
  size_t length = 0;  // of the packet
  size_t header_bytes = 0;
  uint8_t pad_bytes = 0;
  uint8_t piece_count = 0;
  std::array<iovec, kPiecesMax> pieces{};
  uint16_t place = 0;  // in its run: the identification that its packet will have
  alignas(64) std::array<std::byte, kPacketBytesMax> bytes;
};

struct TransmitSocket::Run {
  size_t slots = 0;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(uint16_t))> control{};
};

absl::StatusOr<std::unique_ptr<TransmitSocket>> TransmitSocket::Open(const Options& options,
                                                                     LinkCounters* counters) {
  std::random_device random;
  for (int attempt = 0; attempt < kBindAttempts; ++attempt) {
    const auto port = static_cast<uint16_t>(kFirstSourcePort + random() % kSourcePorts);
    auto fd = BindExclusively(ToSocketAddress(options.source, port, options.scope_id));
    if (absl::IsAlreadyExists(fd.status())) continue;
    if (!fd.ok()) return fd.status();
    if (auto configured = Configure(fd->get(), options); !configured.ok()) return configured;
    return std::unique_ptr<TransmitSocket>(
        new TransmitSocket(*std::move(fd), options, port, counters));
  }
  return absl::ResourceExhaustedError(absl::StrCat("no free UDP source port in 49152-65535 on ",
                                                   ToString(options.source), " after ",
                                                   kBindAttempts, " attempts"));
}

TransmitSocket::TransmitSocket(UniqueFd fd, const Options& options, uint16_t port,
                               LinkCounters* counters)
    : fd_(std::move(fd)),
      source_(options.source),
      ipv4_(IsIpv4Mapped(options.source)),
      scope_id_(options.scope_id),
      port_(port),
      segmentation_(options.segmentation),
      counters_(counters),
      slots_(kBatch),
      pieces_(kBatch * kPiecesMax),
      messages_(kBatch),
      runs_(kBatch) {}

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
  if (!Encode(packet, end_)) {
    ++counters_->send_errors;
    return true;
  }
  ++end_;
  // The peer can start on it, and the next run finds these slots in the cache.
  if (RunIsFull()) Flush();
  return true;
}

// False: no such packet can be sent from here (other address family, too long).
bool TransmitSocket::Encode(const OutgoingPacket& packet, size_t index) {
  size_t payload_bytes = 0;
  for (const iovec& piece : packet.payload) payload_bytes += piece.iov_len;
  if (payload_bytes > kMtuBytesMax || IsIpv4Mapped(packet.path->destination) != ipv4_) return false;
  Slot& slot = slots_[index];
  PacketHeader header = packet.header;
  header.pad_bytes = static_cast<uint8_t>(-payload_bytes) & kPadMask;
  const size_t header_bytes = EncodeHeader(header, slot.bytes);
  slot.header_bytes = header_bytes;
  slot.pad_bytes = header.pad_bytes;
  slot.length = header_bytes + payload_bytes + header.pad_bytes + kIcrcBytes;
  slot.piece_count = 0;
  slot.pieces[slot.piece_count++] = {slot.bytes.data(), header_bytes};
  std::memset(slot.tail(), 0, slot.pad_bytes);
  for (const iovec& piece : packet.payload.first(std::min(packet.payload.size(), kPayloadPieces))) {
    slot.pieces[slot.piece_count++] = piece;
  }
  slot.pieces[slot.piece_count++] = {slot.tail(), slot.pad_bytes + kIcrcBytes};
  if (packet.payload.size() > kPayloadPieces || !packet.payload_stays ||
      payload_bytes < kCopiedBytes) {
    CopyPayload(slot, packet.payload);
  }
  slot.dest_qpn = header.dest_qpn;
  slot.destination_gid = packet.path->destination;
  slot.destination = ToSocketAddress(packet.path->destination, kRoceUdpPort, scope_id_);
  slot.place = PlaceInRun(index);
  Seal(slot);
  return true;
}

// Brings the whole packet into the slot's own bytes.
void TransmitSocket::CopyPayload(Slot& slot, std::span<const iovec> payload) {
  std::array<std::byte, kPadMask + kIcrcBytes> tail;
  const size_t tail_bytes = slot.pad_bytes + kIcrcBytes;
  std::memcpy(tail.data(), slot.tail(), tail_bytes);
  size_t bytes = slot.header_bytes;
  {
    const ScopedDma dma;
    for (const iovec& piece : payload) {
      if (piece.iov_len != 0) std::memcpy(&slot.bytes[bytes], piece.iov_base, piece.iov_len);
      bytes += piece.iov_len;
    }
  }
  slot.piece_count = 1;
  slot.pieces[0].iov_len = slot.length;
  std::memcpy(slot.tail(), tail.data(), tail_bytes);
}

// Where in a run the packet at `index` goes, the last of the batch so far: equal lengths (the last
// may be shorter), one queue pair, because the receiving kernel chooses the socket by the first.
uint16_t TransmitSocket::PlaceInRun(size_t index) const {
  if (!segmentation_ || index == first_) return 0;
  const Slot& slot = slots_[index];
  const Slot& previous = slots_[index - 1];
  const size_t place = previous.place + size_t{1};
  const size_t length = slots_[index - place].length;
  const bool joins = previous.length == length && slot.length <= length && place < kSegmentsMax &&
                     (place + 1) * length <= kDatagramBytesMax &&
                     slot.dest_qpn == previous.dest_qpn &&
                     slot.destination_gid == previous.destination_gid;
  return joins ? static_cast<uint16_t>(place) : uint16_t{0};
}

// Whether no packet can join the run at the end of the batch.
bool TransmitSocket::RunIsFull() const {
  if (!segmentation_ || empty()) return false;
  const size_t count = slots_[end_ - 1].place + size_t{1};
  return count > 1 &&
         (count == kSegmentsMax || (count + 1) * slots_[end_ - count].length > kDatagramBytesMax);
}

void TransmitSocket::Seal(Slot& slot) {
  IcrcHeaders ip;
  ip.source = source_;
  ip.destination = slot.destination_gid;
  ip.source_port = port_;
  ip.ipv4_identification = slot.place;
  uint32_t icrc = 0;
  if (slot.piece_count == 1) {
    icrc = ComputeIcrc(ip, std::span(slot.bytes).first(slot.length - kIcrcBytes), {});
  } else {
    auto covered = slot.pieces;
    covered[slot.piece_count - 1u].iov_len = slot.pad_bytes;
    const ScopedDma dma;
    icrc = ComputeIcrc(ip, std::span(slot.bytes).first(slot.header_bytes),
                       std::span<const iovec>(covered).subspan(1, slot.piece_count - 1u));
  }
  std::memcpy(slot.tail() + slot.pad_bytes, &icrc, kIcrcBytes);
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

// How many slots from `first` on are one run.
size_t TransmitSocket::CountSegments(size_t first) const {
  size_t next = first + 1;
  while (next < end_ && slots_[next].place != 0) ++next;
  return next - first;
}

// Makes messages of [first_, end_). Returns how many.
unsigned TransmitSocket::BuildMessages() {
  unsigned count = 0;
  iovec* piece = pieces_.data();
  for (size_t slot = first_; slot < end_; slot += runs_[count++].slots) {
    Run& run = runs_[count];
    run.slots = CountSegments(slot);
    msghdr& header = messages_[count].msg_hdr;
    header = {};
    header.msg_name = &slots_[slot].destination;
    header.msg_namelen = slots_[slot].destination.size();
    header.msg_iov = piece;
    for (size_t i = slot; i < slot + run.slots; ++i) {
      piece = std::copy_n(slots_[i].pieces.data(), slots_[i].piece_count, piece);
    }
    header.msg_iovlen = static_cast<size_t>(piece - header.msg_iov);
    if (run.slots == 1) continue;
    header.msg_control = run.control.data();
    header.msg_controllen = run.control.size();
    cmsghdr* segment = CMSG_FIRSTHDR(&header);
    segment->cmsg_level = IPPROTO_UDP;
    segment->cmsg_type = UDP_SEGMENT;
    segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    const auto length = static_cast<uint16_t>(slots_[slot].length);
    std::memcpy(CMSG_DATA(segment), &length, sizeof(length));
  }
  return count;
}

void TransmitSocket::Sent(size_t messages) {
  size_t slots = 0;
  for (size_t i = 0; i < messages; ++i) slots += runs_[i].slots;
  for (size_t i = first_; i < first_ + slots; ++i) counters_->bytes_sent += slots_[i].length;
  counters_->packets_sent += slots;
  first_ += slots;
}

// The kernel refused the first message for good.
void TransmitSocket::Refused(int error) {
  if (runs_[0].slots > 1 && (error == EINVAL || error == EIO || error == ENOPROTOOPT)) {
    // Perhaps only the segmentation: from now on one by one.
    segmentation_ = false;
    if (ipv4_) SetInt(fd_.get(), SOL_SOCKET, SO_NO_CHECK, 1);
    for (size_t i = first_; i < end_; ++i) {
      if (std::exchange(slots_[i].place, uint16_t{0}) != 0) Seal(slots_[i]);
    }
    return;
  }
  // EPERM (a firewall), EMSGSIZE, ENETUNREACH, ...
  counters_->send_errors += runs_[0].slots;
  first_ += runs_[0].slots;
}

void TransmitSocket::Flush() {
  while (first_ != end_) {
    const unsigned count = BuildMessages();
    // Not by the library's sendmmsg, as in UdpLink::Receive.
    const long sent = ::syscall(SYS_sendmmsg, fd_.get(), messages_.data(), count, MSG_DONTWAIT);
    if (sent > 0) {
      Sent(static_cast<size_t>(sent));
    } else if (IsTransient(errno)) {
      // The owner may give the payload's memory back after this.
      for (size_t i = first_; i < end_; ++i) {
        Slot& slot = slots_[i];
        if (slot.piece_count == 1) continue;
        CopyPayload(slot, std::span<const iovec>(slot.pieces).subspan(1, slot.piece_count - 2u));
      }
      return;
    } else if (errno != EINTR) {
      Refused(errno);
    }
  }
  first_ = end_ = 0;
}

}  // namespace sumac::soft_nic
