// What waking a sleeping thread costs: a futex and an eventfd, to and fro between two CPUs. The
// time is of one way: wake, and be running there.

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "benchmark/benchmark.h"
#include "cli/perf/limits/partner.h"

namespace sumac::cli {
namespace {

constexpr uint32_t kStop = 0xffffffff;

void Wake(std::atomic<uint32_t>& word, uint32_t value) {
  word.store(value, std::memory_order_release);
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

uint32_t SleepWhile(std::atomic<uint32_t>& word, uint32_t value) {
  uint32_t now = word.load(std::memory_order_acquire);
  while (now == value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
    now = word.load(std::memory_order_acquire);
  }
  return now;
}

void BenchFutexWake(benchmark::State& state) {
  alignas(128) std::atomic<uint32_t> there{0};
  alignas(128) std::atomic<uint32_t> back{0};
  Partner partner([&] {
    uint32_t seen = 0;
    while ((seen = SleepWhile(there, seen)) != kStop) Wake(back, seen);
  });
  uint32_t turn = 0;
  for (auto _ : state) {
    Wake(there, ++turn);
    SleepWhile(back, turn - 1);
  }
  Wake(there, kStop);
  state.counters["one_way"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 2,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BenchFutexWake)->UseRealTime();

void BenchEventfd(benchmark::State& state) {
  const int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
  if (there < 0 || back < 0) {
    state.SkipWithError("no eventfd");
    return;
  }
  {
    std::atomic<bool> stop{false};
    Partner partner([&] {
      uint64_t value = 0;
      while (read(there, &value, sizeof(value)) == sizeof(value) && !stop.load()) {
        if (write(back, &value, sizeof(value)) != sizeof(value)) return;
      }
    });
    uint64_t one = 1;
    for (auto _ : state) {
      if (write(there, &one, sizeof(one)) != sizeof(one) || read(back, &one, sizeof(one)) < 0) {
        state.SkipWithError("eventfd failed");
        break;
      }
    }
    stop.store(true);
    if (write(there, &one, sizeof(one)) != sizeof(one)) state.SkipWithError("eventfd failed");
  }
  close(there);
  close(back);
  state.counters["one_way"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 2,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BenchEventfd)->UseRealTime();

}  // namespace
}  // namespace sumac::cli
