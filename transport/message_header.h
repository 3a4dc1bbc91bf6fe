// The header in front of every message between two endpoints, and the announcement of a long one.
//
// Used by ReliableEndpoint only. Pure functions; nothing is trusted: Decode checks every field that
// a peer sends. Layout, little endian:
//
//   0 kind u8 | 1 version u8 | 2 credits u16 | 4 id u32 | 8 length u64        header, 16 bytes
//   16 address u64 | 24 rkey u32 | 28 zero u32                                kRendezvous only
//
// `credits`: receives that the sender of this header has taken and posted again. `id`: counts the
// messages (kEager, kRendezvous) of one direction from 0; kFinish repeats the id that it confirms.
// `length`: bytes of the message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sumac::transport {

enum class MessageKind : uint8_t {
  kEager = 1,       // the bytes follow the header
  kRendezvous = 2,  // the bytes are to be READ from where the announcement says
  kFinish = 3,      // that has been done
  kCredit = 4,      // carries credits only
  kClose = 5,       // the sender goes away; the last thing it says
};

inline constexpr size_t kMessageHeaderBytes = 16;
inline constexpr size_t kAnnouncementBytes = 32;  // the header included

struct MessageHeader {
  MessageKind kind = MessageKind::kEager;
  uint16_t credits = 0;
  uint32_t id = 0;
  uint64_t length = 0;
  uint64_t address = 0;  // kRendezvous
  uint32_t rkey = 0;     // kRendezvous

  size_t bytes() const {
    return kind == MessageKind::kRendezvous ? kAnnouncementBytes : kMessageHeaderBytes;
  }
};

// Writes header.bytes() bytes.
void Encode(const MessageHeader& header, std::byte* to);
// `packet`: what was received, all of it. Nothing when it is not a whole message of a known kind.
std::optional<MessageHeader> Decode(std::span<const std::byte> packet);

}  // namespace sumac::transport
