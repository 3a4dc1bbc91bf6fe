#include "collectives/schedule/hazards.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::collectives {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ReadyProgram Ready(Program program, Collective collective = Collective::kAllReduce) {
  return MakeReady(std::move(program), collective, "test", 4, 0, 0, 4, 2);
}

TEST(Hazards, SplitsIntoLanes) {
  const ReadyProgram ready =
      Ready({Send(1, 0, kInput), Receive(1, 1, kOutput), Copy(2, kInput, kOutput),
             Send(2, 0, kInput), Send(1, 1, kOutput), Finalize(3, kOutput)});
  ASSERT_EQ(ready.lanes.size(), 4u);
  EXPECT_THAT(ready.lanes[0].steps, ElementsAre(0, 4));
  EXPECT_THAT(ready.lanes[1].steps, ElementsAre(1));
  EXPECT_THAT(ready.lanes[2].steps, ElementsAre(2, 5));
  EXPECT_THAT(ready.lanes[3].steps, ElementsAre(3));
}

TEST(Hazards, ReadAfterWrite) {
  const ReadyProgram ready = Ready({Receive(1, 0, kOutput), Send(2, 0, kOutput)});
  EXPECT_THAT(ready.WaitsOf(0), IsEmpty());
  EXPECT_THAT(ready.WaitsOf(1), ElementsAre(Wait{0, false}));
}

TEST(Hazards, WriteAfterReadAlsoAcrossInputAndOutput) {
  const ReadyProgram ready =
      Ready({Send(1, 0, kInput), Send(2, 0, kInput), Receive(3, 0, kOutput), Send(1, 0, kOutput)});
  EXPECT_THAT(ready.WaitsOf(2), ElementsAre(Wait{0, false}, Wait{1, false}));
  EXPECT_THAT(ready.WaitsOf(3), ElementsAre(Wait{2, false}));  // the readers before are history
}

TEST(Hazards, WriteAfterWrite) {
  const ReadyProgram ready = Ready({Receive(1, 0, kOutput), Receive(2, 0, kOutput)});
  EXPECT_THAT(ready.WaitsOf(1), ElementsAre(Wait{0, false}));
}

TEST(Hazards, BlocksAreIndependent) {
  const ReadyProgram ready = Ready({Send(1, 0, kOutput), Receive(1, 1, kOutput)});
  EXPECT_THAT(ready.WaitsOf(1), IsEmpty());
}

TEST(Hazards, TempThatChangesBlocksWaitsForTheWholeStep) {
  const Program program = {Send(1, 0, Temp(1)), Receive(1, 1, Temp(1))};
  EXPECT_THAT(Ready(program).WaitsOf(1), ElementsAre(Wait{0, true}));
  EXPECT_THAT(Ready(program, Collective::kReduceScatter).WaitsOf(1), ElementsAre(Wait{0, false}));
}

TEST(Hazards, OneWaitForOneStep) {
  const ReadyProgram ready = Ready({Receive(1, 0, kOutput), ReceiveReduce(2, 0, kInput, kOutput)});
  EXPECT_THAT(ready.WaitsOf(1), ElementsAre(Wait{0, false}));
}

TEST(Partition, CoversTheVectorInOrder) {
  for (const size_t count : {0, 1, 2, 7, 8, 9, 1000}) {
    for (int blocks = 1; blocks < 12; ++blocks) {
      const Partition partition(count, blocks);
      size_t next = 0;
      for (int block = 0; block < blocks; ++block) {
        EXPECT_EQ(partition.Begin(block), next);
        EXPECT_LE(partition.Size(block), partition.LargestSize());
        EXPECT_LE(partition.LargestSize(), partition.Size(block) + 1);
        next += partition.Size(block);
      }
      EXPECT_EQ(next, count);
    }
  }
}

}  // namespace
}  // namespace sumac::collectives
