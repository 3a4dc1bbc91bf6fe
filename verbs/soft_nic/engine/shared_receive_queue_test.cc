#include "verbs/soft_nic/engine/shared_receive_queue.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

class SharedReceiveQueueTest : public ::testing::Test {
 protected:
  int Post(uint64_t wr_id, int pieces = 1) {
    std::vector<ibv_sge> sges(static_cast<size_t>(pieces), {.addr = wr_id, .length = 8, .lkey = 1});
    ibv_recv_wr wr{.wr_id = wr_id, .next = nullptr, .sg_list = sges.data(), .num_sge = pieces};
    return queue.Post(wr);
  }

  testing::TestMemory memory;
  int limit_events = 0;
  SharedReceiveQueue queue{4, 2, memory, [this] { ++limit_events; }};
};

TEST_F(SharedReceiveQueueTest, TakersGetWholeBuffersInOrder) {
  ReceiveQueue first(1, 2, &queue), second(1, 2, &queue);
  EXPECT_FALSE(first.Take());
  ASSERT_EQ(Post(1, 2), 0);
  ASSERT_EQ(Post(2), 0);
  EXPECT_TRUE(first.empty()) << "only Take takes";
  ASSERT_TRUE(first.Take());
  ASSERT_TRUE(second.Take());
  ASSERT_TRUE(first.Take());
  EXPECT_EQ(first.front().wr_id, 1u) << "still the same: it is not complete";
  EXPECT_EQ(first.front().length, 16u);
  ASSERT_EQ(first.front().sges().size(), 2u);
  EXPECT_EQ(first.front().sges()[1].addr, 1u);
  EXPECT_EQ(second.front().wr_id, 2u);
  first.PopFront();
  EXPECT_FALSE(first.Take());
  ASSERT_EQ(Post(3), 0);
  ASSERT_TRUE(first.Take());
  EXPECT_EQ(first.front().wr_id, 3u);
}

TEST_F(SharedReceiveQueueTest, HoldsNoMoreThanItPromises) {
  for (uint64_t i = 0; i < 4; ++i) ASSERT_EQ(Post(i), 0);
  EXPECT_EQ(Post(4), ENOMEM);
  EXPECT_EQ(Post(4, 3), EINVAL);
}

TEST_F(SharedReceiveQueueTest, LimitFiresOnceAndSurvivesResizing) {
  ReceiveQueue taker(1, 2, &queue);
  for (uint64_t i = 0; i < 4; ++i) ASSERT_EQ(Post(i), 0);
  queue.SetLimit(3);
  EXPECT_FALSE(queue.Resize(3));
  ASSERT_TRUE(queue.Resize(8));
  for (uint64_t i = 4; i < 8; ++i) ASSERT_EQ(Post(i), 0);
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(taker.Take());
    EXPECT_EQ(taker.front().wr_id, i);
    taker.PopFront();
    EXPECT_EQ(limit_events, i < 5 ? 0 : 1) << "two are left after the sixth";
  }
  EXPECT_EQ(queue.limit(), 0u);
}

}  // namespace
}  // namespace sumac::soft_nic
