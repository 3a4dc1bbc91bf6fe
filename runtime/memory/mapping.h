// Anonymous memory that has a file descriptor: what segments are made of.
//
// A memfd of sealed size, so that peers on the same host can map it, too (runtime/host). Zeroed,
// page-aligned, and faulted in when it is made: the first remote write neither waits for a page nor
// meets an empty machine. Owned by segments and their grants together (shared_ptr). Threads:
// immutable. Failure: InvalidArgument for 0 bytes; ResourceExhausted says which limit and what to
// try.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace sumac::runtime {

class Mapping {
 public:
  // `name` is what /proc/PID/maps shows.
  static absl::StatusOr<std::shared_ptr<Mapping>> Create(const std::string& name, size_t bytes);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }  // as asked for; the mapping is whole pages
  int fd() const { return fd_; }

 private:
  Mapping(int fd, std::byte* data, size_t size, size_t mapped)
      : fd_(fd), data_(data), size_(size), mapped_(mapped) {}

  int fd_;
  std::byte* data_;
  size_t size_;
  size_t mapped_;
};

}  // namespace sumac::runtime
