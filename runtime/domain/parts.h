// Cutting a transfer into operations that a device takes.
//
// Used by one_sided.cc; a template apart from it so that its arithmetic is tested without
// gigabytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "transport/endpoint.h"

namespace sumac::runtime {

// IBTA allows messages of 2^31 bytes (9.3.3.1); half of that keeps every device and counter happy.
inline constexpr uint64_t kPartBytesMax = uint64_t{1} << 30;

// Calls `post(part, where, last)` for each part of a transfer, in order; once when it is empty.
// Returns the first result that is not ok, or the last part's: operations on one endpoint complete
// in order.
template <typename Post>
auto InParts(const transport::LocalSlice& local, const transport::RemoteSlice& remote, Post post) {
  for (size_t done = 0;;) {
    const size_t length = std::min<size_t>(local.length - done, kPartBytesMax);
    const bool last = done + length == local.length;
    const transport::LocalSlice part{static_cast<std::byte*>(local.addr) + done, length,
                                     local.lkey};
    auto posted = post(part, transport::RemoteSlice{remote.addr + done, remote.rkey}, last);
    if (!posted.ok() || last) return posted;
    done += length;
  }
}

}  // namespace sumac::runtime
