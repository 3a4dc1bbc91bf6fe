#include "tests/conformance/peer_socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <stdexcept>

#include "verbs/soft_nic/link/address.h"

namespace sumac::conformance {
namespace {

// A little more than a packet may have, for scripts that send one too long.
constexpr size_t kPacketBytes = soft_nic::kPacketBytesMax + 64;
constexpr int kBufferBytes = 4 << 20;

void Check(bool held, const std::string& what) {
  if (!held) throw std::runtime_error(what + ": " + std::strerror(errno));
}

// A socket belongs to the namespace in which it was made.
soft_nic::UniqueFd MakeSocket(int family, const std::string& netns) {
  if (netns.empty()) return soft_nic::UniqueFd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const soft_nic::UniqueFd here(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const soft_nic::UniqueFd there(::open(("/run/netns/" + netns).c_str(), O_RDONLY | O_CLOEXEC));
  Check(there.get() >= 0 && ::setns(there.get(), CLONE_NEWNET) == 0, "namespace " + netns);
  soft_nic::UniqueFd socket(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  Check(::setns(here.get(), CLONE_NEWNET) == 0, "back from namespace " + netns);
  return socket;
}

}  // namespace

PeerSocket::PeerSocket(const soft_nic::Gid& address, const soft_nic::Gid& device,
                       const std::string& netns)
    : address_(address), device_(device) {
  const auto self = soft_nic::ToSocketAddress(address, soft_nic::kRoceUdpPort, 0);
  socket_ = MakeSocket(self.any.sa_family, netns);
  // Don't fragment, and not connected: Linux then leaves the identification 0, which the ICRC
  // covers.
  const int dont_fragment = IP_PMTUDISC_DO;
  Check(socket_.get() >= 0 && ::setsockopt(socket_.get(), IPPROTO_IP, IP_MTU_DISCOVER,
                                           &dont_fragment, sizeof(dont_fragment)) == 0,
        "a UDP socket");
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof(kBufferBytes));
  Check(::bind(socket_.get(), &self.any, self.size()) == 0,
        "port 4791 at " + soft_nic::ToString(address));
}

soft_nic::Gid PeerSocket::FreeLoopbackAddress() {
  std::random_device random;
  for (int tries = 0;; ++tries) {
    const auto byte = [&random] { return static_cast<uint8_t>(1 + random() % 254); };
    const soft_nic::Gid gid = soft_nic::GidOfIpv4(127, byte(), byte(), byte());
    const auto at = soft_nic::ToSocketAddress(gid, soft_nic::kRoceUdpPort, 0);
    const soft_nic::UniqueFd probe(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (::bind(probe.get(), &at.any, at.size()) == 0) return gid;
    Check(tries < 100, "no free address on loopback");
  }
}

void PeerSocket::Send(const soft_nic::PacketHeader& header, std::span<const std::byte> payload) {
  std::array<std::byte, kPacketBytes> packet{};
  size_t size = soft_nic::EncodeHeader(header, packet);
  if (size + payload.size() + 2 * soft_nic::kIcrcBytes > packet.size()) {
    throw std::runtime_error("too many bytes");
  }
  std::copy(payload.begin(), payload.end(), packet.begin() + static_cast<ptrdiff_t>(size));
  size += payload.size() + header.pad_bytes;
  const soft_nic::IcrcHeaders ip{
      .source = address_, .destination = device_, .source_port = soft_nic::kRoceUdpPort};
  const uint32_t icrc = soft_nic::ComputeIcrc(ip, std::span(packet).first(size), {});
  for (size_t i = 0; i < soft_nic::kIcrcBytes; ++i) {  // little-endian
    packet[size++] = std::byte(icrc >> 8 * i);
  }
  const auto to = soft_nic::ToSocketAddress(device_, soft_nic::kRoceUdpPort, 0);
  Check(::sendto(socket_.get(), packet.data(), size, 0, &to.any, to.size()) ==
            static_cast<ssize_t>(size),
        "sendto " + soft_nic::ToString(device_));
}

std::optional<PeerSocket::Received> PeerSocket::Receive() {
  std::array<std::byte, kPacketBytes> bytes;
  soft_nic::SocketAddress from{};
  socklen_t length = sizeof(from);
  const ssize_t got =
      ::recvfrom(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT, &from.any, &length);
  if (got < 0) {
    // An ICMP error of an earlier packet is the kernel's to tell, and no packet.
    Check(errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED, "recvfrom");
    return std::nullopt;
  }
  if (soft_nic::GidOf(from) != device_) return std::nullopt;  // a stray
  const auto packet = std::span<const std::byte>(bytes).first(static_cast<size_t>(got));
  soft_nic::PacketView view;
  const soft_nic::DecodeError error = soft_nic::Decode(packet, &view);
  if (error != soft_nic::DecodeError::kNone) {
    throw std::runtime_error(std::string("a packet came that is none: ") + soft_nic::NameOf(error));
  }
  const soft_nic::IcrcHeaders ip{
      .source = device_, .destination = address_, .source_port = soft_nic::PortOf(from)};
  if (checker_.Check(ip, packet) == soft_nic::IcrcChecker::Verdict::kDamaged) {
    throw std::runtime_error("a packet came with a wrong ICRC");
  }
  return Received{view.header, {view.payload.begin(), view.payload.end()}};
}

void PeerSocket::Wait() const {
  pollfd ready{socket_.get(), POLLIN, 0};
  const timespec patience{0, 100'000};
  ::ppoll(&ready, 1, &patience, nullptr);
}

}  // namespace sumac::conformance
