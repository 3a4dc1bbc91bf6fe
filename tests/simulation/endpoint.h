// A queue pair on a virtual network: what the device's progress loop does around an engine, in
// virtual time.
//
// Owns the queue pair and its keys. After every input it polls for packets with a random budget,
// sometimes refusing them, and keeps a timer event for the engine's next deadline.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tests/simulation/virtual_network.h"
#include "verbs/soft_nic/engine/engine_testing.h"
#include "verbs/soft_nic/engine/queue_pair.h"

namespace sumac::soft_nic::simulation {

// The links from a node to another and back.
struct Way {
  size_t out;
  size_t in;
};

class Endpoint : private TransmitSink {
 public:
  using OnCompletion = std::function<void(const ibv_wc& completion, bool solicited)>;

  // Sends on `way.out`, receives from `way.in`. `shared_keys`: used instead of `keys`; they outlive
  // this.
  Endpoint(VirtualNetwork& network, Way way, const QueuePairLimits& limits, OnCompletion on_send,
           OnCompletion on_receive, testing::TestMemory* shared_keys = nullptr);

  // UD: what is for this address goes another way, and may come from there.
  void AddWay(const Gid& destination, Way way);
  void Connect(const ReceiveConfig& receive, const SendConfig& send);
  // After a post.
  void Ring();

  QueuePair& qp() { return *qp_; }
  testing::TestMemory keys;
  uint32_t refuse_rate = 0;  // 1/10,000 of packets that find no room in the link
  uint32_t budget_max = 16;
  uint64_t delivered = 0;
  std::function<void(const PacketView& packet)> watch;  // sees what comes, before the engine

 private:
  class Sink : public CompletionSink {
   public:
    explicit Sink(OnCompletion function) : function_(std::move(function)) {}
    void Push(const ibv_wc& completion, bool solicited) override {
      function_(completion, solicited);
    }

   private:
    OnCompletion function_;
  };

  void ReceiveFrom(size_t link);
  bool Transmit(const OutgoingPacket& packet) override;
  void Poll();
  void SchedulePoll(Duration delay);

  VirtualNetwork& network_;
  const size_t out_;
  std::vector<std::pair<Gid, size_t>> ways_;
  Sink on_send_;
  Sink on_receive_;
  std::unique_ptr<QueuePair> qp_;
  bool poll_scheduled_ = false;
  Time timer_scheduled_ = kNever;
};

}  // namespace sumac::soft_nic::simulation
