// Segments, registrations and grants.

#include <cstdint>
#include <utility>
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

TEST(SegmentTest, ZeroedAlignedSliced) {
  FakeJob job(1);
  const auto segment = job[0].Allocate(5000);
  ASSERT_TRUE(segment.ok()) << segment.status();
  EXPECT_EQ(segment->size(), 5000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(segment->data()) % 4096, 0u);
  EXPECT_EQ(Text(*segment, 0, 5000), std::string(5000, '\0'));
  const LocalSlice whole = segment->Slice(0, 5000);
  EXPECT_EQ(whole.addr, segment->data());
  EXPECT_EQ(whole.length, 5000u);
  EXPECT_EQ(segment->Slice(4999, 1).addr, segment->data() + 4999);
  EXPECT_NE(segment->Slice(5000, 0).addr, nullptr);
  for (const auto& [offset, length] : std::vector<std::pair<size_t, size_t>>{
           {0, 5001}, {5000, 1}, {5001, 0}, {~size_t{0}, 2}, {2, ~size_t{0}}}) {
    EXPECT_EQ(segment->Slice(offset, length).addr, nullptr);
    EXPECT_EQ(segment->Slice(offset, length).length, 0u);
  }
}

TEST(SegmentTest, SenselessSizesAreErrors) {
  FakeJob job(1);
  EXPECT_TRUE(absl::IsInvalidArgument(job[0].Allocate(0).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(job[0].Allocate(~size_t{0}).status()));
}

TEST(RegistrationTest, CallersMemory) {
  FakeJob job(1);
  std::vector<char> memory(100);
  const auto registration = job[0].Register(memory.data(), memory.size());
  ASSERT_TRUE(registration.ok()) << registration.status();
  EXPECT_EQ(registration->Slice(10, 90).addr, memory.data() + 10);
  EXPECT_EQ(registration->Slice(10, 91).addr, nullptr);
  EXPECT_TRUE(absl::IsInvalidArgument(job[0].Register(nullptr, 8).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(job[0].Register(memory.data(), 0).status()));
}

TEST(GrantTest, SaysWhatItIs) {
  FakeJob job(2);
  const auto segment = job[1].Allocate(4096);
  const auto first = job[1].MakeGrant(*segment, 0, 100, kRightGet);
  const auto second = job[1].MakeGrant(*segment, 100, 28, kRightPut | kRightAtomic);
  ASSERT_TRUE(first.ok() && second.ok());
  const Capability& c = second->capability();
  EXPECT_EQ(c.rank, 1);
  EXPECT_NE(c.node_epoch, 0u);
  EXPECT_EQ(c.generation, 1u);
  EXPECT_EQ(c.base, reinterpret_cast<uintptr_t>(segment->data()) + 100);
  EXPECT_EQ(c.length, 28u);
  EXPECT_EQ(c.rights, uint32_t{kRightPut | kRightAtomic});
  EXPECT_NE(c.region, first->capability().region);
  EXPECT_NE(c.rkey, first->capability().rkey);
  EXPECT_TRUE(Capability::Parse(c.Serialize()).ok());
}

TEST(GrantTest, BadRangesAndRights) {
  FakeJob job(2);
  const auto segment = job[0].Allocate(100);
  const auto code = [&](size_t offset, size_t length, uint32_t rights) {
    return job[0].MakeGrant(*segment, offset, length, rights).status().code();
  };
  EXPECT_EQ(code(0, 101, kRightGet), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(code(100, 1, kRightGet), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(code(0, 0, kRightGet), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(code(~size_t{0}, 2, kRightGet), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(code(2, ~size_t{0}, kRightGet), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(code(0, 8, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, 8, 8), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(job[1].MakeGrant(*segment, 0, 8, kRightGet).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Whatever is dropped first, the memory stays until the last one is gone, and the NIC forgets it
// before.
TEST(GrantTest, AnyOrderOfDropping) {
  FakeJob job(2);
  auto source = job[0].Allocate(8);
  SetText(*source, 0, "sunlight");
  auto segment = std::make_unique<Segment>(job[1].Allocate(4096).value());
  auto grant = std::make_unique<Grant>(job[1].MakeGrant(*segment, 0, 8, kRightPut).value());
  const Capability capability = grant->capability();
  segment.reset();
  ASSERT_TRUE(job[0].Put(capability, 0, source->Slice(0, 8)).ok());
  EXPECT_TRUE(job[0].Flush(1).ok());
  grant.reset();
  ASSERT_TRUE(job[0].Put(capability, 0, source->Slice(0, 8)).ok());
  const absl::Status refused = job[0].Flush(1);
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  EXPECT_THAT(refused.message(), HasSubstr("rank 1"));
  // The connection is of no more use, and says so from now on.
  EXPECT_TRUE(absl::IsPermissionDenied(job[0].Put(capability, 0, source->Slice(0, 8)).status()));
}

TEST(GrantTest, MovingKeepsItInForce) {
  FakeJob job(2);
  auto source = job[0].Allocate(8);
  auto segment = job[1].Allocate(64);
  std::vector<Grant> grants;
  for (size_t i = 0; i < 8; ++i) {
    grants.push_back(job[1].MakeGrant(*segment, 8 * i, 8, kRightPut).value());
  }
  Segment moved = *std::move(segment);
  for (const Grant& grant : grants) {
    ASSERT_TRUE(job[0].Put(grant.capability(), 0, source->Slice(0, 8)).ok());
  }
  EXPECT_TRUE(job[0].Flush(1).ok());
}

TEST(DomainTest, NamesAreUsedOnce) {
  FakeJob job(1);
  DomainOptions options;
  const auto again = Domain::Adopt(job.fabric.MakeWorker(0), options);
  EXPECT_TRUE(absl::IsAlreadyExists(again.status())) << again.status();
  EXPECT_THAT(again.status().message(), HasSubstr("each name once"));
}

TEST(DomainTest, ThingsMayOutliveTheirDomainForAWhile) {
  FakeJob job(2);
  Segment segment = job[0].Allocate(64).value();
  Grant grant = job[0].MakeGrant(segment, 0, 64, kRightPut).value();
  job.domains[0].reset();
  segment.data()[0] = std::byte{1};
}

}  // namespace
}  // namespace sumac::runtime
