// Memory that several processes of this host have mapped: a memfd that can't shrink.
//
// A peer that maps it checks the seal first: a file that its owner could cut short would be a bus
// error to come. Create and Map are for control paths; the mapping may be used by any thread.
// Failure: ResourceExhausted (the machine's limits, by errno), FailedPrecondition (not such
// memory).
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class SharedPages {
 public:
  SharedPages() = default;
  // Zeroed; `name` is what /proc/PID/maps shows.
  static absl::StatusOr<SharedPages> Create(const char* name, size_t bytes);
  // What another process created, whole.
  static absl::StatusOr<SharedPages> Map(UniqueFd fd);
  SharedPages(SharedPages&& other) noexcept
      : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}
  SharedPages& operator=(SharedPages&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SharedPages();

  std::span<std::byte> bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  static absl::StatusOr<SharedPages> MapAll(UniqueFd fd, size_t bytes);

  UniqueFd fd_;
  std::span<std::byte> bytes_;
};

}  // namespace sumac::soft_nic
