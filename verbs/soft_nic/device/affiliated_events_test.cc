// What a queue pair tells its program besides completions: how it failed, that its peer has spoken,
// that its send queue has drained.
#include <fcntl.h>
#include <poll.h>

#include <cerrno>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

using test_support::Eventually;

// The next event, about `qp`, acknowledged; -1 when there is none.
int TakeEvent(const End& end, ibv_qp* qp) {
  const int fd = end.device->context()->async_fd;
  EXPECT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
  ibv_async_event event{};
  if (soft_nic::GetAsyncEvent(end.device->context(), &event) != 0) return -1;
  EXPECT_EQ(event.element.qp, qp);
  soft_nic::AckAsyncEvent(&event);
  return event.event_type;
}

int WaitForEvent(const End& end, ibv_qp* qp) {
  pollfd readable{.fd = end.device->context()->async_fd, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&readable, 1, 10'000), 1);
  return TakeEvent(end, qp);
}

TEST(AffiliatedEvents, WhatThePeerDidWrongHasItsName) {
  struct Case {
    uint64_t offset;
    uint32_t rkey_xor;
    int access;
    ibv_wc_status status;
    int event;
  };
  for (const Case& it :
       {Case{0, 1, kAllAccess, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR},
        Case{60, 0, kAllAccess, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR},
        Case{0, 0, IBV_ACCESS_REMOTE_READ, IBV_WC_REM_INV_REQ_ERR, IBV_EVENT_QP_REQ_ERR}}) {
    End a(64), b(64);
    ConnectionOptions to_a = To(a);
    to_a.access = it.access;
    Connect(a, b, To(b), to_a);
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(it.offset),
                     b.region->rkey() ^ it.rkey_xor),
              0);
    EXPECT_EQ(a.Next().status, it.status);
    EXPECT_EQ(WaitForEvent(b, b.qp->qp()), it.event);
    EXPECT_EQ(WaitForEvent(a, a.qp->qp()), IBV_EVENT_QP_FATAL) << "whose request failed";
  }
}

TEST(AffiliatedEvents, FirstPacketBeforeReadyToSendIsReportedOnce) {
  End a(64), b(64);
  ASSERT_TRUE(b.qp->ToInit(To(a)).ok());
  ASSERT_TRUE(b.qp->ToReadyToReceive(To(a)).ok());
  ASSERT_TRUE(a.qp->ToInit(To(b)).ok());
  ASSERT_TRUE(a.qp->ToReadyToReceive(To(b)).ok());
  ASSERT_TRUE(a.qp->ToReadyToSend(To(b)).ok());
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(WaitForEvent(b, b.qp->qp()), IBV_EVENT_COMM_EST);
  ASSERT_TRUE(b.qp->ToReadyToSend(To(a)).ok());
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(TakeEvent(b, b.qp->qp()), -1);
  EXPECT_EQ(TakeEvent(a, a.qp->qp()), -1);
}

class DrainTest : public testing::Test {
 protected:
  DrainTest() : a(64), b(64) { Connect(a, b); }

  int Modify(ibv_qp_state to, bool notify = false) {
    ibv_qp_attr attr{};
    attr.qp_state = to;
    attr.en_sqd_async_notify = 1;
    return soft_nic::ModifyQp(a.qp->qp(), &attr,
                              IBV_QP_STATE | (notify ? IBV_QP_EN_SQD_ASYNC_NOTIFY : 0));
  }
  ibv_qp_attr Query() { return *a.qp->Query(IBV_QP_STATE); }
  int PostSend(uint64_t wr_id) { return a.Post(IBV_WR_SEND, a.Sge(0, 8), 0, 0, wr_id); }

  End a, b;
};

TEST_F(DrainTest, WhatHasBegunCompletesAndTheRestWaits) {
  ASSERT_EQ(PostSend(1), 0);  // begins, and waits for a receive
  ASSERT_TRUE(Eventually([&] { return Query().sq_psn != 0xfffff0; }));
  ASSERT_EQ(Modify(IBV_QPS_SQD, true), 0);
  EXPECT_EQ(Query().qp_state, IBV_QPS_SQD);
  EXPECT_EQ(Query().sq_draining, 1);
  EXPECT_EQ(TakeEvent(a, a.qp->qp()), -1);
  ASSERT_EQ(PostSend(2), 0);

  b.PostReceive(0, 8);
  b.PostReceive(0, 8);
  EXPECT_EQ(a.Next().wr_id, 1u);
  EXPECT_EQ(WaitForEvent(a, a.qp->qp()), IBV_EVENT_SQ_DRAINED);
  EXPECT_EQ(Query().sq_draining, 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  ibv_wc wc{};
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.cq->Poll({&wc, 1}), 0);
  EXPECT_EQ(TakeEvent(a, a.qp->qp()), -1) << "reported twice";

  // Receiving goes on meanwhile.
  ASSERT_EQ(b.Post(IBV_WR_RDMA_WRITE, b.Sge(0, 8), a.Address(), a.region->rkey()), 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);

  ASSERT_EQ(Modify(IBV_QPS_RTS), 0);
  EXPECT_EQ(a.Next().wr_id, 2u);
}

TEST_F(DrainTest, IdleQueueIsDrainedAtOnceAndSilentUnlessAsked) {
  ASSERT_EQ(Modify(IBV_QPS_SQD, true), 0);
  EXPECT_EQ(WaitForEvent(a, a.qp->qp()), IBV_EVENT_SQ_DRAINED);
  ASSERT_EQ(Modify(IBV_QPS_RTS), 0);
  ASSERT_EQ(Modify(IBV_QPS_SQD), 0);
  EXPECT_EQ(Query().sq_draining, 0);
  EXPECT_EQ(TakeEvent(a, a.qp->qp()), -1);
  ASSERT_EQ(PostSend(1), 0);
  ASSERT_EQ(Modify(IBV_QPS_ERR), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_WR_FLUSH_ERR);
}

}  // namespace
}  // namespace sumac::verbs
