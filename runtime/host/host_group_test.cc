// Ranks that share memory, on threads of one process; what they do with each other's mistakes.
#include "runtime/host/host_group.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/host/host_record.h"
#include "transport/testing/fake_bootstrap.h"

namespace sumac::runtime {
namespace {

using ::testing::HasSubstr;
using transport::FakeJob;

constexpr size_t kAreaBytes = 4096;

HostGroupOptions Options(const std::string& name = "test") {
  HostGroupOptions options;
  options.name = name;
  options.area_bytes = kAreaBytes;
  return options;
}

// A flag at the beginning of a rank's area.
HostFlag& FlagOf(const HostGroup& group, int rank) {
  return *reinterpret_cast<HostFlag*>(group.area(rank));
}

using Create = std::function<absl::StatusOr<std::shared_ptr<HostGroup>>(int rank)>;
std::vector<absl::StatusOr<std::shared_ptr<HostGroup>>> CreateAll(int ranks, const Create& create) {
  std::vector<absl::StatusOr<std::shared_ptr<HostGroup>>> groups(static_cast<size_t>(ranks),
                                                                 absl::UnknownError("not made"));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] { groups[static_cast<size_t>(rank)] = create(rank); });
  }
  for (std::thread& thread : threads) thread.join();
  return groups;
}

class HostGroupTest : public ::testing::Test {
 protected:
  static constexpr int kRanks = 3;
  void SetUp() override {
    auto made =
        CreateAll(kRanks, [&](int rank) { return HostGroup::Create(job_.rank(rank), Options()); });
    for (auto& each : made) {
      ASSERT_TRUE(each.ok()) << each.status();
      groups_.push_back(*std::move(each));
    }
  }
  HostGroup& group(int rank) { return *groups_[static_cast<size_t>(rank)]; }

  FakeJob job_{kRanks};
  std::vector<std::shared_ptr<HostGroup>> groups_;
};

TEST_F(HostGroupTest, AreasAreTheSameMemoryForAll) {
  for (int owner = 0; owner < kRanks; ++owner) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(group(owner).area(owner)) % kCacheLineBytes, 0u);
    group(owner).area(owner)[kAreaBytes - 1] = static_cast<std::byte>(owner + 1);
  }
  for (int reader = 0; reader < kRanks; ++reader) {
    for (int owner = 0; owner < kRanks; ++owner) {
      EXPECT_EQ(group(reader).area(owner)[kAreaBytes - 1], static_cast<std::byte>(owner + 1));
      EXPECT_EQ(group(reader).area(owner)[0], std::byte{0});
    }
  }
}

TEST_F(HostGroupTest, PublishedIsSeenWithWhatWasWrittenBefore) {
  std::thread writer([&] {
    for (uint64_t i = 1; i <= 2000; ++i) {
      group(0).area(0)[64] = static_cast<std::byte>(i & 0xff);
      group(0).Publish(FlagOf(group(0), 0), i);
      group(0).Begin(absl::Seconds(20));
      ASSERT_TRUE(group(0).Await(FlagOf(group(0), 1), i, 1)) << group(0).status();
    }
  });
  for (uint64_t i = 1; i <= 2000; ++i) {
    group(1).Begin(absl::Seconds(20));
    ASSERT_TRUE(group(1).Await(FlagOf(group(1), 0), i, 0)) << group(1).status();
    ASSERT_EQ(group(1).area(0)[64], static_cast<std::byte>(i & 0xff));
    group(1).Publish(FlagOf(group(1), 1), i);
  }
  writer.join();
}

TEST_F(HostGroupTest, DeadlineFailureAndLeavingEndAWait) {
  group(0).Begin(absl::Milliseconds(20));
  EXPECT_FALSE(group(0).Await(FlagOf(group(0), 2), 1, 2));
  EXPECT_EQ(group(0).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(group(0).status().message()), HasSubstr("rank 2"));

  group(2).Publish(FlagOf(group(2), 2), 1);
  group(2).Leave();
  group(0).Begin(absl::Seconds(20));
  EXPECT_TRUE(group(0).Await(FlagOf(group(0), 2), 1, 2));  // what it did before counts
  EXPECT_FALSE(group(0).Await(FlagOf(group(0), 2), 2, 2));
  EXPECT_EQ(group(0).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(group(0).status().message()), HasSubstr("rank 2 has left"));

  job_.Fail(1, "killed");  // the reason counts more than that a rank left
  group(0).Begin(absl::Seconds(20));
  EXPECT_FALSE(group(0).Await(FlagOf(group(0), 2), 2, 2));
  EXPECT_EQ(transport::FailedRankOf(group(0).status()), 1);
}

TEST_F(HostGroupTest, RegionsAreMappedOnceAndForgottenWhenWithdrawn) {
  const auto mapping = Mapping::Create("test", 10'000);
  ASSERT_TRUE(mapping.ok());
  (*mapping)->data()[9'999] = std::byte{7};
  const RegionRef ref = group(0).AnnounceRegion((*mapping)->fd(), (*mapping)->size());
  ASSERT_TRUE(ref.valid());
  const std::byte* const seen = group(1).Reach(0, ref, 9'999, 1);
  ASSERT_NE(seen, nullptr) << group(1).status();
  EXPECT_EQ(*seen, std::byte{7});
  EXPECT_EQ(group(1).Reach(0, ref, 0, 10'000) + 9'999, seen);
  EXPECT_EQ(group(1).mapped_regions(), 1);

  group(0).WithdrawRegion(ref);
  group(0).WithdrawRegion(ref);  // idempotent
  EXPECT_EQ(group(0).withdrawals(), 1u);
  group(1).ForgetWithdrawn(0, group(0).withdrawals());
  EXPECT_EQ(group(1).mapped_regions(), 0);
  EXPECT_EQ(group(1).Reach(0, ref, 0, 1), nullptr);

  const auto other = Mapping::Create("test", 20'000);
  const RegionRef again = group(0).AnnounceRegion((*other)->fd(), (*other)->size());
  EXPECT_EQ(again.slot, ref.slot);
  EXPECT_NE(again.generation, ref.generation);
  EXPECT_NE(group(1).Reach(0, again, 0, 20'000), nullptr);
  EXPECT_EQ(group(1).Reach(0, ref, 0, 1), nullptr);
}

TEST_F(HostGroupTest, PrivateMemoryIsCopied) {
  ASSERT_TRUE(group(0).can_copy()) << "this machine lets no process read another's memory";
  const std::vector<int> theirs = {1, 2, 3, 4};
  std::vector<int> ours(theirs.size());
  const auto copy = [&](const void* from) {
    return group(0).CopyFrom(1, reinterpret_cast<uintptr_t>(from),
                             reinterpret_cast<std::byte*>(ours.data()), sizeof(int) * ours.size());
  };
  ASSERT_TRUE(copy(theirs.data()));
  EXPECT_EQ(ours, theirs);
  EXPECT_FALSE(copy(nullptr));
  EXPECT_EQ(group(0).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(group(0).status().message()),
              HasSubstr("a buffer of rank 1: process_vm_readv of 16 bytes"));
}

TEST_F(HostGroupTest, WhatAPeerAnnouncesIsChecked) {
  const auto mapping = Mapping::Create("test", 10'000);
  const RegionRef ref = group(0).AnnounceRegion((*mapping)->fd(), (*mapping)->size());
  for (const auto& [offset, bytes] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, 10'001}, {10'001, 0}, {9'999, 2}, {UINT64_MAX, 2}, {1, UINT64_MAX}}) {
    EXPECT_EQ(group(1).Reach(0, ref, offset, bytes), nullptr) << offset << " " << bytes;
    EXPECT_THAT(std::string(group(1).status().message()), HasSubstr("a buffer of rank 0"));
  }
  for (const RegionRef& forged :
       {RegionRef{}, RegionRef{kRegionsMax, 1}, RegionRef{ref.slot, 77},
        RegionRef{5, ref.generation}, RegionRef{UINT32_MAX, UINT32_MAX}}) {
    EXPECT_EQ(group(1).Reach(0, forged, 0, 1), nullptr);
  }
}

TEST(HostGroup, OneRefusalIsARefusalForAll) {
  FakeJob job(3);
  const auto groups = CreateAll(3, [&](int rank) {
    HostGroupOptions options = Options();
    if (rank == 1) options.refusal = "not today";
    return HostGroup::Create(job.rank(rank), options);
  });
  for (const auto& each : groups) {
    EXPECT_EQ(each.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(each.status().message(), "rank 1: not today");
  }
}

TEST(HostGroup, AreasOfDifferentSizesAreRefused) {
  FakeJob job(2);
  const auto groups = CreateAll(2, [&](int rank) {
    HostGroupOptions options = Options();
    options.area_bytes += static_cast<size_t>(rank) * 64;
    return HostGroup::Create(job.rank(rank), options);
  });
  for (const auto& each : groups) {
    EXPECT_EQ(each.status().message(), "rank 1: its area has another size");
  }
}

// Says that its area is where there is none of it.
TEST(HostGroup, AnAreaThatCantBeMappedIsARefusalForAll) {
  FakeJob job(2);
  const auto groups = CreateAll(2, [&](int rank) -> absl::StatusOr<std::shared_ptr<HostGroup>> {
    if (rank == 0) return HostGroup::Create(job.rank(0), Options());
    auto record = OwnHost();
    const auto mapping = Mapping::Create("test", 1 << 20);
    record->area = *DescribeMemoryFile((*mapping)->fd(), 1 << 20);
    record->area.inode += 1;
    // What HostGroup::Create would send, but for the area's size, which must be that of rank 0.
    const auto first = job.rank(1).Lookup("exchange/host/test/records/0", absl::Seconds(20));
    record->area.bytes = HostRecord::Parse(*first)->area.bytes;
    const auto records = job.rank(1).Exchange("host/test/records", record->Serialize(), {});
    const auto verdicts = job.rank(1).Exchange("host/test/verdicts", "", absl::Seconds(20));
    return absl::FailedPreconditionError((*verdicts)[0]);
  });
  EXPECT_EQ(groups[0].status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(groups[0].status().message()), HasSubstr("the memory of rank 1: "));
  EXPECT_THAT(std::string(groups[0].status().message()), HasSubstr("is another file by now"));
  EXPECT_THAT(groups[0].status().ToString(), HasSubstr(std::string(groups[1].status().message())));
}

TEST(PeerMemory, InsistsOnASealedMemoryFileOfTheRightIdentity) {
  const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, 8192), 0);
  MemoryFile file = *DescribeMemoryFile(fd, 8192);
  EXPECT_THAT(PeerMemory::Open(file).status().ToString(), HasSubstr("not sealed"));
  ASSERT_EQ(fcntl(fd, 1033 /* F_ADD_SEALS */, 2 /* F_SEAL_SHRINK */), 0);
  EXPECT_TRUE(PeerMemory::Open(file).ok());
  file.bytes = 8193;
  EXPECT_FALSE(PeerMemory::Open(file).ok());
  file.bytes = 0;
  EXPECT_FALSE(PeerMemory::Open(file).ok());
  file.bytes = 8192;
  ++file.device;
  EXPECT_FALSE(PeerMemory::Open(file).ok());
  close(fd);
  EXPECT_FALSE(PeerMemory::Open(file).ok());
  file.pid = -1;
  EXPECT_FALSE(PeerMemory::Open(file).ok());

  std::array<int, 2> pipe_ends{};
  ASSERT_EQ(pipe(pipe_ends.data()), 0);
  EXPECT_FALSE(
      PeerMemory::Open(*DescribeMemoryFile(pipe_ends[0], 4096)).ok());  // and does not hang
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST(HostRecord, ReadsWhatItWrites) {
  auto record = OwnHost();
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_FALSE(record->cpus.empty());
  record->area = {12, 34, 56, 78, 90};
  record->nonce = UINT64_MAX;
  record->nonce_address = UINT64_MAX - 1;
  record->asymmetric_fence = true;
  record->refusal = "because of  this ";
  const auto parsed = HostRecord::Parse(record->Serialize());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Serialize(), record->Serialize());
  EXPECT_EQ(parsed->refusal, record->refusal);
  EXPECT_EQ(HostRecord::Parse(HostRecord().Serialize())->host, "");
  const std::string whole = record->Serialize();
  const size_t refusal = whole.size() - record->refusal.size() - 1;
  for (size_t length = 0; length < refusal; ++length) {
    EXPECT_FALSE(HostRecord::Parse(whole.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(HostRecord::Parse("sumac-host-0" + whole.substr(12)).ok());
}

TEST(HostRecord, SaysWhyRanksAreApart) {
  const HostRecord first = *OwnHost();
  EXPECT_EQ(WhyApart(first, first), "");
  HostRecord other = first;
  other.host = "x";
  EXPECT_EQ(WhyApart(first, other), "it is on another host");
  other = first;
  ++other.user;
  EXPECT_EQ(WhyApart(first, other), "it is another user's");
  other = first;
  ++other.pid_namespace;
  EXPECT_THAT(WhyApart(first, other), HasSubstr("pid namespace"));
}

TEST(HostRecord, CountsTheCpusOfAll) {
  EXPECT_EQ(CountCpus({}), 0);
  EXPECT_EQ(CountCpus({"1", "1"}), 1);
  EXPECT_EQ(CountCpus({"1", "2", "0001"}), 3);
  EXPECT_EQ(CountCpus({"ff", "f"}), 8);
  EXPECT_EQ(CountCpus({"zz"}), 0);
}

}  // namespace
}  // namespace sumac::runtime
