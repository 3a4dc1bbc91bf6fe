// One-sided operations on the fake fabric: what they do, what they refuse, how they wait.

#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/testing/fake_job.h"

namespace sumac::runtime {
namespace {

using testing::FakeJob;
using ::testing::HasSubstr;
using testing::SetText;
using testing::Text;

// Rank 1 of two grants `length` bytes of everything; rank 0 has a segment to work from. `target` 0:
// rank 0 grants to itself.
struct Pair {
  explicit Pair(const DomainOptions& options = {}, int target = 1)
      : job(2, options),
        mine(job[0].Allocate(8192).value()),
        theirs(job[target].Allocate(8192).value()),
        grant(job[target].MakeGrant(theirs, 1024, 4096, kAllRights).value()),
        capability(grant.capability()) {}
  FakeJob job;
  Segment mine;
  Segment theirs;
  Grant grant;
  Capability capability;
};

class EitherRank : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Target, EitherRank, ::testing::Values(0, 1));

TEST_P(EitherRank, PutAndGet) {
  Pair p({}, GetParam());
  SetText(p.mine, 0, "hello");
  const auto put = p.job[0].Put(p.capability, 10, p.mine.Slice(0, 5));
  ASSERT_TRUE(put.ok()) << put.status();
  ASSERT_TRUE(p.job[0].Flush(GetParam()).ok());
  EXPECT_TRUE(p.job[0].Done(GetParam(), *put));
  EXPECT_FALSE(p.job[0].Done(GetParam(), *put + 1));
  EXPECT_EQ(Text(p.theirs, 1024 + 9, 7), std::string("\0hello\0", 7));
  SetText(p.theirs, 1024 + 4092, "tail");
  ASSERT_TRUE(p.job[0].Get(p.capability, 4092, p.mine.Slice(100, 4)).ok());
  ASSERT_TRUE(p.job[0].Flush().ok());
  EXPECT_EQ(Text(p.mine, 99, 6), std::string("\0tail\0", 6));
}

TEST_P(EitherRank, EmptyTransfers) {
  Pair p({}, GetParam());
  EXPECT_TRUE(p.job[0].Put(p.capability, 4096, {}).ok());
  EXPECT_TRUE(p.job[0].Get(p.capability, 0, p.mine.Slice(0, 0)).ok());
  EXPECT_TRUE(p.job[0].Flush().ok());
}

TEST_P(EitherRank, Atomics) {
  Pair p({}, GetParam());
  EXPECT_EQ(p.job[0].FetchAdd(p.capability, 8, 5).value(), 0u);
  EXPECT_EQ(p.job[0].FetchAdd(p.capability, 8, ~uint64_t{0}).value(), 5u);
  EXPECT_EQ(p.job[0].CompareSwap(p.capability, 8, 3, 100).value(), 4u);
  EXPECT_EQ(p.job[0].CompareSwap(p.capability, 8, 4, 100).value(), 4u);
  EXPECT_EQ(p.job[0].FetchAdd(p.capability, 8, 0).value(), 100u);
}

TEST_P(EitherRank, RefusalsBeforeAnythingIsSent) {
  Pair p({}, GetParam());
  Domain& d = p.job[0];
  const LocalSlice eight = p.mine.Slice(0, 8);
  const uint64_t before = p.job.fabric.operations();

  EXPECT_TRUE(absl::IsOutOfRange(d.Put(p.capability, 4089, eight).status()));
  EXPECT_TRUE(absl::IsOutOfRange(d.Get(p.capability, ~uint64_t{0} - 3, eight).status()));
  EXPECT_TRUE(absl::IsOutOfRange(d.FetchAdd(p.capability, 4096, 1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(d.FetchAdd(p.capability, 4, 1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(d.CompareSwap(p.capability, 1, 0, 1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(d.Put(p.capability, 0, p.mine.Slice(8190, 8)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(d.Get(p.capability, 0, p.mine.Slice(8190, 8)).status()));

  Capability c = p.capability;
  c.rights = kRightGet;
  EXPECT_TRUE(absl::IsPermissionDenied(d.Put(c, 0, eight).status()));
  EXPECT_TRUE(absl::IsPermissionDenied(d.FetchAdd(c, 0, 1).status()));
  c.rights = kRightPut;
  EXPECT_TRUE(absl::IsPermissionDenied(d.Get(c, 0, eight).status()));
  c = p.capability;
  c.rank = 2;
  EXPECT_TRUE(absl::IsInvalidArgument(d.Put(c, 0, eight).status()));
  c = p.capability;
  c.node_epoch ^= 1;
  EXPECT_TRUE(absl::IsFailedPrecondition(d.Put(c, 0, eight).status()));
  c = p.capability;
  c.domain += 1;
  EXPECT_TRUE(absl::IsFailedPrecondition(d.Get(c, 0, eight).status()));
  c = p.capability;
  c.generation += 1;
  EXPECT_TRUE(absl::IsFailedPrecondition(d.FetchAdd(c, 0, 1).status()));

  EXPECT_TRUE(d.Flush().ok());
  EXPECT_EQ(p.job.fabric.operations(), before);
  EXPECT_EQ(Text(p.theirs, 0, 8192), std::string(8192, '\0'));
}

// What the client can't tell, the target does. One forgery a job: a refusal ends the connection.
TEST_P(EitherRank, ForgedCapabilitiesAreRefusedAtTheTarget) {
  const std::map<std::string, void (*)(Capability&)> forgeries = {
      {"base before", [](Capability& c) { c.base -= 8; }},
      {"base behind", [](Capability& c) { c.base += 4096; }},
      {"base far", [](Capability& c) { c.base = 0x1000; }},
      {"longer", [](Capability& c) { c.base += 4092, c.length += 8; }},
      {"other key", [](Capability& c) { c.rkey ^= 1; }},
  };
  for (const auto& [name, forge] : forgeries) {
    for (const char* operation : {"put", "get", "add", "swap"}) {
      Pair p({}, GetParam());
      Capability c = p.capability;
      forge(c);
      if (c.base % 8 != 0) c.base += 4;
      SCOPED_TRACE(name + " " + operation);
      const auto forged = Capability::Parse(c.Serialize());
      ASSERT_TRUE(forged.ok()) << "a forger computes the checksum, too";
      SetText(p.mine, 0, "12345678");
      absl::Status status;
      const std::string what = operation;
      if (what == "put") status = p.job[0].Put(*forged, 0, p.mine.Slice(0, 8)).status();
      if (what == "get") status = p.job[0].Get(*forged, 0, p.mine.Slice(0, 8)).status();
      if (what == "add") status = p.job[0].FetchAdd(*forged, 0, 1).status();
      if (what == "swap") status = p.job[0].CompareSwap(*forged, 0, 0, 1).status();
      if (status.ok()) status = p.job[0].Flush();
      EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
      EXPECT_EQ(Text(p.theirs, 0, 8192), std::string(8192, '\0'));
      EXPECT_EQ(Text(p.mine, 0, 8), "12345678");
    }
  }
}

TEST(OneSidedTest, StretchedRightsAreRefusedAtTheTarget) {
  for (const uint32_t granted : {kRightGet, kRightPut, kRightAtomic}) {
    for (const uint32_t used : {kRightGet, kRightPut, kRightAtomic}) {
      Pair p;
      const Grant grant = p.job[1].MakeGrant(p.theirs, 0, 64, granted).value();
      Capability c = grant.capability();
      c.rights = kAllRights;
      absl::Status status;
      if (used == kRightGet) status = p.job[0].Get(c, 0, p.mine.Slice(0, 8)).status();
      if (used == kRightPut) status = p.job[0].Put(c, 0, p.mine.Slice(0, 8)).status();
      if (used == kRightAtomic) status = p.job[0].FetchAdd(c, 0, 1).status();
      if (status.ok()) status = p.job[0].Flush();
      const auto expected =
          granted == used ? absl::StatusCode::kOk : absl::StatusCode::kPermissionDenied;
      EXPECT_EQ(status.code(), expected) << RightsToString(granted) << RightsToString(used);
    }
  }
}

TEST(OneSidedTest, AFullQueueIsProgressed) {
  DomainOptions options;
  options.worker.send_depth = 4;
  Pair p(options);
  for (size_t i = 0; i < 512; ++i) {
    p.mine.data()[i] = static_cast<std::byte>(i % 251);
    ASSERT_TRUE(p.job[0].Put(p.capability, i, p.mine.Slice(i, 1)).ok()) << i;
  }
  ASSERT_TRUE(p.job[0].Flush(1).ok());
  EXPECT_EQ(Text(p.theirs, 1024, 512), Text(p.mine, 0, 512));
}

TEST(OneSidedTest, AQueueThatStaysFullNamesTheRank) {
  DomainOptions options;
  options.worker.send_depth = 4;
  options.timeout = absl::Milliseconds(50);
  Pair p(options);
  ASSERT_TRUE(p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).ok());  // connects
  p.job.fabric.Hold(0, true);
  absl::Status status;
  for (int i = 0; i < 5 && status.ok(); ++i) {
    status = p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).status();
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("rank 1"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(p.job[0].Flush(1)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(p.job[0].FetchAdd(p.capability, 0, 1).status()));
  p.job.fabric.Hold(0, false);
  EXPECT_TRUE(p.job[0].Flush(1).ok());
}

TEST(OneSidedTest, WhoDoesNotConnectIsNamed) {
  DomainOptions options;
  options.timeout = absl::Milliseconds(50);
  Pair p(options);
  p.job.fabric.RefuseConnections(1);
  const absl::Status status = p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("rank 1"));
  EXPECT_TRUE(p.job[0].Flush().ok()) << "nothing was posted";
}

TEST(OneSidedTest, ABrokenConnectionStaysBroken) {
  Pair p;
  ASSERT_TRUE(p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).ok());
  ASSERT_TRUE(p.job[0].Flush().ok());
  p.job.fabric.BreakConnection(0, 1, absl::UnavailableError("retries exhausted"));
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr("rank 1"));
  }
  EXPECT_TRUE(absl::IsUnavailable(p.job[0].FetchAdd(p.capability, 0, 1).status()));
  EXPECT_TRUE(absl::IsUnavailable(p.job[0].SignalRoom(1).status()));
}

TEST(OneSidedTest, ADeadRankIsNamedByItsPayload) {
  Pair p;
  ASSERT_TRUE(p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).ok());
  p.job.fabric.FailRank(1, "killed");
  const absl::Status put = p.job[0].Put(p.capability, 0, p.mine.Slice(0, 1)).status();
  EXPECT_EQ(transport::FailedRankOf(put), 1) << put;
  EXPECT_EQ(transport::FailedRankOf(p.job[0].FetchAdd(p.capability, 0, 1).status()), 1);
  EXPECT_EQ(transport::FailedRankOf(p.job[0].Wait([] { return false; }, absl::InfiniteFuture())),
            1);
}

TEST(OneSidedTest, RanksOutsideTheJob) {
  Pair p;
  for (const int rank : {-1, 2, 1 << 30}) {
    EXPECT_TRUE(absl::IsInvalidArgument(p.job[0].Flush(rank)));
    EXPECT_TRUE(absl::IsInvalidArgument(p.job[0].SignalRoom(rank).status()));
    EXPECT_FALSE(p.job[0].Done(rank, 0));
  }
}

// Random operations of three ranks on everybody's memory, against plain arrays.
TEST(OneSidedTest, TenThousandRandomOperations) {
  constexpr int kRanks = 3;
  constexpr size_t kBytes = 512;
  DomainOptions options;
  options.worker.send_depth = 7;
  FakeJob job(kRanks, options);
  std::vector<Segment> shared;
  std::vector<Segment> local;
  std::vector<Grant> grants;
  std::vector<std::string> model(kRanks, std::string(kBytes, '\0'));
  for (int rank = 0; rank < kRanks; ++rank) {
    shared.push_back(job[rank].Allocate(kBytes).value());
    local.push_back(job[rank].Allocate(kBytes).value());
    grants.push_back(job[rank].MakeGrant(shared.back(), 0, kBytes, kAllRights).value());
  }
  const uint32_t seed = 20260714;
  std::mt19937 random(seed);
  for (int i = 0; i < 10000; ++i) {
    const int from = static_cast<int>(random() % kRanks);
    const int to = static_cast<int>(random() % kRanks);
    const Capability& c = grants[static_cast<size_t>(to)].capability();
    const Segment& mine = local[static_cast<size_t>(from)];
    std::string& memory = model[static_cast<size_t>(to)];
    const size_t offset = random() % kBytes;
    const size_t length = random() % (kBytes - offset + 1);
    const size_t word = random() % (kBytes / 8) * 8;
    uint64_t old = 0;
    std::memcpy(&old, memory.data() + word, 8);
    const uint64_t value = random();
    switch (random() % 4) {
      case 0:
        for (size_t k = 0; k < length; ++k) memory[offset + k] = static_cast<char>(random());
        SetText(mine, offset, memory.substr(offset, length));
        ASSERT_TRUE(job[from].Put(c, offset, mine.Slice(offset, length)).ok());
        ASSERT_TRUE(job[from].Flush(to).ok());
        break;
      case 1:
        ASSERT_TRUE(job[from].Get(c, offset, mine.Slice(0, length)).ok());
        ASSERT_TRUE(job[from].Flush(to).ok());
        ASSERT_EQ(Text(mine, 0, length), memory.substr(offset, length)) << i;
        break;
      case 2: {
        ASSERT_EQ(job[from].FetchAdd(c, word, value).value(), old) << i;
        const uint64_t sum = old + value;
        std::memcpy(memory.data() + word, &sum, 8);
        break;
      }
      default: {
        const uint64_t expected = random() % 2 == 0 ? old : value;
        ASSERT_EQ(job[from].CompareSwap(c, word, expected, value).value(), old) << i;
        if (expected == old) std::memcpy(memory.data() + word, &value, 8);
      }
    }
  }
  for (size_t rank = 0; rank < kRanks; ++rank)
    EXPECT_EQ(Text(shared[rank], 0, kBytes), model[rank]);
}

}  // namespace
}  // namespace sumac::runtime
