// The engine as the device under test: one queue pair in virtual time. See device.h.
//
// Packets go through the wire format both ways, so what a script injects is what could have come
// off a wire.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "tests/conformance/device.h"
#include "verbs/soft_nic/engine/queue_pair.h"

namespace sumac::conformance {

class EngineDevice : public Device, private soft_nic::Memory, private soft_nic::TransmitSink {
 public:
  explicit EngineDevice(const Setup& setup);

  int Post(const SendWork& work) override;
  int PostReceive(const ReceiveWork& work) override;
  void Enter(ibv_qp_state state) override;
  void SetRights(int access_flags) override;
  void Deregister(Key key) override;
  void SetLink(bool free) override;
  void Inject(const Packet& packet) override;
  Duration now() const override { return now_ - start_; }
  void Wait(Duration duration) override;
  std::optional<Packet> NextPacket(Duration patience) override;
  std::optional<Completion> NextCompletion(bool receive, Duration patience) override;
  std::span<std::byte> memory() override { return memory_; }
  uint64_t address() const override { return reinterpret_cast<uint64_t>(memory_.data()); }
  uint32_t KeyOf(Key key) const override;
  ibv_qp_type type() const override { return type_; }
  uint32_t qpn() const override { return qp_->qpn(); }
  ibv_qp_state state() const override { return qp_->state(); }
  const soft_nic::Gid& gid() const override { return path_.source; }
  const soft_nic::Gid& peer_gid() const override { return path_.destination; }
  std::optional<uint64_t> Counter(const std::string& name) const override;

 private:
  class Completions : public soft_nic::CompletionSink {
   public:
    void Push(const ibv_wc& completion, bool solicited) override {
      list.push_back({completion, solicited});
    }
    std::deque<Completion> list;
  };

  std::byte* Local(uint32_t lkey, uint64_t addr, size_t length, bool write) override;
  std::byte* Remote(uint32_t rkey, uint64_t addr, size_t length, int access) override;
  bool Invalidate(uint32_t rkey) override;
  bool Transmit(const soft_nic::OutgoingPacket& packet) override;

  std::byte* Find(uint32_t key, uint64_t addr, size_t length, int access);
  std::vector<ibv_sge> SgesOf(const std::vector<Range>& ranges, Key key) const;
  void Drain();
  // To the next deadline when that lies no later than `end`, else to `end`. False in the latter
  // case.
  bool Step(soft_nic::Time end);

  const ibv_qp_type type_;
  const soft_nic::Path path_;
  alignas(64) std::array<std::byte, kMemoryBytes> memory_;
  std::vector<uint32_t> dead_keys_;
  Completions sends_;
  Completions receives_;
  std::unique_ptr<soft_nic::QueuePair> qp_;
  const soft_nic::Time start_ = soft_nic::Time(std::chrono::seconds(1));
  soft_nic::Time now_ = start_;
  std::deque<Packet> sent_;
  bool link_free_ = true;
};

}  // namespace sumac::conformance
