#include "verbs/soft_nic/engine/scatter_gather.h"

#include <algorithm>

#include "verbs/soft_nic/engine/placement.h"

namespace sumac::soft_nic {

int ResolveRange(Memory& memory, std::span<const ibv_sge> sges, uint64_t offset, uint64_t length,
                 bool write, std::span<iovec> pieces) {
  int count = 0;
  for (const ibv_sge& sge : sges) {
    if (length == 0) break;
    if (offset >= sge.length) {
      offset -= sge.length;
      continue;
    }
    const uint64_t here = std::min<uint64_t>(sge.length - offset, length);
    std::byte* bytes = memory.Local(sge.lkey, sge.addr + offset, here, write);
    if (bytes == nullptr) return -1;
    pieces[count++] = iovec{bytes, here};
    offset = 0;
    length -= here;
  }
  return length == 0 ? count : -1;
}

void CopyToPieces(std::span<const iovec> pieces, std::span<const std::byte> bytes) {
  size_t done = 0;
  for (const iovec& piece : pieces) {
    PlaceBytes(static_cast<std::byte*>(piece.iov_base), bytes.data() + done, piece.iov_len);
    done += piece.iov_len;
  }
}

void CopyIntoPieces(std::span<const iovec> pieces, size_t offset,
                    std::span<const std::byte> bytes) {
  for (const iovec& piece : pieces) {
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const size_t here = std::min(piece.iov_len - offset, bytes.size());
    PlaceBytes(static_cast<std::byte*>(piece.iov_base) + offset, bytes.data(), here);
    bytes = bytes.subspan(here);
    offset = 0;
  }
}

}  // namespace sumac::soft_nic
