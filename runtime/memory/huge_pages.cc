#include "runtime/memory/huge_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace sumac::runtime {

void* MapAligned(int fd, size_t bytes) {
  constexpr int kAccess = PROT_READ | PROT_WRITE;
  if (bytes < kHugePageBytes) return ::mmap(nullptr, bytes, kAccess, MAP_SHARED, fd, 0);
  // Address space for any alignment first, then the file over an aligned part of it.
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t mapped = (bytes + page - 1) / page * page;
  const size_t reserved = mapped + kHugePageBytes;
  void* space =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return MAP_FAILED;
  auto* const begin = static_cast<char*>(space);
  const size_t skip =
      (kHugePageBytes - reinterpret_cast<uintptr_t>(begin) % kHugePageBytes) % kHugePageBytes;
  void* data = ::mmap(begin + skip, bytes, kAccess, MAP_SHARED | MAP_FIXED, fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    ::munmap(space, reserved);
    errno = error;
    return MAP_FAILED;
  }
  if (skip > 0) ::munmap(begin, skip);
  if (const size_t rest = reserved - skip - mapped; rest > 0) {
    ::munmap(begin + skip + mapped, rest);
  }
  (void)::madvise(data, mapped, MADV_HUGEPAGE);
  return data;
}

}  // namespace sumac::runtime
