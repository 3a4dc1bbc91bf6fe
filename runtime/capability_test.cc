// Capabilities: every value survives the trip, and nothing but a whole record is taken for one.

#include "runtime/capability.h"

#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::runtime {
namespace {

using ::testing::HasSubstr;

Capability Example() {
  Capability c;
  c.rank = 1;
  c.node_epoch = 0x1122334455667788;
  c.domain = 0;
  c.generation = 2;
  c.region = 7;
  c.rights = kRightPut | kRightGet;
  c.base = 0x7f0000001000;
  c.length = 4096;
  c.rkey = 0xdeadbeef;
  return c;
}

void ExpectSame(const Capability& a, const Capability& b) {
  EXPECT_EQ(a.rank, b.rank);
  EXPECT_EQ(a.node_epoch, b.node_epoch);
  EXPECT_EQ(a.domain, b.domain);
  EXPECT_EQ(a.generation, b.generation);
  EXPECT_EQ(a.region, b.region);
  EXPECT_EQ(a.rights, b.rights);
  EXPECT_EQ(a.base, b.base);
  EXPECT_EQ(a.length, b.length);
  EXPECT_EQ(a.rkey, b.rkey);
}

TEST(CapabilityTest, TheRecordIsFixed) {
  const std::string record = Example().Serialize();
  // Peers of another build read this: a change needs a new version.
  const std::string expected(
      "SCAP\x01\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00"
      "\x02\x00\x00\x00\x07\x00\x00\x00"
      "\x88\x77\x66\x55\x44\x33\x22\x11"
      "\x00\x10\x00\x00\x00\x7f\x00\x00"
      "\x00\x10\x00\x00\x00\x00\x00\x00"
      "\x03\x00\x00\x00\xef\xbe\xad\xde",
      56);
  EXPECT_EQ(record.substr(0, 56), expected);
  EXPECT_EQ(record.size(), 60u);
}

TEST(CapabilityTest, ReadsLikeASentence) {
  EXPECT_EQ(Example().ToString(), "put+get on 4096 bytes of rank 1, domain 0.2, region 7");
  EXPECT_EQ(RightsToString(0), "nothing");
  EXPECT_EQ(RightsToString(kRightAtomic | 0x10), "atomic+0x10");
}

TEST(CapabilityTest, RandomValuesSurvive) {
  std::mt19937_64 random(20260101);
  for (int i = 0; i < 10000; ++i) {
    Capability c;
    c.rank = static_cast<int32_t>(random() & 0x7fffffff);
    c.node_epoch = random() | 1;
    c.domain = static_cast<uint32_t>(random());
    c.generation = static_cast<uint32_t>(random()) | 1;
    c.region = static_cast<uint32_t>(random());
    c.rights = 1 + static_cast<uint32_t>(random() % kAllRights);
    c.base = random() >> (random() % 64);
    c.length = 1 + random() % (std::numeric_limits<uint64_t>::max() - c.base);
    c.rkey = static_cast<uint32_t>(random());
    const auto parsed = Capability::Parse(c.Serialize());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ExpectSame(*parsed, c);
  }
}

TEST(CapabilityTest, EveryFlippedBitIsFound) {
  const std::string good = Example().Serialize();
  for (size_t byte = 0; byte < good.size(); ++byte) {
    for (int flip = 1; flip < 256; ++flip) {
      std::string bad = good;
      bad[byte] = static_cast<char>(bad[byte] ^ flip);
      EXPECT_TRUE(absl::IsInvalidArgument(Capability::Parse(bad).status()))
          << "byte " << byte << " ^ " << flip;
    }
  }
}

TEST(CapabilityTest, WrongSizesAreRefused) {
  const std::string good = Example().Serialize();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_TRUE(absl::IsInvalidArgument(Capability::Parse(good.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Capability::Parse(good + '\0').status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Capability::Parse(good + good).status()));
}

TEST(CapabilityTest, GarbageIsRefused) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 10000; ++i) {
    std::string bytes(random() % 80, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (i % 2 == 0 && bytes.size() >= 6) bytes.replace(0, 6, std::string("SCAP\x01\x00", 6));
    EXPECT_TRUE(absl::IsInvalidArgument(Capability::Parse(bytes).status()));
  }
}

// Intact records whose fields make no sense.
TEST(CapabilityTest, SenselessFieldsAreRefused) {
  const auto refusal = [](auto change) {
    Capability c = Example();
    change(c);
    const absl::Status status = Capability::Parse(c.Serialize()).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refusal([](Capability& c) { c.rank = -1; }), HasSubstr("rank -1"));
  EXPECT_THAT(refusal([](Capability& c) { c.node_epoch = 0; }), HasSubstr("epoch"));
  EXPECT_THAT(refusal([](Capability& c) { c.generation = 0; }), HasSubstr("generation"));
  EXPECT_THAT(refusal([](Capability& c) { c.rights = 0; }), HasSubstr("rights"));
  EXPECT_THAT(refusal([](Capability& c) { c.rights = 8 | kRightPut; }), HasSubstr("rights 0xa"));
  EXPECT_THAT(refusal([](Capability& c) { c.length = 0; }), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal([](Capability& c) { c.base = ~uint64_t{0} - 4094; }), HasSubstr("range"));
  EXPECT_THAT(refusal([](Capability& c) { c.length = ~uint64_t{0}; }), HasSubstr("range"));
}

}  // namespace
}  // namespace sumac::runtime
