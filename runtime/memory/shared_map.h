// Mapping memory files (memfds), so that large pages can back them.
//
// Used by Mapping and PeerMemory. Plain system calls; any thread.
#pragma once

#include <cstddef>

namespace sumac::runtime {

// A size from which large pages are asked for and addresses are aligned to them (2 MiB).
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

// mmap of the first `bytes` of a memfd, shared, for reading and writing. Mappings of at least
// kHugePageBytes begin at a multiple of it, and the kernel is asked for large pages; a kernel that
// gives none is no failure. MAP_FAILED and errno as mmap.
void* MapShared(int fd, size_t bytes);
// Of what MapShared returned, with the same size.
void UnmapShared(void* data, size_t bytes);

}  // namespace sumac::runtime
