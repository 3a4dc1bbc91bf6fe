// How large operations are cut: chunks that go through the stages, and each rank's share of one.
//
// Pure arithmetic on what all ranks know alike, and the rule for using a place of a stage again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "collectives/host/session.h"

namespace sumac::collectives {

inline constexpr size_t kChunkBytesMin = 8 * 1024;
// From here on results are written past the caches: they would push out what is still to be read.
inline constexpr size_t kStreamBytesMin = size_t{4} << 20;
// From here on a broadcast's root helps the others.
inline constexpr size_t kSharedCopyBytesMin = size_t{128} << 10;
// With more, a chunk has no line for each of them.
inline constexpr int kHostRanksMax = static_cast<int>(kStageBytes / kLineBytes);

// A quarter of the call, so that filling, reducing and fetching overlap also in short ones; all of
// it where ranks share CPUs: nothing overlaps then, and each wait costs a change of processes. A
// multiple of the cache line.
inline size_t ChunkBytes(const HostSession& session, size_t call_bytes) {
  const size_t parts = session.group().oversubscribed() ? 1 : 4;
  const size_t part = (call_bytes / parts + kLineBytes - 1) / kLineBytes * kLineBytes;
  return std::clamp(part, kChunkBytesMin, kStageBytes);
}

// Bytes of each of `ranks` pieces that make up a chunk: whole lines.
inline size_t PieceBytes(size_t chunk_bytes, int ranks) {
  return std::max(chunk_bytes / static_cast<size_t>(ranks) / kLineBytes, size_t{1}) * kLineBytes;
}

// Elements of a chunk that one rank reduces.
struct Share {
  size_t begin = 0;
  size_t count = 0;
};

// Shares begin at multiples of the cache line, counted from the chunk's beginning; the last ones
// may be empty.
inline Share ShareOf(int rank, int ranks, size_t count, size_t element_bytes) {
  const size_t line = kLineBytes / element_bytes;
  const size_t n = static_cast<size_t>(ranks);
  const size_t each = ((count + n - 1) / n + line - 1) / line * line;
  const size_t begin = std::min(each * static_cast<size_t>(rank), count);
  return {begin, std::min(each, count - begin)};
}

// Waits until the place that chunk `number` is about to use is free: what was there kStageSlots
// chunks ago has been used by all, by their flag `progress`.
inline bool AwaitReuse(HostSession& session, const Progress RankArea::*progress, uint64_t number) {
  return number < kStageSlots || session.AwaitAll(progress, number + 1 - kStageSlots);
}

}  // namespace sumac::collectives
