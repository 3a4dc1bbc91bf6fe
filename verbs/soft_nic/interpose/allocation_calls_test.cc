// The library of allocation calls, in front of the C library as in a stock program.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

// Whether the address lies in a mapping of the file of shared blocks.
bool IsShared(const void* address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &from, &to) != 2) return false;
    const auto at = reinterpret_cast<uint64_t>(address);
    if (at >= from && at < to) return line.find("sumac_allocations") != std::string::npos;
  }
  return false;
}

TEST(AllocationCalls, PageAlignedBlocksAreShared) {
  void* block = nullptr;
  ASSERT_EQ(posix_memalign(&block, 4096, 10000), 0);
  EXPECT_TRUE(IsShared(block));
  EXPECT_GE(malloc_usable_size(block), 10000u);
  free(block);
  for (void* one : {memalign(4096, 8192), aligned_alloc(4096, 8192), valloc(8192), pvalloc(8192)}) {
    EXPECT_TRUE(IsShared(one));
    free(one);
  }
}

TEST(AllocationCalls, AllOthersAreNot) {
  for (void* one : {malloc(1 << 20), memalign(64, 1 << 20), aligned_alloc(4096, 100), malloc(1)}) {
    ASSERT_NE(one, nullptr);
    EXPECT_FALSE(IsShared(one));
    EXPECT_GE(malloc_usable_size(one), 1u);
    free(one);
  }
  free(nullptr);
  EXPECT_EQ(malloc_usable_size(nullptr), 0u);
}

TEST(AllocationCalls, RefusesAsTheStandardSays) {
  void* block = &block;
  EXPECT_EQ(posix_memalign(&block, 4097, 8192), EINVAL);
  EXPECT_EQ(posix_memalign(&block, 4096, SIZE_MAX / 2), ENOMEM);
  EXPECT_EQ(block, &block) << "as it was";
  errno = 0;
  volatile size_t too_much = SIZE_MAX / 2;
  EXPECT_EQ(memalign(4096, too_much), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  void* volatile kept = valloc(8192);  // volatile: the compiler takes it for freed below
  errno = 0;
  EXPECT_EQ(reallocarray(kept, too_much, 16), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(realloc(kept, too_much), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_GE(malloc_usable_size(kept), 8192u) << "still there";
  free(kept);
}

TEST(AllocationCalls, ReallocKeepsTheContents) {
  auto* block = static_cast<char*>(valloc(8192));
  std::memset(block, 'a', 8192);
  for (const size_t bytes : {size_t{8000}, size_t{100000}, size_t{300}, size_t{9000}}) {
    const size_t kept = std::min<size_t>(bytes, 300);
    block = static_cast<char*>(realloc(block, bytes));
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(std::string(block, kept), std::string(kept, 'a'));
    EXPECT_GE(malloc_usable_size(block), bytes);
  }
  free(block);
  block = static_cast<char*>(reallocarray(valloc(4096), 2, 8192));
  EXPECT_TRUE(IsShared(block));
  volatile size_t nothing = 0;
  EXPECT_EQ(realloc(block, nothing), nullptr);
  auto* const fresh = static_cast<char*>(realloc(nullptr, 10));
  EXPECT_NE(fresh, nullptr);
  free(fresh);
}

TEST(AllocationCalls, OperatorNewAndDelete) {
  void* const block = ::operator new (100000, std::align_val_t{4096});
  EXPECT_TRUE(IsShared(block));
  ::operator delete (block, std::align_val_t{4096});
}

TEST(AllocationCalls, AForkedChildHasItsOwn) {
  auto* const block = static_cast<char*>(valloc(8192));
  std::strcpy(block, "before");
  const pid_t child = fork();
  if (child == 0) {
    const bool same = std::strcmp(block, "before") == 0;
    std::strcpy(block, "child");
    free(block);
    _exit(same ? 0 : 1);
  }
  std::strcpy(block, "parent");  // the child has its copy already
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_STREQ(block, "parent");
  free(block);
}

TEST(AllocationCalls, ThreadsForkAndAllocateAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 20; ++i) {
        auto* const block = static_cast<char*>(valloc(8192));
        block[0] = static_cast<char>(i);
        const pid_t child = fork();
        if (child == 0) _exit(block[0] == static_cast<char>(i) ? 0 : 1);
        int status = 0;
        EXPECT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
        free(block);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Programs free in their handlers of exit; there this library must still be whole.
void* left_for_exit = nullptr;
TEST(AllocationCalls, FreesAtExit) {
  left_for_exit = valloc(8192);
  std::atexit([] { free(left_for_exit); });
}

}  // namespace
