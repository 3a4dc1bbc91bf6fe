// Many queue pairs, long messages, scatter and gather: the same promises at size.
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {
namespace {

TEST(SoftDeviceScale, LongMessage) {
  constexpr size_t kBytes = 64 << 20;
  End a(kBytes), b(kBytes);
  Connect(a, b);
  std::mt19937_64 random(7);
  for (size_t i = 0; i + 8 <= kBytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(&a.memory[i], &word, sizeof(word));
  }
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, kBytes), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next(std::chrono::seconds(60)).status, IBV_WC_SUCCESS);
  EXPECT_TRUE(a.memory == b.memory);
}

TEST(SoftDeviceScale, SixtyFourQueuePairsShareTheLink) {
  constexpr size_t kPairs = 64, kBytes = 40'000;
  End a(kPairs * kBytes), b(kPairs * kBytes);
  std::iota(a.memory.begin(), a.memory.end(), 3);
  std::vector<std::unique_ptr<QueuePair>> from, to;
  for (size_t i = 0; i < kPairs; ++i) {
    from.push_back(*QueuePair::Create(a.pd, a.cq, a.cq, {}));
    to.push_back(*QueuePair::Create(b.pd, b.cq, b.cq, {}));
    ConnectionOptions there = To(b), back = To(a);
    there.remote_qpn = to[i]->qpn();
    back.remote_qpn = from[i]->qpn();
    for (auto [qp, connection] :
         {std::pair{from[i].get(), &there}, std::pair{to[i].get(), &back}}) {
      ASSERT_TRUE(qp->ToInit(*connection).ok());
      ASSERT_TRUE(qp->ToReadyToReceive(*connection).ok());
      ASSERT_TRUE(qp->ToReadyToSend(*connection).ok());
    }
  }
  for (size_t i = 0; i < kPairs; ++i) {
    ibv_sge sge = a.Sge(i * kBytes, kBytes);
    ibv_send_wr wr{};
    wr.wr_id = i;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = b.Address(i * kBytes);
    wr.wr.rdma.rkey = b.region->rkey();
    ASSERT_EQ(from[i]->PostSend(wr), 0);
  }
  std::vector<int> completions(kPairs);
  for (size_t i = 0; i < kPairs; ++i) {
    const ibv_wc wc = a.Next(std::chrono::seconds(60));
    ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.qp_num, from[wc.wr_id]->qpn());
    ++completions[wc.wr_id];
  }
  EXPECT_EQ(completions, std::vector<int>(kPairs, 1));
  EXPECT_TRUE(a.memory == b.memory);
}

TEST(SoftDeviceScale, GathersScattersAndCopiesInlineData) {
  QueuePairOptions options;
  options.max_send_sge = options.max_recv_sge = 3;
  options.max_inline_bytes = 100;
  End a(10'000, options), b(10'000, options);
  Connect(a, b, IBV_MTU_256);
  std::iota(a.memory.begin(), a.memory.end(), 1);
  ibv_sge into[3] = {b.Sge(5000, 700), b.Sge(0, 1), b.Sge(100, 4000)};
  ibv_recv_wr receive{.wr_id = 1, .next = nullptr, .sg_list = into, .num_sge = 3};
  ASSERT_EQ(b.qp->PostReceive(receive), 0);
  ibv_sge from[3] = {a.Sge(0, 300), a.Sge(1000, 1), a.Sge(2000, 1500)};
  ibv_send_wr wr{};
  wr.sg_list = from;
  wr.num_sge = 3;
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = IBV_SEND_SIGNALED;
  ASSERT_EQ(a.qp->PostSend(wr), 0);
  EXPECT_EQ(b.Next().byte_len, 1801u);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  std::vector<uint8_t> sent, received;
  for (const ibv_sge& sge : from) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(sge.addr);
    sent.insert(sent.end(), bytes, bytes + sge.length);
  }
  for (const ibv_sge& sge : into) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(sge.addr);
    received.insert(received.end(), bytes, bytes + sge.length);
  }
  received.resize(sent.size());
  EXPECT_EQ(sent, received);

  // Inline data needs no key, and the buffer may change as soon as the post is back.
  std::vector<uint8_t> not_registered(100, 9);
  ibv_sge inline_sge{reinterpret_cast<uint64_t>(not_registered.data()), 100, 0};
  wr.sg_list = &inline_sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
  wr.wr.rdma.remote_addr = b.Address(9000);
  wr.wr.rdma.rkey = b.region->rkey();
  ASSERT_EQ(a.qp->PostSend(wr), 0);
  std::fill(not_registered.begin(), not_registered.end(), 1);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(std::vector<uint8_t>(&b.memory[9000], &b.memory[9100]), std::vector<uint8_t>(100, 9));
}

TEST(SoftDeviceScale, UnsignaledRequestsCompleteSilently) {
  End a(64), b(64);
  Connect(a, b);
  for (uint64_t i = 0; i < 1000; ++i) {
    ibv_sge sge = a.Sge(0, 8);
    ibv_send_wr wr{};
    wr.wr_id = i;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.send_flags = i % 100 == 99 ? IBV_SEND_SIGNALED : 0;
    wr.wr.rdma.remote_addr = b.Address();
    wr.wr.rdma.rkey = b.region->rkey();
    ASSERT_EQ(a.qp->PostSend(wr), 0);
    if (i % 100 == 99) {
      EXPECT_EQ(a.Next().wr_id, i);
    }
  }
}

}  // namespace
}  // namespace sumac::verbs
