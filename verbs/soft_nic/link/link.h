// How packets leave and arrive: the one interface between the device and a transport for its
// packets.
//
// Implementations: udp_link.h (sockets), local_link.h (processes of one host); tests wrap a link to
// lose, duplicate, reorder or trace packets. Owned by the device; called by the engine's owner
// only, except poll_fd(), which the helper thread and blocked callers wait on, and control_fd() /
// OnControlReadable(), which the helper thread serves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

// Every packet that a link refuses has its own count.
struct LinkCounters {
  uint64_t packets_sent = 0;
  uint64_t packets_received = 0;
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t dropped_bad_icrc = 0;
  uint64_t dropped_malformed = 0;  // Decode refused it
  uint64_t dropped_truncated = 0;  // longer than the largest packet
  uint64_t dropped_wrong_qpn = 0;  // intact, but for no QPN of [first_qpn, first_qpn + qpn_count)
  uint64_t dropped_flood = 0;      // unexamined, from a source of too many bad ones
  // Intact only under an IPv4 identification that we can't see (kernel rxe, hardware); these are
  // received, not dropped.
  uint64_t icrc_by_identification = 0;
  uint64_t congestion_experienced = 0;  // received with that mark of the network
  // The kernel refused a packet, or a neighbour's ring was full: it counts as lost; the transport
  // retransmits.
  uint64_t send_errors = 0;
};

class PacketHandler {
 public:
  virtual ~PacketHandler() = default;
  // A whole packet whose ICRC verified, from `source`. The view is valid only during the call.
  virtual void OnPacket(const Gid& source, const PacketView& packet) = 0;
  // Who may want a packet from `source` for `qpn`: asked before it is looked at any closer.
  enum class Claim { kNobody, kAnySource, kThisSource };
  virtual Claim ClaimOn(const Gid& /*source*/, uint32_t /*qpn*/) const {
    return Claim::kThisSource;
  }
};

class Link : public TransmitSink {
 public:
  // TransmitSink::Transmit may queue; Flush gives all that is queued to the kernel.
  virtual void Flush() = 0;
  // Takes what has arrived, at most `budget` packets, or a few more where the kernel hands them
  // over in batches. Returns how many (also refused ones); nothing that was taken is left for the
  // next call.
  virtual size_t Receive(PacketHandler& handler, size_t budget) = 0;
  // Readable when Receive has something to take. The descriptor may be shared with other processes:
  // take it out of an epoll set before the link is destroyed, and never change its flags.
  virtual int poll_fd() const = 0;
  // A thread is about to sleep on poll_fd(): it says so, looks with Receive for the last time,
  // sleeps, and takes it back. True: Receive by another thread beside this does not count as that
  // look. Any thread.
  virtual bool AnnounceSleep() { return false; }
  virtual void WithdrawSleep() {}
  // Readable when another process wants something of this one (udp_port_share.h): the helper thread
  // then calls OnControlReadable, which never blocks and may run beside every other call here. -1:
  // there is no such thing. It must be served within a second or so also while nobody polls, or
  // other processes can't start.
  virtual int control_fd() const { return -1; }
  virtual void OnControlReadable() {}
  // The network interface that packets go through.
  virtual const std::string& interface() const = 0;
  // The address that peers send to.
  virtual const Gid& local_gid() const = 0;
  // The largest path MTU that fits the interface: 256 ... 4096.
  virtual uint32_t mtu_bytes() const = 0;
  // What the kernel keeps of packets that nobody has taken yet, by its own accounting; 0: unknown.
  virtual uint32_t receive_buffer_bytes() const { return 0; }
  // QPNs that reach this process: first + [0, count). Several processes share one UDP port by
  // ranges (udp_port_share.h).
  virtual uint32_t first_qpn() const = 0;
  virtual uint32_t qpn_count() const = 0;
  virtual LinkCounters counters() const = 0;
};

}  // namespace sumac::soft_nic
