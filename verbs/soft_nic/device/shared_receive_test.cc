// Shared receive queues: several queue pairs that take buffers from one.
#include <fcntl.h>
#include <poll.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"

namespace sumac::verbs {
namespace {

// Two ends with `pairs` connections; b's queue pairs share one receive queue.
class SharedReceiveTest : public testing::Test {
 protected:
  SharedReceiveTest() : a(65536), b(65536) {
    ibv_srq_init_attr attr{};
    attr.attr = {.max_wr = 60, .max_sge = 2, .srq_limit = 0};
    srq = soft_nic::CreateSrq(b.pd->pd(), &attr);
    EXPECT_NE(srq, nullptr);
    EXPECT_EQ(attr.attr.max_wr, 64u) << "rounded up";
    const int fd = b.device->context()->async_fd;
    EXPECT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
  }
  ~SharedReceiveTest() override {
    of_a.clear();
    of_b.clear();
    if (srq == nullptr) return;
    EXPECT_EQ(soft_nic::DestroySrq(srq), 0);
  }
  void ConnectPairs(size_t pairs) {
    for (size_t i = 0; i < pairs; ++i) {
      of_a.push_back(RawQueuePair::Create(a));
      of_b.push_back(RawQueuePair::Create(b, srq));
      Connect(a, of_a[i], b, of_b[i]);
    }
  }
  int Post(uint64_t wr_id, size_t offset, size_t length) {
    ibv_sge sge = b.Sge(offset, length);
    ibv_recv_wr wr{.wr_id = wr_id, .next = nullptr, .sg_list = &sge, .num_sge = 1};
    ibv_recv_wr* bad = nullptr;
    return ibv_post_srq_recv(srq, &wr, &bad);
  }
  void Send(size_t pair, size_t length, ibv_wr_opcode opcode = IBV_WR_SEND) {
    ibv_sge sge = a.Sge(0, length);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = b.Address(0);
    wr.wr.rdma.rkey = b.region->rkey();
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(of_a[pair].get(), &wr, &bad), 0);
  }
  int SetLimit(uint32_t limit) {
    ibv_srq_attr attr{};
    attr.srq_limit = limit;
    return soft_nic::ModifySrq(srq, &attr, IBV_SRQ_LIMIT);
  }
  ibv_srq_attr Query() {
    ibv_srq_attr attr{};
    EXPECT_EQ(soft_nic::QuerySrq(srq, &attr), 0);
    return attr;
  }
  // The next event, acknowledged; -1 when there is none.
  int TakeEvent() {
    ibv_async_event event{};
    if (soft_nic::GetAsyncEvent(b.device->context(), &event) != 0) return -1;
    soft_nic::AckAsyncEvent(&event);
    return event.event_type;
  }

  End a, b;
  ibv_srq* srq = nullptr;
  std::vector<RawQueuePair> of_a, of_b;
};

TEST_F(SharedReceiveTest, QueuePairsTakeInTheOrderOfPosts) {
  ConnectPairs(3);
  for (uint64_t i = 0; i < 9; ++i) ASSERT_EQ(Post(i, 64 * i, 64), 0);
  for (uint64_t i = 0; i < 9; ++i) {
    a.memory[0] = static_cast<uint8_t>(i + 1);
    const size_t pair = i % 3;
    Send(pair, 8);
    const ibv_wc wc = b.Next();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.wr_id, i);
    EXPECT_EQ(wc.qp_num, of_b[pair]->qp_num);
    EXPECT_EQ(b.memory[64 * i], i + 1);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
}

TEST_F(SharedReceiveTest, LongMessagesOfSeveralQueuePairsInterleave) {
  constexpr size_t kBytes = 16384;  // many packets each
  ConnectPairs(3);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_EQ(Post(i, kBytes * i, kBytes), 0);
  for (size_t i = 0; i < kBytes; ++i) a.memory[i] = static_cast<uint8_t>(i * 7);
  for (size_t i = 0; i < 3; ++i) Send(i, kBytes);
  std::set<uint64_t> ids;
  for (int i = 0; i < 3; ++i) {
    const ibv_wc wc = b.Next();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.byte_len, kBytes);
    EXPECT_TRUE(ids.insert(wc.wr_id).second);
    EXPECT_TRUE(std::equal(a.memory.begin(), a.memory.begin() + kBytes,
                           b.memory.begin() + static_cast<ptrdiff_t>(kBytes * wc.wr_id)));
  }
}

TEST_F(SharedReceiveTest, EmptyQueueHoldsSendersUpUntilABufferComes) {
  ConnectPairs(2);
  Send(0, 8);
  Send(1, 8, IBV_WR_RDMA_WRITE_WITH_IMM);
  ibv_wc wc{};
  for (int i = 0; i < 100; ++i) EXPECT_EQ(b.cq->Poll({&wc, 1}), 0);
  ASSERT_EQ(Post(1, 0, 64), 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  ASSERT_EQ(Post(2, 0, 64), 0);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
}

TEST_F(SharedReceiveTest, LimitIsReportedOncePerArming) {
  ConnectPairs(1);
  for (uint64_t i = 0; i < 10; ++i) ASSERT_EQ(Post(i, 0, 64), 0);
  ASSERT_EQ(SetLimit(8), 0);
  EXPECT_EQ(Query().srq_limit, 8u);
  const auto take = [&](int count) {
    for (int i = 0; i < count; ++i) {
      Send(0, 8);
      EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
      EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
    }
  };
  take(2);
  EXPECT_EQ(TakeEvent(), -1) << "eight are left";
  take(1);
  EXPECT_EQ(TakeEvent(), IBV_EVENT_SRQ_LIMIT_REACHED);
  EXPECT_EQ(Query().srq_limit, 0u);
  take(2);
  EXPECT_EQ(TakeEvent(), -1);
  ASSERT_EQ(SetLimit(5), 0);
  take(1);
  EXPECT_EQ(TakeEvent(), IBV_EVENT_SRQ_LIMIT_REACHED);
}

TEST_F(SharedReceiveTest, QueuePairInErrorSaysThatItTakesNoMore) {
  ConnectPairs(2);
  for (uint64_t i = 0; i < 4; ++i) ASSERT_EQ(Post(i, 0, 64), 0);
  // Asked for.
  ASSERT_EQ(of_b[0].Modify(IBV_QPS_ERR), 0);
  EXPECT_EQ(TakeEvent(), IBV_EVENT_QP_LAST_WQE_REACHED);
  ASSERT_EQ(of_b[0].Modify(IBV_QPS_ERR), 0);
  EXPECT_EQ(TakeEvent(), -1) << "reported twice";
  ibv_wc wc{};
  EXPECT_EQ(b.cq->Poll({&wc, 1}), 0) << "the buffers are not the queue pair's";
  // By a fault: a message longer than its buffer, which goes with it.
  Send(1, 100);
  wc = b.Next();
  EXPECT_EQ(wc.status, IBV_WC_LOC_LEN_ERR);
  EXPECT_EQ(wc.wr_id, 0u);
  EXPECT_EQ(a.Next().status, IBV_WC_REM_INV_REQ_ERR);
  EXPECT_NE(TakeEvent(), -1);
  EXPECT_EQ(TakeEvent(), IBV_EVENT_QP_LAST_WQE_REACHED);
  // The rest serves others.
  of_a.push_back(RawQueuePair::Create(a));
  of_b.push_back(RawQueuePair::Create(b, srq));
  Connect(a, of_a[2], b, of_b[2]);
  Send(2, 8);
  EXPECT_EQ(b.Next().wr_id, 1u);
}

TEST_F(SharedReceiveTest, TakesPostsFromSeveralThreads) {
  ConnectPairs(2);
  constexpr uint64_t kEach = 300;
  std::vector<std::thread> posters;
  for (uint64_t t = 0; t < 3; ++t) {
    posters.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEach; ++i) {
        while (Post(t * kEach + i, 0, 64) == ENOMEM) std::this_thread::yield();
      }
    });
  }
  std::set<uint64_t> ids;
  for (uint64_t i = 0; i < 3 * kEach; ++i) {
    Send(i % 2, 8);
    EXPECT_TRUE(ids.insert(b.Next().wr_id).second);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
  for (std::thread& poster : posters) poster.join();
}

TEST_F(SharedReceiveTest, IsResizedWithWhatItHolds) {
  ConnectPairs(1);
  for (uint64_t i = 0; i < 64; ++i) ASSERT_EQ(Post(i, 0, 64), 0);
  EXPECT_EQ(Post(64, 0, 64), ENOMEM);
  ibv_srq_attr attr{};
  attr.max_wr = 32;
  EXPECT_EQ(soft_nic::ModifySrq(srq, &attr, IBV_SRQ_MAX_WR), EINVAL) << "it holds more";
  attr.max_wr = 100;
  attr.srq_limit = 65;
  ASSERT_EQ(soft_nic::ModifySrq(srq, &attr, IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT), 0);
  EXPECT_EQ(Query().max_wr, 128u);
  EXPECT_EQ(Post(64, 0, 64), 0);
  for (uint64_t i = 0; i < 65; ++i) {
    Send(0, 8);
    EXPECT_EQ(b.Next().wr_id, i);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(TakeEvent(), IBV_EVENT_SRQ_LIMIT_REACHED);
  attr.max_wr = 4;
  ASSERT_EQ(soft_nic::ModifySrq(srq, &attr, IBV_SRQ_MAX_WR), 0);
  EXPECT_EQ(Query().max_wr, 4u);
}

TEST_F(SharedReceiveTest, DatagramsAndUnreliableConnectionsTakeFromItToo) {
  for (uint64_t i = 0; i < 2; ++i) ASSERT_EQ(Post(i, 0, 64), 0);
  ibv_ah_attr address{};
  address.is_global = 1;
  address.grh.dgid = b.gid();
  address.port_num = 1;
  ibv_ah* const to_b = soft_nic::CreateAh(a.pd->pd(), &address);
  ASSERT_NE(to_b, nullptr);
  for (const ibv_qp_type type : {IBV_QPT_UC, IBV_QPT_UD}) {
    ibv_qp_init_attr attr = RawQueuePair::Attributes(a);
    attr.qp_type = type;
    RawQueuePair from(soft_nic::CreateQp(a.pd->pd(), &attr));
    attr = RawQueuePair::Attributes(b);
    attr.qp_type = type;
    attr.srq = srq;
    RawQueuePair to(soft_nic::CreateQp(b.pd->pd(), &attr));
    EXPECT_EQ(to->srq, srq);
    EXPECT_EQ(attr.cap.max_recv_wr, 0u);
    Connect(a, from, b, to);
    ibv_sge sge = a.Sge(0, 8);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND;
    wr.wr.ud = {.ah = to_b, .remote_qpn = to->qp_num, .remote_qkey = RawQueuePair::kQkey};
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(from.get(), &wr, &bad), 0);
    const ibv_wc wc = b.Next();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.qp_num, to->qp_num);
    EXPECT_EQ(wc.wr_id, type == IBV_QPT_UC ? 0u : 1u);
  }
  EXPECT_EQ(soft_nic::DestroyAh(to_b), 0);
}

TEST_F(SharedReceiveTest, RefusesWhatIsNotRight) {
  ConnectPairs(1);
  EXPECT_EQ(soft_nic::DestroySrq(srq), EBUSY);
  ibv_sge sge = b.Sge(0, 8);
  ibv_recv_wr wr{.wr_id = 1, .next = nullptr, .sg_list = &sge, .num_sge = 1};
  ibv_recv_wr* bad = nullptr;
  EXPECT_EQ(ibv_post_recv(of_b[0].get(), &wr, &bad), EINVAL) << "it has no queue of its own";
  EXPECT_EQ(bad, &wr);
  wr.num_sge = 3;
  EXPECT_EQ(ibv_post_srq_recv(srq, &wr, &bad), EINVAL);
  EXPECT_EQ(SetLimit(65), EINVAL);
  ibv_srq_attr attr{};
  EXPECT_EQ(soft_nic::ModifySrq(srq, &attr, IBV_SRQ_MAX_WR), EINVAL);
  EXPECT_EQ(soft_nic::ModifySrq(srq, &attr, 1 << 7), EINVAL);

  ibv_context* const context = b.device->context();
  ibv_srq_init_attr_ex extended{};
  extended.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
  extended.pd = b.pd->pd();
  extended.srq_type = IBV_SRQT_TM;
  EXPECT_EQ(ibv_create_srq_ex(context, &extended), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  extended.srq_type = IBV_SRQT_BASIC;
  extended.attr.max_wr = 5;
  ibv_srq* const made = verbs_get_ctx(context)->create_srq_ex(context, &extended);
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(soft_nic::DestroySrq(made), 0);
  ibv_srq_init_attr too_large{};
  too_large.attr.max_wr = 1u << 20;
  EXPECT_EQ(soft_nic::CreateSrq(b.pd->pd(), &too_large), nullptr);
}

TEST_F(SharedReceiveTest, BuffersAreCheckedAgainstItsOwnProtectionDomain) {
  // A queue pair of another domain: the buffers' keys are the shared queue's affair.
  ibv_pd* const other = soft_nic::AllocPd(b.device->context());
  {
    ibv_qp_init_attr attr = RawQueuePair::Attributes(b);
    attr.srq = srq;
    of_a.push_back(RawQueuePair::Create(a));
    RawQueuePair qp(soft_nic::CreateQp(other, &attr));
    Connect(a, of_a[0], b, qp);
    ASSERT_EQ(Post(7, 0, 64), 0);
    Send(0, 8);
    EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(soft_nic::DeallocPd(other), 0);
}

TEST_F(SharedReceiveTest, DestroyingWaitsForTheAcknowledgement) {
  ConnectPairs(1);
  ASSERT_EQ(Post(1, 0, 64), 0);
  ASSERT_EQ(SetLimit(1), 0);
  Send(0, 8);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  ibv_async_event event{};
  ASSERT_EQ(soft_nic::GetAsyncEvent(b.device->context(), &event), 0);
  EXPECT_EQ(event.element.srq, srq);
  of_b.clear();
  std::atomic<bool> acknowledged{false};
  auto destroyed = std::async(std::launch::async, [&] {
    EXPECT_EQ(soft_nic::DestroySrq(std::exchange(srq, nullptr)), 0);
    return acknowledged.load();
  });
  std::this_thread::yield();
  acknowledged = true;
  soft_nic::AckAsyncEvent(&event);
  EXPECT_TRUE(destroyed.get());
}

}  // namespace
}  // namespace sumac::verbs
