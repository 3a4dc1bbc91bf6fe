#include "verbs/soft_nic/interpose/shared_allocations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "verbs/soft_nic/local/shared_files.h"

namespace sumac::soft_nic::interpose {
namespace {

using testing::AnyOf;
using testing::Each;
using testing::HasSubstr;

constexpr size_t kRange = size_t{1} << 30;

class SharedAllocationsTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(blocks_->Open(kRange)) << blocks_->reason(); }
  char* Take(size_t bytes, size_t alignment = 4096) {
    return static_cast<char*>(blocks_->Allocate(alignment, bytes));
  }
  // The exit status of a child that runs `in_child` after the handlers.
  template <typename Function, typename InParent>
  int Fork(Function in_child, InParent in_parent) {
    std::array<int, 2> go{};
    EXPECT_EQ(pipe(go.data()), 0);
    blocks_->BeforeFork();
    const pid_t child = fork();
    if (child == 0) {
      blocks_->AfterForkInChild();
      close(go[1]);
      char word = 0;
      if (read(go[0], &word, 1) < 0) _exit(99);  // until the parent has done its part
      _exit(in_child());
    }
    blocks_->AfterForkInParent();
    in_parent();
    close(go[1]);
    close(go[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::unique_ptr<SharedAllocations> blocks_ = std::make_unique<SharedAllocations>();
};

TEST_F(SharedAllocationsTest, PeersCanMapABlock) {
  char* const block = Take(20000);
  ASSERT_NE(block, nullptr);
  SharedFiles files;
  const SharedPlace place = files.Find(block, 20000);
  EXPECT_NE(place.file, 0u);
  char* const other = Take(4096);
  EXPECT_EQ(files.Find(other, 4096).file, place.file) << "one descriptor for all";
  files.Release(place);
  files.Release(place);
}

TEST_F(SharedAllocationsTest, TakesWhatIsLargeEnough) {
  EXPECT_EQ(Take(4095), nullptr);
  EXPECT_EQ(Take(0), nullptr);
  EXPECT_EQ(Take(SIZE_MAX), nullptr);
  EXPECT_EQ(Take(kRange), nullptr) << "no room for a free page behind it";
  EXPECT_NE(Take(4096), nullptr);
  EXPECT_EQ(blocks_->blocks(), 1u);
}

TEST_F(SharedAllocationsTest, AlignsAndStartsWithZeros) {
  for (const size_t alignment : {size_t{4096}, size_t{65536}, size_t{2} << 20}) {
    char* const block = Take(5000, alignment);
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % alignment, 0u);
    EXPECT_TRUE(blocks_->Owns(block));
    EXPECT_EQ(blocks_->UsableBytes(block), 8192u);
    EXPECT_TRUE(std::all_of(block, block + 8192, [](char c) { return c == 0; }));
  }
  int here = 0;
  EXPECT_FALSE(blocks_->Owns(&here));
  EXPECT_FALSE(blocks_->Owns(nullptr));
}

TEST_F(SharedAllocationsTest, WhatIsFreedIsUsedAgainAndEmpty) {
  char* const first = Take(8192);
  char* const second = Take(8192);
  std::memset(first, 'x', 8192);
  blocks_->Free(first);
  EXPECT_EQ(blocks_->blocks(), 1u);
  char* const third = Take(4096);
  EXPECT_EQ(third, first);
  EXPECT_EQ(third[0], 0) << "its memory went back to the system";
  char* const fourth = Take(20000);
  EXPECT_GT(fourth, second) << "too large for the gap";
  blocks_->Free(second);
  blocks_->Free(third);
  blocks_->Free(fourth);
  EXPECT_EQ(blocks_->blocks(), 0u);
}

TEST_F(SharedAllocationsTest, FreeKeepsErrno) {
  char* const block = Take(8192);
  errno = EXDEV;
  blocks_->Free(block);
  EXPECT_EQ(errno, EXDEV);
}

TEST_F(SharedAllocationsTest, NoMoreThanTheCap) {
  std::vector<char*> all;
  for (size_t i = 0; i < SharedAllocations::kBlocksMax; ++i) all.push_back(Take(4096));
  EXPECT_THAT(all, Each(testing::NotNull()));
  errno = 0;
  EXPECT_EQ(Take(4096), nullptr);
  EXPECT_EQ(errno, 0);
  blocks_->Free(all[77]);
  EXPECT_EQ(Take(4096), all[77]);
}

TEST_F(SharedAllocationsTest, FitsSaysWhetherToStay) {
  char* const block = Take(16384);
  EXPECT_TRUE(blocks_->Fits(block, 16384));
  EXPECT_TRUE(blocks_->Fits(block, 8192));
  EXPECT_FALSE(blocks_->Fits(block, 16385));
  EXPECT_FALSE(blocks_->Fits(block, 4096)) << "most would be wasted";
}

TEST_F(SharedAllocationsTest, AnAddressThatIsNoBlocksEndsTheProcess) {
  char* const block = Take(16384);
  EXPECT_DEATH(blocks_->Free(block + 4096), HasSubstr("no block's"));
  blocks_->Free(block);
  EXPECT_DEATH(blocks_->Free(block), HasSubstr("no block's")) << "twice";
}

TEST_F(SharedAllocationsTest, ThreadsAllocateAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 200; ++i) {
        char* const block = Take(4096 + static_cast<size_t>(i % 5) * 4096);
        block[0] = static_cast<char>(t);
        block[4095] = static_cast<char>(i);
        EXPECT_EQ(block[0], t);
        EXPECT_EQ(block[4095], static_cast<char>(i));
        blocks_->Free(block);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(blocks_->blocks(), 0u);
}

TEST_F(SharedAllocationsTest, AChildAndItsParentDoNotSeeEachOther) {
  char* const block = Take(3 * 4096);
  char* const untouched = Take(8192);
  std::strcpy(block, "before");
  block[2 * 4096 + 5] = 7;  // the page between is a hole of the file
  const int status = Fork(
      [&] {
        if (std::strcmp(block, "before") != 0 || block[2 * 4096 + 5] != 7 || block[4096] != 0) {
          return 1;
        }
        if (untouched[0] != 0) return 2;
        std::strcpy(block, "child");
        untouched[0] = 1;
        blocks_->Free(block);
        // New blocks are of a file of its own.
        char* const mine = Take(3 * 4096);
        if (mine == nullptr || mine[0] != 0) return 3;
        SharedFiles files;
        if (files.Find(mine, 4096).file == 0) return 4;
        if (files.Find(untouched, 4096).file != 0) return 5;
        std::strcpy(mine, "new");
        return 0;
      },
      [&] {
        std::strcpy(block, "parent");
        untouched[0] = 2;
      });
  EXPECT_EQ(status, 0);
  EXPECT_STREQ(block, "parent");
  EXPECT_EQ(untouched[0], 2);
}

TEST_F(SharedAllocationsTest, AChildsChildHasCopiesToo) {
  char* const old = Take(4096);
  old[0] = 1;
  const int status = Fork(
      [&] {
        char* const young = Take(4096);
        young[0] = 2;
        const int below = Fork(
            [&] {
              const bool same = old[0] == 1 && young[0] == 2;
              old[0] = young[0] = 9;
              return same ? 0 : 1;
            },
            [] {});
        return below == 0 && old[0] == 1 && young[0] == 2 ? 0 : 1;
      },
      [] {});
  EXPECT_EQ(status, 0);
  EXPECT_EQ(old[0], 1);
}

// Daemons close all descriptors, and open others in their place.
TEST_F(SharedAllocationsTest, LivesWithoutItsDescriptor) {
  char* const block = Take(8192);
  std::strcpy(block, "kept");
  for (int fd = 3; fd < 64; ++fd) close(fd);
  std::array<int, 2> others{};
  ASSERT_EQ(pipe(others.data()), 0);
  EXPECT_EQ(Take(8192), nullptr) << "the ordinary allocator's turn";
  const int status = Fork(
      [&] {
        const bool same = std::strcmp(block, "kept") == 0;
        std::strcpy(block, "child");
        return same ? 0 : 1;
      },
      [] {});
  EXPECT_EQ(status, 0);
  EXPECT_STREQ(block, "kept");
  blocks_->Free(block);
}

TEST(SharedAllocations, WithoutAddressesThereAreNone) {
  const auto blocks = std::make_unique<SharedAllocations>();
  EXPECT_EQ(blocks->Allocate(4096, 8192), nullptr);
  EXPECT_FALSE(blocks->Owns(blocks.get()));
  EXPECT_FALSE(blocks->Open(size_t{1} << 62));
  EXPECT_THAT(blocks->reason(), AnyOf(HasSubstr("ulimit -v"), HasSubstr("ulimit -f")));
  EXPECT_EQ(blocks->Allocate(4096, 8192), nullptr);
  blocks->BeforeFork();
  blocks->AfterForkInParent();
}

TEST(SharedAllocations, WithALimitOnFilesThereAreNone) {
  const auto limited = [] {
    const rlimit small{1 << 20, 1 << 20};
    setrlimit(RLIMIT_FSIZE, &small);
    const auto blocks = std::make_unique<SharedAllocations>();
    _exit(!blocks->Open(kRange) && std::strstr(blocks->reason(), "ulimit -f") != nullptr ? 0 : 1);
  };
  EXPECT_EXIT(limited(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace sumac::soft_nic::interpose
