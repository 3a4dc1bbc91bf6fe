// Encoding and decoding headers, without payload copies and ICRC.

#include <vector>

#include "benchmark/benchmark.h"

#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

void Label(benchmark::State& state) { state.SetLabel(NameOf(static_cast<Opcode>(state.range(0)))); }

PacketHeader HeaderOf(const benchmark::State& state) {
  PacketHeader header;
  header.opcode = static_cast<Opcode>(state.range(0));
  header.dest_qpn = 17;
  header.psn = 0x100;
  return header;
}

void BenchEncodeHeader(benchmark::State& state) {
  const PacketHeader header = HeaderOf(state);
  std::vector<std::byte> out(kHeaderBytesMax);
  for (auto _ : state) {
    benchmark::DoNotOptimize(EncodeHeader(header, out));
    benchmark::ClobberMemory();
  }
  Label(state);
}

void BenchDecode(benchmark::State& state) {
  const PacketHeader header = HeaderOf(state);
  std::vector<std::byte> packet(HeaderBytes(header.opcode) + kIcrcBytes);
  EncodeHeader(header, packet);
  PacketView view;
  for (auto _ : state) {
    benchmark::DoNotOptimize(Decode(packet, &view));
    benchmark::DoNotOptimize(view);
  }
  Label(state);
}

void Opcodes(benchmark::internal::Benchmark* b) {
  for (Opcode opcode : {Opcode::kRcSendMiddle, Opcode::kRcWriteOnly, Opcode::kRcAcknowledge,
                        Opcode::kRcCompareSwap}) {
    b->Arg(static_cast<int>(opcode));
  }
}
BENCHMARK(BenchEncodeHeader)->Apply(Opcodes);
BENCHMARK(BenchDecode)->Apply(Opcodes);

}  // namespace
}  // namespace sumac::soft_nic
