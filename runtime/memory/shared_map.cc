#include "runtime/memory/shared_map.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#if defined(__SANITIZE_THREAD__)
#include <sys/stat.h>

#include <map>
#include <mutex>
#endif

namespace sumac::runtime {
namespace {

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

}  // namespace

#if defined(__SANITIZE_THREAD__)

// ThreadSanitizer knows memory by its address: ranks on threads of one process have to see a file
// at one address, or it would see neither their races nor what orders them.
namespace {

struct OneMapping {
  void* data = nullptr;
  size_t bytes = 0;
  int users = 0;
};
std::mutex mappings_mutex;
std::map<ino_t, OneMapping> mappings;

}  // namespace

void* MapShared(int fd, size_t bytes) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return MAP_FAILED;
  const std::lock_guard lock(mappings_mutex);
  OneMapping& mapping = mappings[status.st_ino];
  if (mapping.users == 0) {
    mapping.data = MapAligned(fd, bytes);
    mapping.bytes = bytes;
  }
  if (mapping.data == MAP_FAILED || bytes > mapping.bytes) return MAP_FAILED;
  ++mapping.users;
  return mapping.data;
}

void UnmapShared(void* data, size_t) {
  const std::lock_guard lock(mappings_mutex);
  for (auto each = mappings.begin(); each != mappings.end(); ++each) {
    OneMapping& mapping = each->second;
    if (mapping.users == 0 || mapping.data != data || --mapping.users > 0) continue;
    ::munmap(data, mapping.bytes);
    mappings.erase(each);
    return;
  }
}

#else

void* MapShared(int fd, size_t bytes) { return MapAligned(fd, bytes); }
void UnmapShared(void* data, size_t bytes) { ::munmap(data, bytes); }

#endif

}  // namespace sumac::runtime
