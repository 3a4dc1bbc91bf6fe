#include "verbs/soft_nic/link/packet_ring.h"

#include <bit>
#include <cstring>

#include "verbs/soft_nic/engine/dma.h"

namespace sumac::soft_nic {
namespace {

constexpr size_t kPadMask = 3;
// The reader says how far it is this often; the rest stays the writer's.
constexpr size_t kPublishParts = 8;

size_t PayloadBytes(const OutgoingPacket& packet) {
  size_t bytes = 0;
  for (const iovec& piece : packet.payload) bytes += piece.iov_len;
  return bytes;
}

}  // namespace

bool PacketRing::Fits(std::span<const std::byte> memory) {
  const size_t records = memory.size() - kPacketRingLine;
  return memory.size() > kPacketRingLine && std::has_single_bit(records) &&
         records >= 4 * RecordBytes(kPacketBytesMax) &&
         reinterpret_cast<uintptr_t>(memory.data()) % kPacketRingLine == 0;
}

// One line more than the record: the tag that comes after it.
bool PacketRingWriter::HasRoom(size_t bytes) {
  const auto fits = [&] {
    // The reader's number is only believed as far as it makes sense.
    const uint64_t used = position_ - consumed_;
    return used <= capacity_ && bytes + kPacketRingLine <= capacity_ - used;
  };
  if (fits()) return true;
  consumed_ = Consumed().load(std::memory_order_acquire);
  return fits();
}

bool PacketRingWriter::Write(const OutgoingPacket& packet) {
  const size_t payload_bytes = PayloadBytes(packet);
  if (payload_bytes > kMtuBytesMax) return false;
  PacketHeader header = packet.header;
  header.pad_bytes = static_cast<uint8_t>(-payload_bytes & kPadMask);
  const size_t packet_bytes =
      HeaderBytes(header.opcode) + payload_bytes + header.pad_bytes + kIcrcBytes;
  const size_t record_bytes = RecordBytes(packet_bytes);
  const size_t until_end = capacity_ - OffsetOf(position_);
  const size_t skipped = record_bytes <= until_end ? 0 : until_end;
  if (!HasRoom(skipped + record_bytes)) return false;
  if (skipped != 0) {
    TagAt(position_ + skipped).store(kNotYet, std::memory_order_relaxed);
    TagAt(position_).store(kAtTheStart, std::memory_order_release);
    position_ += skipped;
  }
  TagAt(position_ + record_bytes).store(kNotYet, std::memory_order_relaxed);
  std::byte* const bytes = RecordAt(position_) + kTagBytes;
  std::byte* at = bytes + EncodeHeader(header, {bytes, packet_bytes});
  for (const iovec& piece : packet.payload) {
    const ScopedDma dma;
    if (piece.iov_len != 0) std::memcpy(at, piece.iov_base, piece.iov_len);
    at += piece.iov_len;
  }
  std::memset(at, 0, static_cast<size_t>(bytes + packet_bytes - at));
  TagAt(position_).store(static_cast<uint32_t>(packet_bytes), std::memory_order_release);
  position_ += record_bytes;
  last_bytes_ = packet_bytes;
  return true;
}

std::span<const std::byte> PacketRingReader::Front() {
  if (broken_) return {};
  uint32_t tag = TagAt(position_).load(std::memory_order_acquire);
  if (tag == kAtTheStart && OffsetOf(position_) != 0) {
    Advance(capacity_ - OffsetOf(position_));
    tag = TagAt(position_).load(std::memory_order_acquire);
  }
  if (tag == kNotYet) return {};
  if (tag > kPacketBytesMax || RecordBytes(tag) > capacity_ - OffsetOf(position_)) {
    broken_ = true;
    return {};
  }
  front_bytes_ = RecordBytes(tag);
  return {RecordAt(position_) + kTagBytes, tag};
}

void PacketRingReader::Pop() { Advance(front_bytes_); }

void PacketRingReader::Advance(size_t bytes) {
  position_ += bytes;
  if (position_ - published_ < capacity_ / kPublishParts) return;
  published_ = position_;
  Consumed().store(position_, std::memory_order_release);
}

}  // namespace sumac::soft_nic
