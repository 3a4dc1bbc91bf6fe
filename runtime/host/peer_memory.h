// Memory of another process of this host, mapped here: its memfd, opened through /proc.
//
// Used by HostGroup for the areas and registered buffers of the other ranks. /proc/PID/fd/N needs
// no server thread at the owner, and the kernel allows it to the same user only; process and
// descriptor numbers may have changed hands meanwhile, so the file is checked against what its
// owner said of it: device, inode, size, and that the size is sealed (nobody can cut the file short
// under us). Owned by who opened it; the memory lives on when its owner dies. Threads: immutable.
// Failure: FailedPrecondition says what did not fit; PermissionDenied that the kernel refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace sumac::runtime {

// What an owner says of a memfd.
struct MemoryFile {
  int32_t pid = 0;
  int32_t fd = -1;
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t bytes = 0;  // that may be used
};

// Of a descriptor of this process. Internal when it can't be looked at.
absl::StatusOr<MemoryFile> DescribeMemoryFile(int fd, size_t bytes);

class PeerMemory {
 public:
  static absl::StatusOr<PeerMemory> Open(const MemoryFile& file);
  PeerMemory() = default;
  PeerMemory(PeerMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PeerMemory& operator=(PeerMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~PeerMemory();

  std::byte* data() const { return data_; }  // null: nothing mapped
  size_t size() const { return size_; }

 private:
  PeerMemory(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace sumac::runtime
