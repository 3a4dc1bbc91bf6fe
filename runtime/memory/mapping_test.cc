// Memory of segments: what it is, and that a limit gives an error instead of a signal.

#include "runtime/memory/mapping.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::runtime {
namespace {

using ::testing::HasSubstr;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // terabytes of shadow: an address space limit says nothing
#else
constexpr bool kSanitized = false;
#endif

TEST(MappingTest, ZeroedPageAlignedAndNamed) {
  const auto mapping = Mapping::Create("sumac-test-name", 10000);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ((*mapping)->size(), 10000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*mapping)->data()) % 4096, 0u);
  EXPECT_TRUE(std::all_of((*mapping)->data(), (*mapping)->data() + 10000,
                          [](std::byte b) { return b == std::byte{0}; }));
  std::ifstream maps("/proc/self/maps");
  const std::string text{std::istreambuf_iterator<char>(maps), {}};
  EXPECT_THAT(text, HasSubstr("memfd:sumac-test-name"));
}

TEST(MappingTest, IsShared) {
  const auto mapping = Mapping::Create("sumac-test", 1);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  void* other = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, (*mapping)->fd(), 0);
  ASSERT_NE(other, MAP_FAILED);
  (*mapping)->data()[0] = std::byte{42};
  EXPECT_EQ(*static_cast<std::byte*>(other), std::byte{42});
  ::munmap(other, 4096);
}

TEST(MappingTest, LeavesNothingBehind) {
  int fd = -1;
  {
    const auto mapping = Mapping::Create("sumac-test", 4096);
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    fd = (*mapping)->fd();
  }
  struct stat unused {};
  EXPECT_NE(::fstat(fd, &unused), 0);
}

TEST(MappingTest, SenselessSizes) {
  EXPECT_TRUE(absl::IsInvalidArgument(Mapping::Create("sumac-test", 0).status()));
  for (const size_t bytes : {size_t{1} << 50, ~size_t{0}, ~size_t{0} - 4095}) {
    EXPECT_TRUE(absl::IsResourceExhausted(Mapping::Create("sumac-test", bytes).status())) << bytes;
  }
}

TEST(MappingTest, LongNames) { EXPECT_TRUE(Mapping::Create(std::string(1000, 'n'), 1).ok()); }

// In a child: limits can't be raised again. The child's exit code is 0 when `create` failed with
// ResourceExhausted and the text.
int UnderLimit(__rlimit_resource resource, rlim_t limit, size_t bytes, const char* text) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit limits{limit, limit};
    if (::setrlimit(resource, &limits) != 0) ::_exit(2);
    const absl::Status status = Mapping::Create("sumac-test", bytes).status();
    const bool right =
        absl::IsResourceExhausted(status) && absl::StrContains(status.message(), text);
    if (!right) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(MappingTest, LimitsAreErrorsNotSignals) {
  EXPECT_EQ(UnderLimit(RLIMIT_FSIZE, 1 << 20, 2 << 20, "ulimit -f"), 0);
  EXPECT_EQ(UnderLimit(RLIMIT_NOFILE, 3, 4096, "ulimit -n"), 0);
  if (!kSanitized) {
    EXPECT_EQ(UnderLimit(RLIMIT_AS, size_t{256} << 20, size_t{512} << 20, "ulimit -v"), 0);
  }
}

}  // namespace
}  // namespace sumac::runtime
