// What a work request's 64-bit id says: its kind, the peer's rank and a slot.
//
// A completion with an error has no other valid field that could tell (man 3 ibv_poll_cq).
#pragma once

#include <cstdint>

namespace sumac::transport {

enum class WorkKind : uint8_t { kReceive = 1, kOneSided, kMessage, kControl, kMessageRead };

inline constexpr int kRanksMax = 1 << 24;

constexpr uint64_t WorkRequestId(WorkKind kind, int peer, uint32_t slot) {
  return uint64_t{static_cast<uint8_t>(kind)} << 56 | uint64_t{static_cast<uint32_t>(peer)} << 32 |
         slot;
}
constexpr WorkKind KindOf(uint64_t id) { return static_cast<WorkKind>(id >> 56); }
constexpr int PeerOf(uint64_t id) { return static_cast<int>(id >> 32 & 0xffffff); }
constexpr uint32_t SlotOf(uint64_t id) { return static_cast<uint32_t>(id); }

}  // namespace sumac::transport
