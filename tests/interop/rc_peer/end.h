// This process's end of a reliable connection: a device, registered memory, and a queue pair that
// is made anew for each case.
//
// One thread. Failure: std::runtime_error.
#pragma once

#include <infiniband/verbs.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/interop/rc_peer/channel.h"
#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/memory_region.h"
#include "verbs/queue_pair.h"

namespace sumac::interop {

inline constexpr size_t kZoneBytes = 4 << 20;  // what one side works from, what the other works on
inline constexpr size_t kReceivesMax = 1024;   // posted at once
inline constexpr size_t kSendsMax = 256;
inline constexpr uint8_t kHopLimit = 33;  // tests/rxe/rc_capture.sh looks for it on the wire
inline constexpr int kAllAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                  IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

enum class Kind : uint32_t { kSoft, kRxe, kHardware };

// What the peer has to know.
struct Record {
  uint32_t qpn = 0;
  ibv_gid gid{};
  uint64_t zone = 0;  // address of the zone to work on
  uint32_t rkey = 0;
  uint32_t read_only_rkey = 0;  // of the same zone, without the right to write
  uint32_t mtu_bytes = 0;
  Kind kind = Kind::kSoft;
};

struct Path {
  uint32_t mtu_bytes = 4096;  // or what both ports allow
  uint8_t timeout = 0;        // none: whatever gets lost ends the test
  uint8_t retry_count = 7;
  uint8_t rnr_retry = 7;
  int access = kAllAccess;
  // Close to the end, so that every case wraps (24 bits).
  uint32_t local_psn = 0xfffff0;
  uint32_t remote_psn = 0xfffff0;
};

class End {
 public:
  End(const std::string& device, Channel& channel);

  // The ACK timeout of paths that have none.
  void set_timeout(uint8_t timeout) { timeout_ = timeout; }
  // A new pair of queue pairs, connected; both sides call it.
  void Reconnect(const Path& path);
  void DestroyQueuePair() { qp_.reset(); }

  const Record& peer() const { return peer_; }
  const Record& self() const { return self_; }
  verbs::Device& device() { return *device_; }
  verbs::ProtectionDomain& pd() { return *pd_; }
  verbs::QueuePair& qp() { return *qp_; }
  // The largest path MTU of both.
  uint32_t mtu_bytes_max() const { return std::min(self_.mtu_bytes, peer_.mtu_bytes); }

  std::span<uint8_t> memory() { return memory_; }  // source, then target
  std::span<uint8_t> source() { return std::span(memory_).first(kZoneBytes); }
  std::span<uint8_t> target() { return std::span(memory_).last(kZoneBytes); }
  ibv_sge Sge(const uint8_t* at, size_t length) const {
    return {reinterpret_cast<uint64_t>(at), static_cast<uint32_t>(length), region_->lkey()};
  }

  // A work request of `opcode` over `local`; one-sided ones at `offset` of the peer's target zone.
  ibv_send_wr Request(ibv_wr_opcode opcode, std::span<ibv_sge> local, size_t offset = 0) const;
  void Post(ibv_send_wr& request);
  void PostReceive(const uint8_t* at, size_t length, uint64_t id = 0);
  void PostReceive(ibv_recv_wr& request);

  // The next completion of the queue; an error past the deadline.
  ibv_wc NextSend() { return Next(*send_cq_, "send"); }
  ibv_wc NextReceive() { return Next(*receive_cq_, "receive"); }
  // One if there is one.
  bool PollSend(ibv_wc& wc) { return Poll(*send_cq_, wc); }
  bool PollReceive(ibv_wc& wc) { return Poll(*receive_cq_, wc); }

 private:
  ibv_wc Next(verbs::CompletionQueue& queue, const char* name);
  static bool Poll(verbs::CompletionQueue& queue, ibv_wc& wc);

  Channel& channel_;
  uint8_t timeout_ = 0;
  std::shared_ptr<verbs::Device> device_;
  std::shared_ptr<verbs::ProtectionDomain> pd_;
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(2 * kZoneBytes);
  std::unique_ptr<verbs::MemoryRegion> region_;
  std::unique_ptr<verbs::MemoryRegion> read_only_;
  std::shared_ptr<verbs::CompletionQueue> send_cq_;
  std::shared_ptr<verbs::CompletionQueue> receive_cq_;
  std::unique_ptr<verbs::QueuePair> qp_;
  verbs::ConnectionOptions connection_;
  Record self_;
  Record peer_;
};

// What stops a case: `held` must be true.
void Check(bool held, const std::string& what);

}  // namespace sumac::interop
