// The device under test, as the player of scripts sees it.
//
// A device is one queue pair (RC or UC: connected) with kMemoryBytes of registered memory; the
// script is its peer. engine_device.h runs the engine in virtual time, verbs_device.h whatever has
// verbs, in real time. A device that can't do something says so: by NotApplicable where a case
// makes no sense then (a full link), by no value where it does without (counters). One thread.
#pragma once

#include <infiniband/verbs.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/conformance/script.h"
#include "verbs/soft_nic/engine/queue_pair.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::conformance {

using Duration = std::chrono::nanoseconds;

inline constexpr size_t kMemoryBytes = 64 << 10;
inline constexpr uint32_t kPeerQpn = 0x22;
inline constexpr uint32_t kQkey = 0x1234567;  // UD: of both ends, where a script says no other
// What memory holds at the beginning.
constexpr std::byte PatternAt(size_t offset) { return static_cast<std::byte>(offset * 7 + 3); }

// The device can't play this case at all.
class NotApplicable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// How the queue pair is made; `with` lines change it.
struct Setup {
  soft_nic::QueuePairLimits limits{.signal_all = false};
  soft_nic::ReceiveConfig receive;
  soft_nic::SendConfig send;
  ibv_qp_state state = IBV_QPS_RTS;
  bool keys_go = false;      // by SENDs with invalidate
  std::string beyond_verbs;  // an option that was given and that verbs has no attribute for
};

// The keys under which memory is registered, all of it.
enum class Key : uint8_t {
  kOurs,      // local access and every remote right
  kReadable,  // the peer may read
  kWritable,  // the peer may write
  kLocal,     // the peer may do nothing
  kUnknown,   // no such key
};

// IBV_ACCESS_* bits.
int RightsOf(Key key);

struct Packet {
  soft_nic::PacketHeader header;
  std::vector<std::byte> payload;
  Duration at{};  // since the beginning
};

struct SendWork {
  uint64_t id = 0;
  ibv_wr_opcode opcode = IBV_WR_SEND;
  std::vector<Range> from;
  Key local_key = Key::kOurs;
  unsigned flags = 0;  // IBV_SEND_*
  uint64_t remote_addr = 0;
  uint32_t rkey = 0;
  uint32_t immediate = 0;  // host order; SEND with invalidate: the key
  uint64_t compare_add = 0;
  uint64_t swap = 0;
  uint32_t remote_qpn = kPeerQpn;  // UD
  uint32_t remote_qkey = kQkey;    // UD
};

struct ReceiveWork {
  uint64_t id = 0;
  std::vector<Range> into;
  Key local_key = Key::kOurs;
};

// As posted. `to`: for UD.
ibv_send_wr ToVerbs(const SendWork& work, std::span<ibv_sge> sges, ibv_ah* to);
ibv_recv_wr ToVerbs(const ReceiveWork& work, std::span<ibv_sge> sges);

struct Completion {
  ibv_wc wc{};
  std::optional<bool> solicited;  // nothing: the device does not tell
};

class Device {
 public:
  virtual ~Device() = default;

  // 0 or an errno.
  virtual int Post(const SendWork& work) = 0;
  virtual int PostReceive(const ReceiveWork& work) = 0;
  // IBV_QPS_ERR or IBV_QPS_RESET.
  virtual void Enter(ibv_qp_state state) = 0;
  virtual void SetRights(int access_flags) = 0;
  // A key that no longer counts.
  virtual void Deregister(Key key) = 0;
  // Full: the link takes no packet until it is free again.
  virtual void SetLink(bool free) = 0;
  // A packet of the peer, to the queue pair that its header names.
  virtual void Inject(const Packet& packet) = 0;

  // Time since the beginning. Virtual time passes only in the next three; real time all the while,
  // so that what a script says of times can only be held to roughly.
  virtual bool real_time() const { return false; }
  // By how much its timers may be early: those of a kernel count ticks.
  virtual Duration tick() const { return {}; }
  // It may repeat its last request unasked (tail probes), and that can't be turned off.
  virtual bool probes() const { return false; }
  virtual Duration now() const = 0;
  virtual void Wait(Duration duration) = 0;
  // The next packet or completion that was not handed out yet, after at most `patience`.
  virtual std::optional<Packet> NextPacket(Duration patience) = 0;
  virtual std::optional<Completion> NextCompletion(bool receive, Duration patience) = 0;

  virtual std::span<std::byte> memory() = 0;
  virtual uint64_t address() const = 0;  // of memory, as the peer names it
  virtual uint32_t KeyOf(Key key) const = 0;
  virtual ibv_qp_type type() const = 0;
  virtual uint32_t qpn() const = 0;
  virtual ibv_qp_state state() const = 0;
  virtual const soft_nic::Gid& gid() const = 0;
  virtual const soft_nic::Gid& peer_gid() const = 0;
  // Nothing: it does not count that.
  virtual std::optional<uint64_t> Counter(const std::string& name) const = 0;
};

}  // namespace sumac::conformance
