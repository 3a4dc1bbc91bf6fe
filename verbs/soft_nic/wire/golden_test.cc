// Every packet of tests/golden/rxe-6.1 (captured from kernel rxe) against the codec, and what
// damage does to them.

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "tests/golden/capture.h"
#include "verbs/soft_nic/wire/grh.h"
#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

struct GoldenPacket {
  std::string line;  // of decoded.txt
  CapturedPacket captured;
};

std::vector<GoldenPacket> LoadAll() {
  const std::filesystem::path dir = SUMAC_GOLDEN_DIR;
  std::ifstream decoded(dir / "decoded.txt");
  std::map<std::string, std::vector<std::string>> lines;
  std::string file;
  for (std::string line; std::getline(decoded, line);) {
    if (line.rfind("== ", 0) == 0) file = line.substr(3);
    if (line.rfind("  ", 0) == 0) lines[file].push_back(line.substr(2));
  }
  std::vector<GoldenPacket> all;
  for (const auto& [name, descriptions] : lines) {
    auto packets = ReadCapture(dir / name);
    EXPECT_EQ(packets.size(), descriptions.size()) << name;
    for (size_t i = 0; i < std::min(packets.size(), descriptions.size()); ++i) {
      all.push_back({absl::StrCat(name, " #", i, ": ", descriptions[i]), packets[i]});
    }
  }
  return all;
}

const std::vector<GoldenPacket>& All() {
  static const std::vector<GoldenPacket> all = LoadAll();
  return all;
}

// "key=value" of a decoded line, in the base that decoded.txt uses for it.
bool Field(const std::string& line, const std::string& key, int base, uint64_t* value) {
  const size_t at = line.find(absl::StrCat(" ", key, "="));
  if (at == std::string::npos) return false;
  *value = std::stoull(line.substr(at + key.size() + 2), nullptr, base);
  return true;
}

void ExpectField(const std::string& line, const std::string& key, int base, uint64_t actual) {
  uint64_t expected = 0;
  ASSERT_TRUE(Field(line, key, base, &expected)) << key;
  EXPECT_EQ(actual, expected) << key;
}

void ExpectAsDescribed(const std::string& line, const PacketView& view, size_t after_bth) {
  const PacketHeader& h = view.header;
  EXPECT_NE(line.find(absl::StrCat(" ", NameOf(h.opcode), " SE=")), std::string::npos)
      << NameOf(h.opcode);
  ExpectField(line, "SE", 10, h.solicited);
  ExpectField(line, "M", 10, h.migration);
  ExpectField(line, "pad", 10, h.pad_bytes);
  ExpectField(line, "pkey", 16, h.pkey);
  ExpectField(line, "dqp", 16, h.dest_qpn);
  ExpectField(line, "A", 10, h.ack_request);
  ExpectField(line, "psn", 16, h.psn);
  ExpectField(line, "paylen", 10, after_bth);
  if (line.find("RETH") != std::string::npos) {
    EXPECT_TRUE(view.flags & kHasReth);
    ExpectField(line, "va", 16, h.remote_addr);
    ExpectField(line, "rkey", 16, h.rkey);
    ExpectField(line, "len", 10, h.dma_length);
  }
  if (line.find("AETH") != std::string::npos) {
    EXPECT_TRUE(view.flags & kHasAeth);
    ExpectField(line, "syn", 16, h.syndrome);
    ExpectField(line, "msn", 10, h.msn);
  } else {
    EXPECT_FALSE(view.flags & kHasAeth);
  }
  if (line.find("DETH") != std::string::npos) {
    EXPECT_TRUE(view.flags & kHasDeth);
    ExpectField(line, "qkey", 16, h.qkey);
    ExpectField(line, "sqp", 16, h.source_qpn);
  }
}

TEST(GoldenTest, AllAreThere) { EXPECT_EQ(All().size(), 140u); }

TEST(GoldenTest, DecodesAsDescribed) {
  for (const auto& [line, captured] : All()) {
    SCOPED_TRACE(line);
    PacketView view;
    ASSERT_EQ(Decode(captured.udp_payload(), &view), DecodeError::kNone);
    ExpectAsDescribed(line, view, captured.udp_payload().size() - kBthBytes - kIcrcBytes);
  }
}

TEST(GoldenTest, ReencodesToTheSameBytes) {
  for (const auto& [line, captured] : All()) {
    SCOPED_TRACE(line);
    PacketView view;
    ASSERT_EQ(Decode(captured.udp_payload(), &view), DecodeError::kNone);
    std::vector<std::byte> header(kHeaderBytesMax);
    header.resize(EncodeHeader(view.header, header));
    ASSERT_EQ(header.size(), HeaderBytes(view.header.opcode));
    EXPECT_TRUE(std::ranges::equal(header, captured.udp_payload().first(header.size())));
  }
}

// What the captures' README says of their contents.
TEST(GoldenTest, Payloads) {
  int checked = 0;
  for (const auto& [line, captured] : All()) {
    if (line.rfind("send_13_pad", 0) != 0 && line.rfind("send_imm_32", 0) != 0) continue;
    PacketView view;
    ASSERT_EQ(Decode(captured.udp_payload(), &view), DecodeError::kNone);
    if (!(view.flags & kIsSend)) continue;
    ++checked;
    const bool with_immediate = view.flags & kHasImmediate;
    ASSERT_EQ(view.payload.size(), with_immediate ? 32u : 13u);
    if (with_immediate) {
      EXPECT_EQ(view.header.immediate, __builtin_bswap32(0x11223344));
    }
    for (size_t i = 0; i < view.payload.size(); ++i) {
      EXPECT_EQ(view.payload[i], static_cast<std::byte>(i * 7 + 3));
    }
  }
  EXPECT_EQ(checked, 2);
}

TEST(GoldenTest, AtomicOperands) {
  int checked = 0;
  for (const auto& [line, captured] : All()) {
    PacketView view;
    ASSERT_EQ(Decode(captured.udp_payload(), &view), DecodeError::kNone);
    if (view.header.opcode != Opcode::kRcFetchAdd) continue;
    ++checked;
    EXPECT_EQ(view.header.swap_or_add, 0x0000000100000002u);
  }
  EXPECT_EQ(checked, 1);
}

// A datagram's receiver gets the sender's IP header: what is made up must be what was on the wire,
// but for the identification and so the checksum.
TEST(GoldenTest, HeaderBeforeADatagramIsTheCapturedOne) {
  int checked = 0;
  for (const auto& [line, captured] : All()) {
    PacketView view;
    ASSERT_EQ(Decode(captured.udp_payload(), &view), DecodeError::kNone);
    if ((view.flags & kHasDeth) == 0) continue;
    SCOPED_TRACE(line);
    ++checked;
    ASSERT_TRUE(captured.ipv4);
    std::array<std::byte, kGrhBytes> grh;
    WriteGrh({.source = captured.ip.source, .destination = captured.ip.destination},
             captured.udp_payload().size(), grh);
    for (const size_t at : {0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19}) {
      EXPECT_EQ(grh[20 + at], captured.frame[captured.ip_offset + at]) << at;
    }
    std::ranges::copy(std::span(captured.frame).subspan(captured.ip_offset, 20), grh.begin() + 20);
    const auto read = ReadGrh(grh);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->source, captured.ip.source);
  }
  EXPECT_GE(checked, 2);
}

TEST(GoldenTest, IcrcVerifiesAndIsRecomputed) {
  int ipv6 = 0;
  for (const auto& [line, captured] : All()) {
    SCOPED_TRACE(line);
    ipv6 += !captured.ipv4;
    const auto bytes = captured.udp_payload();
    EXPECT_TRUE(VerifyIcrc(captured.ip, bytes));
    // In pieces, as a sender has it.
    PacketView view;
    ASSERT_EQ(Decode(bytes, &view), DecodeError::kNone);
    const size_t header_bytes = HeaderBytes(view.header.opcode);
    auto rest = bytes.subspan(header_bytes, bytes.size() - header_bytes - kIcrcBytes);
    const size_t half = rest.size() / 2;
    const iovec pieces[] = {{const_cast<std::byte*>(rest.data()), half},
                            {nullptr, 0},
                            {const_cast<std::byte*>(rest.data()) + half, rest.size() - half}};
    uint32_t stored;
    std::memcpy(&stored, bytes.data() + bytes.size() - kIcrcBytes, kIcrcBytes);
    EXPECT_EQ(ComputeIcrc(captured.ip, bytes.first(header_bytes), pieces), stored);
  }
  EXPECT_GE(ipv6, 7);
}

TEST(GoldenTest, IdentificationIsFoundFromTheIcrc) {
  for (const auto& [line, captured] : All()) {
    SCOPED_TRACE(line);
    IcrcHeaders blind = captured.ip;
    blind.ipv4_identification = 0;
    const auto found = FindIdentification(blind, captured.udp_payload());
    if (!captured.ipv4) {
      EXPECT_EQ(found, 0);  // there is none: the guess, or nothing
      continue;
    }
    EXPECT_NE(captured.ip.ipv4_identification, 0);
    EXPECT_FALSE(VerifyIcrc(blind, captured.udp_payload()));
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(*found, captured.ip.ipv4_identification);
  }
}

// Which bytes of the frame may change on the way without breaking the ICRC (Annex A17.3.3).
bool IsMutable(const CapturedPacket& packet, size_t at) {
  const size_t ip = at - packet.ip_offset;
  const size_t udp = at - packet.udp_offset;
  if (at < packet.udp_offset) {
    return packet.ipv4 ? ip == 1 || ip == 8 || ip == 10 || ip == 11 : (ip > 0 && ip < 4) || ip == 7;
  }
  return udp == 6 || udp == 7 || udp == 8 + 4;
}

bool FrameVerifies(const std::vector<std::byte>& frame) {
  try {
    const CapturedPacket packet = ParseFrame(frame);
    return VerifyIcrc(packet.ip, packet.udp_payload());
  } catch (const std::runtime_error&) {
    return false;  // the flip made it something other than this kind of packet
  }
}

TEST(GoldenTest, EveryFlippedInvariantByteBreaksTheIcrc) {
  for (const auto& [line, captured] : All()) {
    for (size_t at = captured.ip_offset; at < captured.frame.size(); ++at) {
      // The reader takes these as given (version and length, flags beside DF, protocol): they
      // choose the parser.
      const size_t ip = at - captured.ip_offset;
      if (captured.ipv4 ? ip == 0 || ip == 6 || ip == 7 || ip == 9 : ip == 0 || ip == 6) continue;
      if (at == captured.udp_offset + 4 || at == captured.udp_offset + 5) continue;  // UDP length
      std::vector<std::byte> frame = captured.frame;
      frame[at] ^= std::byte{0xff};
      EXPECT_EQ(FrameVerifies(frame), IsMutable(captured, at)) << line << " byte " << at;
    }
  }
}

TEST(GoldenTest, DontFragmentIsCovered) {
  IcrcHeaders ip = All().front().captured.ip;
  ASSERT_TRUE(VerifyIcrc(ip, All().front().captured.udp_payload()));
  ip.dont_fragment = false;
  EXPECT_FALSE(VerifyIcrc(ip, All().front().captured.udp_payload()));
}

// A view must lie inside the bytes that were decoded.
void ExpectInside(std::span<const std::byte> bytes, const PacketView& view) {
  if (view.payload.empty()) return;
  ASSERT_GE(view.payload.data(), bytes.data());
  ASSERT_LE(view.payload.data() + view.payload.size(), bytes.data() + bytes.size() - kIcrcBytes);
}

TEST(GoldenTest, DecodeSurvivesEveryTruncation) {
  for (const auto& [line, captured] : All()) {
    const auto whole = captured.udp_payload();
    for (size_t length = 0; length < whole.size(); ++length) {
      // A copy of exactly this size: AddressSanitizer sees a read one byte past it.
      const std::vector<std::byte> bytes(whole.begin(), whole.begin() + static_cast<long>(length));
      PacketView view;
      if (Decode(bytes, &view) != DecodeError::kNone) continue;
      ExpectInside(bytes, view);
      EXPECT_FALSE(VerifyIcrc(captured.ip, bytes)) << line << " cut to " << length;
    }
  }
}

TEST(GoldenTest, DecodeSurvivesEveryBitFlip) {
  for (const auto& [line, captured] : All()) {
    const auto whole = captured.udp_payload();
    std::vector<std::byte> bytes(whole.begin(), whole.end());
    const size_t header = std::min(bytes.size(), kHeaderBytesMax);
    for (size_t bit = 0; bit < header * 8; ++bit) {
      bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
      PacketView view;
      if (Decode(bytes, &view) == DecodeError::kNone) ExpectInside(bytes, view);
      bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    }
  }
}

}  // namespace
}  // namespace sumac::soft_nic
