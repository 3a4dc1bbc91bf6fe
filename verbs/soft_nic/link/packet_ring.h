// Packets from one process to another of the same host: a single-producer single-consumer ring in
// shared memory (shared_pages.h).
//
// A record is a tag and a packet as it stands on the wire, with zeroes for its ICRC (memory is not
// a cable), and begins on a cache line of its own, so that a small packet crosses between two cores
// as one line. The tag is written last: 0 means "not yet". Before a record is published, the tag of
// the one that will follow it is cleared, which is why the reader needs no second line to look at.
// No record wraps: a tag says that the next one is at the start.
//
// The reader trusts nothing that the writer could write: a tag that makes no sense breaks the ring
// (broken()), and the packet itself goes through Decode like any other. Neither side allocates or
// waits. One thread a side: the engine's owner.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

inline constexpr size_t kPacketRingLine = 64;

// What both sides find in the shared memory: one line, and the records. Zeroed memory is an empty
// ring.
class PacketRing {
 public:
  // Memory of a line and a power of two of bytes that holds some packets of the largest size.
  static bool Fits(std::span<const std::byte> memory);

 protected:
  static constexpr uint32_t kNotYet = 0;
  static constexpr uint32_t kAtTheStart = UINT32_MAX;
  static constexpr size_t kTagBytes = 8;  // 4 in use: packets are aligned as far as they can be

  explicit PacketRing(std::span<std::byte> memory)
      : memory_(memory.data()), capacity_(memory.size() - kPacketRingLine) {}

  size_t OffsetOf(uint64_t position) const { return position & (capacity_ - 1); }
  std::byte* RecordAt(uint64_t position) const {
    return memory_ + kPacketRingLine + OffsetOf(position);
  }
  std::atomic_ref<uint32_t> TagAt(uint64_t position) const {
    return std::atomic_ref(*reinterpret_cast<uint32_t*>(RecordAt(position)));
  }
  // How far the reader is, in bytes since the beginning; lags behind.
  std::atomic_ref<uint64_t> Consumed() const {
    return std::atomic_ref(*reinterpret_cast<uint64_t*>(memory_));
  }
  static constexpr size_t RecordBytes(size_t packet_bytes) {
    return (kTagBytes + packet_bytes + kPacketRingLine - 1) / kPacketRingLine * kPacketRingLine;
  }

  std::byte* memory_;
  size_t capacity_;
  uint64_t position_ = 0;
};

class PacketRingWriter : public PacketRing {
 public:
  // `memory` as PacketRing::Fits; it stays where it is.
  explicit PacketRingWriter(std::span<std::byte> memory) : PacketRing(memory) {}
  // Copies the packet. False: no room, nothing was written.
  [[nodiscard]] bool Write(const OutgoingPacket& packet);
  // Of the last packet that was written.
  size_t last_bytes() const { return last_bytes_; }

 private:
  bool HasRoom(size_t bytes);

  uint64_t consumed_ = 0;  // as last seen
  size_t last_bytes_ = 0;
};

class PacketRingReader : public PacketRing {
 public:
  explicit PacketRingReader(std::span<std::byte> memory) : PacketRing(memory) {}
  // The oldest packet, in place, until Pop; empty when none is there.
  std::span<const std::byte> Front();
  void Pop();
  // The writer wrote nonsense; nothing more will come out.
  bool broken() const { return broken_; }

 private:
  void Advance(size_t bytes);

  size_t front_bytes_ = 0;  // of the record that Front gave
  uint64_t published_ = 0;
  bool broken_ = false;
};

}  // namespace sumac::soft_nic
