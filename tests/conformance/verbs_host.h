// What the cases that are played against a device behind verbs share: the opened device, the peer's
// socket, and a queue pair by which it is known that the device has looked at all that was sent.
//
// Outlives every VerbsDevice (verbs_device.h). One thread. Failure: std::runtime_error that names
// the call.
#pragma once

#include <infiniband/verbs.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>

#include "tests/conformance/device.h"
#include "tests/conformance/peer_socket.h"
#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/protection_domain.h"

namespace sumac::conformance {

class VerbsHost {
 public:
  struct Options {
    std::string device;      // "soft0", "rxe0"
    std::string peer;        // its address; empty: some address of 127.0.0.0/8
    std::string peer_netns;  // where the peer's socket is made; empty: here
  };
  explicit VerbsHost(const Options& options);
  ~VerbsHost();
  VerbsHost(const VerbsHost&) = delete;
  VerbsHost& operator=(const VerbsHost&) = delete;

  bool soft() const { return soft_; }
  const std::shared_ptr<verbs::Device>& device() const { return device_; }
  const std::shared_ptr<verbs::ProtectionDomain>& pd() const { return pd_; }
  const soft_nic::Gid& gid() const { return gid_; }
  PeerSocket& peer() { return *peer_; }

  ibv_qp* CreateQp(ibv_qp_init_attr* init);
  void Destroy(ibv_qp* qp) { device_->provider().destroy_qp(qp); }
  // 0 or an errno.
  int TryModify(ibv_qp* qp, ibv_qp_attr attr, int mask);
  ibv_ah_attr ToPeer() const;
  // Through the states that lead to `state`.
  void Connect(ibv_qp* qp, const Setup& setup, ibv_qp_state state);

  // Returns when the device has looked at every packet that was sent before. `pump` takes what it
  // answers meanwhile, and is told which packets are for nobody but us.
  template <typename Pump>
  void Settle(Pump pump) {
    const uint32_t psn = SendFence();
    Clock::time_point again = Clock::now() + kFenceAgain;
    const Clock::time_point end = Clock::now() + kFencePatience;
    while (fence_answered_ != psn) {
      pump();
      if (Clock::now() > end) throw std::runtime_error("the device answers nothing any more");
      if (Clock::now() < again) continue;
      RepeatFence();
      again = Clock::now() + kFenceAgain;
    }
  }
  // True: it was the answer to a fence.
  bool TakeFence(const soft_nic::PacketHeader& header);

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kFenceAgain = std::chrono::milliseconds(200);
  static constexpr auto kFencePatience = std::chrono::seconds(10);

  uint32_t SendFence();
  void RepeatFence();

  std::shared_ptr<verbs::Device> device_;
  bool soft_;
  std::shared_ptr<verbs::ProtectionDomain> pd_;
  soft_nic::Gid gid_{};
  int gid_index_ = 0;
  std::unique_ptr<PeerSocket> peer_;
  std::shared_ptr<verbs::CompletionQueue> fence_cq_;
  ibv_qp* fence_ = nullptr;
  uint32_t fence_psn_ = 0;
  uint32_t fence_answered_ = 0;
};

}  // namespace sumac::conformance
