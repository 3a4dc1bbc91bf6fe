// What memory itself allows: copies by memcpy, past the caches, and by two threads; and how long a
// cache line takes from one CPU to another.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "cli/perf/machine.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace sumac::cli {
namespace {

constexpr size_t kAlignment = 4096;

struct Aligned {
  explicit Aligned(size_t bytes)
      : memory(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes))) {
    std::memset(memory.get(), 1, bytes);
  }
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> memory;
};

void BenchMemcpy(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const Aligned from(std::max(bytes, kAlignment)), to(std::max(bytes, kAlignment));
  for (auto _ : state) {
    std::memcpy(to.memory.get(), from.memory.get(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BenchMemcpy)
    ->ArgName("bytes")
    ->Arg(8)
    ->Arg(4096)
    ->Arg(64 << 10)
    ->Arg(1 << 20)
    ->Arg(64 << 20);

#if defined(__SSE2__)
// Writes that do not read their cache lines first, and leave nothing in the caches.
void CopyPastCaches(std::byte* to, const std::byte* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) {
    const auto* source = reinterpret_cast<const __m128i*>(from + at);
    auto* target = reinterpret_cast<__m128i*>(to + at);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(target + i, _mm_load_si128(source + i));
  }
  _mm_sfence();
}

void BenchNonTemporalCopy(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const Aligned from(bytes), to(bytes);
  for (auto _ : state) {
    CopyPastCaches(to.memory.get(), from.memory.get(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BenchNonTemporalCopy)->ArgName("bytes")->Arg(64 << 10)->Arg(1 << 20)->Arg(64 << 20);
#endif

// Each thread its half; the helper is told by a flag that it polls.
void BenchTwoThreadCopy(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const size_t half = bytes / 2;
  const Aligned from(bytes), to(bytes);
  std::atomic<uint64_t> asked{0}, done{0};
  std::atomic<bool> stop{false};
  std::thread helper([&] {
    for (uint64_t turn = 1;; ++turn) {
      while (asked.load(std::memory_order_acquire) < turn) {
        if (stop.load(std::memory_order_relaxed)) return;
      }
      std::memcpy(to.memory.get() + half, from.memory.get() + half, half);
      done.store(turn, std::memory_order_release);
    }
  });
  uint64_t turn = 0;
  for (auto _ : state) {
    asked.store(++turn, std::memory_order_release);
    std::memcpy(to.memory.get(), from.memory.get(), half);
    while (done.load(std::memory_order_acquire) < turn) {
    }
  }
  stop.store(true);
  helper.join();
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BenchTwoThreadCopy)
    ->ArgName("bytes")
    ->Arg(64 << 10)
    ->Arg(1 << 20)
    ->Arg(64 << 20)
    ->UseRealTime();

// The time is of one way.
void BenchCacheLinePingPong(benchmark::State& state) {
  const CpuPair cpus = AllowedCpus();
  for (auto _ : state) {
    const auto one_way_ns = CoreOneWayNs(cpus.first, cpus.second);
    if (!one_way_ns.ok()) {
      state.SkipWithError(one_way_ns.status().ToString().c_str());
      return;
    }
    state.SetIterationTime(*one_way_ns * 1e-9);
  }
}
BENCHMARK(BenchCacheLinePingPong)->UseManualTime()->Iterations(9);

}  // namespace
}  // namespace sumac::cli
