#include "transport/message_header.h"

#include <endian.h>

#include <cstring>

namespace sumac::transport {
namespace {

constexpr uint8_t kVersion = 1;

struct Wire {
  uint8_t kind;
  uint8_t version;
  uint16_t credits;
  uint32_t id;
  uint64_t length;
  uint64_t address;
  uint32_t rkey;
  uint32_t zero;
};
static_assert(sizeof(Wire) == kAnnouncementBytes);
static_assert(offsetof(Wire, address) == kMessageHeaderBytes);

}  // namespace

void Encode(const MessageHeader& header, std::byte* to) {
  Wire wire{};
  wire.kind = static_cast<uint8_t>(header.kind);
  wire.version = kVersion;
  wire.credits = htole16(header.credits);
  wire.id = htole32(header.id);
  wire.length = htole64(header.length);
  wire.address = htole64(header.address);
  wire.rkey = htole32(header.rkey);
  std::memcpy(to, &wire, header.bytes());
}

std::optional<MessageHeader> Decode(std::span<const std::byte> packet) {
  if (packet.size() < kMessageHeaderBytes) return std::nullopt;
  Wire wire{};
  std::memcpy(&wire, packet.data(), kMessageHeaderBytes);
  if (wire.version != kVersion) return std::nullopt;
  MessageHeader header;
  header.kind = static_cast<MessageKind>(wire.kind);
  header.credits = le16toh(wire.credits);
  header.id = le32toh(wire.id);
  header.length = le64toh(wire.length);
  switch (header.kind) {
    case MessageKind::kEager:
      if (header.length != packet.size() - kMessageHeaderBytes) return std::nullopt;
      return header;
    case MessageKind::kRendezvous:
      if (packet.size() != kAnnouncementBytes || header.length == 0) return std::nullopt;
      std::memcpy(&wire, packet.data(), kAnnouncementBytes);
      if (wire.zero != 0) return std::nullopt;
      header.address = le64toh(wire.address);
      header.rkey = le32toh(wire.rkey);
      return header;
    case MessageKind::kFinish:
    case MessageKind::kCredit:
    case MessageKind::kClose:
      if (packet.size() != kMessageHeaderBytes || header.length != 0) return std::nullopt;
      return header;
  }
  return std::nullopt;
}

}  // namespace sumac::transport
