// Polling with ibv_start_poll and its like, through the inline functions of the header.
#include <time.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/raw_queue_pair_test_support.h"

namespace sumac::verbs {
namespace {

ibv_cq_init_attr_ex Attributes(uint64_t fields, uint32_t flags = 0) {
  ibv_cq_init_attr_ex attr{};
  attr.cqe = 256;
  attr.wc_flags = fields;
  attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS;
  attr.flags = flags;
  return attr;
}

// Two ends; what completes at `b` goes to an extended queue.
struct ExtendedPair {
  explicit ExtendedPair(ibv_cq_init_attr_ex attr)
      : a(4096),
        b(4096),
        cq(ibv_create_cq_ex(b.device->context(), &attr)),
        of_a(RawQueuePair::Create(a)),
        of_b([this] {
          ibv_qp_init_attr init = RawQueuePair::Attributes(b);
          init.send_cq = init.recv_cq = ibv_cq_ex_to_cq(cq);
          return RawQueuePair(soft_nic::CreateQp(b.pd->pd(), &init));
        }()) {
    Connect(a, of_a, b, of_b);
  }
  ~ExtendedPair() {
    { const RawQueuePair gone = std::move(of_b); }
    EXPECT_EQ(soft_nic::DestroyCq(ibv_cq_ex_to_cq(cq)), 0);
  }

  void PostReceive(uint64_t wr_id) {
    ibv_sge sge = b.Sge(0, 64);
    ibv_recv_wr wr{.wr_id = wr_id, .next = nullptr, .sg_list = &sge, .num_sge = 1};
    ibv_recv_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_recv(of_b.get(), &wr, &bad), 0);
  }
  void Send(size_t length) {
    ibv_sge sge = a.Sge(0, length);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND_WITH_IMM;
    wr.imm_data = htobe32(static_cast<uint32_t>(length));
    wr.send_flags = IBV_SEND_SIGNALED;
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(of_a.get(), &wr, &bad), 0);
  }
  // Sends, and waits until all have been received.
  void Exchange(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) PostReceive(100 + i);
    for (uint64_t i = 0; i < count; ++i) Send(i + 1);
    for (uint64_t i = 0; i < count; ++i) EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }

  End a, b;
  ibv_cq_ex* cq;
  RawQueuePair of_a, of_b;
};

uint64_t ClockNow(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

TEST(ExtendedCompletionQueue, ReadsEveryField) {
  ExtendedPair pair(Attributes(IBV_WC_STANDARD_FLAGS));
  ibv_poll_cq_attr attr{};
  EXPECT_EQ(ibv_start_poll(pair.cq, &attr), ENOENT);
  pair.Exchange(3);
  ASSERT_EQ(ibv_start_poll(pair.cq, &attr), 0);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(pair.cq->status, IBV_WC_SUCCESS);
    EXPECT_EQ(pair.cq->wr_id, 100 + i);
    EXPECT_EQ(ibv_wc_read_opcode(pair.cq), IBV_WC_RECV);
    EXPECT_EQ(ibv_wc_read_byte_len(pair.cq), i + 1);
    EXPECT_EQ(ibv_wc_read_wc_flags(pair.cq), static_cast<unsigned>(IBV_WC_WITH_IMM));
    EXPECT_EQ(ibv_wc_read_imm_data(pair.cq), htobe32(i + 1));
    EXPECT_EQ(ibv_wc_read_qp_num(pair.cq), pair.of_b->qp_num);
    EXPECT_EQ(ibv_wc_read_src_qp(pair.cq), pair.of_a->qp_num);
    EXPECT_EQ(ibv_wc_read_vendor_err(pair.cq), 0u);
    EXPECT_EQ(ibv_wc_read_slid(pair.cq), 0u);
    EXPECT_EQ(ibv_wc_read_sl(pair.cq), 0u);
    EXPECT_EQ(ibv_wc_read_dlid_path_bits(pair.cq), 0u);
    EXPECT_EQ(ibv_wc_read_completion_ts(pair.cq), 0u) << "not asked for";
    EXPECT_EQ(ibv_next_poll(pair.cq), i < 2 ? 0 : ENOENT);
  }
  ibv_end_poll(pair.cq);

  attr.comp_mask = 1;
  EXPECT_EQ(ibv_start_poll(pair.cq, &attr), EINVAL);
}

TEST(ExtendedCompletionQueue, AlsoServesTheOrdinaryPoll) {
  ExtendedPair pair(Attributes(IBV_WC_STANDARD_FLAGS));
  pair.Exchange(1);
  ibv_wc wc{};
  EXPECT_EQ(ibv_poll_cq(ibv_cq_ex_to_cq(pair.cq), 1, &wc), 1);
  EXPECT_EQ(wc.wr_id, 100u);
}

TEST(ExtendedCompletionQueue, TimesLieBetweenPostAndPoll) {
  ExtendedPair pair(Attributes(
      IBV_WC_EX_WITH_COMPLETION_TIMESTAMP | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
      IBV_CREATE_CQ_ATTR_SINGLE_THREADED));
  ibv_context* const context = pair.b.device->context();
  ibv_values_ex before{};
  before.comp_mask = IBV_VALUES_MASK_RAW_CLOCK;
  ASSERT_EQ(ibv_query_rt_values_ex(context, &before), 0);
  EXPECT_EQ(before.comp_mask, static_cast<uint32_t>(IBV_VALUES_MASK_RAW_CLOCK));
  pair.Exchange(2);
  ibv_values_ex after = before;
  ASSERT_EQ(ibv_query_rt_values_ex(context, &after), 0);

  ibv_poll_cq_attr attr{};
  ASSERT_EQ(ibv_start_poll(pair.cq, &attr), 0);
  const uint64_t first = ibv_wc_read_completion_ts(pair.cq);
  EXPECT_GE(first, static_cast<uint64_t>(before.raw_clock.tv_nsec));
  ASSERT_EQ(ibv_next_poll(pair.cq), 0);
  EXPECT_GE(ibv_wc_read_completion_ts(pair.cq), first);
  EXPECT_LE(ibv_wc_read_completion_ts(pair.cq), static_cast<uint64_t>(after.raw_clock.tv_nsec));
  // The wall clock may be set at any time; a day is no small error.
  const uint64_t wall = ibv_wc_read_completion_wallclock_ns(pair.cq);
  EXPECT_NEAR(static_cast<double>(wall), static_cast<double>(ClockNow(CLOCK_REALTIME)), 86400e9);
  ibv_end_poll(pair.cq);

  ibv_device_attr_ex device{};
  ASSERT_EQ(ibv_query_device_ex(context, nullptr, &device), 0);
  EXPECT_EQ(device.hca_core_clock, 1'000'000u);
  EXPECT_EQ(device.completion_timestamp_mask, UINT64_MAX);
}

TEST(ExtendedCompletionQueue, QueuePairMayGoInTheMiddleOfASession) {
  ExtendedPair pair(Attributes(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP));
  pair.Exchange(3);
  ibv_poll_cq_attr attr{};
  ASSERT_EQ(ibv_start_poll(pair.cq, &attr), 0);
  { const RawQueuePair gone = std::move(pair.of_b); }
  EXPECT_EQ(ibv_next_poll(pair.cq), ENOENT) << "its completions go with it";
  ibv_end_poll(pair.cq);
}

TEST(ExtendedCompletionQueue, SeveralThreadsGetEveryCompletionOnce) {
  ExtendedPair pair(Attributes(IBV_WC_STANDARD_FLAGS));
  pair.Exchange(60);
  std::atomic<int> taken{0};
  std::mutex mutex;
  std::set<uint64_t> ids;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      ibv_poll_cq_attr attr{};
      while (taken.load() < 60) {
        if (ibv_start_poll(pair.cq, &attr) != 0) continue;
        do {
          const std::lock_guard lock(mutex);
          EXPECT_TRUE(ids.insert(pair.cq->wr_id).second);
          ++taken;
        } while (taken.load() % 7 != 0 && ibv_next_poll(pair.cq) == 0);
        ibv_end_poll(pair.cq);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ids.size(), 60u);
}

TEST(ExtendedCompletionQueueCreation, RefusesWhatIsNotOffered) {
  End a(64);
  const auto refused = [&](ibv_cq_init_attr_ex attr) {
    errno = 0;
    EXPECT_EQ(ibv_create_cq_ex(a.device->context(), &attr), nullptr);
    return errno;
  };
  EXPECT_EQ(refused(Attributes(IBV_WC_EX_WITH_CVLAN)), EOPNOTSUPP);
  EXPECT_EQ(refused(Attributes(uint64_t{1} << 50)), EOPNOTSUPP);
  EXPECT_EQ(refused(Attributes(0, IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN)), EOPNOTSUPP);
  ibv_cq_init_attr_ex attr = Attributes(0);
  attr.comp_mask = 1 << 7;
  EXPECT_EQ(refused(attr), EOPNOTSUPP);
  attr = Attributes(0);
  attr.cqe = 0;
  EXPECT_EQ(refused(attr), EINVAL);
  attr.cqe = ~0u;
  EXPECT_EQ(refused(attr), EINVAL);
  attr = Attributes(0);
  attr.comp_vector = 1;
  EXPECT_EQ(refused(attr), EINVAL);
}

}  // namespace
}  // namespace sumac::verbs
