// A byte range of a scatter/gather list, as pieces of memory that may be touched now.
//
// Called by requester and responder for every packet: keys are resolved again each time, because a
// memory region may be deregistered while a message is under way. No state, no allocation.
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

// Resolves [offset, offset + length) of `sges` into `pieces` (room for one piece per sge). Returns
// how many pieces, or -1 when a key, range or right refuses or the list is too short: then nothing
// may be touched.
[[nodiscard]] int ResolveRange(Memory& memory, std::span<const ibv_sge> sges, uint64_t offset,
                               uint64_t length, bool write, std::span<iovec> pieces);

// Copies `bytes` over the pieces, which are exactly as long.
void CopyToPieces(std::span<const iovec> pieces, std::span<const std::byte> bytes);

// Copies `bytes` to [offset, offset + bytes.size()) of the pieces, which are long enough.
void CopyIntoPieces(std::span<const iovec> pieces, size_t offset, std::span<const std::byte> bytes);

}  // namespace sumac::soft_nic
