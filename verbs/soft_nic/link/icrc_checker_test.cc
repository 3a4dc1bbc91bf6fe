#include "verbs/soft_nic/link/icrc_checker.h"

#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

class IcrcCheckerTest : public ::testing::Test {
 protected:
  IcrcCheckerTest() {
    ip.source = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 1};
    ip.destination = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 2};
    ip.source_port = 0xc123;
  }

  // A packet under this identification.
  std::vector<std::byte> Packet(uint16_t identification) {
    std::vector<std::byte> bytes(kBthBytes + random() % 1025 * 4 + kIcrcBytes);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    IcrcHeaders sealed = ip;
    sealed.ipv4_identification = identification;
    const uint32_t icrc =
        ComputeIcrc(sealed, std::span(bytes).first(bytes.size() - kIcrcBytes), {});
    std::memcpy(bytes.data() + bytes.size() - kIcrcBytes, &icrc, kIcrcBytes);
    return bytes;
  }

  // How many of `count` packets pass with one bit wrong, anywhere but in BTH byte 4, which the ICRC
  // does not cover.
  int PassDamaged(int count, uint16_t identification) {
    int passed = 0;
    for (int i = 0; i < count; ++i) {
      auto bytes = Packet(identification);
      size_t at = random() % bytes.size();
      if (at == 4) at = 5;
      bytes[at] ^= static_cast<std::byte>(1u << random() % 8);
      passed += static_cast<int>(checker.Check(ip, bytes) != IcrcChecker::Verdict::kDamaged);
    }
    return passed;
  }

  IcrcHeaders ip;
  IcrcChecker checker;
  std::mt19937 random{3};
};

TEST_F(IcrcCheckerTest, RefusesEverySingleBitErrorOfASenderOfOurs) {
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(checker.Check(ip, Packet(0)), IcrcChecker::Verdict::kIntact);
  }
  EXPECT_EQ(PassDamaged(100'000, 0), 0);
}

TEST_F(IcrcCheckerTest, TakesSendersWithIdentifications) {
  for (uint16_t identification = 1; identification < 60'000; identification += 997) {
    EXPECT_EQ(checker.Check(ip, Packet(identification)),
              IcrcChecker::Verdict::kIntactByIdentification);
  }
}

}  // namespace
}  // namespace sumac::soft_nic
