// BTH opcodes and what each says about the packet that carries it (IBTA vol. 1, table 38; XRC:
// Annex A14).
//
// Pure data. The top three bits are the transport (RC, UC, RD, UD, XRC), the low five the
// operation.
#pragma once

#include <cstdint>

namespace sumac::soft_nic {

enum class Opcode : uint8_t {
  kRcSendFirst = 0x00,
  kRcSendMiddle = 0x01,
  kRcSendLast = 0x02,
  kRcSendLastWithImmediate = 0x03,
  kRcSendOnly = 0x04,
  kRcSendOnlyWithImmediate = 0x05,
  kRcWriteFirst = 0x06,
  kRcWriteMiddle = 0x07,
  kRcWriteLast = 0x08,
  kRcWriteLastWithImmediate = 0x09,
  kRcWriteOnly = 0x0a,
  kRcWriteOnlyWithImmediate = 0x0b,
  kRcReadRequest = 0x0c,
  kRcReadResponseFirst = 0x0d,
  kRcReadResponseMiddle = 0x0e,
  kRcReadResponseLast = 0x0f,
  kRcReadResponseOnly = 0x10,
  kRcAcknowledge = 0x11,
  kRcAtomicAcknowledge = 0x12,
  kRcCompareSwap = 0x13,
  kRcFetchAdd = 0x14,
  kRcSendLastWithInvalidate = 0x16,
  kRcSendOnlyWithInvalidate = 0x17,
  kUcSendFirst = 0x20,
  kUcSendMiddle = 0x21,
  kUcSendLast = 0x22,
  kUcSendLastWithImmediate = 0x23,
  kUcSendOnly = 0x24,
  kUcSendOnlyWithImmediate = 0x25,
  kUcWriteFirst = 0x26,
  kUcWriteMiddle = 0x27,
  kUcWriteLast = 0x28,
  kUcWriteLastWithImmediate = 0x29,
  kUcWriteOnly = 0x2a,
  kUcWriteOnlyWithImmediate = 0x2b,
  kUdSendOnly = 0x64,
  kUdSendOnlyWithImmediate = 0x65,
  kCnp = 0x81,  // Annex A17: congestion notification packet
  kXrcSendFirst = 0xa0,
  kXrcSendMiddle = 0xa1,
  kXrcSendLast = 0xa2,
  kXrcSendLastWithImmediate = 0xa3,
  kXrcSendOnly = 0xa4,
  kXrcSendOnlyWithImmediate = 0xa5,
  kXrcWriteFirst = 0xa6,
  kXrcWriteMiddle = 0xa7,
  kXrcWriteLast = 0xa8,
  kXrcWriteLastWithImmediate = 0xa9,
  kXrcWriteOnly = 0xaa,
  kXrcWriteOnlyWithImmediate = 0xab,
  kXrcReadRequest = 0xac,
  kXrcReadResponseFirst = 0xad,
  kXrcReadResponseMiddle = 0xae,
  kXrcReadResponseLast = 0xaf,
  kXrcReadResponseOnly = 0xb0,
  kXrcAcknowledge = 0xb1,
  kXrcAtomicAcknowledge = 0xb2,
  kXrcCompareSwap = 0xb3,
  kXrcFetchAdd = 0xb4,
  kXrcSendLastWithInvalidate = 0xb6,
  kXrcSendOnlyWithInvalidate = 0xb7,
};

// What an opcode implies. One bit each, so that a packet's class is a mask test.
enum OpcodeFlags : uint32_t {
  kHasReth = 1u << 0,
  kHasAeth = 1u << 1,
  kHasAtomicEth = 1u << 2,
  kHasAtomicAckEth = 1u << 3,
  kHasImmediate = 1u << 4,
  kHasIeth = 1u << 5,
  kHasDeth = 1u << 6,
  kIsRequest = 1u << 7,
  kIsResponse = 1u << 8,
  kStartsMessage = 1u << 9,  // First or Only
  kEndsMessage = 1u << 10,   // Last or Only
  kIsSend = 1u << 11,
  kIsWrite = 1u << 12,
  kIsRead = 1u << 13,  // request or response
  kIsAtomic = 1u << 14,
  kMayCarryPayload = 1u << 15,
  kHasXrcEth = 1u << 16,
  kIsKnown = 1u << 31,
};

// The OpcodeFlags of `opcode`; 0 for an opcode that is not defined above.
uint32_t FlagsOf(Opcode opcode);

// "RC SEND_ONLY"-style name for messages; "UNKNOWN" for an undefined opcode. Static storage.
const char* NameOf(Opcode opcode);

}  // namespace sumac::soft_nic
