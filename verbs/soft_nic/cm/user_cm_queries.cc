// Commands that ask about an identifier, and those that set its options.

#include <arpa/inet.h>
#include <infiniband/ib.h>
#include <infiniband/sa.h>

#include <cerrno>
#include <cstddef>

#include "verbs/soft_nic/cm/queue_pair_attributes.h"
#include "verbs/soft_nic/cm/user_cm.h"
#include "verbs/soft_nic/cm/user_cm_call.h"

namespace sumac::soft_nic {
namespace {

// Of a path record (IBTA vol. 1, 15.2.5.16).
constexpr uint8_t kExactly = 2;  // selectors
constexpr uint8_t kReversible = 0x80;
constexpr uint8_t kRate = 7;             // IBV_RATE_40_GBPS, as the port says
constexpr uint8_t kPacketLifeTime = 14;  // 4.096 us * 2^14 = 67 ms
constexpr uint8_t kHopLimit = 64;

}  // namespace

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
