// Completion channels and asynchronous events, through the calls that programs make.
#include <fcntl.h>
#include <poll.h>

#include <cerrno>
#include <future>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/device/counters.h"
#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {
namespace {

using test_support::Eventually;

TEST(SoftDeviceEvents, BlockingGetReturnsWhatItsProgramStored) {
  End a(64), b(64);
  Connect(a, b);
  const Provider& provider = b.device->provider();
  int mine = 0;
  b.cq->cq()->cq_context = &mine;
  b.PostReceive(0, 8);
  ASSERT_EQ(ibv_req_notify_cq(b.cq->cq(), 0), 0);
  std::thread sender([&] { EXPECT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8)), 0); });
  ibv_cq* cq = nullptr;
  void* cq_context = nullptr;
  EXPECT_EQ(provider.get_cq_event(b.channel->channel(), &cq, &cq_context), 0);
  sender.join();
  EXPECT_EQ(cq, b.cq->cq());
  EXPECT_EQ(cq_context, &mine);
  provider.ack_cq_events(cq, 1);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
}

TEST(SoftDeviceEvents, NonBlockingChannelSaysAgainAndPollsReadable) {
  End a(64), b(64);
  Connect(a, b);
  const Provider& provider = b.device->provider();
  const int fd = b.channel->channel()->fd;
  ASSERT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
  ibv_cq* cq = nullptr;
  void* cq_context = nullptr;
  errno = 0;
  EXPECT_EQ(provider.get_cq_event(b.channel->channel(), &cq, &cq_context), -1);
  EXPECT_EQ(errno, EAGAIN);
  b.PostReceive(0, 8);
  ASSERT_TRUE(b.cq->Arm(/*solicited_only=*/true).ok());
  ibv_sge sge = a.Sge(0, 8);
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_SOLICITED;
  ASSERT_EQ(a.qp->PostSend(wr), 0);
  pollfd event{.fd = fd, .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&event, 1, 10'000), 1);  // by the helper: nobody calls into b
  EXPECT_EQ(provider.get_cq_event(b.channel->channel(), &cq, &cq_context), 0);
  provider.ack_cq_events(cq, 1);
}

TEST(SoftDeviceEvents, DestroyingAQueueWaitsForTheAcknowledgement) {
  End a(64), b(64);
  Connect(a, b);
  const Provider& provider = b.device->provider();
  b.PostReceive(0, 8);
  ASSERT_TRUE(b.cq->Arm().ok());
  ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8)), 0);
  ibv_cq* cq = nullptr;
  void* cq_context = nullptr;
  ASSERT_EQ(provider.get_cq_event(b.channel->channel(), &cq, &cq_context), 0);
  b.qp.reset();
  std::atomic<bool> acknowledged{false};
  auto destroyed = std::async(std::launch::async, [&] {
    b.cq.reset();
    return acknowledged.load();
  });
  // Nothing to wait for: whenever the other thread gets there, it must not get through before this.
  std::this_thread::yield();
  acknowledged = true;
  provider.ack_cq_events(cq, 1);
  EXPECT_TRUE(destroyed.get());
}

TEST(SoftDeviceEvents, FailedQueuePairIsReportedOnceAndItsEventGoesWithIt) {
  End a(64), b(64);
  const Provider& provider = a.device->provider();
  const int fd = a.device->context()->async_fd;
  ASSERT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
  ibv_async_event event{};
  EXPECT_EQ(provider.get_async_event(a.device->context(), &event), -1);
  EXPECT_EQ(errno, EAGAIN);

  Connect(a, b);
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey() ^ 1), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_REM_ACCESS_ERR);
  // The completion may be seen while its thread is about to report the event.
  pollfd readable{.fd = fd, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&readable, 1, 10000), 1);
  ASSERT_EQ(provider.get_async_event(a.device->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_FATAL);
  EXPECT_EQ(event.element.qp, a.qp->qp());
  EXPECT_EQ(poll(&readable, 1, 0), 0) << "reported twice";
  std::atomic<bool> acknowledged{false};
  auto destroyed = std::async(std::launch::async, [&] {
    a.qp.reset();
    return acknowledged.load();
  });
  std::this_thread::yield();
  acknowledged = true;
  provider.ack_async_event(&event);
  EXPECT_TRUE(destroyed.get());

  // The peer's event was never taken: it goes with its queue pair.
  pollfd peers{.fd = b.device->context()->async_fd, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&peers, 1, 10'000), 1);
  b.qp.reset();
  EXPECT_EQ(poll(&peers, 1, 0), 0);
}

TEST(SoftDeviceEvents, InlineCallsOfTheHeaderReachTheDevice) {
  End a(64);
  ibv_context* context = a.device->context();
  ibv_port_attr port{};
  ASSERT_EQ(ibv_query_port(context, 1, &port), 0);  // inline, through the extended table
  EXPECT_EQ(port.state, IBV_PORT_ACTIVE);
  EXPECT_EQ(port.link_layer, IBV_LINK_LAYER_ETHERNET);
  EXPECT_NE(port.flags & IBV_QPF_GRH_REQUIRED, 0);
  // A program with an older, shorter struct gets that much and nothing behind it.
  ibv_port_attr shorter{};
  shorter.port_cap_flags2 = 0x5a5a;
  ASSERT_EQ(verbs_get_ctx(context)->query_port(context, 1, &shorter,
                                               offsetof(ibv_port_attr, port_cap_flags2)),
            0);
  EXPECT_EQ(shorter.port_cap_flags2, 0x5a5a);
  // Not supported is said, not crashed on.
  errno = 0;
  EXPECT_EQ(ibv_reg_dm_mr(a.pd->pd(), nullptr, 0, 8, 0), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  ibv_device_attr_ex attr{};
  ibv_query_device_ex_input input{};
  EXPECT_EQ(ibv_query_device_ex(context, &input, &attr), 0);
  ibv_srq_init_attr_ex srq{};
  EXPECT_EQ(ibv_create_srq_ex(context, &srq), nullptr);
}

TEST(SoftDeviceEvents, CountersMoveWithWhatTheyCount) {
  const PacketsOnly packets;
  End a(1 << 16), b(1 << 16);
  Connect(a, b, IBV_MTU_1024);
  const auto before = soft_nic::ReadCounters(a.device->context());
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 1 << 16), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  const auto after = soft_nic::ReadCounters(a.device->context());
  EXPECT_GE(after.queue_pairs.packets_sent - before.queue_pairs.packets_sent, 64u);
  EXPECT_GE(after.link.packets_sent - before.link.packets_sent, 64u);
  EXPECT_GE(after.link.bytes_sent - before.link.bytes_sent, 1u << 16);

  // To a queue pair that is not there: the peer counts what it drops.
  ConnectionOptions astray = To(b);
  astray.remote_qpn ^= 0x10;
  astray.timeout = 8;
  astray.retry_count = 1;
  a.qp = *QueuePair::Create(a.pd, a.cq, a.cq, {});
  EXPECT_EQ(soft_nic::ReadCounters(a.device->context()).queue_pairs.packets_sent,
            after.queue_pairs.packets_sent)
      << "a destroyed queue pair stays in the sum";
  ASSERT_TRUE(a.qp->ToInit(astray).ok());
  ASSERT_TRUE(a.qp->ToReadyToReceive(astray).ok());
  ASSERT_TRUE(a.qp->ToReadyToSend(astray).ok());
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_RETRY_EXC_ERR);
  // A starved host may look at its socket only after the sender gave up.
  EXPECT_TRUE(Eventually([&] {
    return soft_nic::ReadCounters(b.device->context()).scheduler.dropped_unknown_qpn >= 1;
  }));
}

TEST(SoftDeviceEvents, PacketsFromElsewhereAreDroppedAndCounted) {
  // b is connected to an address that is not a's.
  End a(64), b(64);
  ConnectionOptions to_a = To(a);
  to_a.remote_gid.raw[15] ^= 0x40;
  ConnectionOptions to_b = To(b);
  to_b.timeout = 8;
  to_b.retry_count = 1;
  Connect(a, b, to_b, to_a);
  b.memory[0] = 1;
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_TRUE(Eventually([&] {  // it may look at its socket only after the sender gave up
    return soft_nic::ReadCounters(b.device->context()).scheduler.dropped_wrong_source >= 1;
  }));
  EXPECT_EQ(b.memory[0], 1);
}

}  // namespace
}  // namespace sumac::verbs
