// What a rank's area in shared memory holds: arrivals, progress flags, stages.
//
// Written by its owner, read by the other ranks of the HostGroup. A plain layout over zeroed memory
// (nobody constructs it: peers may read it as soon as it is there). Every flag has a cache line of
// its own; an arrival shares its line with up to 48 bytes of data, so that a small operation costs
// one line a rank.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/host/host_group.h"

namespace sumac::collectives {

inline constexpr size_t kLineBytes = runtime::kCacheLineBytes;
inline constexpr size_t kInlineBytes = 48;
inline constexpr size_t kSlotBytes = 4096;    // data of one small operation
inline constexpr uint64_t kArrivalSlots = 2;  // operations that a rank may be ahead by, plus one
inline constexpr size_t kStageBytes = 128 * 1024;  // of one chunk of a large operation, at most
inline constexpr uint64_t kStageSlots = 4;         // chunks under way

// Where a caller's buffer lies.
struct Placement {
  runtime::RegionRef region;  // that peers can map; not valid: it is private
  uint64_t offset = 0;        // in the region; of a private one: its address
};
struct Announcement {
  Placement send;
  Placement recv;
  uint32_t next_method = 0;  // HostMethod; rank 0's counts (method.h)
  uint32_t unused = 0;
};

struct alignas(kLineBytes) Arrival {
  runtime::HostFlag number;       // of the operation that this is the arrival at; written last
  uint32_t signature;             // of the call: ranks must make the same
  uint32_t withdrawals;           // HostGroup::withdrawals
  std::byte bytes[kInlineBytes];  // data, or an Announcement
};
static_assert(sizeof(Arrival) == kLineBytes && sizeof(Announcement) <= kInlineBytes);

struct ArrivalSlot {
  Arrival arrival;
  alignas(kLineBytes) std::byte data[kSlotBytes];  // when kInlineBytes are not enough
};

// Chunks of large operations are numbered on and on; these count those that are through.
struct alignas(kLineBytes) Progress {
  runtime::HostFlag chunks;
};

struct RankArea {
  ArrivalSlot slots[kArrivalSlots];
  Progress filled;    // the owner's data are in its stage
  Progress consumed;  // the owner has used all the others' data
  Progress taken;     // the owner has fetched the others' results
  alignas(kLineBytes) std::byte stage[kStageSlots][kStageBytes];
  // Of the owner's share of a chunk: at most half of it, and what rounding to lines adds.
  alignas(kLineBytes) std::byte results[kStageSlots][kStageBytes / 2 + kLineBytes];
};

}  // namespace sumac::collectives
