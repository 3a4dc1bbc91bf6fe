// What the engine needs from outside, as small interfaces: memory, completions, and a way to send.
//
// The engine is sans-IO: time, packets and memory access are passed in, so that a simulator can run
// it bit for bit (tests/simulation) and the device can run it on real sockets. The nouns are
// libibverbs' own (ibv_wc, ibv_sge, ibv_send_wr, ibv_qp_state): types only, no library call is made
// from here.
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {

using Time = std::chrono::steady_clock::time_point;
using Duration = std::chrono::nanoseconds;
inline constexpr Time kNever = Time::max();

// Where a queue pair's packets go (from its address vector).
struct Path {
  Gid source{};
  Gid destination{};
  uint16_t source_port = 0xc000;  // per-QP entropy for ECMP, 0xc000-0xffff
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 64;
  uint32_t flow_label = 0;
};

// One packet to send. Pointers are valid only during the call that passes it, but for a `payload`
// that stays.
struct OutgoingPacket {
  const Path* path = nullptr;
  PacketHeader header;
  std::span<const iovec> payload;  // registered memory, without pad: the link adds pad and ICRC
  // The bytes of the payload (not the iovecs) may be read until the link is flushed, and nobody is
  // to change them before: the link need not copy them now. Who breaks that has sent a packet with
  // a wrong ICRC, which counts as lost.
  bool payload_stays = false;
};

// Who takes packets. Called by the engine's owner only.
class TransmitSink {
 public:
  virtual ~TransmitSink() = default;
  // True: the packet was taken (its payload copied or sent). False: no room now; the same packet
  // comes again on a later PollTransmit.
  [[nodiscard]] virtual bool Transmit(const OutgoingPacket& packet) = 0;
};

// What a posted IBV_WR_BIND_MW asks for.
struct WindowBind {
  uint32_t rkey = 0;        // the window's, with its new low 8 bits
  uint32_t region_key = 0;  // lkey of the region; 0 unbinds
  uint64_t addr = 0;
  uint64_t length = 0;
  int access = 0;  // IBV_ACCESS_REMOTE_*, IBV_ACCESS_ZERO_BASED
};

// Registered memory, by key. All checks of key, range, right and protection domain happen behind
// this. Zero-length accesses never reach it (they need no key: IBTA vol. 1, 9.7.4.1.1.7 / C9-88).
class Memory {
 public:
  virtual ~Memory() = default;
  // The bytes behind a local key, or null when key, range or rights (IBV_ACCESS_LOCAL_WRITE when
  // `write`) refuse.
  virtual std::byte* Local(uint32_t lkey, uint64_t addr, size_t length, bool write) = 0;
  // The same for a remote peer's request; `access` is one IBV_ACCESS_REMOTE_* bit.
  virtual std::byte* Remote(uint32_t rkey, uint64_t addr, size_t length, int access) = 0;
  // SEND with invalidate, and IBV_WR_LOCAL_INV: retires a key. False when the key can't be
  // invalidated.
  virtual bool Invalidate(uint32_t rkey) = 0;
  // Points a memory window at a part of a region. False, and nothing changed, when a rule forbids
  // it.
  virtual bool Bind(const WindowBind&) { return false; }
};

// Bytes of the peer that a request names.
struct RemoteRange {
  uint32_t rkey = 0;
  uint64_t addr = 0;
  uint64_t length = 0;
};

// The peer's memory, where this process can reach it without the peer's help (local/direct_path.h).
// Called by the engine's owner, and only while nothing that was sent before is unanswered.
//
// Each call does all of what it is asked, or says false: then the request goes out as packets, and
// the peer itself refuses what it does not allow. So no reason is given. Every call checks the
// whole range anew, and nothing is touched once the peer has withdrawn key or queue pair.
class DirectMemory {
 public:
  virtual ~DirectMemory() = default;
  // Whether it is worth asking.
  [[nodiscard]] virtual bool up() const = 0;
  // `pieces` to or from the range's bytes at `offset`; the last byte of a write is seen last.
  [[nodiscard]] virtual bool Write(const RemoteRange& range, uint64_t offset,
                                   std::span<const iovec> pieces) = 0;
  [[nodiscard]] virtual bool Read(const RemoteRange& range, uint64_t offset,
                                  std::span<const iovec> pieces) = 0;
  // On the 8 bytes at `addr`; `original` is what was there.
  [[nodiscard]] virtual bool CompareSwap(uint32_t rkey, uint64_t addr, uint64_t compare,
                                         uint64_t swap, uint64_t* original) = 0;
  [[nodiscard]] virtual bool FetchAdd(uint32_t rkey, uint64_t addr, uint64_t add,
                                      uint64_t* original) = 0;
};

// A completion queue as the engine sees it. Called by the engine's owner only.
class CompletionSink {
 public:
  virtual ~CompletionSink() = default;
  // `solicited`: the receive completion of a message whose SE bit was set, or an error.
  virtual void Push(const ibv_wc& completion, bool solicited) = 0;
};

}  // namespace sumac::soft_nic
