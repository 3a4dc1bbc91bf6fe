// What a client finds out by itself, and how transfers are cut.

#include "runtime/domain/access_check.h"

#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/domain/grant_table.h"
#include "runtime/domain/parts.h"

namespace sumac::runtime {
namespace {

using ::testing::HasSubstr;
using transport::LocalSlice;
using transport::RemoteSlice;

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

Capability Example() {
  Capability c;
  c.rank = 1;
  c.node_epoch = 5;
  c.domain = 3;
  c.generation = 1;
  c.rights = kRightPut;
  c.base = 0x1000;
  c.length = 100;
  return c;
}

TEST(CheckAccessTest, Ranges) {
  const Capability c = Example();
  EXPECT_TRUE(CheckAccess(c, kRightPut, 0, 100, 2).ok());
  EXPECT_TRUE(CheckAccess(c, kRightPut, 99, 1, 2).ok());
  EXPECT_TRUE(CheckAccess(c, kRightPut, 100, 0, 2).ok());
  struct Case {
    uint64_t offset;
    uint64_t length;
  };
  for (const Case& bad : std::vector<Case>{{0, 101},
                                           {1, 100},
                                           {100, 1},
                                           {101, 0},
                                           {kMax, 1},
                                           {1, kMax},
                                           {kMax, kMax},
                                           {50, kMax}}) {
    EXPECT_TRUE(absl::IsOutOfRange(CheckAccess(c, kRightPut, bad.offset, bad.length, 2)))
        << bad.offset << " " << bad.length;
  }
}

TEST(CheckAccessTest, RightsRanksAndNonsense) {
  Capability c = Example();
  EXPECT_TRUE(absl::IsPermissionDenied(CheckAccess(c, kRightGet, 0, 1, 2)));
  EXPECT_TRUE(absl::IsPermissionDenied(CheckAccess(c, kRightAtomic, 0, 8, 2)));
  EXPECT_THAT(CheckAccess(c, kRightGet, 0, 1, 2).message(), HasSubstr("get needs"));
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAccess(c, kRightPut, 0, 1, 1)));
  c.rank = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAccess(c, kRightPut, 0, 1, 2)));
  c = Example();
  c.base = kMax - 50;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAccess(c, kRightPut, 0, 1, 2)));
}

TEST(CheckAccessTest, Alignment) {
  Capability c = Example();
  EXPECT_TRUE(CheckAligned(c, 8).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAligned(c, 4)));
  c.base = 0x1004;  // a grant may begin anywhere
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAligned(c, 8)));
  EXPECT_TRUE(CheckAligned(c, 4).ok());
}

TEST(CheckIdentityTest, EveryFieldCounts) {
  const DomainIdentity now{.node_epoch = 5, .domain = 3, .generation = 1};
  EXPECT_TRUE(CheckIdentity(Example(), now).ok());
  Capability c = Example();
  c.node_epoch = 6;
  EXPECT_THAT(CheckIdentity(c, now).message(), HasSubstr("earlier start"));
  c = Example();
  c.domain = 4;
  EXPECT_THAT(CheckIdentity(c, now).message(), HasSubstr("another domain"));
  c = Example();
  c.generation = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckIdentity(c, now)));
}

TEST(DomainIdentityTest, Record) {
  const DomainIdentity identity{.node_epoch = kMax, .domain = 7, .generation = 9};
  const auto parsed = DomainIdentity::Parse(identity.Serialize());
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->node_epoch, kMax);
  EXPECT_EQ(parsed->domain, 7u);
  EXPECT_EQ(parsed->generation, 9u);
  for (const char* bad : {"", "1", "1 2", "1 2 3 4", "x 2 3", "1 2 -3", "1 2 99999999999"}) {
    EXPECT_FALSE(DomainIdentity::Parse(bad).ok()) << bad;
  }
}

TEST(CheckSliceTest, NoBytesAreFineAMissedSliceIsNot) {
  int x = 0;
  EXPECT_TRUE(CheckSlice({}).ok());
  EXPECT_TRUE(CheckSlice({&x, 4, 9}).ok());
  EXPECT_FALSE(CheckSlice({nullptr, 0, 9}).ok());
  EXPECT_FALSE(CheckSlice({nullptr, 4, 0}).ok());
}

TEST(GrantTableTest, RefusesWhatANicRefuses) {
  Capability grant = Example();
  grant.region = 4;
  grant.rkey = 77;
  GrantTable table;
  table.Add(grant);
  EXPECT_TRUE(table.Check(grant, kRightPut, 0x1000, 100).ok());
  EXPECT_TRUE(table.Check(grant, kRightPut, 0x1064, 0).ok());
  EXPECT_FALSE(table.Check(grant, kRightGet, 0x1000, 1).ok());
  EXPECT_FALSE(table.Check(grant, kRightPut, 0x0fff, 1).ok());
  EXPECT_FALSE(table.Check(grant, kRightPut, 0x1064, 1).ok());
  EXPECT_FALSE(table.Check(grant, kRightPut, 0x1001, 100).ok());
  EXPECT_FALSE(table.Check(grant, kRightPut, 0x1001, kMax).ok());
  Capability forged = grant;
  forged.rkey = 78;
  EXPECT_TRUE(absl::IsPermissionDenied(table.Check(forged, kRightPut, 0x1000, 1)));
  table.Remove(4);
  EXPECT_FALSE(table.Check(grant, kRightPut, 0x1000, 1).ok());
}

struct Part {
  uint64_t at;
  size_t length;
  bool last;
  bool operator==(const Part&) const = default;
};

std::vector<Part> Cut(size_t length) {
  std::vector<Part> parts;
  const auto posted = InParts({reinterpret_cast<void*>(500), length, 0}, {.addr = 1000, .rkey = 0},
                              [&](const LocalSlice& part, const RemoteSlice& where, bool last) {
                                EXPECT_EQ(reinterpret_cast<uintptr_t>(part.addr), where.addr - 500);
                                parts.push_back({where.addr, part.length, last});
                                return absl::StatusOr<uint64_t>(parts.size());
                              });
  EXPECT_EQ(posted.value(), parts.size());
  return parts;
}

TEST(InPartsTest, Sizes) {
  constexpr uint64_t kPart = kPartBytesMax;
  EXPECT_EQ(Cut(0), (std::vector<Part>{{1000, 0, true}}));
  EXPECT_EQ(Cut(1), (std::vector<Part>{{1000, 1, true}}));
  EXPECT_EQ(Cut(kPart), (std::vector<Part>{{1000, kPart, true}}));
  EXPECT_EQ(Cut(kPart + 1), (std::vector<Part>{{1000, kPart, false}, {1000 + kPart, 1, true}}));
  EXPECT_EQ(Cut(2 * kPart), (std::vector<Part>{{1000, kPart, false}, {1000 + kPart, kPart, true}}));
}

TEST(InPartsTest, StopsAtTheFirstError) {
  int calls = 0;
  const auto posted =
      InParts({&calls, 3 * kPartBytesMax, 0}, {}, [&](const LocalSlice&, const RemoteSlice&, bool) {
        ++calls;
        return absl::StatusOr<uint64_t>(absl::InternalError("no"));
      });
  EXPECT_FALSE(posted.ok());
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace sumac::runtime
