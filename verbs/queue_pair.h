// A reliable-connected queue pair over the verbs API.
//
// Owned by whoever created it; keeps its protection domain and completion queues alive. State
// changes are control path and give absl::Status; PostSend and PostReceive are inline calls into
// the device and give its errno. Threads: as verbs allow, any; a queue pair of ours has one owner.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "verbs/completion_queue.h"
#include "verbs/protection_domain.h"

namespace sumac::verbs {

struct QueuePairOptions {
  uint32_t max_send_wr = 256;
  uint32_t max_recv_wr = 256;
  uint32_t max_send_sge = 2;
  uint32_t max_recv_sge = 1;
  uint32_t max_inline_bytes = 64;
  bool signal_all = false;
};

// What the connection needs from both ends. Local choices and the peer's record together.
struct ConnectionOptions {
  uint8_t port = 1;
  int gid_index = 0;
  uint8_t traffic_class = 0;  // the whole byte: DSCP << 2 | ECN
  uint8_t hop_limit = 64;
  uint8_t service_level = 0;
  ibv_mtu path_mtu = IBV_MTU_1024;
  int access = 0;          // IBV_ACCESS_* that the peer may use
  uint32_t local_psn = 0;  // first PSN we send
  uint32_t remote_qpn = 0;
  uint32_t remote_psn = 0;  // first PSN that the peer sends
  ibv_gid remote_gid{};
  uint8_t timeout = 14;  // local ACK timeout, 4.096 us * 2^timeout
  uint8_t retry_count = 7;
  uint8_t rnr_retry = 7;       // 7: without end
  uint8_t min_rnr_timer = 12;  // code of IBTA table 45 (12: 0.64 ms)
  uint8_t max_rd_atomic = 16;  // as initiator and as target
};

class QueuePair {
 public:
  static absl::StatusOr<std::unique_ptr<QueuePair>> Create(std::shared_ptr<ProtectionDomain> pd,
                                                           std::shared_ptr<CompletionQueue> send_cq,
                                                           std::shared_ptr<CompletionQueue> recv_cq,
                                                           const QueuePairOptions& options);
  ~QueuePair();
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;

  // RESET to INIT: from here on receives can be posted.
  absl::Status ToInit(const ConnectionOptions& connection);
  // INIT to RTR, RTR to RTS.
  absl::Status ToReadyToReceive(const ConnectionOptions& connection);
  absl::Status ToReadyToSend(const ConnectionOptions& connection);
  // Everything posted completes with IBV_WC_WR_FLUSH_ERR.
  absl::Status ToError();
  // Any change, for who has attributes from elsewhere (rdma_cm); `to` names the state in errors.
  absl::Status Modify(ibv_qp_attr& attr, int mask, const char* to);
  absl::StatusOr<ibv_qp_attr> Query(int mask) const;

  [[nodiscard]] int PostSend(ibv_send_wr& request) {
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp_, &request, &bad);
  }
  [[nodiscard]] int PostReceive(ibv_recv_wr& request) {
    ibv_recv_wr* bad = nullptr;
    return ibv_post_recv(qp_, &request, &bad);
  }

  uint32_t qpn() const { return qp_->qp_num; }
  uint32_t max_inline_bytes() const { return max_inline_bytes_; }  // what the device gave
  ibv_qp* qp() const { return qp_; }
  // "soft0 QP 0x040012", for messages.
  std::string name() const;

 private:
  QueuePair(std::shared_ptr<ProtectionDomain> pd, std::shared_ptr<CompletionQueue> send_cq,
            std::shared_ptr<CompletionQueue> recv_cq, ibv_qp* qp, uint32_t max_inline_bytes)
      : pd_(std::move(pd)),
        send_cq_(std::move(send_cq)),
        recv_cq_(std::move(recv_cq)),
        qp_(qp),
        max_inline_bytes_(max_inline_bytes) {}

  std::shared_ptr<ProtectionDomain> pd_;
  std::shared_ptr<CompletionQueue> send_cq_;
  std::shared_ptr<CompletionQueue> recv_cq_;
  ibv_qp* qp_;
  uint32_t max_inline_bytes_;
};

}  // namespace sumac::verbs
