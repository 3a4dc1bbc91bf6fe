// XRC: domains, shared receive queues that packets name, initiators and targets.
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

ibv_xrcd* Open(ibv_context* context, int fd = -1, int oflags = O_CREAT) {
  ibv_xrcd_init_attr attr{};
  attr.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
  attr.fd = fd;
  attr.oflags = oflags;
  return ibv_open_xrcd(context, &attr);
}

ibv_srq_init_attr_ex SrqAttributes(ibv_pd* pd, ibv_xrcd* xrcd, ibv_cq* cq) {
  ibv_srq_init_attr_ex attr{};
  attr.attr = {.max_wr = 16, .max_sge = 1, .srq_limit = 0};
  attr.comp_mask =
      IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_XRCD;
  attr.srq_type = IBV_SRQT_XRC;
  attr.pd = pd;
  attr.xrcd = xrcd;
  attr.cq = cq;
  return attr;
}

ibv_qp* CreateTarget(ibv_context* context, ibv_xrcd* xrcd) {
  ibv_qp_init_attr_ex attr{};
  attr.qp_type = IBV_QPT_XRC_RECV;
  attr.comp_mask = IBV_QP_INIT_ATTR_XRCD;
  attr.xrcd = xrcd;
  return ibv_create_qp_ex(context, &attr);
}

// An initiator on one device, and a target with two shared receive queues on another.
class SoftDeviceXrc : public ::testing::Test {
 protected:
  void SetUp() override {
    xrcd_ = Open(b_.device->context());
    ASSERT_NE(xrcd_, nullptr);
    for (ibv_srq*& srq : srqs_) {
      ibv_srq_init_attr_ex attr = SrqAttributes(b_.pd->pd(), xrcd_, b_.cq->cq());
      srq = ibv_create_srq_ex(b_.device->context(), &attr);
      ASSERT_NE(srq, nullptr);
    }
    target_.emplace(CreateTarget(b_.device->context(), xrcd_));
    ibv_qp_init_attr attr = RawQueuePair::Attributes(a_);
    attr.qp_type = IBV_QPT_XRC_SEND;
    attr.recv_cq = nullptr;
    initiator_.emplace(soft_nic::CreateQp(a_.pd->pd(), &attr));
    EXPECT_EQ(attr.cap.max_recv_wr, 0u);
    initiator_->Connect((*target_)->qp_num, b_.gid());
    target_->Connect((*initiator_)->qp_num, a_.gid());
  }
  void TearDown() override {
    target_.reset();
    initiator_.reset();
    for (ibv_srq* const srq : srqs_) {
      if (srq == nullptr) continue;
      EXPECT_EQ(soft_nic::DestroySrq(srq), 0);
    }
    EXPECT_EQ(ibv_close_xrcd(xrcd_), 0);
  }

  static uint32_t NumberOf(ibv_srq* srq) {
    uint32_t number = 0;
    EXPECT_EQ(ibv_get_srq_num(srq, &number), 0);
    return number;
  }
  void PostReceive(int queue, size_t offset, size_t length, uint64_t wr_id) {
    ibv_sge sge = b_.Sge(offset, length);
    ibv_recv_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    ibv_recv_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_srq_recv(srqs_[queue], &wr, &bad), 0);
  }
  int Post(ibv_wr_opcode opcode, uint32_t number, size_t length) {
    ibv_sge sge = a_.Sge(0, length);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.qp_type.xrc.remote_srqn = number;
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      wr.wr.atomic = {
          .remote_addr = b_.Address(1024), .compare_add = 5, .swap = 0, .rkey = b_.region->rkey()};
    } else {
      wr.wr.rdma = {.remote_addr = b_.Address(1024), .rkey = b_.region->rkey()};
    }
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(initiator_->get(), &wr, &bad);
  }
  ibv_wc_status Send(ibv_wr_opcode opcode, uint32_t number, size_t length) {
    EXPECT_EQ(Post(opcode, number, length), 0);
    return a_.Next().status;
  }

  End a_{16384}, b_{16384};
  ibv_xrcd* xrcd_ = nullptr;
  ibv_srq* srqs_[2] = {};
  std::optional<RawQueuePair> target_;
  std::optional<RawQueuePair> initiator_;
};

TEST_F(SoftDeviceXrc, OneConnectionReachesEveryQueue) {
  EXPECT_NE(NumberOf(srqs_[0]), NumberOf(srqs_[1]));
  for (int round = 0; round < 20; ++round) {
    const int queue = round % 2;
    const size_t length = 1 + static_cast<size_t>(round) * 200;  // up to four packets
    std::fill(a_.memory.begin(), a_.memory.end(), static_cast<uint8_t>(round + 1));
    PostReceive(queue, 4096, 4096, static_cast<uint64_t>(round));
    ASSERT_EQ(Send(IBV_WR_SEND_WITH_IMM, NumberOf(srqs_[queue]), length), IBV_WC_SUCCESS);
    const ibv_wc wc = b_.Next();
    ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.wr_id, static_cast<uint64_t>(round));
    EXPECT_EQ(wc.byte_len, length);
    EXPECT_EQ(wc.qp_num, (*target_)->qp_num);
    EXPECT_EQ(b_.memory[4096 + length - 1], round + 1);
  }
}

TEST_F(SoftDeviceXrc, WritesReadsAndAtomicsUseTheDomainOfTheQueue) {
  const uint32_t number = NumberOf(srqs_[0]);
  a_.memory[7] = 0x42;
  EXPECT_EQ(Send(IBV_WR_RDMA_WRITE, number, 5000), IBV_WC_SUCCESS);
  EXPECT_EQ(b_.memory[1024 + 7], 0x42);
  b_.memory[1024] = 0x24;
  EXPECT_EQ(Send(IBV_WR_RDMA_READ, number, 5000), IBV_WC_SUCCESS);
  EXPECT_EQ(a_.memory[0], 0x24);
  EXPECT_EQ(Send(IBV_WR_ATOMIC_FETCH_AND_ADD, number, 8), IBV_WC_SUCCESS);
  EXPECT_EQ(b_.memory[1024], 0x29);
  // A queue of another protection domain: the same key is none of its own.
  ibv_pd* const other = soft_nic::AllocPd(b_.device->context());
  ibv_srq_init_attr_ex attr = SrqAttributes(other, xrcd_, b_.cq->cq());
  ibv_srq* const foreign = ibv_create_srq_ex(b_.device->context(), &attr);
  ASSERT_NE(foreign, nullptr);
  EXPECT_STREQ(NameOf(Send(IBV_WR_RDMA_WRITE, NumberOf(foreign), 8)), "IBV_WC_REM_ACCESS_ERR");
  EXPECT_EQ(soft_nic::DestroySrq(foreign), 0);
  EXPECT_EQ(soft_nic::DeallocPd(other), 0);
}

TEST_F(SoftDeviceXrc, DestroyedQueueIsUnknown) {
  PostReceive(1, 0, 64, 1);
  const uint32_t number = NumberOf(srqs_[1]);
  ASSERT_EQ(Send(IBV_WR_SEND, number, 8), IBV_WC_SUCCESS);
  ASSERT_EQ(b_.Next().status, IBV_WC_SUCCESS);
  // It was the last that a message went to.
  EXPECT_EQ(soft_nic::DestroySrq(std::exchange(srqs_[1], nullptr)), 0);
  EXPECT_STREQ(NameOf(Send(IBV_WR_SEND, number, 8)), "IBV_WC_REM_INV_REQ_ERR");
}

TEST_F(SoftDeviceXrc, ExtendedCallsNameTheQueue) {
  ibv_qp_init_attr_ex attr{};
  attr.qp_type = IBV_QPT_XRC_SEND;
  attr.send_cq = a_.cq->cq();
  attr.cap.max_send_wr = attr.cap.max_send_sge = 4;
  attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  attr.pd = a_.pd->pd();
  attr.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_LOCAL_INV;
  errno = 0;
  EXPECT_EQ(ibv_create_qp_ex(a_.device->context(), &attr), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP) << "memory windows are not for XRC";
  attr.send_ops_flags = IBV_QP_EX_WITH_SEND;
  RawQueuePair sender(ibv_create_qp_ex(a_.device->context(), &attr));
  RawQueuePair receiver(CreateTarget(b_.device->context(), xrcd_));
  Connect(a_, sender, b_, receiver);
  PostReceive(1, 0, 64, 9);
  ibv_qp_ex* const qp = soft_nic::QpToQpEx(sender.get());
  ibv_wr_start(qp);
  qp->wr_flags = IBV_SEND_SIGNALED;
  ibv_wr_send(qp);
  ibv_wr_set_xrc_srqn(qp, NumberOf(srqs_[1]));
  ibv_wr_set_sge(qp, a_.region->lkey(), a_.Address(), 8);
  ASSERT_EQ(ibv_wr_complete(qp), 0);
  EXPECT_EQ(a_.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(b_.Next().wr_id, 9u);
}

TEST_F(SoftDeviceXrc, ObjectsHoldWhatTheyUse) {
  EXPECT_EQ(ibv_close_xrcd(xrcd_), EBUSY);
  // A second handle on the target.
  ibv_qp_open_attr attr{};
  attr.comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
  attr.qp_num = (*target_)->qp_num;
  attr.xrcd = xrcd_;
  attr.qp_type = IBV_QPT_XRC_RECV;
  ibv_qp* const again = ibv_open_qp(b_.device->context(), &attr);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(soft_nic::DestroyQp(again), 0);
  PostReceive(0, 0, 64, 1);
  EXPECT_EQ(Send(IBV_WR_SEND, NumberOf(srqs_[0]), 8), IBV_WC_SUCCESS) << "the first one lives";
  const auto errno_of = [&](ibv_qp_open_attr open) {
    errno = 0;
    EXPECT_EQ(ibv_open_qp(b_.device->context(), &open), nullptr);
    return errno;
  };
  attr.qp_num ^= 1;
  EXPECT_EQ(errno_of(attr), EINVAL) << "no such target";
  attr.qp_num ^= 1;
  attr.qp_type = IBV_QPT_RC;
  EXPECT_EQ(errno_of(attr), EINVAL);
}

TEST_F(SoftDeviceXrc, TargetFailsWithACompletionQueueThatOverran) {
  ibv_cq* const small = soft_nic::CreateCq(b_.device->context(), 1, nullptr, nullptr, 0);
  ibv_srq_init_attr_ex attr = SrqAttributes(b_.pd->pd(), xrcd_, small);
  ibv_srq* const kept = srqs_[0];
  srqs_[0] = ibv_create_srq_ex(b_.device->context(), &attr);
  const uint32_t number = NumberOf(srqs_[0]);
  ibv_wc_status last = IBV_WC_SUCCESS;
  for (uint64_t i = 0; i < 16 && last == IBV_WC_SUCCESS; ++i) {
    PostReceive(0, 0, 64, i);
    ASSERT_EQ(Post(IBV_WR_SEND, number, 8), 0);
    last = a_.Next().status;
    // The receiver's device has to be driven to see that its queue has overrun.
    ibv_wc wc{};
    static_cast<void>(b_.cq->Poll({&wc, 1}));
    if (target_->state() == IBV_QPS_ERR) break;
  }
  EXPECT_EQ(target_->state(), IBV_QPS_ERR);
  EXPECT_EQ(soft_nic::DestroyCq(small), EBUSY);
  EXPECT_EQ(soft_nic::DestroySrq(srqs_[0]), 0);
  srqs_[0] = kept;
  EXPECT_EQ(soft_nic::DestroyCq(small), 0);
}

TEST(SoftDeviceXrcDomain, IsSharedByFileOnOneDevice) {
  auto device = *Device::Open("soft0");
  auto other = *Device::Open("soft0");
  FILE* const file = std::tmpfile();
  const int fd = fileno(file);
  errno = 0;
  EXPECT_EQ(Open(device->context(), fd, 0), nullptr);
  EXPECT_EQ(errno, EAGAIN) << "there is none yet";
  ibv_xrcd* const first = Open(device->context(), fd);
  ASSERT_NE(first, nullptr);
  ibv_xrcd* const second = Open(device->context(), fd, 0);
  EXPECT_EQ(second, first);
  EXPECT_EQ(Open(device->context(), fd, O_CREAT | O_EXCL), nullptr);
  EXPECT_EQ(errno, EINVAL);
  // Elsewhere it is another one.
  ibv_xrcd* const elsewhere = Open(other->context(), fd);
  ASSERT_NE(elsewhere, nullptr);
  EXPECT_NE(elsewhere, first);
  EXPECT_EQ(ibv_close_xrcd(elsewhere), 0);
  ibv_xrcd* const unnamed = Open(device->context());
  ASSERT_NE(unnamed, nullptr);
  EXPECT_NE(unnamed, first);
  EXPECT_EQ(ibv_close_xrcd(unnamed), 0);
  EXPECT_EQ(ibv_close_xrcd(first), 0);
  ibv_qp* const target = CreateTarget(device->context(), second);
  ASSERT_NE(target, nullptr) << "once more open";
  EXPECT_EQ(ibv_close_xrcd(second), EBUSY);
  EXPECT_EQ(soft_nic::DestroyQp(target), 0);
  EXPECT_EQ(ibv_close_xrcd(second), 0);
  EXPECT_EQ(std::fclose(file), 0);
}

TEST(SoftDeviceXrcDomain, SenselessRequestsAreRefused) {
  End a(64), b(64);
  ibv_context* const context = a.device->context();
  ibv_xrcd_init_attr domain{};
  errno = 0;
  EXPECT_EQ(ibv_open_xrcd(context, &domain), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Open(context, 1 << 20), nullptr);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(Open(context, -1, O_TRUNC), nullptr);
  EXPECT_EQ(errno, EINVAL);

  ibv_xrcd* const xrcd = Open(context);
  ibv_xrcd* const foreign = Open(b.device->context());
  const auto refused = [&](ibv_srq_init_attr_ex attr) {
    errno = 0;
    EXPECT_EQ(ibv_create_srq_ex(context, &attr), nullptr);
    return errno;
  };
  EXPECT_EQ(refused(SrqAttributes(a.pd->pd(), xrcd, nullptr)), EINVAL);
  EXPECT_EQ(refused(SrqAttributes(a.pd->pd(), nullptr, a.cq->cq())), EINVAL);
  EXPECT_EQ(refused(SrqAttributes(a.pd->pd(), foreign, a.cq->cq())), EINVAL);
  ibv_srq_init_attr_ex attr = SrqAttributes(a.pd->pd(), xrcd, a.cq->cq());
  attr.comp_mask &= ~static_cast<uint32_t>(IBV_SRQ_INIT_ATTR_CQ);
  EXPECT_EQ(refused(attr), EINVAL);
  attr.srq_type = IBV_SRQT_TM;
  EXPECT_EQ(refused(attr), EOPNOTSUPP);

  errno = 0;
  EXPECT_EQ(CreateTarget(context, foreign), nullptr);
  EXPECT_EQ(errno, EINVAL);
  // Neither kind of queue pair goes without its own domain, and RC takes no XRC queue.
  attr = SrqAttributes(a.pd->pd(), xrcd, a.cq->cq());
  ibv_srq* const srq = ibv_create_srq_ex(context, &attr);
  ASSERT_NE(srq, nullptr);
  ibv_qp_init_attr plain = RawQueuePair::Attributes(a);
  plain.srq = srq;
  EXPECT_EQ(soft_nic::CreateQp(a.pd->pd(), &plain), nullptr);
  EXPECT_EQ(errno, EINVAL);
  plain = RawQueuePair::Attributes(a);
  plain.qp_type = IBV_QPT_XRC_RECV;
  EXPECT_EQ(soft_nic::CreateQp(a.pd->pd(), &plain), nullptr);
  EXPECT_EQ(errno, EINVAL);
  ibv_srq_init_attr basic{};
  basic.attr = {.max_wr = 4, .max_sge = 1, .srq_limit = 0};
  ibv_srq* const unnamed = soft_nic::CreateSrq(a.pd->pd(), &basic);
  uint32_t number = 0;
  EXPECT_EQ(ibv_get_srq_num(unnamed, &number), EINVAL);
  EXPECT_EQ(soft_nic::DestroySrq(unnamed), 0);
  EXPECT_EQ(soft_nic::DestroySrq(srq), 0);
  EXPECT_EQ(ibv_close_xrcd(foreign), 0);
  EXPECT_EQ(ibv_close_xrcd(xrcd), 0);
}

}  // namespace
}  // namespace sumac::verbs
