#include "runtime/memory/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/memory/shared_map.h"

// Linux 5.14; older headers lack it.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
// Linux 3.17 and 4.9; the C library has them only with its own extensions.
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SEAL 0x0001
#define F_SEAL_SHRINK 0x0002
#define F_SEAL_GROW 0x0004
#endif

namespace sumac::runtime {
namespace {

absl::Status Exhausted(size_t bytes, absl::string_view call, int error, absl::string_view advice) {
  return absl::ResourceExhaustedError(absl::StrCat("no segment of ", bytes, " bytes: ", call, ": ",
                                                   std::strerror(error), "; ", advice));
}

size_t LimitOf(int resource) {
  rlimit limit{};
  if (::getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 ||
      limit.rlim_cur == RLIM_INFINITY) {
    return std::numeric_limits<size_t>::max();
  }
  return limit.rlim_cur;
}

// A memfd is made without reserving anything, so sizes that can't work must be found out here: the
// alternatives are SIGXFSZ from ftruncate and SIGBUS at some later write.
absl::Status CheckSize(size_t bytes, size_t page) {
  if (bytes == 0) return absl::InvalidArgumentError("a segment of 0 bytes: ask for at least one");
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const size_t machine =
      pages > 0 ? static_cast<size_t>(pages) * page : std::numeric_limits<size_t>::max() / 2;
  if (bytes > machine) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no segment of ", bytes, " bytes: this machine has ", machine));
  }
  if (const size_t limit = LimitOf(RLIMIT_FSIZE); (bytes + page - 1) / page * page > limit) {
    return absl::ResourceExhaustedError(absl::StrCat("no segment of ", bytes,
                                                     " bytes: the limit of file sizes is ", limit,
                                                     "; raise it (ulimit -f)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<Mapping>> Mapping::Create(const std::string& name, size_t bytes) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  if (absl::Status size = CheckSize(bytes, page); !size.ok()) return size;
  const size_t mapped = (bytes + page - 1) / page * page;
  // The kernel takes names up to 249 bytes.
  const int fd = ::memfd_create(name.substr(0, 200).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Exhausted(bytes, "memfd_create", errno, "raise ulimit -n");
  if (::ftruncate(fd, static_cast<off_t>(mapped)) != 0) {
    const int error = errno;
    ::close(fd);
    return Exhausted(bytes, "ftruncate", error, "ask for less");
  }
  // Peers on the same host map only what can't shrink under their hands.
  if (::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const int error = errno;
    ::close(fd);
    return Exhausted(bytes, "sealing a memfd", error, "use Linux 3.17 or newer");
  }
  void* data = MapShared(fd, mapped);
  if (data == MAP_FAILED) {
    const int error = errno;
    ::close(fd);
    return Exhausted(bytes, "mmap", error, "raise ulimit -v, or ask for less");
  }
  std::shared_ptr<Mapping> mapping(new Mapping(fd, static_cast<std::byte*>(data), bytes, mapped));
  // EINVAL: a kernel before 5.14; pages then come at their first use.
  if (::madvise(data, mapped, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) {
    return Exhausted(bytes, "madvise", errno, "the machine or its cgroup is out of memory");
  }
  return mapping;
}

Mapping::~Mapping() {
  UnmapShared(data_, mapped_);
  ::close(fd_);
}

}  // namespace sumac::runtime
