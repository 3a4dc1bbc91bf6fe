#include "verbs/queue_pair.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::verbs {

absl::StatusOr<std::unique_ptr<QueuePair>> QueuePair::Create(
    std::shared_ptr<ProtectionDomain> pd, std::shared_ptr<CompletionQueue> send_cq,
    std::shared_ptr<CompletionQueue> recv_cq, const QueuePairOptions& options) {
  ibv_qp_init_attr attr{};
  attr.send_cq = send_cq->cq();
  attr.recv_cq = recv_cq->cq();
  attr.cap.max_send_wr = options.max_send_wr;
  attr.cap.max_recv_wr = options.max_recv_wr;
  attr.cap.max_send_sge = options.max_send_sge;
  attr.cap.max_recv_sge = options.max_recv_sge;
  attr.cap.max_inline_data = options.max_inline_bytes;
  attr.qp_type = IBV_QPT_RC;
  attr.sq_sig_all = options.signal_all ? 1 : 0;
  Device& device = pd->device();
  ibv_qp* qp = device.provider().create_qp(pd->pd(), &attr);
  if (qp == nullptr) {
    return ErrnoStatus(errno,
                       absl::StrCat("ibv_create_qp with ", options.max_send_wr, " send and ",
                                    options.max_recv_wr, " receive work requests"),
                       device.name());
  }
  return std::unique_ptr<QueuePair>(new QueuePair(
      std::move(pd), std::move(send_cq), std::move(recv_cq), qp, attr.cap.max_inline_data));
}

QueuePair::~QueuePair() {
  if (int error = pd_->device().provider().destroy_qp(qp_); error != 0) {
    Log().error("{}", ErrnoStatus(error, "ibv_destroy_qp", pd_->device().name()).ToString());
  }
}

std::string QueuePair::name() const {
  return absl::StrFormat("%s QP 0x%06x", pd_->device().name(), qpn());
}

absl::Status QueuePair::Modify(ibv_qp_attr& attr, int mask, const char* to) {
  if (int error = pd_->device().provider().modify_qp(qp_, &attr, mask); error != 0) {
    return ErrnoStatus(error, absl::StrCat("ibv_modify_qp to ", to), name());
  }
  return absl::OkStatus();
}

absl::Status QueuePair::ToInit(const ConnectionOptions& connection) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.pkey_index = 0;
  attr.port_num = connection.port;
  attr.qp_access_flags = static_cast<unsigned>(connection.access);
  return Modify(attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "INIT");
}

absl::Status QueuePair::ToReadyToReceive(const ConnectionOptions& connection) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = connection.path_mtu;
  attr.dest_qp_num = connection.remote_qpn;
  attr.rq_psn = connection.remote_psn;
  attr.max_dest_rd_atomic = connection.max_rd_atomic;
  attr.min_rnr_timer = connection.min_rnr_timer;
  attr.ah_attr.is_global = 1;  // RoCE addresses are always GIDs (Annex A16.4)
  attr.ah_attr.port_num = connection.port;
  attr.ah_attr.sl = connection.service_level;
  attr.ah_attr.grh.dgid = connection.remote_gid;
  attr.ah_attr.grh.sgid_index = static_cast<uint8_t>(connection.gid_index);
  attr.ah_attr.grh.hop_limit = connection.hop_limit;
  attr.ah_attr.grh.traffic_class = connection.traffic_class;
  return Modify(attr,
                IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
                "RTR");
}

absl::Status QueuePair::ToReadyToSend(const ConnectionOptions& connection) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTS;
  attr.sq_psn = connection.local_psn;
  attr.timeout = connection.timeout;
  attr.retry_cnt = connection.retry_count;
  attr.rnr_retry = connection.rnr_retry;
  attr.max_rd_atomic = connection.max_rd_atomic;
  return Modify(attr,
                IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                    IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC,
                "RTS");
}

absl::Status QueuePair::ToError() {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_ERR;
  return Modify(attr, IBV_QP_STATE, "ERR");
}

absl::StatusOr<ibv_qp_attr> QueuePair::Query(int mask) const {
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  if (int error = pd_->device().provider().query_qp(qp_, &attr, mask, &init); error != 0) {
    return ErrnoStatus(error, "ibv_query_qp", name());
  }
  return attr;
}

}  // namespace sumac::verbs
