#include "transport/message_header.h"

#include <array>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::transport {
namespace {

std::vector<std::byte> Encoded(const MessageHeader& header, size_t body = 0) {
  std::vector<std::byte> bytes(header.bytes() + body);
  Encode(header, bytes.data());
  return bytes;
}

std::vector<std::byte> Cut(std::vector<std::byte> bytes, size_t length) {
  bytes.resize(length);
  return bytes;
}

TEST(MessageHeader, LayoutIsLittleEndian) {
  MessageHeader header;
  header.kind = MessageKind::kRendezvous;
  header.credits = 0x0102;
  header.id = 0x03040506;
  header.length = 0x0708090a0b0c0d0e;
  header.address = 0x1112131415161718;
  header.rkey = 0x191a1b1c;
  const std::array<uint8_t, kAnnouncementBytes> expected = {
      2,    1,    0x02, 0x01, 0x06, 0x05, 0x04, 0x03, 0x0e, 0x0d, 0x0c,
      0x0b, 0x0a, 0x09, 0x08, 0x07, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13,
      0x12, 0x11, 0x1c, 0x1b, 0x1a, 0x19, 0,    0,    0,    0};
  const auto bytes = Encoded(header);
  ASSERT_EQ(bytes.size(), expected.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_EQ(std::to_integer<int>(bytes[i]), expected[i]) << "byte " << i;
  }
}

TEST(MessageHeader, EachKindSurvivesTheTrip) {
  for (int kind = 1; kind <= 5; ++kind) {
    MessageHeader sent;
    sent.kind = static_cast<MessageKind>(kind);
    sent.credits = 7;
    sent.id = 9;
    const size_t body = sent.kind == MessageKind::kEager ? 11 : 0;
    sent.length = sent.kind == MessageKind::kRendezvous ? 1 << 20 : body;
    if (sent.kind == MessageKind::kRendezvous) sent.address = 13, sent.rkey = 17;
    const auto got = Decode(Encoded(sent, body));
    ASSERT_TRUE(got) << kind;
    EXPECT_EQ(got->kind, sent.kind);
    EXPECT_EQ(got->credits, sent.credits);
    EXPECT_EQ(got->id, sent.id);
    EXPECT_EQ(got->length, sent.length);
    EXPECT_EQ(got->address, sent.address);
    EXPECT_EQ(got->rkey, sent.rkey);
  }
}

TEST(MessageHeader, NonsenseIsRefused) {
  MessageHeader eager;
  eager.length = 4;
  EXPECT_TRUE(Decode(Encoded(eager, 4)));
  EXPECT_FALSE(Decode(Encoded(eager, 3)));  // says more than there is
  EXPECT_FALSE(Decode(Encoded(eager, 5)));
  for (size_t cut = 0; cut < kMessageHeaderBytes; ++cut) {
    EXPECT_FALSE(Decode(Cut(Encoded(eager), cut))) << cut;
  }
  const auto with_byte = [](MessageHeader header, size_t at, int value) {
    auto bytes = Encoded(header);
    bytes[at] = static_cast<std::byte>(value);
    return Decode(bytes);
  };
  MessageHeader credit;
  credit.kind = MessageKind::kCredit;
  EXPECT_TRUE(Decode(Encoded(credit)));
  EXPECT_FALSE(Decode(Encoded(credit, 1)));
  EXPECT_FALSE(with_byte(credit, 0, 0));
  EXPECT_FALSE(with_byte(credit, 0, 6));
  EXPECT_FALSE(with_byte(credit, 1, 2));  // version
  EXPECT_FALSE(with_byte(credit, 8, 1));  // a length where there is none
  MessageHeader announcement;
  announcement.kind = MessageKind::kRendezvous;
  EXPECT_FALSE(Decode(Encoded(announcement)));  // of nothing
  announcement.length = 5000;
  EXPECT_TRUE(Decode(Encoded(announcement)));
  EXPECT_FALSE(Decode(Cut(Encoded(announcement), kAnnouncementBytes - 1)));
  EXPECT_FALSE(with_byte(announcement, 28, 1));
}

}  // namespace
}  // namespace sumac::transport
