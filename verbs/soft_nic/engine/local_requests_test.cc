// Requests that need no packet, a send queue that drains, and batches that are posted as one.
#include <gtest/gtest.h>

#include <cerrno>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using testing::Describe;
using testing::Engine;

class LocalRequestsTest : public ::testing::Test {
 protected:
  LocalRequestsTest() { engine.Connect(); }

  int PostInvalidate(uint32_t key, unsigned flags = IBV_SEND_SIGNALED) {
    ibv_send_wr wr{};
    wr.wr_id = ++engine.last_wr_id;
    wr.opcode = IBV_WR_LOCAL_INV;
    wr.send_flags = flags;
    wr.invalidate_rkey = key;
    return engine.qp->PostSend(wr);
  }
  uint32_t AddKey() { return engine.keys.Add(engine.memory.data(), 64, 0); }
  bool IsKey(uint32_t key) { return engine.keys.Local(key, engine.addr(0), 8, false) != nullptr; }

  Engine engine;
};

TEST_F(LocalRequestsTest, WaitForWhatLiesBeforeThemAndHoldUpWhatFollows) {
  const uint32_t key = AddKey();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 3000), 0);
  ASSERT_EQ(PostInvalidate(key), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_FIRST@100, RC SEND_MIDDLE@101, RC SEND_LAST@102");
  engine.InjectAck(0x101);
  EXPECT_TRUE(engine.Transmit().empty());
  // A retry passes over it.
  engine.FireTimer();
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_LAST@102");
  EXPECT_TRUE(IsKey(key));
  engine.InjectAck(0x102);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@103");
  EXPECT_FALSE(IsKey(key));
  engine.InjectAck(0x103);
  ASSERT_EQ(engine.sends.list.size(), 3u);
  EXPECT_EQ(engine.sends.list[1].wr_id, 2u);
  EXPECT_EQ(engine.sends.list[1].opcode, IBV_WC_LOCAL_INV);
  EXPECT_EQ(engine.sends.list[2].status, IBV_WC_SUCCESS);
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);
}

TEST_F(LocalRequestsTest, RunWithoutAPacketWhenNothingLiesBeforeThem) {
  const uint32_t keys[] = {AddKey(), AddKey()};
  ASSERT_EQ(PostInvalidate(keys[0], 0), 0);
  ASSERT_EQ(PostInvalidate(keys[1]), 0);
  EXPECT_TRUE(engine.Transmit().empty());
  EXPECT_FALSE(IsKey(keys[0]) || IsKey(keys[1]));
  ASSERT_EQ(engine.sends.list.size(), 1u) << "one was not signaled";
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@100");
}

TEST_F(LocalRequestsTest, RefusalFailsTheQueuePairInOrder) {
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(PostInvalidate(0xbad), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  EXPECT_TRUE(engine.sends.list.empty());
  engine.InjectAck(0x100);
  EXPECT_TRUE(engine.Transmit().empty());
  ASSERT_EQ(engine.sends.list.size(), 3u);
  EXPECT_EQ(engine.sends.list[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(engine.sends.list[1].status, IBV_WC_MW_BIND_ERR);
  EXPECT_EQ(engine.sends.list[2].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
}

TEST_F(LocalRequestsTest, DrainingCompletesWhatHasBegunAlsoAfterALoss) {
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 3000), 0);
  EXPECT_EQ(engine.Transmit(1).size(), 1u);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  engine.qp->SetDraining(true);
  EXPECT_FALSE(engine.qp->drained());
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_MIDDLE@101, RC SEND_LAST@102");
  engine.InjectAck(0x101, kSyndromeNakSequence);
  EXPECT_EQ(engine.Transmit().size(), 2u);
  engine.InjectAck(0x102);
  EXPECT_TRUE(engine.qp->drained());
  EXPECT_TRUE(engine.Transmit().empty());
  engine.qp->SetDraining(false);
  EXPECT_EQ(engine.Transmit().size(), 1u);
}

TEST_F(LocalRequestsTest, StagedRequestsAreUnseenUntilCommitted) {
  ibv_sge sge = engine.Sge(0, 8);
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  for (int i = 0; i < 3; ++i) ASSERT_EQ(engine.qp->StageSend(wr), 0);
  EXPECT_TRUE(engine.Transmit().empty());
  engine.qp->CommitSends();
  EXPECT_EQ(engine.Transmit().size(), 3u);
  for (uint32_t i = 3; i < engine.limits.max_send_wr; ++i) {
    ASSERT_EQ(engine.qp->StageSend(wr), 0);
  }
  EXPECT_EQ(engine.qp->StageSend(wr), ENOMEM);
  engine.qp->DropSends();
  EXPECT_TRUE(engine.Transmit().empty());
  ASSERT_EQ(engine.qp->PostSend(wr), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@103");
}

}  // namespace
}  // namespace sumac::soft_nic
