// Which file holds the bytes of a memory region, where one does, so that peers on the same host can
// map them.
//
// Only files in memory that are sealed against shrinking count (F_SEAL_SHRINK): the bytes of any
// other may go away under a peer's hands, which would be killed for it (SIGBUS). We hold a
// descriptor of our own of each such file while regions lie in it: the program may close its own.
//
// Owned by HostPeers. Any thread: a mutex, system calls, reading of /proc. Nothing fails: memory of
// which no such file is found is private.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

// `file` 0: the bytes are private to the process.
struct SharedPlace {
  uint64_t file = 0;
  uint32_t fd = 0;    // by which peers open it (/proc/PID/fd)
  uint32_t page = 0;  // of the first byte, in units of kFilePageBytes
};

// Device and inode as one number; never 0. 0: it can't be a shared place.
uint64_t IdentityOfSharedFile(int fd);

class SharedFiles {
 public:
  // Where [start, start + bytes) lies. What is found stays open until it is released.
  SharedPlace Find(const void* start, size_t bytes);
  void Release(const SharedPlace& place);

 private:
  struct Held {
    UniqueFd fd;
    uint32_t regions = 0;
  };

  std::mutex mutex_;
  std::map<uint64_t, Held> held_;  // by identity
};

}  // namespace sumac::soft_nic
