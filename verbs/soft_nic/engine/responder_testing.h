// The fixture of tests that play a responder's peer by hand. Tests only; one thread.
#pragma once

#include <gtest/gtest.h>

#include <deque>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {

using testing::Describe;
using testing::Engine;
using testing::Packet;

// The peer's first PSN is 0x500; memory byte i is 7 i + 3.
class ResponderTest : public ::testing::Test {
 protected:
  // The one packet that goes out now.
  PacketHeader Answer() {
    const std::deque<Packet> sent = engine.Transmit();
    EXPECT_EQ(sent.size(), 1u) << Describe(sent);
    return sent.empty() ? PacketHeader{} : sent[0].header;
  }
  void ExpectAnswer(uint32_t psn, uint8_t syndrome, uint32_t msn) {
    const PacketHeader answer = Answer();
    EXPECT_EQ(answer.opcode, Opcode::kRcAcknowledge);
    EXPECT_EQ(answer.psn, psn);
    EXPECT_EQ(answer.syndrome, syndrome);
    EXPECT_EQ(answer.msn, msn);
  }
  void ExpectUntouched() const {
    for (size_t i = 0; i < engine.memory.size(); ++i) {
      ASSERT_EQ(engine.memory[i], static_cast<std::byte>(i * 7 + 3)) << i;
    }
  }
  Engine engine;
};

}  // namespace sumac::soft_nic
