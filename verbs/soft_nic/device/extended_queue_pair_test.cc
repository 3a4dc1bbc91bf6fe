// Posting with ibv_wr_*, as perftest does: through the inline functions of the header.
#include "verbs/soft_nic/device/extended_queue_pair.h"

#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"

namespace sumac::verbs {
namespace {

ibv_qp_init_attr_ex ExtendedAttributes(const End& end, uint64_t operations) {
  const ibv_qp_init_attr plain = RawQueuePair::Attributes(end);
  ibv_qp_init_attr_ex attr{};
  attr.send_cq = plain.send_cq;
  attr.recv_cq = plain.recv_cq;
  attr.cap = plain.cap;
  attr.qp_type = plain.qp_type;
  attr.pd = end.pd->pd();
  attr.comp_mask =
      IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  attr.send_ops_flags = operations;
  return attr;
}

RawQueuePair CreateExtended(const End& end) {
  ibv_qp_init_attr_ex attr = ExtendedAttributes(end, soft_nic::SendOperationsOf(IBV_QPT_RC));
  return RawQueuePair(ibv_create_qp_ex(end.device->context(), &attr));
}

class ExtendedQueuePairTest : public testing::Test {
 protected:
  ExtendedQueuePairTest()
      : a(4096), b(4096), of_a(CreateExtended(a)), of_b(RawQueuePair::Create(b)) {
    Connect(a, of_a, b, of_b);
    qp = soft_nic::QpToQpEx(of_a.get());
    qp->wr_flags = IBV_SEND_SIGNALED;
  }

  void PostReceive(size_t offset, size_t length) {
    ibv_sge sge = b.Sge(offset, length);
    ibv_recv_wr wr{.wr_id = 9, .next = nullptr, .sg_list = &sge, .num_sge = 1};
    ibv_recv_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_recv(of_b.get(), &wr, &bad), 0);
  }
  uint64_t& WordOf(End& end, size_t offset) {
    return *reinterpret_cast<uint64_t*>(&end.memory[offset]);
  }

  End a, b;
  RawQueuePair of_a, of_b;
  ibv_qp_ex* qp;
};

TEST_F(ExtendedQueuePairTest, IsOneObjectWithItsQueuePair) {
  EXPECT_EQ(&qp->qp_base, of_a.get());
  EXPECT_EQ(reinterpret_cast<ibv_qp_ex*>(of_a.get()), qp);
  EXPECT_EQ(soft_nic::QpToQpEx(of_b.get()), nullptr) << "created the ordinary way";
}

TEST_F(ExtendedQueuePairTest, OneBatchOfEveryOperationArrivesInOrder) {
  for (size_t i = 0; i < 256; ++i) a.memory[i] = static_cast<uint8_t>(i);
  WordOf(b, 1024) = 40;
  WordOf(b, 2048) = 0x5050;
  for (int i = 0; i < 3; ++i) PostReceive(512 + 64 * static_cast<size_t>(i), 64);
  const uint32_t rkey = b.region->rkey();
  const uint32_t lkey = a.region->lkey();

  ibv_wr_start(qp);
  qp->wr_id = 0;
  ibv_wr_rdma_write(qp, rkey, b.Address(0));
  ibv_wr_set_sge(qp, lkey, a.Address(1), 10);
  qp->wr_id = 1;
  ibv_wr_rdma_write_imm(qp, rkey, b.Address(16), htobe32(7));
  const ibv_sge pieces[] = {a.Sge(20, 3), a.Sge(40, 5)};
  ibv_wr_set_sge_list(qp, 2, pieces);
  qp->wr_id = 2;
  ibv_wr_send(qp);
  char text[] = "inline";
  ibv_wr_set_inline_data(qp, text, sizeof(text));
  std::memset(text, 0, sizeof(text));  // copied already
  qp->wr_id = 3;
  ibv_wr_send_imm(qp, htobe32(8));
  char more[] = "two";
  const ibv_data_buf buffers[] = {{more, 1}, {more + 1, 2}};
  ibv_wr_set_inline_data_list(qp, 2, buffers);
  qp->wr_id = 4;
  ibv_wr_rdma_read(qp, rkey, b.Address(2048));
  ibv_wr_set_sge(qp, lkey, a.Address(1024), 8);
  qp->wr_id = 5;
  ibv_wr_atomic_fetch_add(qp, rkey, b.Address(1024), 2);
  ibv_wr_set_sge(qp, lkey, a.Address(1032), 8);
  qp->wr_id = 6;
  ibv_wr_atomic_cmp_swp(qp, rkey, b.Address(1024), 42, 77);
  ibv_wr_set_sge(qp, lkey, a.Address(1040), 8);
  ASSERT_EQ(ibv_wr_complete(qp), 0);

  for (uint64_t i = 0; i < 7; ++i) {
    const ibv_wc wc = a.Next();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.wr_id, i);
  }
  EXPECT_EQ(std::memcmp(&b.memory[0], &a.memory[1], 10), 0);
  EXPECT_EQ(std::memcmp(&b.memory[16], &a.memory[20], 3), 0);
  EXPECT_EQ(std::memcmp(&b.memory[19], &a.memory[40], 5), 0);
  EXPECT_EQ(b.Next().imm_data, htobe32(7));
  EXPECT_EQ(b.Next().byte_len, 7u);
  EXPECT_STREQ(reinterpret_cast<char*>(&b.memory[512 + 64]), "inline");
  EXPECT_EQ(b.Next().imm_data, htobe32(8));
  EXPECT_EQ(std::memcmp(&b.memory[512 + 128], "two", 3), 0);
  EXPECT_EQ(WordOf(a, 1024), 0x5050u);
  EXPECT_EQ(WordOf(a, 1032), 40u);
  EXPECT_EQ(WordOf(a, 1040), 42u);
  EXPECT_EQ(WordOf(b, 1024), 77u);
}

TEST_F(ExtendedQueuePairTest, AbortedAndFailedBatchesLeaveNothing) {
  const uint32_t rkey = b.region->rkey();
  a.memory[0] = 5;
  ibv_wr_start(qp);
  ibv_wr_rdma_write(qp, rkey, b.Address(0));
  ibv_wr_set_sge(qp, a.region->lkey(), a.Address(0), 8);
  ibv_wr_abort(qp);

  // Longer than inline data may be, behind a good request.
  std::vector<char> much(65);
  ibv_wr_start(qp);
  ibv_wr_rdma_write(qp, rkey, b.Address(0));
  ibv_wr_set_sge(qp, a.region->lkey(), a.Address(0), 8);
  ibv_wr_rdma_write(qp, rkey, b.Address(0));
  ibv_wr_set_inline_data(qp, much.data(), much.size());
  EXPECT_EQ(ibv_wr_complete(qp), EINVAL);

  ibv_wr_start(qp);
  ibv_wr_set_sge(qp, a.region->lkey(), a.Address(0), 8);  // about no request
  EXPECT_EQ(ibv_wr_complete(qp), EINVAL);

  const std::vector<ibv_sge> pieces(5, a.Sge(0, 1));  // four are the limit
  ibv_wr_start(qp);
  ibv_wr_rdma_write(qp, rkey, b.Address(0));
  ibv_wr_set_sge_list(qp, pieces.size(), pieces.data());
  EXPECT_EQ(ibv_wr_complete(qp), EINVAL);

  ibv_wr_start(qp);
  ibv_wr_send_tso(qp, much.data(), 4, 4);
  EXPECT_EQ(ibv_wr_complete(qp), EOPNOTSUPP);

  ibv_wr_start(qp);  // one more than the queue holds
  for (int i = 0; i < 65; ++i) {
    ibv_wr_rdma_write(qp, rkey, b.Address(0));
    ibv_wr_set_sge(qp, a.region->lkey(), a.Address(0), 8);
  }
  EXPECT_EQ(ibv_wr_complete(qp), ENOMEM);

  // And then everything works, with nothing of all that before it.
  ibv_wr_start(qp);
  qp->wr_id = 77;
  ibv_wr_rdma_write(qp, rkey, b.Address(8));
  ibv_wr_set_sge(qp, a.region->lkey(), a.Address(0), 8);
  ASSERT_EQ(ibv_wr_complete(qp), 0);
  EXPECT_EQ(a.Next().wr_id, 77u);
  EXPECT_EQ(b.memory[8], 5);
  EXPECT_EQ(b.memory[0], 0);
}

TEST_F(ExtendedQueuePairTest, IsPostedToBothWaysFromSeveralThreads) {
  constexpr int kEach = 200;
  qp->wr_flags = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        int error = ENOMEM;
        while (error == ENOMEM) {
          if (t % 2 == 0) {
            ibv_wr_start(qp);
            qp->wr_flags = IBV_SEND_SIGNALED;
            ibv_wr_atomic_fetch_add(qp, b.region->rkey(), b.Address(0), 1);
            ibv_wr_set_sge(qp, a.region->lkey(), a.Address(0), 8);
            error = ibv_wr_complete(qp);
          } else {
            ibv_sge sge = a.Sge(0, 8);
            ibv_send_wr wr{};
            wr.sg_list = &sge;
            wr.num_sge = 1;
            wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
            wr.send_flags = IBV_SEND_SIGNALED;
            wr.wr.atomic = {
                .remote_addr = b.Address(0), .compare_add = 1, .swap = 0, .rkey = b.region->rkey()};
            ibv_send_wr* bad = nullptr;
            error = ibv_post_send(of_a.get(), &wr, &bad);
          }
          if (error == ENOMEM) std::this_thread::yield();
        }
        EXPECT_EQ(error, 0);
      }
    });
  }
  for (int i = 0; i < 4 * kEach; ++i) EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(WordOf(b, 0), 4u * kEach);
}

TEST(ExtendedQueuePairCreation, RefusesWhatIsNotOffered) {
  End a(64);
  const auto refused = [&](auto change) {
    ibv_qp_init_attr_ex attr = ExtendedAttributes(a, IBV_QP_EX_WITH_SEND);
    change(attr);
    errno = 0;
    EXPECT_EQ(ibv_create_qp_ex(a.device->context(), &attr), nullptr);
    return errno;
  };
  EXPECT_EQ(refused([](auto& attr) { attr.send_ops_flags = IBV_QP_EX_WITH_TSO; }), EOPNOTSUPP);
  EXPECT_EQ(refused([](auto& attr) { attr.send_ops_flags = uint64_t{1} << 60; }), EOPNOTSUPP);
  EXPECT_EQ(refused([](auto& attr) { attr.create_flags = 1; }), EOPNOTSUPP);
  EXPECT_EQ(refused([](auto& attr) { attr.comp_mask |= IBV_QP_INIT_ATTR_RX_HASH; }), EOPNOTSUPP);
  EXPECT_EQ(refused([](auto& attr) { attr.comp_mask &= ~IBV_QP_INIT_ATTR_PD; }), EINVAL);
  EXPECT_EQ(refused([](auto& attr) { attr.pd = nullptr; }), EINVAL);
  EXPECT_EQ(refused([](auto& attr) { attr.cap.max_send_wr = 1u << 30; }), EINVAL);

  // Before RTS nothing can be posted.
  RawQueuePair qp = CreateExtended(a);
  ibv_qp_ex* const extended = soft_nic::QpToQpEx(qp.get());
  ibv_wr_start(extended);
  ibv_wr_send(extended);
  EXPECT_EQ(ibv_wr_complete(extended), EINVAL);
}

}  // namespace
}  // namespace sumac::verbs
