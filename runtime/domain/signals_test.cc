// Signals on the fake fabric.

#include <cstdint>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/domain/signal_table.h"
#include "runtime/testing/fake_job.h"

namespace sumac::runtime {
namespace {

using testing::FakeJob;
using ::testing::HasSubstr;
using testing::SetText;
using testing::Text;

absl::Time Soon() { return absl::Now() + absl::Seconds(10); }
absl::Time VerySoon() { return absl::Now() + absl::Milliseconds(30); }

TEST(SignalTableTest, CountsApart) {
  SignalTable table(3);
  EXPECT_EQ(table.Create().value(), 0u);
  EXPECT_EQ(table.Create().value(), 1u);
  table.Raise(2, EncodeRaise(1, 65535));
  table.Raise(2, EncodeRaise(1, 1));
  table.Raise(0, EncodeRaise(1, 7));
  EXPECT_EQ(table.Value(1, 2), 65536u);
  EXPECT_EQ(table.Value(1, 0), 7u);
  EXPECT_EQ(table.Value(1, 1), 0u);
  EXPECT_EQ(table.Value(0, 2), 0u);
  EXPECT_EQ(table.dropped(), 0u);
}

TEST(SignalTableTest, NonsenseIsDroppedAndCounted) {
  SignalTable table(2);
  ASSERT_TRUE(table.Create().ok());
  table.Raise(0, EncodeRaise(1, 1));      // unknown signal
  table.Raise(2, EncodeRaise(0, 1));      // unknown rank
  table.Raise(-1, EncodeRaise(0, 1));     // unknown rank
  table.Raise(0, EncodeRaise(0, 0));      // by nothing
  table.Raise(0, EncodeRaise(65535, 1));  // the last there can be
  EXPECT_EQ(table.dropped(), 5u);
  EXPECT_EQ(table.Value(0, 0), 0u);
  EXPECT_EQ(table.Value(9, 0), 0u);
  EXPECT_EQ(table.Value(0, 9), 0u);
}

TEST(SignalTableTest, SixtyFourKibiSignals) {
  SignalTable table(1);
  for (uint32_t i = 0; i < kSignalsMax; ++i) ASSERT_EQ(table.Create().value(), i);
  EXPECT_TRUE(absl::IsResourceExhausted(table.Create().status()));
  table.Raise(0, EncodeRaise(65535, 3));
  EXPECT_EQ(table.Value(65535, 0), 3u);
}

struct Pair {
  explicit Pair(const DomainOptions& options = {})
      : job(2, options),
        mine(job[0].Allocate(4096).value()),
        theirs(job[1].Allocate(4096).value()),
        grant(job[1].MakeGrant(theirs, 0, 4096, kRightPut).value()),
        signal(job[1].CreateSignal().value()) {}
  FakeJob job;
  Segment mine;
  Segment theirs;
  Grant grant;
  Signal signal;
};

TEST(SignalTest, RaisedAfterTheBytes) {
  Pair p;
  SetText(p.mine, 0, "payload");
  ASSERT_TRUE(
      p.job[0].PutWithSignal(p.grant.capability(), 5, p.mine.Slice(0, 7), p.signal, 3).ok());
  EXPECT_EQ(p.job[1].SignalValue(p.signal, 0), 0u);
  ASSERT_TRUE(p.job[0].Flush(1).ok());
  ASSERT_TRUE(p.job[1].WaitSignal(p.signal, 0, 3, Soon()).ok());
  EXPECT_EQ(Text(p.theirs, 5, 7), "payload");
  EXPECT_EQ(p.job[1].SignalValue(p.signal, 0), 3u);
  EXPECT_EQ(p.job[1].SignalValue(p.signal, 1), 0u);
}

TEST(SignalTest, WithoutBytes) {
  Pair p;
  ASSERT_TRUE(p.job[0].PutWithSignal(p.grant.capability(), 0, {}, p.signal).ok());
  ASSERT_TRUE(p.job[0].RaiseSignal(p.signal, 65535).ok());
  ASSERT_TRUE(p.job[0].Flush(1).ok());
  ASSERT_TRUE(p.job[1].WaitSignal(p.signal, 0, 65536, Soon()).ok());
}

TEST(SignalTest, OnItself) {
  Pair p;
  SetText(p.theirs, 100, "own");
  ASSERT_TRUE(
      p.job[1].PutWithSignal(p.grant.capability(), 0, p.theirs.Slice(100, 3), p.signal).ok());
  ASSERT_TRUE(p.job[1].RaiseSignal(p.signal, 4).ok());
  EXPECT_EQ(p.job[1].SignalValue(p.signal, 1), 5u);
  EXPECT_EQ(Text(p.theirs, 0, 3), "own");
  EXPECT_TRUE(p.job[1].WaitSignal(p.signal, 1, 5, absl::InfinitePast()).ok());
  EXPECT_GT(p.job[1].SignalRoom(1).value(), 1000u);
}

TEST(SignalTest, BadArguments) {
  Pair p;
  const Capability& c = p.grant.capability();
  const auto code = [&](const Signal& signal, uint16_t increment) {
    return p.job[0].PutWithSignal(c, 0, p.mine.Slice(0, 1), signal, increment).status().code();
  };
  EXPECT_EQ(code(p.signal, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.rank = 0, .id = 0}, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.rank = 1, .id = 65536}, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(p.job[0].RaiseSignal({.rank = 2, .id = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(p.job[0].RaiseSignal({.rank = -1, .id = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::IsInvalidArgument(p.job[0].WaitSignal(p.signal, 1, 1, Soon())));
  EXPECT_TRUE(absl::IsInvalidArgument(p.job[1].WaitSignal({.rank = 1, .id = 5}, 0, 1, Soon())));
  EXPECT_TRUE(absl::IsInvalidArgument(p.job[1].WaitSignal(p.signal, 2, 1, Soon())));
  EXPECT_EQ(p.job.fabric.operations(), 0u);
}

TEST(SignalTest, UnknownOnesAreDropped) {
  Pair p;
  ASSERT_TRUE(p.job[0].RaiseSignal({.rank = 1, .id = 77}).ok());
  ASSERT_TRUE(p.job[0].Flush().ok());
  p.job[1].Progress();
  EXPECT_EQ(p.job[1].dropped_signals(), 1u);
}

TEST(SignalTest, AWaitThatEndsNamesRankAndSignal) {
  Pair p;
  const absl::Status status = p.job[1].WaitSignal(p.signal, 0, 9, VerySoon());
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(status.message(),
              HasSubstr("signal 0 of rank 1 waits for rank 0 to raise it to 9; it is at 0"));
}

TEST(SignalTest, AFailedRankEndsTheWait) {
  Pair p;
  p.job.fabric.FailRank(0, "killed");
  const absl::Status status = p.job[1].WaitSignal(p.signal, 0, 1, absl::Now() + absl::Hours(1));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(transport::FailedRankOf(status), 0);
}

TEST(SignalTest, ABrokenConnectionEndsTheWait) {
  Pair p;
  const Signal other = p.job[0].CreateSignal().value();
  ASSERT_TRUE(p.job[1].RaiseSignal(other).ok());  // connects 1 to 0
  p.job.fabric.BreakConnection(1, 0, absl::UnavailableError("retries exhausted"));
  const absl::Status status = p.job[1].WaitSignal(p.signal, 0, 1, absl::Now() + absl::Hours(1));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("retries exhausted"));
}

TEST(SignalTest, CreditsHoldBackWhoIsTooFast) {
  DomainOptions options;
  options.worker.receive_depth = 4;
  options.timeout = absl::Milliseconds(50);
  Pair p(options);
  EXPECT_EQ(p.job[0].SignalRoom(1).value(), 4u);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(p.job[0].RaiseSignal(p.signal).ok());
  EXPECT_EQ(p.job[0].SignalRoom(1).value(), 0u);
  const absl::Status status = p.job[0].RaiseSignal(p.signal).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("rank 1"));
  EXPECT_THAT(status.message(), HasSubstr("takes no more signals"));
  // Puts without signal need no credit.
  EXPECT_TRUE(p.job[0].Put(p.grant.capability(), 0, p.mine.Slice(0, 8)).ok());
  ASSERT_TRUE(p.job[1].WaitSignal(p.signal, 0, 4, Soon()).ok());
  EXPECT_TRUE(p.job[0].RaiseSignal(p.signal).ok());
}

TEST(SignalTest, AForgedPutRaisesNothing) {
  Pair p;
  Capability forged = p.grant.capability();
  forged.rkey ^= 4;
  ASSERT_TRUE(p.job[0].PutWithSignal(forged, 0, p.mine.Slice(0, 8), p.signal).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(p.job[0].Flush(1)));
  p.job[1].Progress();
  EXPECT_EQ(p.job[1].SignalValue(p.signal, 0), 0u);
  const auto own = p.job[1].PutWithSignal(forged, 0, p.theirs.Slice(0, 8), p.signal);
  EXPECT_TRUE(absl::IsPermissionDenied(own.status()));
  EXPECT_EQ(p.job[1].SignalValue(p.signal, 1), 0u);
}

}  // namespace
}  // namespace sumac::runtime
