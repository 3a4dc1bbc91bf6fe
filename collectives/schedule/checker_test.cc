#include "collectives/schedule/checker.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "collectives/schedule/algorithms.h"
#include "collectives/schedule/checker_phases.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;

Schedule Make(Collective collective, const char* name, int ranks, int root = 0) {
  return BuildSchedule(*FindAlgorithm(collective, name), ranks, root);
}

class EveryAlgorithm : public ::testing::TestWithParam<Algorithm> {};

TEST_P(EveryAlgorithm, IsRightForEveryNumberOfRanks) {
  for (int ranks = 1; ranks <= 33; ++ranks) {
    const int roots = GetParam().collective == Collective::kBroadcast ? ranks : 1;
    for (int root = 0; root < roots; ++root) {
      const absl::Status status = CheckSchedule(BuildSchedule(GetParam(), ranks, root));
      ASSERT_TRUE(status.ok()) << status;
    }
  }
}

TEST_P(EveryAlgorithm, IsRightForManyRanks) {
  for (const int ranks : {64, 65, 100, 128}) {
    const absl::Status status = CheckSchedule(BuildSchedule(GetParam(), ranks, ranks / 3));
    ASSERT_TRUE(status.ok()) << status;
  }
}

INSTANTIATE_TEST_SUITE_P(Algorithms, EveryAlgorithm, ::testing::ValuesIn(Algorithms()),
                         [](const auto& i) {
                           std::string name =
                               std::string(NameOf(i.param.collective)) + "_" + i.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Checker, SaysWhichStepIsWrong) {
  Schedule schedule = Make(Collective::kAllReduce, "ring", 4);
  std::swap(schedule.programs[2][0], schedule.programs[2][2]);
  const absl::Status status = CheckSchedule(schedule);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("allreduce ring with 4 ranks, root 0: rank 2, step 0 (send block 1 from "
                        "output to rank 3): reads what was never written"));
}

TEST(Checker, RefusesWritesToTheInput) {
  Schedule schedule = Make(Collective::kAllReduce, "recursive_doubling", 2);
  schedule.programs[1][1].to = kInput;
  EXPECT_THAT(std::string(CheckSchedule(schedule).message()), HasSubstr("writes the input"));
}

TEST(Checker, RefusesWhatIsRightOnlyOutOfPlace) {
  // Reads its input after its output was written: fine only while they are apart.
  Schedule schedule = Make(Collective::kAllReduce, "ring", 1);
  schedule.programs[0].push_back(Copy(0, kInput, kOutput));
  schedule.programs[0].push_back(Finalize(0, kOutput));
  EXPECT_THAT(std::string(CheckSchedule(schedule).message()), HasSubstr("(in place)"));
}

TEST(Checker, FindsACycleOfReceives) {
  Schedule schedule = Make(Collective::kAllGather, "ring", 3);
  for (Program& program : schedule.programs)
    std::rotate(program.begin(), program.begin() + 1, program.begin() + 2);
  for (Program& program : schedule.programs)
    program[1].from = kOutput;  // now waits for the receive
  EXPECT_FALSE(CheckSchedule(schedule).ok());
}

TEST(Checker, FindsADeadlockThatOnlyLittleRoomCauses) {
  // Both ranks send two blocks before they receive, and the second send waits (same lane) for room
  // that opens only when the other has taken the first: lanes overlap, so this is fine.
  Schedule fine{Collective::kAllGather, "test", 2, 0, 2, 0, {}};
  fine.programs = {{Copy(0, kInput, kOutput), Send(1, 0, kOutput), Receive(1, 1, kOutput)},
                   {Copy(1, kInput, kOutput), Send(0, 1, kOutput), Receive(0, 0, kOutput)}};
  EXPECT_TRUE(CheckSchedule(fine).ok());

  // Here rank 0 may receive its first block (into the temp slot that its second send reads) only
  // after that send, which has no room until rank 1 has received the first send, into the temp slot
  // that rank 1's own second send reads. Works with a FIFO of two blocks, not with less.
  Schedule stuck{Collective::kAllGather, "test", 2, 0, 2, 1, {}};
  const auto program = [](int me, int peer) {
    return Program{Copy(me, kInput, kOutput),    Copy(me, kInput, Temp(0)),
                   Send(peer, me, kInput),       Send(peer, me, Temp(0)),
                   Receive(peer, peer, Temp(0)), Receive(peer, peer, kOutput)};
  };
  stuck.programs = {program(0, 1), program(1, 0)};
  EXPECT_THAT(std::string(CheckSchedule(stuck).message()), HasSubstr("deadlock"));
}

// The waits are what makes overlap safe: without one rank's, steps run too early. (A barrier's or a
// gather's may also be kept by the order in which messages can come; so the reductions.)
TEST(Checker, SeesWaitsThatAreMissing) {
  for (const Algorithm& algorithm : Algorithms()) {
    if (algorithm.collective != Collective::kAllReduce) continue;
    for (int ranks = 4; ranks <= 9; ++ranks) {
      const Schedule schedule = BuildSchedule(algorithm, ranks, 0);
      for (int without = 0; without < ranks; ++without) {
        std::vector<ReadyProgram> programs;
        for (int r = 0; r < ranks; ++r) programs.push_back(MakeReady(schedule, r));
        if (programs[without].waits.empty()) continue;
        programs[without].waits.clear();
        std::fill(programs[without].waits_begin.begin(), programs[without].waits_begin.end(), 0);
        EXPECT_FALSE(internal::CheckOverlap(schedule, std::move(programs)).ok())
            << algorithm.name << " " << ranks << " " << without;
      }
    }
  }
}

TEST(Checker, KnowsItsCost) {
  const auto cost_of = [](int ranks) {
    return CheckCost(ranks, ranks, 0, RingAllReduce(ranks, 0, 0).size() * ranks);
  };
  EXPECT_LT(cost_of(128), kCheckCostMax);
  EXPECT_GT(cost_of(1024), kCheckCostMax);
}

}  // namespace
}  // namespace sumac::collectives
