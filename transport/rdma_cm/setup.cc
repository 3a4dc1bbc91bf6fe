#include "transport/rdma_cm/setup.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "verbs/log.h"

namespace sumac::transport::rdma_cm {
namespace {

constexpr int kBacklog = 1024;
constexpr int kRefusalsLogged = 10;
// The kernel's own patience; ours is the caller's deadline, and the next call goes on waiting.
constexpr int kResolveTimeoutMs = 5000;
// Between two tries while the kernel still holds a former connection.
constexpr absl::Duration kStaleRetry = absl::Milliseconds(100);

uint64_t RandomKey() {
  std::random_device random;
  const uint64_t key = uint64_t{random()} << 32 | random();
  return key != 0 ? key : 1;
}

std::string TextOf(const ibv_gid& gid, uint16_t port) {
  const verbs::GidEntry entry{.gid = gid};
  return entry.is_ipv4() ? absl::StrCat(entry.address(), ":", port)
                         : absl::StrCat("[", entry.address(), "]:", port);
}

// A deadline says nothing of the connection; anything else ended it.
bool GoesOn(const absl::Status& status) {
  return status.ok() || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
}

}  // namespace

sockaddr_storage SocketAddressOf(const ibv_gid& gid, uint16_t port, uint32_t interface_index) {
  sockaddr_storage storage{};
  const verbs::GidEntry entry{.gid = gid};
  if (entry.is_ipv4()) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    std::memcpy(&address.sin_addr, gid.raw + 12, sizeof address.sin_addr);
    std::memcpy(&storage, &address, sizeof address);
  } else {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    std::memcpy(&address.sin6_addr, gid.raw, sizeof address.sin6_addr);
    if (IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr)) address.sin6_scope_id = interface_index;
    std::memcpy(&storage, &address, sizeof address);
  }
  return storage;
}

absl::Status CheckRoute(const ibv_qp_attr& attr, const AddressRecord& remote) {
  if (attr.dest_qp_num == remote.qpn &&
      std::memcmp(attr.ah_attr.grh.dgid.raw, remote.gid.raw, sizeof remote.gid.raw) == 0) {
    return absl::OkStatus();
  }
  const verbs::GidEntry reported{.gid = attr.ah_attr.grh.dgid};
  const verbs::GidEntry published{.gid = remote.gid};
  return absl::FailedPreconditionError(
      absl::StrFormat("rdma_cm leads to QP 0x%06x at %s, the address record to QP 0x%06x at %s",
                      attr.dest_qp_num, reported.address(), remote.qpn, published.address()));
}

void ApplyChoices(const verbs::ConnectionOptions& agreed, ibv_qp_attr& attr) {
  attr.path_mtu = agreed.path_mtu;
  attr.min_rnr_timer = agreed.min_rnr_timer;
  attr.max_dest_rd_atomic = agreed.max_rd_atomic;
  attr.ah_attr.grh.sgid_index = static_cast<uint8_t>(agreed.gid_index);
  attr.ah_attr.grh.traffic_class = agreed.traffic_class;
  // Without a wish the kernel's mapping of the traffic class to a priority stays.
  if (agreed.service_level != 0) attr.ah_attr.sl = agreed.service_level;
  attr.timeout = agreed.timeout;
  attr.retry_cnt = agreed.retry_count;
  attr.rnr_retry = agreed.rnr_retry;
  attr.max_rd_atomic = agreed.max_rd_atomic;
}

absl::StatusOr<std::unique_ptr<ConnectionSetup>> Setup::Create(const Calls& calls, int rank,
                                                               int size, const LocalPath& path) {
  auto setup = std::unique_ptr<Setup>(new Setup(rank, size, path));
  if (auto status = setup->Listen(calls); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("connecting by rdma_cm on device ",
                                                    path.device->name(), ": ", status.message()));
  }
  return setup;
}

Setup::Setup(int rank, int size, const LocalPath& path)
    : rank_(rank), path_(path), peers_(static_cast<size_t>(size)) {}

absl::Status Setup::Listen(const Calls& calls) {
  auto hub = EventHub::Create(
      calls, [this](const Event& request, Identifier& id) { OnRequest(request, id); });
  if (!hub.ok()) return hub.status();
  hub_ = *std::move(hub);
  auto listener = hub_->CreateIdentifier();
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  sockaddr_storage own = SocketAddressOf(path_.gid.gid, 0, path_.gid.interface_index);
  if (calls.bind_addr(listener_.get(), reinterpret_cast<sockaddr*>(&own)) != 0) {
    return CallStatus(errno, "rdma_bind_addr", path_.gid.address());
  }
  if (calls.listen(listener_.get(), kBacklog) != 0) {
    return CallStatus(errno, "rdma_listen", path_.gid.address());
  }
  port_ = ntohs(calls.get_src_port(listener_.get()));
  Log().info("rdma_cm: rank {} listens at {}", rank_, TextOf(path_.gid.gid, port_));
  return absl::OkStatus();
}

Setup::~Setup() {
  if (hub_ == nullptr) return;
  hub_->Stop();
  for (Peer& peer : peers_) {
    if (peer.connected && calls().disconnect(peer.id.get()) != 0) {
      Log().debug("rdma_disconnect: {}", std::strerror(errno));
    }
  }
}

void Setup::Announce(int peer, AddressRecord& own) {
  hub_->Locked([&] {
    uint64_t& key = peers_[static_cast<size_t>(peer)].key;
    if (key == 0) key = RandomKey();
    own.cm_key = key;
  });
  own.cm_port = port_;
}

// Who floods us with requests does not fill the log.
void Setup::Refuse(absl::string_view why) {
  if (++refused_ > kRefusalsLogged) return;
  Log().warn("rdma_cm: a connection request was refused: {}{}", std::string(why),
             refused_ == kRefusalsLogged ? "; further ones are not logged" : "");
}

// What comes here comes from the network: only who knows the key is of the job.
void Setup::OnRequest(const Event& request, Identifier& id) {
  const auto greeting = ParseGreeting(request.private_data);
  if (!greeting.ok()) {
    Refuse(greeting.status().message());
    return;
  }
  Peer* peer = greeting->from < peers_.size() ? &peers_[greeting->from] : nullptr;
  if (peer == nullptr || greeting->to != static_cast<uint32_t>(rank_) || peer->key == 0 ||
      greeting->key != peer->key || peer->accepted) {
    Refuse(absl::StrCat(
        "it calls itself rank ", greeting->from, " and wants rank ", greeting->to,
        peer != nullptr && peer->accepted ? ", which is connected" : ", with another key"));
    return;
  }
  // A former one that nobody has accepted was given up by its rank.
  peer->request.swap(id);
}

absl::Status Setup::BringUp(int peer, verbs::QueuePair& qp, const verbs::ConnectionOptions& agreed,
                            const AddressRecord& remote, const Patience& patience) {
  if (remote.cm_port == 0) return PeerConnectsOtherwise(peer, ConnectBy::kRdmaCm);
  Peer& mine = peers_[static_cast<size_t>(peer)];
  const Attempt attempt{peer,
                        mine,
                        qp,
                        agreed,
                        remote,
                        patience,
                        absl::StrCat("rank ", peer, " (", TextOf(remote.gid, remote.cm_port), ")")};
  for (;;) {
    const absl::Status status = peer > rank_ ? Connect(attempt) : Accept(attempt);
    if (GoesOn(status)) {
      mine.connected = status.ok();
      return status;
    }
    mine.stage = Stage::kNothing;
    Identifier().swap(mine.id);
    hub_->Locked([&] { mine.accepted = false; });
    if (!absl::IsAborted(status)) return status;
    Log().debug("{}", status.ToString());
    const auto waited = hub_->Await({absl::Now() + kStaleRetry, patience.interrupted},
                                    attempt.where, "the next try", [] { return false; });
    if (!absl::IsDeadlineExceeded(waited)) return waited;
    if (absl::Now() >= patience.deadline) return absl::DeadlineExceededError(status.message());
  }
}

absl::Status Setup::Expect(const Attempt& attempt, rdma_cm_event_type type,
                           absl::string_view doing) {
  const auto event = hub_->Next(attempt.mine.id, attempt.patience, attempt.where, doing);
  if (!event.ok()) return event.status();
  if (event->type != type) return EventStatus(*event, attempt.where, doing);
  if (type != RDMA_CM_EVENT_CONNECT_RESPONSE) return absl::OkStatus();
  const auto greeting = ParseGreeting(event->private_data);
  if (!greeting.ok() || greeting->from != static_cast<uint32_t>(attempt.peer) ||
      greeting->to != static_cast<uint32_t>(rank_) || greeting->key != attempt.mine.key) {
    return absl::FailedPreconditionError(
        absl::StrCat(attempt.where, " answered, but not as that rank of this job"));
  }
  return absl::OkStatus();
}

absl::Status Setup::Connect(const Attempt& attempt) {
  Stage& stage = attempt.mine.stage;
  if (stage == Stage::kNothing) {
    if (auto status = StartConnecting(attempt); !status.ok()) return status;
    stage = Stage::kAddress;
  }
  if (stage == Stage::kAddress) {
    const auto status = Expect(attempt, RDMA_CM_EVENT_ADDR_RESOLVED, "its address");
    if (!status.ok()) return status;
    if (calls().resolve_route(attempt.mine.id.get(), kResolveTimeoutMs) != 0) {
      return CallStatus(errno, "rdma_resolve_route", attempt.where);
    }
    stage = Stage::kRoute;
  }
  if (stage == Stage::kRoute) {
    const auto status = Expect(attempt, RDMA_CM_EVENT_ROUTE_RESOLVED, "the route to it");
    if (!status.ok()) return status;
    if (auto sent = Request(attempt); !sent.ok()) return sent;
    stage = Stage::kAnswer;
  }
  const auto status =
      Expect(attempt, RDMA_CM_EVENT_CONNECT_RESPONSE, "its answer to our connection request");
  if (!status.ok()) return status;
  return OnAnswer(attempt);
}

absl::Status Setup::StartConnecting(const Attempt& attempt) {
  auto id = hub_->CreateIdentifier();
  if (!id.ok()) return id.status();
  attempt.mine.id = *std::move(id);
  rdma_cm_id* raw = attempt.mine.id.get();
  // For rdma_cm's own view of the path; the queue pair gets ours in any case (ApplyChoices).
  uint8_t traffic_class = attempt.agreed.traffic_class;
  uint8_t timeout = attempt.agreed.timeout;
  if (calls().set_option(raw, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &traffic_class, 1) != 0 ||
      calls().set_option(raw, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1) != 0) {
    Log().debug("rdma_set_option for {}: {}", attempt.where, std::strerror(errno));
  }
  sockaddr_storage own = SocketAddressOf(path_.gid.gid, 0, path_.gid.interface_index);
  sockaddr_storage there =
      SocketAddressOf(attempt.remote.gid, attempt.remote.cm_port, path_.gid.interface_index);
  if (calls().resolve_addr(raw, reinterpret_cast<sockaddr*>(&own),
                           reinterpret_cast<sockaddr*>(&there), kResolveTimeoutMs) != 0) {
    return CallStatus(errno, "rdma_resolve_addr", attempt.where);
  }
  return absl::OkStatus();
}

rdma_conn_param Setup::Parameters(const Attempt& attempt,
                                  const std::array<uint8_t, kGreetingBytes>& greeting) const {
  rdma_conn_param parameters{};
  parameters.private_data = greeting.data();
  parameters.private_data_len = static_cast<uint8_t>(greeting.size());
  parameters.responder_resources = attempt.agreed.max_rd_atomic;
  parameters.initiator_depth = attempt.agreed.max_rd_atomic;
  parameters.retry_count = attempt.agreed.retry_count;
  parameters.rnr_retry_count = attempt.agreed.rnr_retry;
  parameters.qp_num = attempt.qp.qpn();
  return parameters;
}

absl::Status Setup::Request(const Attempt& attempt) {
  const auto greeting = Encode(
      {static_cast<uint32_t>(rank_), static_cast<uint32_t>(attempt.peer), attempt.remote.cm_key});
  rdma_conn_param parameters = Parameters(attempt, greeting);
  if (calls().connect(attempt.mine.id.get(), &parameters) != 0) {
    return CallStatus(errno, "rdma_connect", attempt.where);
  }
  return absl::OkStatus();
}

absl::Status Setup::OnAnswer(const Attempt& attempt) {
  if (auto status = MakeReady(attempt); !status.ok()) return status;
  if (calls().establish(attempt.mine.id.get()) != 0) {
    return CallStatus(errno, "rdma_establish", attempt.where);
  }
  return absl::OkStatus();
}

absl::Status Setup::Accept(const Attempt& attempt) {
  Peer& mine = attempt.mine;
  const auto came = hub_->Await(attempt.patience, attempt.where, "its connection request", [&mine] {
    if (mine.request.get() == nullptr) return false;
    mine.accepted = true;
    mine.id.swap(mine.request);
    return true;
  });
  if (!came.ok()) return came;
  if (auto status = MakeReady(attempt); !status.ok()) return status;
  const auto greeting = Encode(
      {static_cast<uint32_t>(rank_), static_cast<uint32_t>(attempt.peer), attempt.remote.cm_key});
  rdma_conn_param parameters = Parameters(attempt, greeting);
  if (calls().accept(mine.id.get(), &parameters) != 0) {
    return CallStatus(errno, "rdma_accept", attempt.where);
  }
  return absl::OkStatus();
}

absl::Status Setup::MakeReady(const Attempt& attempt) {
  rdma_cm_id* id = attempt.mine.id.get();
  if (id->verbs != nullptr && path_.device->name() != ibv_get_device_name(id->verbs->device)) {
    return absl::FailedPreconditionError(absl::StrCat(
        attempt.where, ": rdma_cm's route is by device ", ibv_get_device_name(id->verbs->device),
        ", not by ", path_.device->name(), ", which was chosen"));
  }
  for (const ibv_qp_state state : {IBV_QPS_RTR, IBV_QPS_RTS}) {
    ibv_qp_attr attr{};
    attr.qp_state = state;
    int mask = 0;
    if (calls().init_qp_attr(id, &attr, &mask) != 0) {
      return CallStatus(errno, "rdma_init_qp_attr", attempt.where);
    }
    if (state == IBV_QPS_RTR) {
      if (auto status = CheckRoute(attr, attempt.remote); !status.ok()) {
        return absl::Status(status.code(), absl::StrCat(attempt.where, ": ", status.message()));
      }
    }
    ApplyChoices(attempt.agreed, attr);
    const auto status =
        attempt.qp.Modify(attr, mask, state == IBV_QPS_RTR ? "RTR by rdma_cm" : "RTS by rdma_cm");
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sumac::transport::rdma_cm
