// What the soft NIC refuses, how it fails, and many threads on it, through the verbs API.
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/device/counters.h"
#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {
namespace {

TEST(SoftDevice, WaitEndsAtItsDeadline) {
  End a(64);
  ASSERT_TRUE(a.cq->Arm().ok());
  const auto woken = a.channel->Wait(absl::Milliseconds(20));
  ASSERT_TRUE(woken.ok());
  EXPECT_FALSE(*woken);
}

TEST(SoftDevice, OverrunCompletionQueueFailsItsQueuePair) {
  End a(64, {}, 2), b(64);
  Connect(a, b);
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey(), i), 0);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (a.qp->Query(IBV_QP_STATE)->qp_state != IBV_QPS_ERR) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
  const Provider& provider = a.device->provider();
  ibv_async_event event{};
  ASSERT_EQ(provider.get_async_event(a.device->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_CQ_ERR);
  EXPECT_EQ(event.element.cq, a.cq->cq());
  provider.ack_async_event(&event);
  ASSERT_EQ(provider.get_async_event(a.device->context(), &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_FATAL);
  EXPECT_EQ(event.element.qp, a.qp->qp());
  provider.ack_async_event(&event);
  // What fitted is still there; then the queue says that it is broken, and stays so.
  ibv_wc wc{};
  EXPECT_EQ(a.cq->Poll({&wc, 1}), 1);
  EXPECT_EQ(a.cq->Poll({&wc, 1}), 1);
  EXPECT_LT(a.cq->Poll({&wc, 1}), 0);
  EXPECT_LT(a.cq->Poll({&wc, 1}), 0);
}

TEST(SoftDevice, ObjectsInUseAreBusy) {
  End a(64);
  const Provider& provider = a.device->provider();
  EXPECT_EQ(provider.dealloc_pd(a.pd->pd()), EBUSY);
  EXPECT_EQ(provider.destroy_cq(a.cq->cq()), EBUSY);
  EXPECT_EQ(provider.destroy_comp_channel(a.channel->channel()), EBUSY);
}

TEST(SoftDevice, ClosesBeforeTheObjectsOnIt) {
  // As hardware does, whose kernel cleans up: perftest leaves a completion queue behind.
  const Provider& provider = SoftProvider();
  ibv_device** list = provider.get_device_list(nullptr);
  ibv_context* context = provider.open_device(list[0]);
  provider.free_device_list(list);
  ASSERT_NE(context, nullptr);
  ibv_pd* pd = provider.alloc_pd(context);
  ibv_comp_channel* channel = provider.create_comp_channel(context);
  ibv_cq* cq = provider.create_cq(context, 8, nullptr, channel, 0);
  ibv_qp_init_attr init{};
  init.qp_type = IBV_QPT_RC;
  init.send_cq = init.recv_cq = cq;
  ibv_qp* qp = provider.create_qp(pd, &init);
  ASSERT_NE(qp, nullptr);
  EXPECT_EQ(provider.close_device(context), 0);
  EXPECT_EQ(provider.destroy_qp(qp), 0);
  EXPECT_EQ(provider.destroy_cq(cq), 0);
  EXPECT_EQ(provider.destroy_comp_channel(channel), 0);
  EXPECT_EQ(provider.dealloc_pd(pd), 0);
}

TEST(SoftDevice, NumbersAreNotGivenAgainSoonNorOneAfterTheOther) {
  End a(64);
  std::set<uint32_t> qpns, keys;
  int neighbours = 0;
  constexpr size_t kCount = 500;
  for (size_t i = 0; i < kCount; ++i) {
    auto qp = QueuePair::Create(a.pd, a.cq, a.cq, {});
    auto region = MemoryRegion::Register(a.pd, a.memory.data(), a.memory.size(), 0);
    ASSERT_TRUE(qp.ok() && region.ok());
    neighbours += static_cast<int>(qpns.contains((*qp)->qpn() - 1));
    qpns.insert((*qp)->qpn());
    keys.insert((*region)->rkey());
  }
  EXPECT_EQ(qpns.size(), kCount);
  EXPECT_EQ(keys.size(), kCount);
  EXPECT_LT(neighbours, 50);
}

TEST(SoftDevice, MarkedPacketsDrawNotificationsThatReachTheSender) {
  const PacketsOnly packets;
  // A sender whose packets are marked from the start stands for a network that marks them.
  End a(1 << 20), b(1 << 20);
  ConnectionOptions to_b = To(b), to_a = To(a);
  to_b.traffic_class = 3;  // ECN: congestion experienced
  Connect(a, b, to_b, to_a);
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 1 << 20), b.Address(), b.region->rkey()), 0);
    ASSERT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
  const auto at_b = soft_nic::ReadCounters(b.device->context());
  EXPECT_GT(at_b.link.congestion_experienced, 0u);
  EXPECT_GT(at_b.queue_pairs.cnps_sent, 0u);
  EXPECT_TRUE(test_support::Eventually(
      [&] { return soft_nic::ReadCounters(a.device->context()).queue_pairs.cnps_received > 0; }));
}

TEST(SoftDevice, IllegalTransitionsAreRefused) {
  End a(64), b(64);
  EXPECT_FALSE(a.qp->ToReadyToReceive(To(b)).ok());
  EXPECT_FALSE(a.qp->ToReadyToSend(To(b)).ok());
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  EXPECT_EQ(a.device->provider().modify_qp(a.qp->qp(), &attr, IBV_QP_STATE | IBV_QP_PORT), EINVAL);
  ASSERT_TRUE(a.qp->ToInit(To(b)).ok());
  ConnectionOptions no_retry = To(b);
  no_retry.max_rd_atomic = 17;
  EXPECT_FALSE(a.qp->ToReadyToReceive(no_retry).ok());
}

TEST(SoftDevice, WhatCannotBeMadeIsRefused) {
  End a(64), b(64);
  const Provider& provider = a.device->provider();
  ibv_context* context = a.device->context();
  for (const int entries : {0, -1, 1 << 30}) {
    EXPECT_EQ(provider.create_cq(context, entries, nullptr, nullptr, 0), nullptr) << entries;
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(provider.create_cq(context, 1, nullptr, nullptr, 1), nullptr) << "one vector only";
  ibv_qp_init_attr attr{};
  attr.send_cq = attr.recv_cq = a.cq->cq();
  attr.qp_type = IBV_QPT_RAW_PACKET;
  EXPECT_EQ(provider.create_qp(a.pd->pd(), &attr), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  attr.qp_type = IBV_QPT_RC;
  attr.cap.max_send_wr = 1u << 31;
  EXPECT_EQ(provider.create_qp(a.pd->pd(), &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
  // An IPv6 peer of an IPv4 device would never answer: said at once, not by a timeout.
  ConnectionOptions other_family = To(b);
  other_family.remote_gid.raw[0] = 0xfd;
  ASSERT_TRUE(a.qp->ToInit(other_family).ok());
  EXPECT_EQ(a.qp->ToReadyToReceive(other_family).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(a.qp->ToReadyToReceive(To(b)).ok()) << "and nothing was changed";
}

TEST(SoftDevice, ManyQueuePairsAndThreads) {
  // Two threads, each with its own queue pairs and its own completion queue on one device, against
  // one peer device: ownership of the engine passes between them and the helper.
  constexpr int kThreads = 2;
  constexpr int kMessages = 50'000;
  auto here = *Device::Open("soft0");
  End peer(4096);
  auto pd = *ProtectionDomain::Create(here);
  std::vector<std::unique_ptr<QueuePair>> peer_qps;
  std::atomic<int> completed{0};
  struct Worker {
    std::shared_ptr<CompletionQueue> cq;
    std::unique_ptr<QueuePair> qp;
    std::vector<uint64_t> memory = std::vector<uint64_t>(8);
    std::unique_ptr<MemoryRegion> region;
  };
  std::vector<Worker> workers(kThreads);
  for (Worker& worker : workers) {
    worker.cq = *CompletionQueue::Create(here, 1024, nullptr);
    worker.qp = *QueuePair::Create(pd, worker.cq, worker.cq, {});
    worker.region = *MemoryRegion::Register(pd, worker.memory.data(), 64, kAllAccess);
    peer_qps.push_back(*QueuePair::Create(peer.pd, peer.cq, peer.cq, {}));
    ConnectionOptions there;
    there.path_mtu = IBV_MTU_1024;
    there.access = kAllAccess;
    there.remote_qpn = peer_qps.back()->qpn();
    there.remote_gid = peer.gid();
    ConnectionOptions back = there;
    back.remote_qpn = worker.qp->qpn();
    back.remote_gid = here->QueryGids(1)->front().gid;
    ASSERT_TRUE(worker.qp->ToInit(there).ok());
    ASSERT_TRUE(worker.qp->ToReadyToReceive(there).ok());
    ASSERT_TRUE(worker.qp->ToReadyToSend(there).ok());
    ASSERT_TRUE(peer_qps.back()->ToInit(back).ok());
    ASSERT_TRUE(peer_qps.back()->ToReadyToReceive(back).ok());
    ASSERT_TRUE(peer_qps.back()->ToReadyToSend(back).ok());
  }
  std::vector<std::thread> threads;
  for (Worker& worker : workers) {
    threads.emplace_back([&] {
      int posted = 0, done = 0;
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(150);
      while (done < kMessages && std::chrono::steady_clock::now() < deadline) {
        while (posted < kMessages && posted - done < 64) {
          ibv_sge sge{reinterpret_cast<uint64_t>(worker.memory.data()), 8, worker.region->lkey()};
          ibv_send_wr wr{};
          wr.sg_list = &sge;
          wr.num_sge = 1;
          wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
          wr.send_flags = IBV_SEND_SIGNALED;
          wr.wr.atomic.remote_addr = peer.Address();
          wr.wr.atomic.rkey = peer.region->rkey();
          wr.wr.atomic.compare_add = 1;
          ASSERT_EQ(worker.qp->PostSend(wr), 0);
          ++posted;
        }
        ibv_wc wc[16];
        const int got = worker.cq->Poll(wc);
        ASSERT_GE(got, 0);
        for (int i = 0; i < got; ++i) ASSERT_EQ(wc[i].status, IBV_WC_SUCCESS);
        done += got;
      }
      completed += done;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(completed, kThreads * kMessages);
  EXPECT_EQ(*reinterpret_cast<uint64_t*>(peer.memory.data()), uint64_t{kThreads} * kMessages);
}

}  // namespace
}  // namespace sumac::verbs
