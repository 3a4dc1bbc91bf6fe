// A device behind verbs as the device under test, in real time: the soft NIC over its UDP link,
// kernel rxe, or hardware. The peer is a UDP socket (peer_socket.h). See device.h.
// What cases share is in verbs_host.h; this is one case's queue pair. One thread.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/conformance/device.h"
#include "tests/conformance/verbs_host.h"
#include "verbs/completion_queue.h"

namespace sumac::conformance {

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

  void Make(const Setup& setup);
  void Release();
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
