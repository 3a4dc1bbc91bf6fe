// Commands about addresses: binding, resolving, asking what became of it; options.

#include <infiniband/ib.h>
#include <infiniband/sa.h>
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

// Of a path record (IBTA vol. 1, 15.2.5.16).
constexpr uint8_t kExactly = 2;  // selectors
constexpr uint8_t kReversible = 0x80;
constexpr uint8_t kRate = 7;             // IBV_RATE_40_GBPS, as the port says
constexpr uint8_t kPacketLifeTime = 14;  // 4.096 us * 2^14 = 67 ms
constexpr uint8_t kHopLimit = 64;

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

uint8_t MtuCode(uint32_t bytes) {
  uint8_t code = 1;  // 256 bytes, as ibv_mtu has it
  while (code < 5 && (128u << (code + 1)) <= bytes) ++code;
  return code;
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

int UserCm::QueryRoute(Call& call) {
  rdma_ucm_query command;
  int error = EINVAL;
  // A command of its own whose struct is the same up to the option.
  if (!call.Read(&command, offsetof(rdma_ucm_query, option))) return EINVAL;
  const CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  rdma_ucm_query_route_resp response{};
  std::memcpy(&response.src_addr, &id->source, sizeof(response.src_addr));
  std::memcpy(&response.dst_addr, &id->destination, sizeof(response.dst_addr));
  response.ibdev_index = UINT32_MAX;  // none; the GUID says which device
  if (id->on_device) {
    response.node_guid = agent_->guid();
    response.port_num = 1;
    ib_user_path_rec& path = response.ib_route[0];
    std::memcpy(path.sgid, agent_->gid().data(), sizeof(path.sgid));
    path.pkey = 0xffff;
    if (id->state >= CmIdentifier::State::kAddressResolved &&
        id->state != CmIdentifier::State::kListening) {
      std::memcpy(path.dgid, id->peer.data(), sizeof(path.dgid));
    }
    if (id->state == CmIdentifier::State::kRouteResolved ||
        id->state == CmIdentifier::State::kConnected) {
      response.num_paths = 1;
      path.reversible = 1;
      path.mtu = MtuCode(agent_->mtu_bytes());
      path.hop_limit = kHopLimit;
      path.traffic_class = id->type_of_service;
      path.numb_path = 1;
      path.mtu_selector = path.rate_selector = path.packet_life_time_selector = kExactly;
      path.rate = kRate;
      path.packet_life_time = kPacketLifeTime;
    }
  }
  return call.Respond(command.response, response, offsetof(rdma_ucm_query_route_resp, ibdev_index));
}

int UserCm::Query(Call& call) {
  rdma_ucm_query command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  const CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  switch (command.option) {
    case RDMA_USER_CM_QUERY_ADDR:
      return QueryAddress(call, *id, command);
    case RDMA_USER_CM_QUERY_PATH:
      return QueryPath(call, *id, command);
    case RDMA_USER_CM_QUERY_GID:
      return QueryGids(call, *id, command);
    default:
      return ENOSYS;
  }
}

int UserCm::QueryAddress(Call& call, const CmIdentifier& id, const rdma_ucm_query& command) {
  rdma_ucm_query_addr_resp response{};
  response.src_size = static_cast<uint16_t>(id.source.any.sa_family != 0 ? id.source.size() : 0);
  response.dst_size =
      static_cast<uint16_t>(id.destination.any.sa_family != 0 ? id.destination.size() : 0);
  std::memcpy(&response.src_addr, &id.source, sizeof(id.source));
  std::memcpy(&response.dst_addr, &id.destination, sizeof(id.destination));
  response.ibdev_index = UINT32_MAX;
  if (id.on_device) {
    response.node_guid = agent_->guid();
    response.port_num = 1;
    response.pkey = 0xffff;
  }
  return call.Respond(command.response, response, offsetof(rdma_ucm_query_addr_resp, ibdev_index));
}

int UserCm::QueryPath(Call& call, const CmIdentifier& id, const rdma_ucm_query& command) {
  struct {  // rdma_ucm_query_path_resp with one path
    struct {
      uint32_t num_paths;
      uint32_t reserved;
    } head;
    ibv_path_data path;
  } response{};
  const bool has_path = id.on_device && (id.state == CmIdentifier::State::kRouteResolved ||
                                         id.state == CmIdentifier::State::kConnected);
  if (has_path) {
    response.head.num_paths = 1;
    response.path.flags = IBV_PATH_FLAG_GMP | IBV_PATH_FLAG_PRIMARY | IBV_PATH_FLAG_BIDIRECTIONAL;
    ibv_path_record& path = response.path.path;
    std::memcpy(path.dgid.raw, id.peer.data(), sizeof(path.dgid.raw));
    std::memcpy(path.sgid.raw, agent_->gid().data(), sizeof(path.sgid.raw));
    path.flowlabel_hoplimit = htonl(kHopLimit);
    path.tclass = id.type_of_service;
    path.reversible_numpath = kReversible | 1;
    path.pkey = 0xffff;
    path.mtu = static_cast<uint8_t>(kExactly << 6 | MtuCode(agent_->mtu_bytes()));
    path.rate = kExactly << 6 | kRate;
    path.packetlifetime = kExactly << 6 | kPacketLifeTime;
  }
  return call.Respond(command.response, response,
                      has_path ? sizeof(response) : sizeof(response.head));
}

int UserCm::QueryGids(Call& call, const CmIdentifier& id, const rdma_ucm_query& command) {
  rdma_ucm_query_addr_resp response{};
  response.src_size = response.dst_size = sizeof(sockaddr_ib);
  response.ibdev_index = UINT32_MAX;
  sockaddr_ib source{}, destination{};
  source.sib_family = destination.sib_family = AF_IB;
  if (id.on_device) {
    response.node_guid = agent_->guid();
    response.port_num = 1;
    response.pkey = source.sib_pkey = destination.sib_pkey = 0xffff;
    std::memcpy(source.sib_addr.sib_raw, agent_->gid().data(), 16);
    std::memcpy(destination.sib_addr.sib_raw, id.peer.data(), 16);
  }
  std::memcpy(&response.src_addr, &source, sizeof(source));
  std::memcpy(&response.dst_addr, &destination, sizeof(destination));
  return call.Respond(command.response, response, offsetof(rdma_ucm_query_addr_resp, ibdev_index));
}

int UserCm::SetOption(Call& call) {
  rdma_ucm_set_option command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  if (command.level != RDMA_OPTION_ID) return ENOSYS;  // RDMA_OPTION_IB sets InfiniBand paths
  const auto* const value = reinterpret_cast<const void*>(command.optval);  // NOLINT: the ABI
  const bool one_byte =
      command.optname == RDMA_OPTION_ID_TOS || command.optname == RDMA_OPTION_ID_ACK_TIMEOUT;
  if (value == nullptr || command.optlen != (one_byte ? 1 : sizeof(int))) return EINVAL;
  uint8_t byte = 0;
  if (one_byte) std::memcpy(&byte, value, 1);
  switch (command.optname) {
    case RDMA_OPTION_ID_TOS:
      id->type_of_service = byte;
      return 0;
    case RDMA_OPTION_ID_ACK_TIMEOUT:
      if (byte > 31) return EINVAL;
      id->ack_timeout = byte;
      return 0;
    case RDMA_OPTION_ID_REUSEADDR:  // ports are free as soon as their holder is gone
      return 0;
    case RDMA_OPTION_ID_AFONLY:  // the soft NIC has one address, so one family
      return id->state == CmIdentifier::State::kIdle ? 0 : EINVAL;
    default:
      return ENOSYS;
  }
}

}  // namespace sumac::soft_nic
