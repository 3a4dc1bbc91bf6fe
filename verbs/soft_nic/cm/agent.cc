#include "verbs/soft_nic/cm/agent.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"

#include "verbs/log.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {
namespace {

constexpr int kDatagramsAtOnce = 64;
constexpr int kEpollEvents = 16;

absl::StatusOr<InterfaceAddress> WhereToListen(const UdpLinkOptions& options) {
  return options.interface.empty() ? InterfaceOfAddress(options.address)
                                   : AddressOfInterface(options.interface);
}

}  // namespace

Agent::Endpoint::Endpoint(Agent& agent, uint32_t id, const Gid& to, uint8_t with_traffic_class)
    : connection(id, std::random_device()() & 0xffffff),
      peer(to),
      traffic_class(with_traffic_class),
      agent_(agent) {}

void Agent::Endpoint::Transmit(const CmMessage& message) {
  agent_.Send(peer, traffic_class, message);
}

void Agent::Endpoint::Raise(ConnectionEvent event, int status, const CmMessage* message) {
  agent_.events_.OnEvent(connection.local_id(), event, status, message);
}

absl::StatusOr<std::unique_ptr<Agent>> Agent::Open(const UdpLinkOptions& options, uint64_t guid,
                                                   Events& events) {
  std::unique_ptr<Agent> agent(new Agent(guid, events));
  if (auto started = agent->Start(options); !started.ok()) return started;
  return agent;
}

absl::Status Agent::Start(const UdpLinkOptions& options) {
  const auto where = WhereToListen(options);
  if (!where.ok()) return where.status();
  gid_ = where->gid;
  scope_id_ = where->scope_id;
  mtu_bytes_ = PathMtuBytes(where->interface_mtu_bytes, IsIpv4Mapped(gid_));
  UdpPortShareOptions share;
  share.address = gid_;
  share.scope_id = scope_id_;
  share.slots = options.slots;
  share.management = true;
  share.join_timeout = options.join_timeout;
  share.answer_timeout = options.answer_timeout;
  auto joined = UdpPortShare::Join(share);
  if (!joined.ok()) {
    return absl::Status(joined.status().code(), absl::StrCat("rdma_cm on ", where->interface, ": ",
                                                             joined.status().message()));
  }
  share_ = *std::move(joined);
  number_ = share_->slot() - UdpPortShareOptions::kSlotsMax;
  next_count_ = std::random_device()();
  names_ = absl::StrCat(NamesOfPort(gid_, scope_id_, share.port), "cm/");
  auto socket = ManagementSocket::Open(share_->receive_fd(), gid_, scope_id_);
  if (!socket.ok()) return socket.status();
  socket_ = *std::move(socket);
  auto handed_on = BindDatagramName(NameOf(number_));
  if (!handed_on.ok()) return handed_on.status();
  handed_on_ = *std::move(handed_on);
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  for (const int fd : {share_->receive_fd(), share_->share_fd(), handed_on_.get()}) {
    if (auto watched = Watch(fd); !watched.ok()) return watched;
  }
  return absl::OkStatus();
}

Agent::~Agent() = default;

absl::Status Agent::Watch(int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "watching a socket of the connection manager");
}

std::string Agent::NameOf(uint32_t number) const { return absl::StrCat(names_, number); }

std::string Agent::NameOf(CmPort port) const {
  return absl::StrCat(names_, absl::Hex(port.space), "/", port.number);
}

void Agent::Serve(Time now) {
  std::array<epoll_event, kEpollEvents> ready;
  const int count = ::epoll_wait(epoll_.get(), ready.data(), ready.size(), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = ready[static_cast<size_t>(i)].data.fd;
    if (fd == share_->share_fd()) {
      share_->OnShareReadable();
    } else if (fd == share_->receive_fd()) {
      socket_->Receive(
          [&](const Gid& source, std::span<const std::byte, kMadBytes> mad) {
            OnDatagram(source, mad, false, now);
          },
          kDatagramsAtOnce);
    } else {
      ReadHandedOn(fd);
    }
  }
  HandOnWaiting(now);
  LookAgain(now);
  std::vector<uint32_t> due;
  for (const auto& [id, endpoint] : endpoints_) {
    if (endpoint->connection.NextTimeout() <= now) due.push_back(id);
  }
  for (const uint32_t id : due) {
    Endpoint* const endpoint = Find(id);
    if (endpoint == nullptr) continue;
    endpoint->connection.OnTimeout(now, *endpoint);
    Settle(id);
  }
}

Time Agent::NextTimeout() const {
  Time next = std::min(try_again_, look_again_);
  for (const auto& [id, endpoint] : endpoints_) {
    next = std::min(next, endpoint->connection.NextTimeout());
  }
  return next;
}

absl::Status Agent::Claim(CmPort port) {
  auto fd = BindDatagramName(NameOf(port));
  if (!fd.ok()) return fd.status();
  if (auto watched = Watch(fd->get()); !watched.ok()) return watched;
  claimed_[port].fd = *std::move(fd);
  return absl::OkStatus();
}

void Agent::Listen(CmPort port, bool listens) {
  const auto found = claimed_.find(port);
  if (found == claimed_.end()) return;
  found->second.listens = listens;
  auto sign = BindDatagramName(absl::StrCat(NameOf(port), "/listens"));
  found->second.sign = listens && sign.ok() ? *std::move(sign) : UniqueFd();
}

void Agent::Unclaim(CmPort port) { claimed_.erase(port); }

uint32_t Agent::NewId() {
  uint32_t id;
  do {
    id = number_ << kCountBits | (next_count_++ & ((1u << kCountBits) - 1));
  } while (id == 0 || endpoints_.contains(id));
  return id;
}

Agent::Endpoint& Agent::NewEndpoint(const Gid& peer, uint8_t traffic_class) {
  const uint32_t id = NewId();
  auto& made = endpoints_[id];
  made = std::make_unique<Endpoint>(*this, id, peer, traffic_class);
  return *made;
}

absl::StatusOr<uint32_t> Agent::Connect(const Gid& peer, const CmMessage& request, Time now) {
  if (endpoints_.size() >= kConnectionsMax) {
    return absl::ResourceExhaustedError("too many connections of rdma_cm in this process");
  }
  Endpoint& endpoint = NewEndpoint(peer, request.traffic_class);
  CmMessage message = request;
  message.transaction_id = uint64_t{std::random_device()()} << 32 | endpoint.connection.local_id();
  endpoint.connection.Connect(message, now, endpoint);
  return endpoint.connection.local_id();
}

Agent::Endpoint* Agent::Find(uint32_t id) {
  const auto found = endpoints_.find(id);
  return found == endpoints_.end() ? nullptr : found->second.get();
}

// What is closed is forgotten.
void Agent::Settle(uint32_t id) {
  const Endpoint* const endpoint = Find(id);
  if (endpoint == nullptr || endpoint->connection.state() != Connection::State::kClosed) return;
  if (!endpoint->connection.active()) {
    const CmMessage& request = endpoint->connection.request();
    requests_.erase({endpoint->peer, request.local_id, request.transaction_id});
  }
  endpoints_.erase(id);
}

void Agent::Abandon(uint32_t id, Time now) {
  Endpoint* const endpoint = Find(id);
  if (endpoint == nullptr) return;
  endpoint->connection.Abandon(now, *endpoint);
  Settle(id);
}

void Agent::AbandonAll(Time now) {
  for (const auto& [id, endpoint] : endpoints_) endpoint->connection.Abandon(now, *endpoint);
}

void Agent::Send(const Gid& peer, uint8_t traffic_class, const CmMessage& message) {
  Mad mad;
  EncodeCmMessage(message, mad);
  Log().debug("rdma_cm: {} to {}, IDs {:08x} {:08x}", soft_nic::NameOf(message.kind),
              ToString(peer), message.local_id, message.remote_id);
  socket_->Send(peer, traffic_class, mad);
}

}  // namespace sumac::soft_nic
