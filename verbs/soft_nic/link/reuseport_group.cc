#include "verbs/soft_nic/link/reuseport_group.h"

#include <linux/filter.h>
#include <netinet/udp.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/wire/cm_message.h"

namespace sumac::soft_nic {
namespace {

#ifndef UDP_NO_CHECK6_RX
constexpr int UDP_NO_CHECK6_RX = 102;
#endif

std::string Name(const SocketAddress& address) {
  return absl::StrCat("UDP port ", PortOf(address), " on ", ToString(GidOf(address)));
}

absl::Status Bind(int fd, const SocketAddress& address) {
  if (::bind(fd, &address.any, address.size()) == 0) return absl::OkStatus();
  const int error = errno;
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(
        absl::StrCat(Name(address), " is taken by ", DescribePortHolder(address)));
  }
  return absl::ErrnoToStatus(error, absl::StrCat("binding ", Name(address)));
}

// The program sees the packet from the first byte after the UDP header: the BTH, whose bytes 5 to 7
// are the destination QPN. A packet too short for that ends the program with 0: slot 0, whose owner
// counts it as malformed.
absl::Status AttachQpnSelector(int fd, uint32_t slots) {
  const uint32_t shift = 24 - static_cast<uint32_t>(std::countr_zero(slots));
  sock_filter code[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, 4},
      {BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xffffff},
      {BPF_JMP | BPF_JGE | BPF_K, 1, 0, kManagementQpns},
      {BPF_RET | BPF_K, 0, 0, slots},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, shift},
      {BPF_RET | BPF_A, 0, 0, 0},
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(code)), code};
  if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) == 0) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      absl::StrCat("the kernel refuses to choose sockets by QPN (SO_ATTACH_REUSEPORT_CBPF: ",
                   std::strerror(errno), "), so processes can't share a UDP port here"));
}

// One line of /proc/net/udp or udp6: "sl local:port remote:port st tx:rx tr:when retrnsmt uid ...".
struct PortUse {
  std::string address;
  unsigned port = 0;
  std::string uid;
};

bool ParsePortUse(const std::string& line, PortUse* use) {
  std::istringstream in(line);
  std::string slot, local, remote, state, queues, timer, retransmits;
  if (!(in >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> use->uid)) {
    return false;
  }
  const size_t colon = local.find(':');
  if (colon == std::string::npos) return false;
  use->address = local.substr(0, colon);
  char* end = nullptr;
  use->port = static_cast<unsigned>(std::strtoul(local.c_str() + colon + 1, &end, 16));
  return *end == '\0';
}

// As /proc prints it: 32-bit words in host order.
std::string ProcHex(const uint8_t* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; i += 4) {
    uint32_t word;
    std::memcpy(&word, bytes + i, 4);
    char hex[9];
    std::snprintf(hex, sizeof(hex), "%08X", word);
    text += hex;
  }
  return text;
}

}  // namespace

absl::StatusOr<UniqueFd> NewUdpSocket(bool ipv4) {
  UniqueFd fd(::socket(ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.valid()) {
    // RoCE v2 senders may leave out the UDP checksum also on IPv6 (Annex A17.3.2); rxe does.
    const int on = 1;
    if (!ipv4) ::setsockopt(fd.get(), IPPROTO_UDP, UDP_NO_CHECK6_RX, &on, sizeof(on));
    return fd;
  }
  if (errno == EMFILE || errno == ENFILE) {
    return absl::ResourceExhaustedError(
        "out of file descriptors for UDP sockets; raise the limit (ulimit -n)");
  }
  return absl::ErrnoToStatus(errno, "creating a UDP socket");
}

absl::StatusOr<UniqueFd> BindExclusively(const SocketAddress& address) {
  auto fd = NewUdpSocket(address.any.sa_family == AF_INET);
  if (!fd.ok()) return fd;
  if (auto bound = Bind(fd->get(), address); !bound.ok()) return bound;
  return fd;
}

absl::StatusOr<std::vector<UniqueFd>> CreateReuseportGroup(const SocketAddress& address,
                                                           uint32_t slots) {
  // Binding with SO_REUSEPORT would silently append to a group that is there; an exclusive bind
  // finds it.
  if (auto probe = BindExclusively(address); !probe.ok()) return probe.status();
  std::vector<UniqueFd> sockets;
  sockets.reserve(slots + 1);
  for (uint32_t slot = 0; slot <= slots; ++slot) {
    auto fd = NewUdpSocket(address.any.sa_family == AF_INET);
    if (!fd.ok()) return fd.status();
    const int on = 1;
    if (::setsockopt(fd->get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
      return absl::ErrnoToStatus(errno, "SO_REUSEPORT");
    }
    if (auto bound = Bind(fd->get(), address); !bound.ok()) return bound;
    if (slot == 0) {
      if (auto attached = AttachQpnSelector(fd->get(), slots); !attached.ok()) return attached;
    }
    sockets.push_back(*std::move(fd));
  }
  // Who reads it knows how old each packet is (cm/management_socket.h).
  const int on = 1;
  ::setsockopt(sockets.back().get(), SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
  // While the group was incomplete, packets for the missing slots went to whichever there was.
  for (const UniqueFd& fd : sockets) DrainSocket(fd.get());
  return sockets;
}

bool IsUdpSocketBoundTo(int fd, const SocketAddress& address) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  if (::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) return false;
  SocketAddress bound{};
  size = sizeof(bound);
  if (::getsockname(fd, &bound.any, &size) != 0) return false;
  return protocol == IPPROTO_UDP && bound.any.sa_family == address.any.sa_family &&
         GidOf(bound) == GidOf(address) && PortOf(bound) == PortOf(address);
}

void DrainSocket(int fd) {
  // Bounded, so that a flood can't hold us: what remains is checked like any other packet.
  constexpr int kPacketsMax = 1 << 20;
  char byte;
  for (int i = 0; i < kPacketsMax; ++i) {
    if (::recv(fd, &byte, sizeof(byte), MSG_DONTWAIT | MSG_TRUNC) < 0 && errno != EINTR) return;
  }
}

std::string DescribePortHolder(const SocketAddress& address) {
  const Gid gid = GidOf(address);
  const bool ipv4 = IsIpv4Mapped(gid);
  const std::string own = ipv4 ? ProcHex(gid.data() + 12, 4) : ProcHex(gid.data(), 16);
  for (const char* path : {"/proc/net/udp", "/proc/net/udp6"}) {
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) {
      PortUse use;
      if (!ParsePortUse(line, &use) || use.port != PortOf(address)) continue;
      const bool any = use.address.find_first_not_of('0') == std::string::npos;
      if (use.address != own && !any) continue;
      return absl::StrCat("a socket of uid ", use.uid, " bound to ",
                          any ? std::string("every address") : ToString(gid));
    }
  }
  return "another socket";
}

}  // namespace sumac::soft_nic
