// The cost of the invariant CRC, per packet, for the sizes that matter: an ACK, and each path MTU.

#include <vector>

#include "benchmark/benchmark.h"

#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

IcrcHeaders Headers(bool ipv4) {
  IcrcHeaders ip;
  if (ipv4) {
    ip.source = ip.destination = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
  } else {
    ip.source = ip.destination = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  }
  ip.source_port = 0xc000;
  return ip;
}

void BenchComputeIcrc(benchmark::State& state) {
  const std::vector<std::byte> header(16);
  std::vector<std::byte> payload(static_cast<size_t>(state.range(0)));
  const iovec piece{payload.data(), payload.size()};
  const IcrcHeaders ip = Headers(state.range(1) == 4);
  for (auto _ : state) benchmark::DoNotOptimize(ComputeIcrc(ip, header, {&piece, 1}));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BenchComputeIcrc)->ArgsProduct({{0, 64, 256, 1024, 4096}, {4, 6}});

void BenchVerifyIcrc(benchmark::State& state) {
  const std::vector<std::byte> packet(16 + static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(VerifyIcrc(Headers(true), packet));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BenchVerifyIcrc)->Arg(0)->Arg(1024)->Arg(4096);

void BenchFindIdentification(benchmark::State& state) {
  const std::vector<std::byte> packet(16 + static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(FindIdentification(Headers(true), packet));
}
BENCHMARK(BenchFindIdentification)->Arg(0)->Arg(1024)->Arg(4096);

}  // namespace
}  // namespace sumac::soft_nic
