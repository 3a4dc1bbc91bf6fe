// Queue pairs made and connected by hand, for tests of what verbs/queue_pair.h does not offer:
// extended ones, shared receive queues, memory windows.
//
// Tests only: GoogleTest checks inside, and everything on the test's thread.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {

// A queue pair on an End's device, completing to its completion queue.
class RawQueuePair {
 public:
  static constexpr uint32_t kQkey = 0x1234;  // of UD

  explicit RawQueuePair(ibv_qp* qp) : qp_(qp) { EXPECT_NE(qp, nullptr); }
  ~RawQueuePair() {
    if (qp_ == nullptr) return;
    EXPECT_EQ(soft_nic::DestroyQp(qp_), 0);
  }
  RawQueuePair(RawQueuePair&& other) noexcept : qp_(std::exchange(other.qp_, nullptr)) {}
  RawQueuePair& operator=(RawQueuePair&&) = delete;

  ibv_qp* get() const { return qp_; }
  ibv_qp* operator->() const { return qp_; }
  // Asked for: the device writes ibv_qp::state when it likes.
  ibv_qp_state state() const {
    ibv_qp_attr attr{};
    ibv_qp_init_attr init{};
    EXPECT_EQ(soft_nic::QueryQp(qp_, &attr, IBV_QP_STATE, &init), 0);
    return attr.qp_state;
  }

  static ibv_qp_init_attr Attributes(const End& end) {
    ibv_qp_init_attr attr{};
    attr.send_cq = attr.recv_cq = end.cq->cq();
    attr.qp_type = IBV_QPT_RC;
    attr.cap = {.max_send_wr = 64,
                .max_recv_wr = 64,
                .max_send_sge = 4,
                .max_recv_sge = 4,
                .max_inline_data = 64};
    return attr;
  }
  static RawQueuePair Create(const End& end, ibv_srq* srq = nullptr) {
    ibv_qp_init_attr attr = Attributes(end);
    attr.srq = srq;
    return RawQueuePair(soft_nic::CreateQp(end.pd->pd(), &attr));
  }

  // All the way to RTS.
  void Connect(uint32_t remote_qpn, const ibv_gid& remote_gid, int access = kAllAccess,
               ibv_rate rate = IBV_RATE_MAX) {
    const bool target = qp_->qp_type == IBV_QPT_XRC_RECV;
    const bool initiator = qp_->qp_type == IBV_QPT_XRC_SEND;
    const bool reliable = qp_->qp_type == IBV_QPT_RC;
    const bool connected = qp_->qp_type != IBV_QPT_UD;
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qkey = kQkey;
    attr.qp_access_flags = static_cast<unsigned>(access);
    ASSERT_EQ(soft_nic::ModifyQp(qp_, &attr,
                                 IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                                     (connected ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY)),
              0);
    attr.qp_state = IBV_QPS_RTR;
    attr.ah_attr.is_global = 1;
    attr.ah_attr.grh.dgid = remote_gid;
    attr.ah_attr.port_num = 1;
    attr.ah_attr.static_rate = rate;
    attr.path_mtu = IBV_MTU_1024;
    attr.dest_qp_num = remote_qpn;
    attr.max_dest_rd_atomic = attr.max_rd_atomic = 4;
    attr.min_rnr_timer = 12;
    int mask = IBV_QP_STATE;
    if (connected) mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
    if (reliable || target) mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    ASSERT_EQ(soft_nic::ModifyQp(qp_, &attr, mask), 0);
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = 17;  // half a second: sanitizers may hold a thread up for long
    attr.retry_cnt = attr.rnr_retry = 7;
    mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
    if (target) mask |= IBV_QP_TIMEOUT;
    if (reliable || initiator) {
      mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    }
    ASSERT_EQ(soft_nic::ModifyQp(qp_, &attr, mask), 0);
  }
  int Modify(ibv_qp_state to) {
    ibv_qp_attr attr{};
    attr.qp_state = to;
    return soft_nic::ModifyQp(qp_, &attr, IBV_QP_STATE);
  }

 private:
  ibv_qp* qp_;
};

inline void Connect(const End& a, RawQueuePair& of_a, const End& b, RawQueuePair& of_b) {
  of_a.Connect(of_b->qp_num, b.gid());
  of_b.Connect(of_a->qp_num, a.gid());
}

}  // namespace sumac::verbs
