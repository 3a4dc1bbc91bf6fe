// This process's end of an unreliable exchange: a device, registered memory, and a UC or UD queue
// pair, over libibverbs or the soft NIC alike.
//
// One thread. Failure: std::runtime_error.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/interop/rc_peer/channel.h"
#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/memory_region.h"

namespace sumac::interop {

inline constexpr size_t kHalfBytes = 64 << 10;  // the memory: what is sent, then what is received
inline constexpr uint32_t kFirstPsn = 0xfffffe;
inline constexpr uint32_t kQkey = 0x1ee7c0de;

// What the peer has to know.
struct PeerRecord {
  uint32_t qpn = 0;
  ibv_gid gid{};
  uint64_t target = 0;
  uint32_t rkey = 0;
  uint32_t mtu_bytes = 0;
};

class UnreliableEnd {
 public:
  // Connected (UC) or ready (UD) when both sides have made theirs.
  UnreliableEnd(const std::string& device, Channel& channel, ibv_qp_type type);
  ~UnreliableEnd();
  UnreliableEnd(const UnreliableEnd&) = delete;
  UnreliableEnd& operator=(const UnreliableEnd&) = delete;

  const PeerRecord& peer() const { return peer_; }
  uint32_t qpn() const { return qp_->qp_num; }
  uint32_t mtu_bytes() const { return mtu_bytes_; }  // of the path
  // Whether a request's Q_Key with the top bit set is replaced by the queue pair's own, as it must
  // be (IBTA vol. 1, 10.2.5). rxe sends it as it is.
  bool replaces_qkeys() const { return device_->name().rfind("rxe", 0) != 0; }
  uint8_t* source() { return memory_.data(); }
  uint8_t* target() { return memory_.data() + kHalfBytes; }

  // Waits for the completion of the request. `wr` comes with what its opcode needs.
  void Send(ibv_send_wr wr, size_t length);
  void PostReceive(size_t length);
  ibv_wc NextReceive();

  // UD: the peer's address, and that of whoever sent what was received.
  ibv_ah* ToPeer();
  ibv_ah* ToSenderOf(ibv_wc& wc);

 private:
  void Modify(ibv_qp_state state, int mask);
  void Keep(ibv_ah* handle);

  Channel& channel_;
  std::shared_ptr<verbs::Device> device_;
  bool soft_;
  std::shared_ptr<verbs::ProtectionDomain> pd_;
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(2 * kHalfBytes);
  std::unique_ptr<verbs::MemoryRegion> region_;
  std::shared_ptr<verbs::CompletionQueue> send_cq_;
  std::shared_ptr<verbs::CompletionQueue> receive_cq_;
  ibv_qp* qp_ = nullptr;
  ibv_qp_attr attr_{};
  uint32_t mtu_bytes_ = 0;
  PeerRecord peer_;
  std::vector<ibv_ah*> handles_;
};

// What stops a case: `held` must be true.
void Check(bool held, const std::string& what);

}  // namespace sumac::interop
