// A completion's way through the soft NIC's queue: pushed by the engine's owner, taken by a poll.
// On one thread (the usual case: who polls drives the engine), and from one thread to another.

#include <atomic>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"

#include "verbs/soft_nic/device/completion_queue.h"

namespace sumac::soft_nic {
namespace {

constexpr int kEntries = 4096;

ibv_wc Completion() {
  ibv_wc completion{};
  completion.wr_id = 7;
  completion.status = IBV_WC_SUCCESS;
  completion.opcode = IBV_WC_RDMA_WRITE;
  return completion;
}

void BenchPushAndPoll(benchmark::State& state) {
  bool overrun = false;
  SoftCompletionQueue queue(nullptr, kEntries, nullptr, nullptr, &overrun);
  const auto batch = static_cast<int>(state.range(0));
  const ibv_wc completion = Completion();
  std::vector<ibv_wc> taken(static_cast<size_t>(batch));
  for (auto _ : state) {
    for (int i = 0; i < batch; ++i) queue.Push(completion, false);
    if (queue.Take(batch, taken.data()) != batch) state.SkipWithError("completions are missing");
    benchmark::DoNotOptimize(taken.data());
  }
  state.SetItemsProcessed(state.iterations() * batch);
}
BENCHMARK(BenchPushAndPoll)->ArgName("batch")->Arg(1)->Arg(16)->Arg(64);

void BenchEmptyPoll(benchmark::State& state) {
  bool overrun = false;
  SoftCompletionQueue queue(nullptr, kEntries, nullptr, nullptr, &overrun);
  ibv_wc taken{};
  for (auto _ : state) benchmark::DoNotOptimize(queue.Take(1, &taken));
}
BENCHMARK(BenchEmptyPoll);

// Pushed by another thread, a bounded number ahead of this one.
void BenchAcrossThreads(benchmark::State& state) {
  constexpr uint64_t kAhead = kEntries / 2;
  bool overrun = false;
  SoftCompletionQueue queue(nullptr, kEntries, nullptr, nullptr, &overrun);
  std::atomic<uint64_t> received{0};
  std::atomic<bool> stop{false};
  std::thread pusher([&] {
    const ibv_wc completion = Completion();
    for (uint64_t pushed = 0; !stop.load(std::memory_order_relaxed);) {
      if (pushed - received.load(std::memory_order_acquire) >= kAhead) continue;
      queue.Push(completion, false);
      ++pushed;
    }
  });
  uint64_t count = 0;
  ibv_wc taken[16];
  for (auto _ : state) {
    int got = 0;
    while (got == 0) got = queue.Take(16, taken);
    count += static_cast<uint64_t>(got);
    received.store(count, std::memory_order_release);
  }
  stop.store(true);
  pusher.join();
  state.SetItemsProcessed(static_cast<int64_t>(count));
}
BENCHMARK(BenchAcrossThreads)->UseRealTime();

}  // namespace
}  // namespace sumac::soft_nic
