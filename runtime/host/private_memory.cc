// Private memory of the other ranks, by the kernel's copies: process_vm_readv(2). It needs the
// right to trace the process (the same user, and no stricter policy of the machine), so it is tried
// first.

#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "runtime/host/host_group.h"

namespace sumac::runtime {

bool HostGroup::FindsNonce(int peer, uint64_t address, uint64_t nonce) {
  uint64_t found = 0;
  const bool copied = CopyFrom(peer, address, reinterpret_cast<std::byte*>(&found), sizeof found);
  status_ = absl::OkStatus();  // there are other ways
  return copied && found == nonce;
}

bool HostGroup::CopyFrom(int peer, uint64_t address, std::byte* to, size_t bytes) {
  while (bytes > 0) {
    const iovec here{to, bytes};
    const iovec there{reinterpret_cast<void*>(address), bytes};
    const ssize_t copied =
        ::process_vm_readv(members_[static_cast<size_t>(peer)].pid, &here, 1, &there, 1, 0);
    if (copied <= 0) {
      status_ = absl::FailedPreconditionError(
          absl::StrCat("a buffer of rank ", peer, ": process_vm_readv of ", bytes,
                       " bytes: ", copied < 0 ? std::strerror(errno) : "nothing there"));
      return false;
    }
    to += copied;
    address += static_cast<uint64_t>(copied);
    bytes -= static_cast<size_t>(copied);
  }
  return true;
}

}  // namespace sumac::runtime
