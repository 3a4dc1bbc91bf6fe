#include "transport/bootstrap/job_state.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {
namespace {

struct Recorder : MemberEvents {
  std::vector<std::string> log;
  uint64_t session = 0;
  void OnAccepted(uint64_t value) override { session = value; }
  void OnComplete() override { log.push_back("complete"); }
  void OnFailed(int rank, const std::string&) override {
    log.push_back("failed " + std::to_string(rank));
  }
  bool reads = true;
  bool OnNotification(int from, const std::string& topic) override {
    log.push_back(topic + " from " + std::to_string(from));
    return reads;
  }
  void OnClosing() override { log.push_back("closing"); }
};

class JobStateTest : public testing::Test {
 protected:
  JobStateTest() : job_(Options()) {}
  static BootstrapServerOptions Options() {
    BootstrapServerOptions options;
    options.job = "j";
    options.size = 3;
    options.value_bytes_max = 100;
    options.keys_max = 2;
    return options;
  }
  absl::StatusOr<uint64_t> Join(int rank, int size = 3, const std::string& job = "j") {
    auto events = std::make_shared<Recorder>();
    auto session = job_.Join(job, rank, size, {"h", 1}, events);
    if (session.ok()) members_[rank] = events;
    return session;
  }
  void JoinAll() {
    for (int rank = 0; rank < 3; ++rank) ASSERT_TRUE(Join(rank).ok());
  }

  JobState job_;
  std::shared_ptr<Recorder> members_[3];
};

TEST_F(JobStateTest, JoinRefusesStrangersTwinsAndWrongSizes) {
  EXPECT_EQ(Join(0, 3, "other").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Join(0, 4).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Join(3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Join(-1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Join(0).ok());
  EXPECT_EQ(Join(0).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(job_.Missing(""), (std::vector<int>{1, 2}));
}

TEST_F(JobStateTest, OnlyTheSessionThatJoinedMayCall) {
  JoinAll();
  EXPECT_TRUE(job_.Check("j", 1, members_[1]->session).ok());
  EXPECT_FALSE(job_.Check("j", 1, members_[1]->session + 1).ok());
  EXPECT_FALSE(job_.Check("k", 1, members_[1]->session).ok());
  EXPECT_FALSE(job_.Check("j", 7, 0).ok());
}

TEST_F(JobStateTest, LookupWaitsAndGatherCollectsByRank) {
  JoinAll();
  std::string found;
  job_.Lookup("k", [&](absl::StatusOr<std::string> value) { found = *value; });
  EXPECT_EQ(found, "");
  EXPECT_TRUE(job_.Publish("k", "v").ok());
  EXPECT_EQ(found, "v");
  EXPECT_EQ(job_.Publish("k", "w").code(), absl::StatusCode::kAlreadyExists);

  int answered = 0;
  for (const int rank : {2, 0, 1}) {
    EXPECT_EQ(answered, 0);
    job_.Gather("t", rank, std::string(1, static_cast<char>('a' + rank)), [&](auto values) {
      EXPECT_EQ(*values, (std::vector<std::string>{"a", "b", "c"}));
      ++answered;
    });
  }
  EXPECT_EQ(answered, 3);
}

TEST_F(JobStateTest, LimitsAreErrors) {
  JoinAll();
  EXPECT_EQ(job_.Publish("k", std::string(101, 'x')).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(job_.Publish("", "v").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(job_.Publish("a", "").ok());
  EXPECT_TRUE(job_.Publish("b", "").ok());
  EXPECT_EQ(job_.Publish("c", "").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(job_.Notify(0, 9, "t").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobStateTest, AFailureEndsEveryWaitAndIsToldToAll) {
  JoinAll();
  absl::Status lookup, gather;
  job_.Lookup("never", [&](auto value) { lookup = value.status(); });
  job_.Gather("t", 0, "", [&](auto values) { gather = values.status(); });
  job_.Disconnect(2, members_[2]->session);
  EXPECT_EQ(FailedRankOf(lookup), 2);
  EXPECT_EQ(FailedRankOf(gather), 2);
  EXPECT_EQ(members_[0]->log, (std::vector<std::string>{"complete", "failed 2"}));
  absl::Status later;
  job_.Gather("u", 0, "", [&](auto values) { later = values.status(); });
  EXPECT_EQ(FailedRankOf(later), 2);
}

TEST_F(JobStateTest, LeavingIsNoFailureButNobodyWaitsForIt) {
  JoinAll();
  absl::Status gather;
  job_.Gather("t", 0, "", [&](auto values) { gather = values.status(); });
  job_.Leave(1);
  job_.Disconnect(1, members_[1]->session);
  EXPECT_EQ(FailedRankOf(gather), 1);
  EXPECT_EQ(members_[0]->log, (std::vector<std::string>{"complete"}));
  EXPECT_FALSE(job_.EverybodyElseGone(0));
  job_.Leave(2);
  EXPECT_TRUE(job_.EverybodyElseGone(0));
}

TEST_F(JobStateTest, ARankMayComeAgainWhileTheJobIsIncomplete) {
  ASSERT_TRUE(Join(1).ok());
  job_.Disconnect(1, members_[1]->session);
  EXPECT_TRUE(Join(1).ok());
}

TEST_F(JobStateTest, ARankThatGaveUpJoiningDoesNotCountAsThere) {
  ASSERT_TRUE(Join(1).ok());
  job_.Leave(1);
  EXPECT_EQ(job_.Missing(""), (std::vector<int>{0, 1, 2}));
  ASSERT_TRUE(Join(0).ok());
  ASSERT_TRUE(Join(2).ok());
  EXPECT_TRUE(members_[0]->log.empty());
  ASSERT_TRUE(Join(1).ok());
  EXPECT_EQ(members_[0]->log, (std::vector<std::string>{"complete"}));
}

TEST_F(JobStateTest, AStreamThatWasRefusedForItsRankMayBreak) {
  EXPECT_FALSE(Join(-1).ok());
  EXPECT_FALSE(Join(1 << 30).ok());
  job_.Disconnect(-1, 0);
  job_.Disconnect(1 << 30, 0);
  JoinAll();
  EXPECT_EQ(members_[0]->log, (std::vector<std::string>{"complete"}));
}

TEST_F(JobStateTest, AForgottenLookupIsNeverTold) {
  JoinAll();
  int told = 0;
  const uint64_t first = job_.Lookup("k", [&](auto) { told += 1; });
  const uint64_t second = job_.Lookup("k", [&](auto) { told += 10; });
  EXPECT_NE(first, second);
  job_.ForgetLookup("k", first);
  EXPECT_TRUE(job_.Publish("k", "v").ok());
  EXPECT_EQ(told, 10);
  EXPECT_EQ(job_.Lookup("k", [&](auto) { told += 100; }), 0u);
  job_.ForgetLookup("k", second);
  EXPECT_EQ(told, 110);
}

TEST_F(JobStateTest, AMemberThatDoesNotReadGetsNoMoreNotifications) {
  JoinAll();
  EXPECT_TRUE(job_.Notify(0, 1, "t").ok());
  members_[1]->reads = false;
  EXPECT_EQ(job_.Notify(0, 1, "t").code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(JobStateTest, ALateRankHearsOfAnEarlierFailure) {
  ASSERT_TRUE(Join(0).ok());
  job_.DeclareFailed(1, "signal 9");
  ASSERT_TRUE(Join(2).ok());
  EXPECT_EQ(members_[2]->log, (std::vector<std::string>{"failed 1"}));
}

}  // namespace
}  // namespace sumac::transport
