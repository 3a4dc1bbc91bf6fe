// One peer: ordered messages under credits, and one-sided operations, over a reliable-connected
// queue pair.
//
// Created and owned by Worker; used by the worker's owning thread only.
//
// Messages: up to eager_bytes_max go eager into buffers that the peer pre-posted; larger ones by
// rendezvous: the sender announces address and key, the receiver READs straight into the caller's
// buffer and confirms. A sender without credits waits (back-pressure) instead of provoking RNR
// NAKs. Credits also cover write-with-immediate. One-sided operations complete in order on one
// endpoint, so a Ticket is just a sequence number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sumac::transport {

// What peers may do to registered memory.
enum RemoteAccess : uint32_t {
  kRemoteNone = 0,
  kRemoteRead = 1u << 0,
  kRemoteWrite = 1u << 1,
  kRemoteAtomic = 1u << 2,
};

// Memory registered with the worker's protection domain.
class RegisteredMemory {
 public:
  virtual ~RegisteredMemory() = default;
  virtual void* addr() const = 0;
  virtual size_t length() const = 0;
  virtual uint32_t lkey() const = 0;
  virtual uint32_t rkey() const = 0;
};

// Registered local bytes, as a work request names them.
struct LocalSlice {
  void* addr = nullptr;
  size_t length = 0;  // at most 2^31 for one operation (IBTA message limit)
  uint32_t lkey = 0;
};

// Bytes at the peer.
struct RemoteSlice {
  uint64_t addr = 0;
  uint32_t rkey = 0;
};

using Ticket = uint64_t;

class Endpoint {
 public:
  virtual ~Endpoint() = default;
  virtual int peer() const = 0;
  // OK, or the first error of this endpoint; it stays.
  virtual absl::Status status() const = 0;

  // --- One-sided. Never block: each fails with ResourceExhausted when room() is 0 (progress, then
  // try again). The local bytes must stay as they are until the ticket is done.
  virtual absl::StatusOr<Ticket> Write(const LocalSlice& source, const RemoteSlice& target) = 0;
  // Also runs the peer's immediate handler, after the bytes are in its memory. Needs a credit.
  virtual absl::StatusOr<Ticket> WriteWithImmediate(const LocalSlice& source,
                                                    const RemoteSlice& target,
                                                    uint32_t immediate) = 0;
  virtual absl::StatusOr<Ticket> Read(const LocalSlice& into, const RemoteSlice& source) = 0;
  // `result`: 8 bytes that receive the old value, host order. The target is 8-byte aligned.
  virtual absl::StatusOr<Ticket> FetchAdd(const LocalSlice& result, const RemoteSlice& target,
                                          uint64_t add) = 0;
  virtual absl::StatusOr<Ticket> CompareSwap(const LocalSlice& result, const RemoteSlice& target,
                                             uint64_t expected, uint64_t desired) = 0;
  // How many one-sided operations can be posted now, and how many of them with an immediate.
  virtual uint32_t room() const = 0;
  virtual uint32_t immediate_room() const = 0;

  virtual bool Done(Ticket ticket) const = 0;
  virtual Ticket last_ticket() const = 0;
  // Until done; errors name the rank. Flush waits for everything posted so far.
  virtual absl::Status Wait(Ticket ticket, absl::Time deadline) = 0;
  virtual absl::Status Flush(absl::Time deadline) = 0;

  // --- Messages, in order. Send returns when the caller's bytes may be reused.
  virtual absl::Status Send(std::span<const std::byte> message, absl::Time deadline) = 0;
  // Takes the next message. OutOfRange when it is longer than `buffer`: the message stays first in
  // line, and the status says its length.
  virtual absl::StatusOr<size_t> Receive(std::span<std::byte> buffer, absl::Time deadline) = 0;
};

}  // namespace sumac::transport
