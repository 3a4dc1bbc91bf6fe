#include "tests/conformance/packet_text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace sumac::conformance {
namespace {

using soft_nic::Opcode;
using soft_nic::PacketHeader;

// Names of packets: of an opcode, and for acknowledgements of a syndrome.
struct Name {
  const char* name;
  Opcode opcode;
  uint8_t syndrome = soft_nic::kSyndromeAckNoCredits;
  uint8_t value_bits = 0x1f;  // the part of the syndrome that a field says (credits, timer)
};

constexpr Name kNames[] = {
    {"SEND_FIRST", Opcode::kRcSendFirst},
    {"SEND_MIDDLE", Opcode::kRcSendMiddle},
    {"SEND_LAST", Opcode::kRcSendLast},
    {"SEND_LAST_IMM", Opcode::kRcSendLastWithImmediate},
    {"SEND_LAST_INV", Opcode::kRcSendLastWithInvalidate},
    {"SEND_ONLY", Opcode::kRcSendOnly},
    {"SEND_ONLY_IMM", Opcode::kRcSendOnlyWithImmediate},
    {"SEND_ONLY_INV", Opcode::kRcSendOnlyWithInvalidate},
    {"WRITE_FIRST", Opcode::kRcWriteFirst},
    {"WRITE_MIDDLE", Opcode::kRcWriteMiddle},
    {"WRITE_LAST", Opcode::kRcWriteLast},
    {"WRITE_LAST_IMM", Opcode::kRcWriteLastWithImmediate},
    {"WRITE_ONLY", Opcode::kRcWriteOnly},
    {"WRITE_ONLY_IMM", Opcode::kRcWriteOnlyWithImmediate},
    {"READ_REQUEST", Opcode::kRcReadRequest},
    {"READ_RESPONSE_FIRST", Opcode::kRcReadResponseFirst},
    {"READ_RESPONSE_MIDDLE", Opcode::kRcReadResponseMiddle},
    {"READ_RESPONSE_LAST", Opcode::kRcReadResponseLast},
    {"READ_RESPONSE_ONLY", Opcode::kRcReadResponseOnly},
    {"CMP_SWAP", Opcode::kRcCompareSwap},
    {"FETCH_ADD", Opcode::kRcFetchAdd},
    {"ATOMIC_ACK", Opcode::kRcAtomicAcknowledge},
    {"ACK", Opcode::kRcAcknowledge, soft_nic::kSyndromeAckNoCredits},
    {"RNR_NAK", Opcode::kRcAcknowledge, soft_nic::kSyndromeRnrNak},
    {"NAK_SEQUENCE", Opcode::kRcAcknowledge, soft_nic::kSyndromeNakSequence, 0},
    {"NAK_INVALID_REQUEST", Opcode::kRcAcknowledge, soft_nic::kSyndromeNakInvalidRequest, 0},
    {"NAK_REMOTE_ACCESS", Opcode::kRcAcknowledge, soft_nic::kSyndromeNakRemoteAccess, 0},
    {"NAK_REMOTE_OPERATION", Opcode::kRcAcknowledge, soft_nic::kSyndromeNakRemoteOperation, 0},
    {"NAK_INVALID_RD", Opcode::kRcAcknowledge, soft_nic::kSyndromeNakInvalidRd, 0},
    // Any other syndrome: `syndrome N` says which.
    {"ACKNOWLEDGE", Opcode::kRcAcknowledge, 0, 0xff},
    {"CNP", Opcode::kCnp},
};

// The transport is the top three bits of an opcode (table 38). Names are those of RC; a packet of
// another transport than the queue pair's has its transport before its name: UC_SEND_ONLY.
struct Transport {
  const char* prefix;
  uint8_t bits;
};
constexpr Transport kTransports[] = {{"RC_", 0x00}, {"UC_", 0x20}, {"UD_", 0x60}, {"XRC_", 0xa0}};
constexpr uint8_t kTransportBits = 0xe0;

uint8_t BitsOf(Opcode opcode) { return static_cast<uint8_t>(opcode) & kTransportBits; }

uint8_t BitsOf(ibv_qp_type type) {
  return type == IBV_QPT_UC ? 0x20 : type == IBV_QPT_UD ? 0x60 : 0x00;
}

// Fields that are plain numbers.
struct Field {
  const char* name;
  uint64_t (*get)(const PacketHeader&);
  void (*set)(PacketHeader&, uint64_t);
  int base = 16;
};

constexpr Field kFields[] = {
    {"psn", [](const PacketHeader& h) -> uint64_t { return h.psn; },
     [](PacketHeader& h, uint64_t v) { h.psn = static_cast<uint32_t>(v); }},
    {"msn", [](const PacketHeader& h) -> uint64_t { return h.msn; },
     [](PacketHeader& h, uint64_t v) { h.msn = static_cast<uint32_t>(v); }, 10},
    {"length", [](const PacketHeader& h) -> uint64_t { return h.dma_length; },
     [](PacketHeader& h, uint64_t v) { h.dma_length = static_cast<uint32_t>(v); }, 10},
    {"at", [](const PacketHeader& h) -> uint64_t { return h.remote_addr; },
     [](PacketHeader& h, uint64_t v) { h.remote_addr = v; }, 10},
    {"imm", [](const PacketHeader& h) -> uint64_t { return ntohl(h.immediate); },
     [](PacketHeader& h, uint64_t v) { h.immediate = htonl(static_cast<uint32_t>(v)); }},
    {"swap", [](const PacketHeader& h) -> uint64_t { return h.swap_or_add; },
     [](PacketHeader& h, uint64_t v) { h.swap_or_add = v; }},
    {"add", [](const PacketHeader& h) -> uint64_t { return h.swap_or_add; },
     [](PacketHeader& h, uint64_t v) { h.swap_or_add = v; }},
    {"compare", [](const PacketHeader& h) -> uint64_t { return h.compare; },
     [](PacketHeader& h, uint64_t v) { h.compare = v; }},
    {"result", [](const PacketHeader& h) -> uint64_t { return h.atomic_result; },
     [](PacketHeader& h, uint64_t v) { h.atomic_result = v; }},
    {"credits", [](const PacketHeader& h) -> uint64_t { return h.syndrome & 0x1f; },
     [](PacketHeader& h, uint64_t v) { h.syndrome = static_cast<uint8_t>(v & 0x1f); }, 10},
    {"timer", [](const PacketHeader& h) -> uint64_t { return h.syndrome & 0x1f; },
     [](PacketHeader& h, uint64_t v) {
       h.syndrome = static_cast<uint8_t>(soft_nic::kSyndromeRnrNak | (v & 0x1f));
     },
     10},
    {"syndrome", [](const PacketHeader& h) -> uint64_t { return h.syndrome; },
     [](PacketHeader& h, uint64_t v) { h.syndrome = static_cast<uint8_t>(v); }},
    {"key", [](const PacketHeader& h) -> uint64_t { return h.rkey; },
     [](PacketHeader& h, uint64_t v) { h.rkey = static_cast<uint32_t>(v); }},
    {"qkey", [](const PacketHeader& h) -> uint64_t { return h.qkey; },
     [](PacketHeader& h, uint64_t v) { h.qkey = static_cast<uint32_t>(v); }},
    {"source", [](const PacketHeader& h) -> uint64_t { return h.source_qpn; },
     [](PacketHeader& h, uint64_t v) { h.source_qpn = static_cast<uint32_t>(v); }},
    {"srqn", [](const PacketHeader& h) -> uint64_t { return h.xrc_srqn; },
     [](PacketHeader& h, uint64_t v) { h.xrc_srqn = static_cast<uint32_t>(v); }},
    {"pkey", [](const PacketHeader& h) -> uint64_t { return h.pkey; },
     [](PacketHeader& h, uint64_t v) { h.pkey = static_cast<uint16_t>(v); }},
    {"to", [](const PacketHeader& h) -> uint64_t { return h.dest_qpn; },
     [](PacketHeader& h, uint64_t v) { h.dest_qpn = static_cast<uint32_t>(v); }},
};

struct FlagField {
  const char* name;
  bool PacketHeader::*value;
};
constexpr FlagField kFlags[] = {{"ack", &PacketHeader::ack_request},
                                {"solicited", &PacketHeader::solicited},
                                {"migration", &PacketHeader::migration},
                                {"fecn", &PacketHeader::fecn},
                                {"becn", &PacketHeader::becn}};

// What `word` means for a queue pair of this type.
Name NameCalled(const std::string& word, ibv_qp_type type) {
  uint8_t transport = BitsOf(type);
  std::string_view rest = word;
  for (const Transport& each : kTransports) {
    if (!rest.starts_with(each.prefix)) continue;
    transport = each.bits;
    rest.remove_prefix(std::strlen(each.prefix));
    break;
  }
  for (Name name : kNames) {
    if (rest != name.name) continue;
    if (BitsOf(name.opcode) != 0) return name;
    name.opcode = static_cast<Opcode>(static_cast<uint8_t>(name.opcode) | transport);
    // One that the table of opcodes leaves out can be injected all the same.
    return name;
  }
  throw ScriptError("no packet is called '" + word + "'");
}

bool SyndromeFits(const Name& name, uint8_t syndrome) {
  const int fixed = ~name.value_bits;
  return (syndrome & fixed) == (name.syndrome & fixed);
}

// The first name that fits.
std::string NameOf(const PacketHeader& header) {
  const uint8_t bits = BitsOf(header.opcode);
  for (const Transport& transport : kTransports) {
    if (transport.bits != bits) continue;
    for (const Name& name : kNames) {
      if ((static_cast<uint8_t>(name.opcode) | bits) != static_cast<uint8_t>(header.opcode)) {
        continue;
      }
      if (header.opcode == Opcode::kRcAcknowledge && !SyndromeFits(name, header.syndrome)) continue;
      return (bits == 0 ? "" : transport.prefix) + std::string(name.name);
    }
  }
  return soft_nic::NameOf(header.opcode);
}

std::string Number(uint64_t value, int base) {
  char text[24];
  std::snprintf(text, sizeof(text), base == 16 ? "0x%llx" : "%llu",
                static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

std::optional<Key> KeyNamed(const std::string& word) {
  if (word == "ours") return Key::kOurs;
  if (word == "readable") return Key::kReadable;
  if (word == "writable") return Key::kWritable;
  if (word == "local") return Key::kLocal;
  if (word == "unknown") return Key::kUnknown;
  return std::nullopt;
}

PacketText TakePacket(Words* words, const Device& device, bool inject) {
  PacketText text;
  const std::string called = words->Next("a packet's name");
  const Name name = NameCalled(called, device.type());
  text.value_bits = name.value_bits;
  PacketHeader& header = text.packet.header;
  header.opcode = name.opcode;
  header.syndrome = name.syndrome;
  header.dest_qpn = inject ? device.qpn() : kPeerQpn;
  header.qkey = kQkey;
  header.source_qpn = inject ? kPeerQpn : device.qpn();
  const uint32_t flags = soft_nic::FlagsOf(name.opcode);
  if ((flags & soft_nic::kHasDeth) != 0 && !inject) text.said = {"qkey", "source"};

  // Keys by name, so that scripts need no numbers.
  const bool has_key =
      (flags & (soft_nic::kHasReth | soft_nic::kHasAtomicEth | soft_nic::kHasIeth)) != 0;
  if (inject && has_key) header.rkey = device.KeyOf(Key::kOurs);
  for (const char* word : {"key", "invalidate"}) {
    const std::optional<std::string> value = words->Value(word);
    if (!value.has_value()) continue;
    const std::optional<Key> key = KeyNamed(*value);
    header.rkey = key ? device.KeyOf(*key) : static_cast<uint32_t>(ParseNumber(*value));
    text.said.emplace_back("key");
  }
  for (const Field& field : kFields) {
    const std::optional<uint64_t> value = words->Number(field.name);
    if (!value.has_value()) continue;
    field.set(header, *value);
    text.said.emplace_back(field.name);
  }
  for (const FlagField& flag : kFlags) {
    const bool absent = words->Flag(std::string("no_") + flag.name);
    if (absent || words->Flag(flag.name)) {
      header.*flag.value = !absent;
      text.said.emplace_back(flag.name);
    }
  }
  const uint64_t bytes = words->Number("bytes").value_or(0);
  std::vector<std::byte>& payload = text.packet.payload;
  payload.resize(bytes);
  const std::optional<uint64_t> data = words->Number("data");
  const std::optional<uint64_t> fill = words->Number("fill");
  if (data && fill) throw ScriptError("'data' and 'fill' are two answers to one question");
  if (data) {
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = PatternAt(*data + i);
  } else {
    std::fill(payload.begin(), payload.end(), static_cast<std::byte>(fill.value_or(0xab)));
  }
  if (data || fill) text.said.emplace_back("payload");
  const auto said = [&text](const char* what) {
    return std::find(text.said.begin(), text.said.end(), what) != text.said.end();
  };
  if (header.opcode != Opcode::kCnp && !said("psn")) throw ScriptError("a packet has a psn");
  if (!inject) return text;
  if ((flags & (soft_nic::kHasReth | soft_nic::kHasAtomicEth)) != 0) {
    header.remote_addr += device.address();
  }
  const bool whole =
      (flags & soft_nic::kStartsMessage) != 0 && (flags & soft_nic::kEndsMessage) != 0;
  if ((flags & soft_nic::kIsWrite) != 0 && whole && !said("length")) {
    header.dma_length = static_cast<uint32_t>(bytes);
  }
  return text;
}

std::string Difference(const PacketText& text, const Packet& packet) {
  const PacketHeader& want = text.packet.header;
  const PacketHeader& have = packet.header;
  const auto fixed = static_cast<uint8_t>(~text.value_bits);
  if (have.opcode != want.opcode || (have.opcode == Opcode::kRcAcknowledge &&
                                     (have.syndrome & fixed) != (want.syndrome & fixed))) {
    return "another packet";
  }
  for (const std::string& said : text.said) {
    for (const Field& field : kFields) {
      if (said == field.name && field.get(want) != field.get(have)) {
        return said + " " + Number(field.get(have), field.base);
      }
    }
    for (const FlagField& flag : kFlags) {
      if (said == flag.name && want.*flag.value != have.*flag.value) {
        return (have.*flag.value ? "" : "no_") + said;
      }
    }
    if (said == "payload" && text.packet.payload != packet.payload) return "other bytes";
  }
  if (text.packet.payload.size() != packet.payload.size()) {
    return "bytes " + std::to_string(packet.payload.size());
  }
  // What every packet must have right, said or not (IBTA vol. 1, 9.2).
  if (have.dest_qpn != want.dest_qpn) return "destination QP " + Number(have.dest_qpn, 16);
  if (have.pkey != soft_nic::kDefaultPkey) return "pkey " + Number(have.pkey, 16);
  if (have.pad_bytes != (-packet.payload.size() & 3u)) {
    return "pad " + std::to_string(have.pad_bytes);
  }
  return "";
}

std::string Describe(const Packet& packet) {
  const PacketHeader& header = packet.header;
  const uint32_t flags = soft_nic::FlagsOf(header.opcode);
  std::string text = NameOf(header) + " psn " + Number(header.psn, 16);
  const auto add = [&text, &header](const char* name) {
    for (const Field& field : kFields) {
      if (std::strcmp(field.name, name) != 0) continue;
      text += std::string(" ") + name + " " + Number(field.get(header), field.base);
    }
  };
  if (!packet.payload.empty()) text += " bytes " + std::to_string(packet.payload.size());
  if ((flags & soft_nic::kHasXrcEth) != 0) add("srqn");
  if ((flags & soft_nic::kHasReth) != 0) {
    for (const char* name : {"at", "key", "length"}) add(name);
  }
  if ((flags & soft_nic::kHasAtomicEth) != 0) {
    for (const char* name : {"at", "key", "swap", "compare"}) add(name);
  }
  if ((flags & soft_nic::kHasImmediate) != 0) add("imm");
  if ((flags & soft_nic::kHasIeth) != 0) add("key");
  if ((flags & soft_nic::kHasAeth) != 0) {
    add("msn");
    const auto kind = soft_nic::KindOfSyndrome(header.syndrome);
    if (kind == soft_nic::AckKind::kRnrNak) add("timer");
    if (kind == soft_nic::AckKind::kAck && (header.syndrome & 0x1f) != 0x1f) add("credits");
  }
  if ((flags & soft_nic::kHasAtomicAckEth) != 0) add("result");
  if ((flags & soft_nic::kHasDeth) != 0) {
    for (const char* name : {"qkey", "source"}) add(name);
  }
  for (const FlagField& flag : kFlags) {
    if (header.*flag.value) text += std::string(" ") + flag.name;
  }
  return text;
}

}  // namespace sumac::conformance
