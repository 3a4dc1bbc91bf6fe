// Packets per second through two links on loopback: one thread sends a batch and takes it in again.
// So it is the cost of both ends on one CPU, without waiting.

#include <memory>
#include <vector>

#include "benchmark/benchmark.h"

#include "verbs/soft_nic/link/link_test_support.h"
#include "verbs/soft_nic/link/udp_link.h"

namespace sumac::soft_nic {
namespace {

class CountingHandler : public PacketHandler {
 public:
  void OnPacket(const Gid&, const PacketView&) override { ++packets; }
  uint64_t packets = 0;
};

void BenchLoopback(benchmark::State& state) {
  UdpLinkOptions options;
  options.segmentation = state.range(1) != 0 ? Segmentation::kOn : Segmentation::kOff;
  options.address = OwnLoopbackAddress();
  auto from = UdpLink::Open(options);
  options.address = OwnLoopbackAddress();
  auto to = UdpLink::Open(options);
  if (!from.ok() || !to.ok()) {
    state.SkipWithError("can't open the links");
    return;
  }
  std::vector<std::byte> data(static_cast<size_t>(state.range(0)));
  const iovec piece{data.data(), data.size()};
  Path path;
  path.destination = (*to)->local_gid();
  OutgoingPacket packet;
  packet.path = &path;
  packet.header.dest_qpn = (*to)->first_qpn();
  packet.payload = {&piece, 1};
  packet.payload_stays = true;
  constexpr int kBatch = 32;
  CountingHandler handler;
  for (auto _ : state) {
    for (int i = 0; i < kBatch; ++i) benchmark::DoNotOptimize((*from)->Transmit(packet));
    (*from)->Flush();
    while ((*to)->Receive(handler, kBatch) != 0) {
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(handler.packets));
  state.SetBytesProcessed(static_cast<int64_t>(handler.packets) * state.range(0));
  state.counters["lost"] = static_cast<double>((*from)->counters().packets_sent - handler.packets);
}
BENCHMARK(BenchLoopback)
    ->ArgNames({"bytes", "batching"})
    ->ArgsProduct({{0, 256, 1024, 4096}, {0, 1}});

}  // namespace
}  // namespace sumac::soft_nic
