#include "verbs/soft_nic/wire/packet.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

// Every field at a value that uses all of its bits; only what the opcode carries survives the wire.
PacketHeader FullHeader(Opcode opcode) {
  const uint32_t flags = FlagsOf(opcode);
  PacketHeader h;
  h.opcode = opcode;
  h.solicited = h.migration = h.becn = h.ack_request = true;
  h.pkey = 0x7fff;
  h.dest_qpn = 0xabcdef;
  h.psn = 0xfedcba;
  if (flags & (kHasReth | kHasAtomicEth)) h.remote_addr = 0x8877665544332211;
  if (flags & (kHasReth | kHasAtomicEth | kHasIeth)) h.rkey = 0x89abcdef;
  if (flags & kHasReth) h.dma_length = 0xfffefdfc;
  if (flags & kHasAtomicEth) h.swap_or_add = 0x123456789abcdef0, h.compare = 0xfedcba9876543210;
  if (flags & kHasAeth) h.syndrome = kSyndromeNakRemoteAccess, h.msn = 0x876543;
  if (flags & kHasAtomicAckEth) h.atomic_result = 0xa1a2a3a4a5a6a7a8;
  if (flags & kHasImmediate) h.immediate = 0x44332211;
  if (flags & kHasDeth) h.qkey = 0x80010000, h.source_qpn = 0xc0ffee;
  if (flags & kHasXrcEth) h.xrc_srqn = 0xdecade;
  return h;
}

std::vector<std::byte> Build(const PacketHeader& h, size_t payload_bytes) {
  std::vector<std::byte> bytes(HeaderBytes(h.opcode));
  EXPECT_EQ(EncodeHeader(h, bytes), bytes.size());
  for (size_t i = 0; i < payload_bytes; ++i) bytes.push_back(static_cast<std::byte>(i * 7 + 3));
  bytes.resize(bytes.size() + h.pad_bytes + kIcrcBytes);
  return bytes;
}

void ExpectSame(const PacketHeader& a, const PacketHeader& b) {
  EXPECT_EQ(a.opcode, b.opcode);
  EXPECT_EQ(a.solicited, b.solicited);
  EXPECT_EQ(a.migration, b.migration);
  EXPECT_EQ(a.fecn, b.fecn);
  EXPECT_EQ(a.becn, b.becn);
  EXPECT_EQ(a.ack_request, b.ack_request);
  EXPECT_EQ(a.pad_bytes, b.pad_bytes);
  EXPECT_EQ(a.pkey, b.pkey);
  EXPECT_EQ(a.dest_qpn, b.dest_qpn);
  EXPECT_EQ(a.psn, b.psn);
  EXPECT_EQ(a.remote_addr, b.remote_addr);
  EXPECT_EQ(a.rkey, b.rkey);
  EXPECT_EQ(a.dma_length, b.dma_length);
  EXPECT_EQ(a.swap_or_add, b.swap_or_add);
  EXPECT_EQ(a.compare, b.compare);
  EXPECT_EQ(a.syndrome, b.syndrome);
  EXPECT_EQ(a.msn, b.msn);
  EXPECT_EQ(a.atomic_result, b.atomic_result);
  EXPECT_EQ(a.immediate, b.immediate);
  EXPECT_EQ(a.qkey, b.qkey);
  EXPECT_EQ(a.source_qpn, b.source_qpn);
  EXPECT_EQ(a.xrc_srqn, b.xrc_srqn);
}

TEST(PacketTest, EveryOpcodeRoundTrips) {
  for (int i = 0; i < 256; ++i) {
    const auto opcode = static_cast<Opcode>(i);
    const uint32_t flags = FlagsOf(opcode);
    if (flags == 0) continue;
    SCOPED_TRACE(NameOf(opcode));
    PacketHeader h = FullHeader(opcode);
    const size_t payload = opcode == Opcode::kCnp ? 16 : (flags & kMayCarryPayload) ? 13 : 0;
    h.pad_bytes = static_cast<uint8_t>((4 - payload % 4) % 4);
    const std::vector<std::byte> bytes = Build(h, payload);
    PacketView view;
    ASSERT_EQ(Decode(bytes, &view), DecodeError::kNone);
    ExpectSame(view.header, h);
    EXPECT_EQ(view.flags, flags);
    ASSERT_EQ(view.payload.size(), payload);
    EXPECT_TRUE(
        std::ranges::equal(view.payload, std::span(bytes).subspan(HeaderBytes(opcode), payload)));
  }
}

TEST(PacketTest, EachFlagBitStandsAlone) {
  for (auto field : {&PacketHeader::solicited, &PacketHeader::migration, &PacketHeader::fecn,
                     &PacketHeader::becn, &PacketHeader::ack_request}) {
    PacketHeader h;
    h.*field = true;
    PacketView view;
    ASSERT_EQ(Decode(Build(h, 0), &view), DecodeError::kNone);
    ExpectSame(view.header, h);
  }
}

TEST(PacketTest, FieldsWiderThanTheWireAreCut) {
  PacketHeader h;
  h.dest_qpn = 0xff000001;
  h.psn = 0xff000002;
  PacketView view;
  ASSERT_EQ(Decode(Build(h, 0), &view), DecodeError::kNone);
  EXPECT_EQ(view.header.dest_qpn, 1u);
  EXPECT_EQ(view.header.psn, 2u);
  EXPECT_FALSE(view.header.fecn);
  EXPECT_FALSE(view.header.ack_request);
}

DecodeError ErrorOf(const std::vector<std::byte>& bytes) {
  PacketView view;
  return Decode(bytes, &view);
}

TEST(PacketTest, RefusesWhatIsNotAPacket) {
  const PacketHeader send;
  EXPECT_EQ(ErrorOf({}), DecodeError::kTooShort);
  auto bytes = Build(send, 8);
  bytes.resize(15);
  EXPECT_EQ(ErrorOf(bytes), DecodeError::kTooShort);

  PacketHeader write;
  write.opcode = Opcode::kRcWriteOnly;
  bytes = Build(write, 0);
  bytes.resize(bytes.size() - 4);
  EXPECT_EQ(ErrorOf(bytes), DecodeError::kTooShort);

  bytes = Build(send, 8);
  bytes[0] = std::byte{0x15};
  EXPECT_EQ(ErrorOf(bytes), DecodeError::kUnknownOpcode);

  bytes = Build(send, 8);
  bytes[1] |= std::byte{1};
  EXPECT_EQ(ErrorOf(bytes), DecodeError::kBadVersion);

  bytes = Build(send, 8);
  bytes[3] = std::byte{0};
  EXPECT_EQ(ErrorOf(bytes), DecodeError::kBadPkey);

  EXPECT_EQ(ErrorOf(Build(send, 7)), DecodeError::kBadPad);  // no pad where one is due
  PacketHeader padded;
  padded.pad_bytes = 3;
  bytes = Build(padded, 13);
  bytes.erase(bytes.begin() + 12, bytes.end() - 4);  // pad count 3, nothing there
  EXPECT_EQ(ErrorOf(bytes), DecodeError::kBadPad);

  PacketHeader ack;
  ack.opcode = Opcode::kRcAcknowledge;
  EXPECT_EQ(ErrorOf(Build(ack, 4)), DecodeError::kBadPayload);
  EXPECT_EQ(ErrorOf(Build(send, kMtuBytesMax)), DecodeError::kNone);
  EXPECT_EQ(ErrorOf(Build(send, kMtuBytesMax + 4)), DecodeError::kBadPayload);
  PacketHeader cnp;
  cnp.opcode = Opcode::kCnp;
  EXPECT_EQ(ErrorOf(Build(cnp, 12)), DecodeError::kBadPayload);
}

TEST(PacketTest, LongestPacketFits) {
  EXPECT_LE(HeaderBytes(Opcode::kRcWriteOnlyWithImmediate) + kMtuBytesMax + kIcrcBytes,
            kPacketBytesMax);
}

// Whatever the bytes, Decode answers, and what it points at is inside them. (Run under
// AddressSanitizer.)
TEST(PacketTest, RandomBytes) {
  std::mt19937 random(20240607);
  int decoded = 0;
  for (int i = 0; i < 200000; ++i) {
    std::vector<std::byte> bytes(random() % 96);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    if (bytes.size() > 4 && i % 2 == 0) bytes[2] = bytes[3] = std::byte{0xff};
    if (bytes.size() > 4 && i % 4 == 0) bytes[1] &= std::byte{0xf0};
    PacketView view;
    if (Decode(bytes, &view) != DecodeError::kNone) continue;
    ++decoded;
    EXPECT_LE(view.header.pad_bytes, 3);
    EXPECT_EQ(
        HeaderBytes(view.header.opcode) + view.payload.size() + view.header.pad_bytes + kIcrcBytes,
        bytes.size());
  }
  EXPECT_GT(decoded, 100);
}

TEST(PacketTest, SyndromeKinds) {
  EXPECT_EQ(KindOfSyndrome(kSyndromeAckNoCredits), AckKind::kAck);
  EXPECT_EQ(KindOfSyndrome(0x00), AckKind::kAck);
  EXPECT_EQ(KindOfSyndrome(kSyndromeRnrNak | 18), AckKind::kRnrNak);
  EXPECT_EQ(KindOfSyndrome(kSyndromeNakSequence), AckKind::kNak);
  EXPECT_EQ(KindOfSyndrome(kSyndromeNakInvalidRd), AckKind::kNak);
  EXPECT_EQ(KindOfSyndrome(0x40), AckKind::kReserved);
  EXPECT_EQ(KindOfSyndrome(0x80), AckKind::kReserved);
}

}  // namespace
}  // namespace sumac::soft_nic
