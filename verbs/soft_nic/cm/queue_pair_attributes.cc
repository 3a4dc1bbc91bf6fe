#include "verbs/soft_nic/cm/queue_pair_attributes.h"

#include <algorithm>
#include <cstring>

namespace sumac::soft_nic {
namespace {

constexpr uint8_t kPort = 1;
constexpr uint8_t kHopLimit = 64;
// 0.64 ms (IBTA vol. 1, table 45). The kernel's connection manager says 655 ms, with which a
// receiver that is late by a moment costs most of a second.
constexpr uint8_t kMinRnrTimer = 12;

constexpr int kInit = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;

}  // namespace

uint8_t MtuCode(uint32_t bytes) {
  uint8_t code = IBV_MTU_256;
  while (code < IBV_MTU_4096 && (128u << (code + 1)) <= bytes) ++code;
  return code;
}

ib_uverbs_ah_attr AddressVector(const Gid& peer, uint8_t traffic_class) {
  ib_uverbs_ah_attr vector{};
  std::memcpy(vector.grh.dgid, peer.data(), sizeof(vector.grh.dgid));
  vector.grh.hop_limit = kHopLimit;
  vector.grh.traffic_class = traffic_class;
  vector.is_global = 1;
  vector.port_num = kPort;
  return vector;
}

ib_uverbs_qp_attr InitAttributes(bool datagram, uint32_t qkey) {
  ib_uverbs_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = kPort;
  attributes.qkey = qkey;
  attributes.qp_attr_mask =
      static_cast<uint32_t>(kInit | (datagram ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
  return attributes;
}

bool ConnectionAttributes(const Connection& connection, const ConnectionPath& path, uint32_t state,
                          ib_uverbs_qp_attr* out) {
  const CmMessage& request = connection.request();
  const CmMessage& reply = connection.reply();
  const bool active = connection.active();
  const bool reliable = request.transport == kCmReliableConnection;
  // Who answered has the last word on how many READs there may be at once.
  const bool replied = reply.kind == CmKind::kReply;
  if (active && !replied && state != IBV_QPS_INIT) return false;
  const uint8_t reads_sent = active    ? reply.responder_resources
                             : replied ? reply.initiator_depth
                                       : request.responder_resources;
  const uint8_t reads_served = active    ? reply.initiator_depth
                               : replied ? reply.responder_resources
                                         : request.initiator_depth;
  ib_uverbs_qp_attr attributes{};
  attributes.qp_state = state;
  int mask = IBV_QP_STATE;
  switch (state) {
    case IBV_QPS_INIT:
      attributes.port_num = kPort;
      attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
      if (active ? request.responder_resources != 0 : reads_served != 0) {
        attributes.qp_access_flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
      }
      mask |= kInit | IBV_QP_ACCESS_FLAGS;
      break;
    case IBV_QPS_RTR:
      attributes.ah_attr = AddressVector(path.peer, path.traffic_class);
      attributes.path_mtu = std::min(request.path_mtu, path.mtu);
      attributes.dest_qp_num = active ? reply.qpn : request.qpn;
      // Each side says where the packets that it gets are to start (12.7.31).
      attributes.rq_psn = connection.psn();
      mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
      if (reliable) {
        attributes.max_dest_rd_atomic = std::min(reads_served, path.read_atomics_max);
        attributes.min_rnr_timer = kMinRnrTimer;
        mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
      }
      break;
    case IBV_QPS_RTS:
      attributes.sq_psn = active ? reply.starting_psn : request.starting_psn;
      mask |= IBV_QP_SQ_PSN;
      if (reliable) {
        attributes.max_rd_atomic = std::min(reads_sent, path.read_atomics_max);
        attributes.timeout = path.ack_timeout != 0 ? path.ack_timeout : request.ack_timeout;
        attributes.retry_cnt = request.retry_count;
        attributes.rnr_retry = active ? reply.rnr_retry_count : request.rnr_retry_count;
        mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
      }
      break;
    default:
      return false;
  }
  attributes.qp_attr_mask = static_cast<uint32_t>(mask);
  *out = attributes;
  return true;
}

}  // namespace sumac::soft_nic
