#include "verbs/soft_nic/link/packet_ring.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

constexpr size_t kCapacity = 32 << 10;

// Zeroed, on a cache line.
class RingMemory {
 public:
  explicit RingMemory(size_t bytes = kPacketRingLine + kCapacity)
      : bytes_(bytes),
        at_(static_cast<std::byte*>(::operator new(bytes, std::align_val_t(kPacketRingLine)))) {
    std::memset(at_, 0, bytes);
  }
  ~RingMemory() { ::operator delete(at_, std::align_val_t(kPacketRingLine)); }
  RingMemory(const RingMemory&) = delete;
  RingMemory& operator=(const RingMemory&) = delete;
  std::span<std::byte> span() const { return {at_, bytes_}; }
  // The tag of the record at `offset`.
  uint32_t& tag(size_t offset) const {
    return *reinterpret_cast<uint32_t*>(at_ + kPacketRingLine + offset);
  }

 private:
  size_t bytes_;
  std::byte* at_;
};

// A packet whose length and bytes follow from its number.
class NumberedPacket {
 public:
  explicit NumberedPacket(uint32_t number) {
    std::mt19937 random(number);
    payload_.resize(number % 7 == 0 ? kMtuBytesMax : random() % (kMtuBytesMax + 1));
    for (std::byte& byte : payload_) byte = static_cast<std::byte>(random());
    const size_t cut = payload_.size() / 3;
    pieces_[0] = {payload_.data(), cut};
    pieces_[1] = {payload_.data() + cut, payload_.size() - cut};
    packet_.header.opcode = number % 3 == 0 ? Opcode::kRcWriteOnly : Opcode::kRcSendOnly;
    packet_.header.psn = number & 0xffffff;
    packet_.header.remote_addr = number;
    packet_.header.dest_qpn = 0x123456;
    packet_.payload = pieces_;
  }
  const OutgoingPacket& packet() const { return packet_; }
  bool Is(std::span<const std::byte> bytes) const {
    PacketView view;
    return Decode(bytes, &view) == DecodeError::kNone && view.header.psn == packet_.header.psn &&
           view.header.opcode == packet_.header.opcode &&
           std::ranges::equal(view.payload, payload_);
  }

 private:
  std::vector<std::byte> payload_;
  iovec pieces_[2];
  OutgoingPacket packet_;
};

TEST(PacketRing, KnowsMemoryThatItCanUse) {
  EXPECT_TRUE(PacketRing::Fits(RingMemory().span()));
  EXPECT_FALSE(PacketRing::Fits(RingMemory(kCapacity).span()));  // no power of two is left
  EXPECT_FALSE(PacketRing::Fits(RingMemory(kPacketRingLine + 8192).span()));
  EXPECT_FALSE(PacketRing::Fits({}));
  EXPECT_FALSE(PacketRing::Fits(RingMemory().span().subspan(8)));
}

TEST(PacketRing, IsEmptyAtFirst) {
  const RingMemory memory;
  PacketRingReader reader(memory.span());
  EXPECT_TRUE(reader.Front().empty());
  EXPECT_FALSE(reader.broken());
}

TEST(PacketRing, HandsPacketsOverInOrderUnchangedThroughManyLaps) {
  const RingMemory memory;
  PacketRingWriter writer(memory.span());
  PacketRingReader reader(memory.span());
  std::mt19937 random(1);
  uint32_t written = 0;
  uint32_t read = 0;
  while (read < 3000) {
    for (auto burst = random() % 8; burst > 0; --burst) {
      if (!writer.Write(NumberedPacket(written).packet())) break;
      ++written;
    }
    for (auto burst = random() % 8; burst > 0; --burst) {
      const auto bytes = reader.Front();
      if (bytes.empty()) break;
      ASSERT_TRUE(NumberedPacket(read).Is(bytes)) << read;
      reader.Pop();
      ++read;
    }
  }
  EXPECT_FALSE(reader.broken());
}

TEST(PacketRing, RefusesWhatHasNoRoomAndGoesOnWhenThereIsSome) {
  const RingMemory memory;
  PacketRingWriter writer(memory.span());
  PacketRingReader reader(memory.span());
  uint32_t written = 0;
  while (writer.Write(NumberedPacket(written * 7).packet())) ++written;  // the largest
  EXPECT_GE(written, 6u);
  EXPECT_FALSE(writer.Write(NumberedPacket(7).packet()));
  for (uint32_t i = 0; i < written; ++i) {
    ASSERT_TRUE(NumberedPacket(i * 7).Is(reader.Front())) << i;
    reader.Pop();
  }
  EXPECT_TRUE(reader.Front().empty());
  EXPECT_TRUE(writer.Write(NumberedPacket(5).packet()));
  EXPECT_TRUE(NumberedPacket(5).Is(reader.Front()));
}

TEST(PacketRing, AWriterDoesNotBelieveAReaderThatIsAheadOfIt) {
  const RingMemory memory;
  PacketRingWriter writer(memory.span());
  while (writer.Write(NumberedPacket(7).packet())) {
  }
  *reinterpret_cast<uint64_t*>(memory.span().data()) = UINT64_MAX / 2;
  EXPECT_FALSE(writer.Write(NumberedPacket(7).packet()));
}

TEST(PacketRing, TagsThatMakeNoSenseBreakTheRingAndNothingElse) {
  for (const uint32_t tag : {uint32_t{kPacketBytesMax + 1}, uint32_t{0x7fffffff}, UINT32_MAX}) {
    const RingMemory memory;
    memory.tag(0) = tag;
    PacketRingReader reader(memory.span());
    EXPECT_TRUE(reader.Front().empty());
    EXPECT_TRUE(reader.broken()) << tag;
    memory.tag(0) = 32;
    EXPECT_TRUE(reader.Front().empty());  // and it stays so
  }
}

TEST(PacketRing, ARecordMayNotReachOverTheEnd) {
  const RingMemory memory;
  PacketRingWriter writer(memory.span());
  PacketRingReader reader(memory.span());
  NumberedPacket largest(7);
  size_t offset = 0;
  while (kCapacity - offset > 2 * kPacketBytesMax) {
    ASSERT_TRUE(writer.Write(largest.packet()));
    reader.Front();
    reader.Pop();
    offset += (8 + writer.last_bytes() + kPacketRingLine - 1) / kPacketRingLine * kPacketRingLine;
  }
  ASSERT_TRUE(writer.Write(largest.packet()));
  reader.Front();
  reader.Pop();
  offset += (8 + writer.last_bytes() + kPacketRingLine - 1) / kPacketRingLine * kPacketRingLine;
  ASSERT_LT(kCapacity - offset, kPacketBytesMax);
  memory.tag(offset) = kPacketBytesMax;
  EXPECT_TRUE(reader.Front().empty());
  EXPECT_TRUE(reader.broken());
}

TEST(PacketRing, WriterAndReaderMayBeDifferentThreads) {
  const RingMemory memory;
  constexpr uint32_t kPackets = 5000;
  std::thread sender([&] {
    PacketRingWriter writer(memory.span());
    for (uint32_t i = 0; i < kPackets; ++i) {
      const NumberedPacket numbered(i);
      while (!writer.Write(numbered.packet())) std::this_thread::yield();
    }
  });
  PacketRingReader reader(memory.span());
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < kPackets; ++i) {
    std::span<const std::byte> bytes;
    while ((bytes = reader.Front()).empty() && !reader.broken()) std::this_thread::yield();
    wrong += !NumberedPacket(i).Is(bytes);
    if (reader.broken()) break;
    reader.Pop();
  }
  sender.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_FALSE(reader.broken());
}

}  // namespace
}  // namespace sumac::soft_nic
