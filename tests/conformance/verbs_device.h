// A device behind verbs as the device under test, in real time: the soft NIC over its UDP link,
// kernel rxe, or hardware. The peer is a UDP socket (peer_socket.h). See device.h.
//
// VerbsHost is what all cases share: the opened device, the socket, and a queue pair of its own by
// which it is known that the device has looked at everything that was sent before. VerbsDevice is
// one case's queue pair. One thread.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

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

class VerbsDevice : public Device {
 public:
  VerbsDevice(VerbsHost& host, const Setup& setup);
  ~VerbsDevice() override;

  int Post(const SendWork& work) override;
  int PostReceive(const ReceiveWork& work) override;
  void Enter(ibv_qp_state state) override;
  void SetRights(int access_flags) override;
  void Deregister(Key key) override;
  void SetLink(bool free) override;
  void Inject(const Packet& packet) override;
  bool real_time() const override { return true; }
  Duration tick() const override;
  bool probes() const override { return host_.soft(); }
  Duration now() const override { return std::chrono::steady_clock::now() - start_; }
  void Wait(Duration duration) override;
  std::optional<Packet> NextPacket(Duration patience) override;
  std::optional<Completion> NextCompletion(bool receive, Duration patience) override;
  std::span<std::byte> memory() override;
  uint64_t address() const override { return reinterpret_cast<uint64_t>(memory_.get()); }
  uint32_t KeyOf(Key key) const override;
  ibv_qp_type type() const override { return type_; }
  uint32_t qpn() const override { return qp_->qp_num; }
  ibv_qp_state state() const override;
  const soft_nic::Gid& gid() const override { return host_.gid(); }
  const soft_nic::Gid& peer_gid() const override { return host_.peer().address(); }
  std::optional<uint64_t> Counter(const std::string& name) const override;

 private:
  static constexpr size_t kKeys = 4;  // kOurs to kLocal
  struct FreeMemory {
    void operator()(std::byte* memory) const;
  };

  void Register();
  void BindWindows();
  uint32_t LocalKeyOf(Key key) const;
  std::vector<ibv_sge> SgesOf(const std::vector<Range>& ranges, Key key) const;
  void Pump();
  void Settle();
  template <typename List>
  void WaitFor(const List& list, Duration patience);

  VerbsHost& host_;
  const ibv_qp_type type_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::unique_ptr<std::byte[], FreeMemory> memory_;
  std::array<ibv_mr*, kKeys> regions_{};
  std::array<ibv_mw*, kKeys> windows_{};
  std::array<uint32_t, kKeys> keys_{};
  std::array<uint32_t, kKeys> local_keys_{};
  std::shared_ptr<verbs::CompletionQueue> send_cq_;
  std::shared_ptr<verbs::CompletionQueue> receive_cq_;
  ibv_qp* qp_ = nullptr;
  ibv_ah* to_peer_ = nullptr;
  std::deque<Packet> packets_;
  std::deque<Completion> sends_;
  std::deque<Completion> receives_;
};

}  // namespace sumac::conformance
