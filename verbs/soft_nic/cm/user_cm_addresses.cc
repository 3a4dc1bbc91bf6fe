// Commands about addresses: binding and resolving.

#include <sys/socket.h>

#include <cerrno>
#include <random>

#include "verbs/log.h"
#include "verbs/soft_nic/cm/user_cm.h"
#include "verbs/soft_nic/cm/user_cm_call.h"

namespace sumac::soft_nic {
namespace {

// As /proc/sys/net/ipv4/ip_local_port_range usually is.
constexpr uint16_t kFirstEphemeralPort = 32768;
constexpr uint16_t kLastEphemeralPort = 60999;
constexpr int kEphemeralAttempts = 64;

bool IsAny(const SocketAddress& address) {
  const Gid gid = GidOf(address);
  return gid == Gid{} || gid == GidOfIpv4(0, 0, 0, 0);
}

uint16_t RandomPort() {
  std::random_device random;
  return static_cast<uint16_t>(kFirstEphemeralPort +
                               random() % (kLastEphemeralPort - kFirstEphemeralPort + 1));
}

void SetPort(SocketAddress& address, uint16_t port) {
  (address.any.sa_family == AF_INET ? address.ipv4.sin_port : address.ipv6.sin6_port) = htons(port);
}

// False: neither IPv4 nor IPv6, or too short for it.
bool Take(const void* bytes, size_t size, SocketAddress* out) {
  *out = {};
  if (size < sizeof(sa_family_t)) return false;
  std::memcpy(out, bytes, std::min(size, sizeof(*out)));
  return (out->any.sa_family == AF_INET && size >= sizeof(sockaddr_in)) ||
         (out->any.sa_family == AF_INET6 && size >= sizeof(sockaddr_in6));
}

}  // namespace

int UserCm::BindIp(Call& call) {
  rdma_ucm_bind_ip command;
  int error = EINVAL;
  SocketAddress address;
  if (!call.Read(&command) || !Take(&command.addr, sizeof(command.addr), &address)) return EINVAL;
  CmIdentifier* const id = Find(call, command.id, &error);
  return id == nullptr ? error : BindTo(*id, address);
}

int UserCm::Bind(Call& call) {
  rdma_ucm_bind command;
  int error = EINVAL;
  if (!call.Read(&command) || command.addr_size > sizeof(command.addr)) return EINVAL;
  SocketAddress address;
  if (!Take(&command.addr, command.addr_size, &address)) return EINVAL;  // AF_IB among them
  CmIdentifier* const id = Find(call, command.id, &error);
  return id == nullptr ? error : BindTo(*id, address);
}

int UserCm::BindTo(CmIdentifier& id, const SocketAddress& address) {
  if (id.state != CmIdentifier::State::kIdle) return EINVAL;
  if (id.port_space != RDMA_PS_TCP && id.port_space != RDMA_PS_UDP) return EOPNOTSUPP;
  if (const int error = StartAgent(); error != 0) return error;
  const Gid wanted = GidOf(address);
  const bool any = IsAny(address);
  // Loopback means this host, wherever its device is.
  if (!any && wanted != agent_->gid() && !IsLoopback(wanted)) return EADDRNOTAVAIL;
  if (!any && IsLoopback(wanted) && IsLoopback(agent_->gid()) && wanted != agent_->gid()) {
    return EADDRNOTAVAIL;
  }
  const uint16_t port = PortOf(address);
  absl::Status claimed;
  CmPort candidate{id.port_space, port};
  for (int attempt = 0; attempt < kEphemeralAttempts; ++attempt) {
    if (port == 0) candidate.number = RandomPort();
    claimed = agent_->Claim(candidate);
    if (claimed.ok() || port != 0 || !absl::IsAlreadyExists(claimed)) break;
  }
  if (!claimed.ok()) {
    Log().debug("rdma_cm: port {}: {}", candidate.number, std::string(claimed.message()));
    return absl::IsAlreadyExists(claimed) ? EADDRINUSE : EMFILE;
  }
  id.claimed = candidate;
  id.source = address;
  SetPort(id.source, candidate.number);
  id.on_device = !any;
  id.state = CmIdentifier::State::kBound;
  return 0;
}

int UserCm::ResolveIp(Call& call) {
  rdma_ucm_resolve_ip command;
  int error = EINVAL;
  SocketAddress source, destination;
  if (!call.Read(&command)) return EINVAL;
  if (!Take(&command.dst_addr, sizeof(command.dst_addr), &destination)) return EINVAL;
  (void)Take(&command.src_addr, sizeof(command.src_addr), &source);  // none: family 0
  CmIdentifier* const id = Find(call, command.id, &error);
  return id == nullptr ? error : ResolveTo(*id, source, destination);
}

int UserCm::ResolveAddress(Call& call) {
  rdma_ucm_resolve_addr command;
  int error = EINVAL;
  SocketAddress source, destination;
  if (!call.Read(&command) || command.src_size > sizeof(command.src_addr) ||
      command.dst_size > sizeof(command.dst_addr)) {
    return EINVAL;
  }
  if (!Take(&command.dst_addr, command.dst_size, &destination)) return EINVAL;
  if (command.src_size != 0 && !Take(&command.src_addr, command.src_size, &source)) return EINVAL;
  if (command.src_size == 0) source = {};
  CmIdentifier* const id = Find(call, command.id, &error);
  return id == nullptr ? error : ResolveTo(*id, source, destination);
}

int UserCm::ResolveTo(CmIdentifier& id, const SocketAddress& source,
                      const SocketAddress& destination) {
  if (id.state == CmIdentifier::State::kIdle) {
    if (const int error = StartAgent(); error != 0) return error;
    if (source.any.sa_family != 0 && (!IsAny(source) || PortOf(source) != 0)) {
      if (const int error = BindTo(id, source); error != 0) return error;
    }
  } else if (id.state != CmIdentifier::State::kBound) {
    return EINVAL;
  }
  Gid peer{};
  if (const int error = RouteTo(destination, &peer); error != 0) {
    QueueSimple(id, kCmAddressError, -error);
    return 0;
  }
  const uint16_t port = id.claimed ? id.claimed->number : RandomPort();
  // The program's own way of writing its address, where it named one.
  if (!id.on_device) {
    id.source = IsLoopback(GidOf(destination)) && !IsLoopback(agent_->gid())
                    ? destination
                    : ToSocketAddress(agent_->gid(), port, agent_->scope_id());
  }
  SetPort(id.source, port);
  id.destination = destination;
  id.peer = peer;
  id.on_device = true;
  id.state = CmIdentifier::State::kAddressResolved;
  QueueSimple(id, kCmAddressResolved, 0);
  return 0;
}

// 0 and where it is, or the errno of RDMA_CM_EVENT_ADDR_ERROR.
int UserCm::RouteTo(const SocketAddress& destination, Gid* peer) const {
  *peer = GidOf(destination);
  const Gid& own = agent_->gid();
  if (IsAny(destination)) return EINVAL;
  if (IsIpv4Mapped(*peer) != IsIpv4Mapped(own)) {
    if (IsLoopback(*peer)) *peer = own;  // ::1 is this host as 127.0.0.1 is
    return IsLoopback(GidOf(destination)) ? 0 : ENODEV;
  }
  if (IsLoopback(*peer) != IsLoopback(own)) {
    if (IsLoopback(own)) return ENODEV;
    *peer = own;
    return 0;
  }
  const UniqueFd probe(
      ::socket(IsIpv4Mapped(own) ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const SocketAddress from = ToSocketAddress(own, 0, agent_->scope_id());
  const SocketAddress to = ToSocketAddress(*peer, kRoceUdpPort, agent_->scope_id());
  if (!probe.valid() || ::bind(probe.get(), &from.any, from.size()) != 0) return ENODEV;
  if (::connect(probe.get(), &to.any, to.size()) != 0) return errno == EINVAL ? ENODEV : errno;
  return 0;
}

int UserCm::ResolveRoute(Call& call) {
  rdma_ucm_resolve_route command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  if (id->state != CmIdentifier::State::kAddressResolved) return EINVAL;
  id->state = CmIdentifier::State::kRouteResolved;
  QueueSimple(*id, kCmRouteResolved, 0);
  return 0;
}

}  // namespace sumac::soft_nic
