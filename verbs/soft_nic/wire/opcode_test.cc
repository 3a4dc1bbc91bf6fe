#include "verbs/soft_nic/wire/opcode.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

TEST(OpcodeTest, KnowsExactlyTheDefinedOnes) {
  std::set<std::string> names;
  int known = 0;
  for (int i = 0; i < 256; ++i) {
    const auto opcode = static_cast<Opcode>(i);
    if (FlagsOf(opcode) == 0) {
      EXPECT_STREQ(NameOf(opcode), "UNKNOWN");
      continue;
    }
    ++known;
    EXPECT_TRUE(FlagsOf(opcode) & kIsKnown);
    EXPECT_TRUE(names.insert(NameOf(opcode)).second) << NameOf(opcode) << " twice";
  }
  EXPECT_EQ(known, 23 + 12 + 2 + 1 + 23);  // RC, UC, UD, CNP, XRC
}

TEST(OpcodeTest, EveryPacketIsRequestOrResponseExceptCnp) {
  for (int i = 0; i < 256; ++i) {
    const auto opcode = static_cast<Opcode>(i);
    const uint32_t flags = FlagsOf(opcode);
    if (flags == 0) continue;
    const bool request = flags & kIsRequest;
    const bool response = flags & kIsResponse;
    EXPECT_EQ(request != response, opcode != Opcode::kCnp) << NameOf(opcode);
  }
}

// XRC is RC with one more header in its requests (Annex A14).
TEST(OpcodeTest, ExtendedReliableConnectionsAreLikeReliableOnes) {
  for (int i = 0; i < 0x20; ++i) {
    const uint32_t rc = FlagsOf(static_cast<Opcode>(i));
    const uint32_t request = (rc & kIsRequest) != 0 ? uint32_t{kHasXrcEth} : 0;
    EXPECT_EQ(FlagsOf(static_cast<Opcode>(i | 0xa0)), rc | request) << i;
  }
}

// Lengths from IBTA vol. 1, 9.3 and the figures of its opcodes.
TEST(OpcodeTest, HeaderBytes) {
  EXPECT_EQ(HeaderBytes(Opcode::kRcSendMiddle), 12u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcSendOnlyWithInvalidate), 16u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcWriteFirst), 28u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcWriteOnlyWithImmediate), 32u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcWriteLastWithImmediate), 16u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcReadRequest), 28u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcReadResponseFirst), 16u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcReadResponseMiddle), 12u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcAcknowledge), 16u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcAtomicAcknowledge), 24u);
  EXPECT_EQ(HeaderBytes(Opcode::kRcFetchAdd), 40u);
  EXPECT_EQ(HeaderBytes(Opcode::kUdSendOnlyWithImmediate), 24u);
  EXPECT_EQ(HeaderBytes(Opcode::kXrcSendMiddle), 16u);
  EXPECT_EQ(HeaderBytes(Opcode::kXrcWriteOnlyWithImmediate), 36u);
  EXPECT_EQ(HeaderBytes(Opcode::kXrcReadRequest), 32u);
  EXPECT_EQ(HeaderBytes(Opcode::kXrcFetchAdd), 44u);
  EXPECT_EQ(HeaderBytes(Opcode::kXrcReadResponseOnly), 16u);
  EXPECT_EQ(HeaderBytes(Opcode::kXrcAcknowledge), 16u);
  for (int i = 0; i < 256; ++i) {
    const size_t bytes = HeaderBytes(static_cast<Opcode>(i));
    EXPECT_GE(bytes, kBthBytes);
    EXPECT_LE(bytes, kHeaderBytesMax);
    EXPECT_EQ(bytes % 4, 0u);
  }
}

}  // namespace
}  // namespace sumac::soft_nic
