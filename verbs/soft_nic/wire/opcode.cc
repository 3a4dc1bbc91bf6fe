#include "verbs/soft_nic/wire/opcode.h"

#include <array>

namespace sumac::soft_nic {
namespace {

struct OpcodeInfo {
  uint32_t flags = 0;
  const char* name = "UNKNOWN";
};

using Table = std::array<OpcodeInfo, 256>;

constexpr uint32_t kFirst = kIsRequest | kStartsMessage | kMayCarryPayload;
constexpr uint32_t kMiddle = kIsRequest | kMayCarryPayload;
constexpr uint32_t kLast = kIsRequest | kEndsMessage | kMayCarryPayload;
constexpr uint32_t kOnly = kFirst | kLast;
constexpr uint32_t kWholeRequest = kIsRequest | kStartsMessage | kEndsMessage;
constexpr uint32_t kWholeResponse = kIsResponse | kStartsMessage | kEndsMessage;
constexpr uint32_t kReadData = kIsResponse | kIsRead | kMayCarryPayload;

// IBTA vol. 1, table 38 (opcodes) and figures of 9.3 (which extended headers each carries).
constexpr Table MakeTable() {
  Table table{};
  auto set = [&table](Opcode opcode, uint32_t flags, const char* name) {
    table[static_cast<uint8_t>(opcode)] = {flags | kIsKnown, name};
  };
  using enum Opcode;
  set(kRcSendFirst, kFirst | kIsSend, "RC SEND_FIRST");
  set(kRcSendMiddle, kMiddle | kIsSend, "RC SEND_MIDDLE");
  set(kRcSendLast, kLast | kIsSend, "RC SEND_LAST");
  set(kRcSendLastWithImmediate, kLast | kIsSend | kHasImmediate, "RC SEND_LAST_IMM");
  set(kRcSendOnly, kOnly | kIsSend, "RC SEND_ONLY");
  set(kRcSendOnlyWithImmediate, kOnly | kIsSend | kHasImmediate, "RC SEND_ONLY_IMM");
  set(kRcWriteFirst, kFirst | kIsWrite | kHasReth, "RC WRITE_FIRST");
  set(kRcWriteMiddle, kMiddle | kIsWrite, "RC WRITE_MIDDLE");
  set(kRcWriteLast, kLast | kIsWrite, "RC WRITE_LAST");
  set(kRcWriteLastWithImmediate, kLast | kIsWrite | kHasImmediate, "RC WRITE_LAST_IMM");
  set(kRcWriteOnly, kOnly | kIsWrite | kHasReth, "RC WRITE_ONLY");
  set(kRcWriteOnlyWithImmediate, kOnly | kIsWrite | kHasReth | kHasImmediate, "RC WRITE_ONLY_IMM");
  set(kRcReadRequest, kWholeRequest | kIsRead | kHasReth, "RC READ_REQ");
  set(kRcReadResponseFirst, kReadData | kStartsMessage | kHasAeth, "RC READ_RESP_FIRST");
  set(kRcReadResponseMiddle, kReadData, "RC READ_RESP_MIDDLE");
  set(kRcReadResponseLast, kReadData | kEndsMessage | kHasAeth, "RC READ_RESP_LAST");
  set(kRcReadResponseOnly, kReadData | kStartsMessage | kEndsMessage | kHasAeth,
      "RC READ_RESP_ONLY");
  set(kRcAcknowledge, kWholeResponse | kHasAeth, "RC ACK");
  set(kRcAtomicAcknowledge, kWholeResponse | kIsAtomic | kHasAeth | kHasAtomicAckEth,
      "RC ATOMIC_ACK");
  set(kRcCompareSwap, kWholeRequest | kIsAtomic | kHasAtomicEth, "RC CMP_SWAP");
  set(kRcFetchAdd, kWholeRequest | kIsAtomic | kHasAtomicEth, "RC FETCH_ADD");
  set(kRcSendLastWithInvalidate, kLast | kIsSend | kHasIeth, "RC SEND_LAST_INV");
  set(kRcSendOnlyWithInvalidate, kOnly | kIsSend | kHasIeth, "RC SEND_ONLY_INV");
  set(kUcSendFirst, kFirst | kIsSend, "UC SEND_FIRST");
  set(kUcSendMiddle, kMiddle | kIsSend, "UC SEND_MIDDLE");
  set(kUcSendLast, kLast | kIsSend, "UC SEND_LAST");
  set(kUcSendLastWithImmediate, kLast | kIsSend | kHasImmediate, "UC SEND_LAST_IMM");
  set(kUcSendOnly, kOnly | kIsSend, "UC SEND_ONLY");
  set(kUcSendOnlyWithImmediate, kOnly | kIsSend | kHasImmediate, "UC SEND_ONLY_IMM");
  set(kUcWriteFirst, kFirst | kIsWrite | kHasReth, "UC WRITE_FIRST");
  set(kUcWriteMiddle, kMiddle | kIsWrite, "UC WRITE_MIDDLE");
  set(kUcWriteLast, kLast | kIsWrite, "UC WRITE_LAST");
  set(kUcWriteLastWithImmediate, kLast | kIsWrite | kHasImmediate, "UC WRITE_LAST_IMM");
  set(kUcWriteOnly, kOnly | kIsWrite | kHasReth, "UC WRITE_ONLY");
  set(kUcWriteOnlyWithImmediate, kOnly | kIsWrite | kHasReth | kHasImmediate, "UC WRITE_ONLY_IMM");
  set(kUdSendOnly, kOnly | kIsSend | kHasDeth, "UD SEND_ONLY");
  set(kUdSendOnlyWithImmediate, kOnly | kIsSend | kHasDeth | kHasImmediate, "UD SEND_ONLY_IMM");
  // XRC: RC's, with the number of a shared receive queue in each request.
  set(kXrcSendFirst, kFirst | kIsSend | kHasXrcEth, "XRC SEND_FIRST");
  set(kXrcSendMiddle, kMiddle | kIsSend | kHasXrcEth, "XRC SEND_MIDDLE");
  set(kXrcSendLast, kLast | kIsSend | kHasXrcEth, "XRC SEND_LAST");
  set(kXrcSendLastWithImmediate, kLast | kIsSend | kHasImmediate | kHasXrcEth, "XRC SEND_LAST_IMM");
  set(kXrcSendOnly, kOnly | kIsSend | kHasXrcEth, "XRC SEND_ONLY");
  set(kXrcSendOnlyWithImmediate, kOnly | kIsSend | kHasImmediate | kHasXrcEth, "XRC SEND_ONLY_IMM");
  set(kXrcWriteFirst, kFirst | kIsWrite | kHasReth | kHasXrcEth, "XRC WRITE_FIRST");
  set(kXrcWriteMiddle, kMiddle | kIsWrite | kHasXrcEth, "XRC WRITE_MIDDLE");
  set(kXrcWriteLast, kLast | kIsWrite | kHasXrcEth, "XRC WRITE_LAST");
  set(kXrcWriteLastWithImmediate, kLast | kIsWrite | kHasImmediate | kHasXrcEth,
      "XRC WRITE_LAST_IMM");
  set(kXrcWriteOnly, kOnly | kIsWrite | kHasReth | kHasXrcEth, "XRC WRITE_ONLY");
  set(kXrcWriteOnlyWithImmediate, kOnly | kIsWrite | kHasReth | kHasImmediate | kHasXrcEth,
      "XRC WRITE_ONLY_IMM");
  set(kXrcReadRequest, kWholeRequest | kIsRead | kHasReth | kHasXrcEth, "XRC READ_REQ");
  set(kXrcReadResponseFirst, kReadData | kStartsMessage | kHasAeth, "XRC READ_RESP_FIRST");
  set(kXrcReadResponseMiddle, kReadData, "XRC READ_RESP_MIDDLE");
  set(kXrcReadResponseLast, kReadData | kEndsMessage | kHasAeth, "XRC READ_RESP_LAST");
  set(kXrcReadResponseOnly, kReadData | kStartsMessage | kEndsMessage | kHasAeth,
      "XRC READ_RESP_ONLY");
  set(kXrcAcknowledge, kWholeResponse | kHasAeth, "XRC ACK");
  set(kXrcAtomicAcknowledge, kWholeResponse | kIsAtomic | kHasAeth | kHasAtomicAckEth,
      "XRC ATOMIC_ACK");
  set(kXrcCompareSwap, kWholeRequest | kIsAtomic | kHasAtomicEth | kHasXrcEth, "XRC CMP_SWAP");
  set(kXrcFetchAdd, kWholeRequest | kIsAtomic | kHasAtomicEth | kHasXrcEth, "XRC FETCH_ADD");
  set(kXrcSendLastWithInvalidate, kLast | kIsSend | kHasIeth | kHasXrcEth, "XRC SEND_LAST_INV");
  set(kXrcSendOnlyWithInvalidate, kOnly | kIsSend | kHasIeth | kHasXrcEth, "XRC SEND_ONLY_INV");
  // A CNP is neither request nor response: it takes no PSN. Its 16 reserved bytes count as payload.
  set(kCnp, kMayCarryPayload, "CNP");
  return table;
}

constexpr Table kTable = MakeTable();

}  // namespace

uint32_t FlagsOf(Opcode opcode) { return kTable[static_cast<uint8_t>(opcode)].flags; }

const char* NameOf(Opcode opcode) { return kTable[static_cast<uint8_t>(opcode)].name; }

}  // namespace sumac::soft_nic
