#include "runtime/host/peer_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/memory/shared_map.h"

// The C library has them only with its own extensions.
#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#define F_SEAL_SHRINK 0x0002
#endif

namespace sumac::runtime {
namespace {

// Closes a descriptor at the end of its scope.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace

absl::StatusOr<MemoryFile> DescribeMemoryFile(int fd, size_t bytes) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return absl::InternalError(absl::StrCat("fstat of a memfd: ", std::strerror(errno)));
  }
  MemoryFile file;
  file.pid = ::getpid();
  file.fd = fd;
  file.device = status.st_dev;
  file.inode = status.st_ino;
  file.bytes = bytes;
  return file;
}

absl::StatusOr<PeerMemory> PeerMemory::Open(const MemoryFile& file) {
  const std::string path = absl::StrCat("/proc/", file.pid, "/fd/", file.fd);
  // Non-blocking: were it a pipe by now, it should not hold us up.
  const Descriptor opened(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (opened.get() < 0) {
    const int error = errno;
    const std::string what = absl::StrCat("open ", path, ": ", std::strerror(error));
    if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(what);
    return absl::FailedPreconditionError(what);
  }
  struct stat status {};
  if (::fstat(opened.get(), &status) != 0 || status.st_dev != file.device ||
      status.st_ino != file.inode) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is another file by now"));
  }
  const int seals = ::fcntl(opened.get(), F_GET_SEALS);
  if (file.bytes == 0 || static_cast<uint64_t>(status.st_size) < file.bytes || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " has ", status.st_size, " bytes, not sealed or less than the ", file.bytes));
  }
  void* data = MapShared(opened.get(), file.bytes);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("mmap of ", path, ", ", file.bytes, " bytes: ", std::strerror(errno)));
  }
  return PeerMemory(static_cast<std::byte*>(data), file.bytes);
}

PeerMemory::~PeerMemory() {
  if (data_ != nullptr) UnmapShared(data_, size_);
}

}  // namespace sumac::runtime
