// What the library of files (rdma_cm_file.cc) calls for /dev/infiniband/rdma_cm: a way into this
// library, which has the soft NIC in it.

#include <sys/types.h>

#include <cstddef>

#include "verbs/soft_nic/device/control_path.h"

#define SUMAC_EXPORT extern "C" __attribute__((visibility("default")))

// NOLINTBEGIN(readability-identifier-naming): names that dlsym finds
SUMAC_EXPORT int sumac_rdma_cm_open(int flags) {
  return sumac::soft_nic::OpenConnectionManager(flags);
}

SUMAC_EXPORT ssize_t sumac_rdma_cm_write(int fd, const void* command, size_t bytes) {
  return sumac::soft_nic::WriteConnectionManager(fd, command, bytes);
}

SUMAC_EXPORT void sumac_rdma_cm_close(int fd) { sumac::soft_nic::CloseConnectionManager(fd); }
// NOLINTEND(readability-identifier-naming)

namespace {

// As the kernel does when a program ends, peers are told that its connections are gone.
__attribute__((destructor)) void Leave() { sumac::soft_nic::LeaveConnectionManager(); }

}  // namespace
