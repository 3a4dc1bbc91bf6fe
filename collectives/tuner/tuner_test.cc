#include "collectives/tuner/tuner.h"

#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;

TEST(Tuner, HasAnAnswerForEverything) {
  for (const Collective collective : kCollectives) {
    for (const int ranks : {1, 2, 8, 9, 33, 65536}) {
      for (const size_t bytes : {size_t{0}, size_t{1}, size_t{100'000}, size_t{SIZE_MAX}}) {
        const Choice choice = ChooseAlgorithm(collective, bytes, ranks, "");
        ASSERT_NE(choice.algorithm, nullptr);
        EXPECT_EQ(choice.algorithm->collective, collective);
        EXPECT_STRNE(choice.reason, "");
      }
    }
  }
}

TEST(Tuner, ChoosesBySize) {
  EXPECT_STREQ(ChooseAlgorithm(Collective::kAllReduce, 8, 4, "").algorithm->name,
               "recursive_doubling");
  EXPECT_STREQ(ChooseAlgorithm(Collective::kAllReduce, 1 << 20, 4, "").algorithm->name, "ring");
}

TEST(Tuner, DoesWhatItIsAsked) {
  const Choice forced = ChooseAlgorithm(Collective::kAllReduce, 8, 4, "ring");
  EXPECT_STREQ(forced.algorithm->name, "ring");
  EXPECT_STREQ(forced.reason, "asked for");
  EXPECT_STREQ(ChooseAlgorithm(Collective::kBroadcast, 8, 4, "ring").algorithm->name, "tree");
}

TEST(Tuner, ListsTheNamesItKnows) {
  EXPECT_TRUE(CheckAlgorithmName("bruck").ok());
  const absl::Status status = CheckAlgorithmName("rnig");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("unknown algorithm \"rnig\"; known: bruck, "
                                                       "chain, direct, dissemination, "
                                                       "recursive_doubling, ring, tree"));
}

}  // namespace
}  // namespace sumac::collectives
