// Packets in scripts: names, fields, and how a packet reads in a message. Pure functions.
#pragma once

#include <string>

#include "tests/conformance/device.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {

// A packet as a line of a script describes it.
struct PacketText {
  Packet packet;           // what was said; the rest is 0
  uint8_t value_bits = 0;  // of an acknowledgement's syndrome: those that a field says
  // What was said, for comparing: an expected packet is held to that only.
  std::vector<std::string> said;
};

// Takes name and fields from `words`. `device` gives addresses and keys. A packet to inject gets
// payload, a length that fits it where none is said, and `at` as an offset into the device's
// memory.
PacketText TakePacket(Words* words, const Device& device, bool inject);

// "": `packet` is what `text` describes. Otherwise what differs, as "psn 0x501".
std::string Difference(const PacketText& text, const Packet& packet);

std::string Describe(const Packet& packet);

// "ours", "readable", …, or a number: then nothing.
std::optional<Key> KeyNamed(const std::string& word);

}  // namespace sumac::conformance
