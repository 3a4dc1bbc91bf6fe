// The key check that every packet of a one-sided operation pays: look a key up among many, compare
// protection domain, range and rights. Through a window there are two look-ups.

#include <memory>
#include <vector>

#include "benchmark/benchmark.h"

#include "verbs/soft_nic/device/key_table.h"

namespace sumac::soft_nic {
namespace {

constexpr int kRights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_MW_BIND;
constexpr uint64_t kRegionBytes = 4096;

// Regions in a row, with as many keys as the benchmark's argument says.
struct Filled {
  explicit Filled(int64_t regions) {
    for (int64_t i = 0; i < regions; ++i) {
      Region region;
      region.pd = &pd;
      region.addr = 0x10000 + static_cast<uint64_t>(i) * kRegionBytes;
      region.length = kRegionBytes;
      region.access = kRights;
      addresses.push_back(region.addr);
      keys.push_back(table.Add(region));
    }
  }
  ibv_pd pd{};
  KeyTable table;
  std::vector<uint32_t> keys;
  std::vector<uint64_t> addresses;
};

void BenchFind(benchmark::State& state) {
  Filled filled(state.range(0));
  size_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(filled.table.Find(filled.keys[at], &filled.pd, filled.addresses[at],
                                               64, IBV_ACCESS_REMOTE_WRITE));
    at = (at + 1) % filled.keys.size();
  }
}
BENCHMARK(BenchFind)->ArgName("keys")->Arg(1)->Arg(64)->Arg(4096)->Arg(65536);

// What a stranger's packets cost: no such key.
void BenchUnknownKey(benchmark::State& state) {
  Filled filled(state.range(0));
  uint32_t guess = 1;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        filled.table.Find(guess++, &filled.pd, 0x10000, 64, IBV_ACCESS_REMOTE_WRITE));
  }
}
BENCHMARK(BenchUnknownKey)->ArgName("keys")->Arg(1)->Arg(4096);

void BenchFindInWindow(benchmark::State& state) {
  Filled filled(64);
  const uint32_t window = filled.table.AddWindow(&filled.pd, IBV_MW_TYPE_1);
  WindowBind bind;
  bind.rkey = (window & ~0xffu) | ((window + 1) & 0xff);
  bind.region_key = filled.keys.front();
  bind.addr = filled.addresses.front();
  bind.length = kRegionBytes;
  bind.access = IBV_ACCESS_REMOTE_WRITE;
  if (!filled.table.Bind(bind, &filled.pd, 0)) {
    state.SkipWithError("can't bind");
    return;
  }
  ProtectedMemory memory(filled.table, &filled.pd, 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(memory.Remote(bind.rkey, bind.addr, 64, IBV_ACCESS_REMOTE_WRITE));
  }
}
BENCHMARK(BenchFindInWindow);

}  // namespace
}  // namespace sumac::soft_nic
