// The engine alone, two queue pairs joined in memory: what the protocol costs per message and per
// byte, without links.
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <vector>

#include "verbs/soft_nic/engine/queue_pair.h"

namespace sumac::soft_nic {
namespace {

// One region, any key: the key table is the device's and is measured there.
class FlatMemory : public Memory {
 public:
  explicit FlatMemory(size_t bytes) : bytes_(bytes) {}
  std::byte* Local(uint32_t, uint64_t addr, size_t length, bool) override {
    return At(addr, length);
  }
  std::byte* Remote(uint32_t, uint64_t addr, size_t length, int) override {
    return At(addr, length);
  }
  bool Invalidate(uint32_t) override { return false; }

 private:
  std::byte* At(uint64_t addr, size_t length) {
    return addr + length <= bytes_.size() ? bytes_.data() + addr : nullptr;
  }
  std::vector<std::byte> bytes_;
};

class Count : public CompletionSink {
 public:
  void Push(const ibv_wc& completion, bool) override {
    ++count;
    failed |= completion.status != IBV_WC_SUCCESS;
  }
  uint64_t count = 0;
  bool failed = false;
};

// Hands packets straight to the peer.
class Wire : public TransmitSink {
 public:
  bool Transmit(const OutgoingPacket& packet) override {
    PacketView view{packet.header, FlagsOf(packet.header.opcode), {}};
    if (!packet.payload.empty()) {
      view.payload = {static_cast<const std::byte*>(packet.payload[0].iov_base),
                      packet.payload[0].iov_len};
    }
    to->OnPacket(view, Time{});
    return true;
  }
  QueuePair* to = nullptr;
};

void Run(benchmark::State& state, ibv_wr_opcode opcode) {
  const auto length = static_cast<uint32_t>(state.range(0));
  FlatMemory memory(2 * (length + 64));
  Count sends;
  Count receives;
  QueuePairLimits limits;
  QueuePair a(limits, memory, sends, receives);
  QueuePair b(limits, memory, sends, receives);
  ReceiveConfig receive;
  receive.mtu_bytes = 4096;
  receive.access_flags =
      IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
  for (QueuePair* qp : {&a, &b}) {
    qp->ToInit();
    qp->ToReadyToReceive(receive);
    qp->ToReadyToSend(SendConfig{});
  }
  Wire to_a;
  Wire to_b;
  to_a.to = &a;
  to_b.to = &b;
  ibv_sge sge{0, length, 1};
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.wr.rdma = {length + 64, 1};
  constexpr uint64_t kBurst = 32;
  for (auto _ : state) {
    for (uint64_t i = 1; i <= kBurst; ++i) {
      wr.send_flags = i == kBurst ? IBV_SEND_SIGNALED : 0;
      if (a.PostSend(wr) != 0) state.SkipWithError("post refused");
    }
    const uint64_t before = sends.count;
    while (sends.count == before) {
      (void)a.PollTransmit(to_b, Time{}, 64);
      (void)b.PollTransmit(to_a, Time{}, 64);
    }
  }
  if (sends.failed) state.SkipWithError("a request failed");
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBurst));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBurst * length));
}

BENCHMARK_CAPTURE(Run, write, IBV_WR_RDMA_WRITE)->Arg(8)->Arg(4096)->Arg(65536);
BENCHMARK_CAPTURE(Run, read, IBV_WR_RDMA_READ)->Arg(8)->Arg(4096)->Arg(65536);
BENCHMARK_CAPTURE(Run, fetch_add, IBV_WR_ATOMIC_FETCH_AND_ADD)->Arg(8);

}  // namespace
}  // namespace sumac::soft_nic
