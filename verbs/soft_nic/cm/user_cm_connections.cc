// Commands about connections: listening, asking, answering, ending; and what comes of it.

#include <endian.h>

#include <cerrno>
#include <cstring>

#include "verbs/log.h"
#include "verbs/soft_nic/cm/queue_pair_attributes.h"
#include "verbs/soft_nic/cm/user_cm.h"
#include "verbs/soft_nic/cm/user_cm_call.h"

namespace sumac::soft_nic {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kDatagramQkey = 0x01234567;  // RDMA_UDP_QKEY
constexpr uint8_t kRate = 7;                    // IBV_RATE_40_GBPS
constexpr uint8_t kHopLimit = 64;
// Of our requests: 268 ms before a packet is sent again. Peers on busy machines, or emulated ones,
// take their time.
constexpr uint8_t kAckTimeout = 16;
// How long the peer takes for an acknowledgement, as rxe says it.
constexpr uint8_t kTargetAckDelay = 15;

// False: more than there is room for.
bool CopyPrivate(const uint8_t* data, size_t bytes, size_t at, CmMessage* message) {
  if (at + bytes > PrivateBytesMax(message->kind)) return false;
  std::memcpy(message->private_data.data() + at, data, bytes);
  return true;
}

// As the other side sees it: what it takes is what we may ask, and the reverse.
void FillConnection(const CmMessage& message, size_t private_at, rdma_ucm_conn_param* out) {
  const size_t bytes = PrivateBytesMax(message.kind) - private_at;
  std::memcpy(out->private_data, message.private_data.data() + private_at, bytes);
  out->private_data_len = static_cast<uint8_t>(bytes);
  out->qp_num = message.qpn;
  out->srq = message.shared_receive_queue;
  out->responder_resources = message.initiator_depth;
  out->initiator_depth = message.responder_resources;
  out->flow_control = message.flow_control;
  out->retry_count = message.retry_count;
  out->rnr_retry_count = message.rnr_retry_count;
}

}  // namespace

int UserCm::Listen(Call& call) {
  rdma_ucm_listen command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  if (id->state == CmIdentifier::State::kIdle) {
    SocketAddress any{};
    any.any.sa_family = AF_INET;
    if (error = BindTo(*id, any); error != 0) return error;
  }
  if (id->state != CmIdentifier::State::kBound) return EINVAL;
  id->state = CmIdentifier::State::kListening;
  id->backlog_left =
      command.backlog == 0 || command.backlog > kBacklogMax ? kBacklogMax : command.backlog;
  agent_->Listen(*id->claimed, true);
  return 0;
}

CmMessage UserCm::RequestOf(const CmIdentifier& id) const {
  CmMessage request;
  request.kind = id.datagram() ? CmKind::kServiceRequest : CmKind::kRequest;
  request.service_id = CmServiceId(id.port_space, PortOf(id.destination));
  request.ca_guid = be64toh(agent_->guid());
  request.path_mtu = MtuCode(agent_->mtu_bytes());
  request.local_gid = agent_->gid();
  request.remote_gid = id.peer;
  request.packet_rate = kRate;
  request.traffic_class = id.type_of_service;
  request.hop_limit = kHopLimit;
  request.ack_timeout = id.ack_timeout != 0 ? id.ack_timeout : kAckTimeout;
  CmAddresses addresses;
  addresses.source_port = PortOf(id.source);
  addresses.source = GidOf(id.source);
  addresses.destination = GidOf(id.destination);
  WriteCmAddresses(addresses, std::span(request.private_data).first<kCmAddressesBytes>());
  return request;
}

int UserCm::Connect(Call& call) {
  rdma_ucm_connect command;
  int error = EINVAL;
  if (!call.Read(&command, offsetof(rdma_ucm_connect, reserved))) return EINVAL;
  CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  const rdma_ucm_conn_param& asked = command.conn_param;
  if (id->state != CmIdentifier::State::kRouteResolved || asked.valid == 0) return EINVAL;
  CmMessage request = RequestOf(*id);
  if (!CopyPrivate(asked.private_data, asked.private_data_len, kCmAddressesBytes, &request)) {
    return EINVAL;
  }
  request.qpn = asked.qp_num;
  request.responder_resources = asked.responder_resources;
  request.initiator_depth = asked.initiator_depth;
  request.flow_control = asked.flow_control != 0;
  request.retry_count = std::min<uint8_t>(asked.retry_count, 7);
  request.rnr_retry_count = std::min<uint8_t>(asked.rnr_retry_count, 7);
  request.shared_receive_queue = asked.srq != 0;
  const auto connection = agent_->Connect(id->peer, request, Clock::now());
  if (!connection.ok()) return ENOMEM;
  id->connection = *connection;
  id->was_connected = true;
  by_connection_[*connection] = id->handle;
  id->state = CmIdentifier::State::kConnected;
  Wake();
  return 0;
}

// An identifier with a connection that is still known.
CmIdentifier* UserCm::Connected(Call& call, uint32_t handle, Agent::Endpoint** endpoint,
                                int* error) {
  CmIdentifier* const id = Find(call, handle, error);
  if (id == nullptr) return nullptr;
  *endpoint = id->connection == 0 ? nullptr : agent_->Find(id->connection);
  if (*endpoint == nullptr) *error = EINVAL;
  return *endpoint == nullptr ? nullptr : id;
}

int UserCm::Accept(Call& call) {
  rdma_ucm_accept command;
  int error = EINVAL;
  if (!call.Read(&command, offsetof(rdma_ucm_accept, reserved))) return EINVAL;
  Agent::Endpoint* endpoint = nullptr;
  CmIdentifier* const id = Connected(call, command.id, &endpoint, &error);
  if (id == nullptr) return error;
  Connection& connection = endpoint->connection;
  const rdma_ucm_conn_param& given = command.conn_param;
  if (given.valid == 0) return connection.MakeReady(*endpoint) ? 0 : EINVAL;
  CmMessage reply;
  reply.kind = id->datagram() ? CmKind::kServiceReply : CmKind::kReply;
  if (!CopyPrivate(given.private_data, given.private_data_len, 0, &reply)) return EINVAL;
  reply.service_id = connection.request().service_id;
  reply.status = kCmServiceValid;
  reply.qpn = given.qp_num;
  reply.qkey = !id->datagram() ? 0 : given.qkey != 0 ? given.qkey : kDatagramQkey;
  reply.ca_guid = be64toh(agent_->guid());
  reply.responder_resources = given.responder_resources;
  reply.initiator_depth = given.initiator_depth;
  reply.target_ack_delay = kTargetAckDelay;
  reply.flow_control = given.flow_control != 0;
  reply.rnr_retry_count = std::min<uint8_t>(given.rnr_retry_count, 7);
  reply.shared_receive_queue = given.srq != 0;
  // The program knows it by this name from now on, so events may come.
  id->uid = command.uid;
  if (!connection.Accept(reply, Clock::now(), *endpoint)) return EINVAL;
  Wake();
  return 0;
}

int UserCm::Reject(Call& call) {
  rdma_ucm_reject command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  Agent::Endpoint* endpoint = nullptr;
  const CmIdentifier* const id = Connected(call, command.id, &endpoint, &error);
  if (id == nullptr) return error;
  CmMessage rejection;
  rejection.kind = id->datagram() ? CmKind::kServiceReply : CmKind::kReject;
  rejection.reason = command.reason != 0 ? command.reason : uint16_t{kCmConsumerDefined};
  if (!CopyPrivate(command.private_data, command.private_data_len, 0, &rejection)) return EINVAL;
  if (!endpoint->connection.Reject(rejection, *endpoint)) return EINVAL;
  agent_->Abandon(id->connection, Clock::now());
  return 0;
}

int UserCm::Disconnect(Call& call) {
  rdma_ucm_disconnect command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  const CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  if (!id->was_connected) return EINVAL;
  // As the kernel: what is disconnected already can be once more.
  Agent::Endpoint* const endpoint = agent_->Find(id->connection);
  if (endpoint != nullptr) (void)endpoint->connection.Disconnect(Clock::now(), *endpoint);
  Wake();
  return 0;
}

int UserCm::Notify(Call& call) {
  rdma_ucm_notify command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  Agent::Endpoint* endpoint = nullptr;
  if (Connected(call, command.id, &endpoint, &error) == nullptr) return error;
  if (command.event != IBV_EVENT_COMM_EST) return 0;
  return endpoint->connection.Establish(*endpoint) ? 0 : EISCONN;
}

int UserCm::InitQpAttr(Call& call) {
  rdma_ucm_init_qp_attr command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  if (!id->on_device) return EINVAL;
  ib_uverbs_qp_attr attributes{};
  const Agent::Endpoint* const endpoint =
      id->connection == 0 || id->datagram() ? nullptr : agent_->Find(id->connection);
  if (endpoint != nullptr) {
    ConnectionPath path;
    path.peer = endpoint->peer;
    path.traffic_class = endpoint->traffic_class;
    path.mtu = MtuCode(agent_->mtu_bytes());
    path.ack_timeout = id->ack_timeout;
    path.read_atomics_max = options_.read_atomics_max;
    if (!ConnectionAttributes(endpoint->connection, path, command.qp_state, &attributes)) {
      return EINVAL;
    }
  } else {
    if (command.qp_state != IBV_QPS_INIT) return EINVAL;
    if (id->qkey == 0) id->qkey = kDatagramQkey;
    attributes = InitAttributes(id->datagram(), id->qkey);
  }
  return call.Respond(command.response, attributes);
}

bool UserCm::OnRequest(CmPort port, Agent::Endpoint& endpoint, const CmAddresses& addresses) {
  CmIdentifier* listener = nullptr;
  for (const auto& [handle, id] : identifiers_) {
    if (id->claimed == port && id->state == CmIdentifier::State::kListening) listener = id.get();
  }
  if (listener == nullptr || listener->backlog_left == 0) return false;
  const CmMessage& request = endpoint.connection.request();
  if (listener->datagram() != endpoint.connection.datagram()) return false;
  CmIdentifier* const id = NewIdentifier(listener->channel);
  if (id == nullptr) return false;
  --listener->backlog_left;
  id->port_space = listener->port_space;
  id->qp_type = listener->qp_type;
  id->state = CmIdentifier::State::kConnected;
  id->was_connected = true;
  id->on_device = true;
  id->peer = endpoint.peer;
  id->source = ToSocketAddress(addresses.destination, port.number, agent_->scope_id());
  id->destination = ToSocketAddress(addresses.source, addresses.source_port, agent_->scope_id());
  id->type_of_service = endpoint.traffic_class;
  id->connection = endpoint.connection.local_id();
  by_connection_[id->connection] = id->handle;
  CmQueuedEvent event;
  event.requested = id->handle;
  event.response.id = id->handle;
  event.response.event = kCmConnectRequest;
  if (id->datagram()) {
    rdma_ucm_ud_param& ud = event.response.param.ud;
    const size_t bytes = PrivateBytesMax(request.kind) - kCmAddressesBytes;
    std::memcpy(ud.private_data, request.private_data.data() + kCmAddressesBytes, bytes);
    ud.private_data_len = static_cast<uint8_t>(bytes);
  } else {
    FillConnection(request, kCmAddressesBytes, &event.response.param.conn);
  }
  Queue(*listener, event);
  return true;
}

void UserCm::OnEvent(uint32_t connection, ConnectionEvent what, int status,
                     const CmMessage* message) {
  const auto found = by_connection_.find(connection);
  if (found == by_connection_.end()) return;
  CmIdentifier& id = *identifiers_.at(found->second);
  // Nobody knows it yet: the answer to what its program does with it will tell.
  if (id.uid == 0) return;
  CmQueuedEvent event;
  event.response.status = static_cast<uint32_t>(status);
  switch (what) {
    case ConnectionEvent::kReplied:
      event.response.event = id.datagram() ? kCmEstablished : kCmConnectResponse;
      break;
    case ConnectionEvent::kEstablished:
      event.response.event = kCmEstablished;
      break;
    case ConnectionEvent::kRejected:
      event.response.event = kCmRejected;
      break;
    case ConnectionEvent::kUnreachable:
      event.response.event = kCmUnreachable;
      break;
    case ConnectionEvent::kDisconnected:
      event.response.event = kCmDisconnected;
      break;
    case ConnectionEvent::kOver:
      event.response.event = kCmTimeWaitExit;
      break;
  }
  if (message != nullptr && message->kind == CmKind::kServiceReply) {
    rdma_ucm_ud_param& ud = event.response.param.ud;
    const size_t bytes = PrivateBytesMax(message->kind);
    std::memcpy(ud.private_data, message->private_data.data(), bytes);
    ud.private_data_len = static_cast<uint8_t>(bytes);
    ud.qp_num = message->qpn;
    ud.qkey = message->qkey;
    ud.ah_attr = AddressVector(id.peer, id.type_of_service);
  } else if (message != nullptr) {
    FillConnection(*message, 0, &event.response.param.conn);
  }
  Queue(id, event);
}

}  // namespace sumac::soft_nic
