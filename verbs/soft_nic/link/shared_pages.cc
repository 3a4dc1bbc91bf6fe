#include "verbs/soft_nic/link/shared_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sumac::soft_nic {
namespace {

absl::Status NoMemory(const char* what, size_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("shared memory of ", bytes, " bytes: ", what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<SharedPages> SharedPages::Create(const char* name, size_t bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return NoMemory("memfd_create", bytes);
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return NoMemory("ftruncate", bytes);
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return NoMemory("sealing", bytes);
  }
  return MapAll(std::move(fd), bytes);
}

absl::StatusOr<SharedPages> SharedPages::Map(UniqueFd fd) {
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  struct stat about {};
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(fd.get(), &about) != 0 ||
      about.st_size <= 0) {
    return absl::FailedPreconditionError("not shared memory that keeps its size");
  }
  return MapAll(std::move(fd), static_cast<size_t>(about.st_size));
}

absl::StatusOr<SharedPages> SharedPages::MapAll(UniqueFd fd, size_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return NoMemory("mmap", bytes);
  SharedPages pages;
  pages.fd_ = std::move(fd);
  pages.bytes_ = {static_cast<std::byte*>(at), bytes};
  return pages;
}

SharedPages::~SharedPages() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace sumac::soft_nic
