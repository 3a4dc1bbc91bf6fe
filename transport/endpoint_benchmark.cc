// endpoint_benchmark: latency and bandwidth of endpoints between two processes on this machine.
//
//   endpoint_benchmark [DEVICE]      (default soft0)
//
// Rows as perftest's: half a round trip for messages and for writes with an immediate, a whole
// write (post to completion), and bandwidth of writes with a window of 32. A tool for people: no
// test runs it, and it judges nothing.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tests/support/job.h"
#include "transport/worker.h"

namespace sumac::transport {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kSizes[] = {8, 64, 4096, 65536, 1 << 20};
constexpr size_t kBytesMax = 1 << 20;
constexpr size_t kWindow = 32;
constexpr absl::Duration kPatience = absl::Seconds(60);

int IterationsFor(size_t bytes) { return bytes <= 4096 ? 20000 : (bytes <= 65536 ? 5000 : 500); }

// One rank's view of the pair.
struct Pair {
  Worker* worker;
  Endpoint* peer;
  bool first;
  std::vector<std::byte>* buffer;
  uint32_t lkey;
  RemoteSlice remote;
  uint32_t immediates = 0;
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::_Exit(1);
}

void Report(const char* what, size_t bytes, std::vector<double> us) {
  std::sort(us.begin(), us.end());
  double sum = 0;
  for (const double each : us) sum += each;
  const auto at = [&](double share) {
    return us[static_cast<size_t>(share * static_cast<double>(us.size() - 1))];
  };
  const double average = sum / static_cast<double>(us.size());
  std::printf("%-18s %9zu %7zu %10.2f %10.2f %10.2f %10.2f %12.1f\n", what, bytes, us.size(),
              us.front(), at(0.5), average, at(0.99), static_cast<double>(bytes) / average);
  std::fflush(stdout);
}

// Runs `turn` on both sides, after a warm-up; the first one times it. `share`: turns a sample.
template <typename Turn>
void Measure(Pair& pair, const char* what, size_t bytes, int iterations, double share, Turn turn) {
  for (int i = 0; i < iterations / 10 + 1; ++i) turn();
  std::vector<double> us;
  us.reserve(static_cast<size_t>(iterations));
  for (int i = 0; i < iterations; ++i) {
    const auto begin = Clock::now();
    turn();
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / share);
  }
  if (pair.first) Report(what, bytes, std::move(us));
}

void MessageTurn(Pair& pair, size_t bytes) {
  const absl::Time deadline = absl::Now() + kPatience;
  const auto message = std::span(*pair.buffer).first(bytes);
  for (const bool sending : {pair.first, !pair.first}) {
    if (sending) {
      Check(pair.peer->Send(message, deadline));
    } else {
      Check(pair.peer->Receive(message, deadline).status());
    }
  }
}

void ImmediateTurn(Pair& pair, size_t bytes) {
  const absl::Time deadline = absl::Now() + kPatience;
  for (const bool sending : {pair.first, !pair.first}) {
    if (sending) {
      Check(pair.worker->Wait([&] { return pair.peer->immediate_room() > 0; }, deadline));
      Check(pair.peer->WriteWithImmediate({pair.buffer->data(), bytes, pair.lkey}, pair.remote, 1)
                .status());
    } else {
      Check(pair.worker->Wait([&] { return pair.immediates > 0; }, deadline));
      --pair.immediates;
    }
  }
}

void WriteTurn(Pair& pair, size_t bytes, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    Check(pair.peer->Write({pair.buffer->data(), bytes, pair.lkey}, pair.remote).status());
  }
  Check(pair.peer->Flush(absl::Now() + kPatience));
}

void RunRank(const BootstrapOptions& options, const std::string& device) {
  auto bootstrap = Bootstrap::Join(options);
  Check(bootstrap.status());
  WorkerOptions worker_options;
  worker_options.device = device;
  auto worker = Worker::Create(**bootstrap, worker_options);
  Check(worker.status());
  std::vector<std::byte> buffer(kBytesMax);
  auto memory = (*worker)->Register(buffer.data(), buffer.size(), kRemoteWrite);
  Check(memory.status());
  const RemoteSlice mine{reinterpret_cast<uint64_t>(buffer.data()), (*memory)->rkey()};
  const auto all =
      (*bootstrap)
          ->Exchange("memory",
                     absl::string_view(reinterpret_cast<const char*>(&mine), sizeof(mine)),
                     kPatience);
  Check(all.status());
  auto peer = (*worker)->Connect(1 - options.rank, absl::Now() + kPatience);
  Check(peer.status());

  Pair pair{worker->get(), *peer, options.rank == 0, &buffer, (*memory)->lkey(), {}};
  std::memcpy(&pair.remote, (*all)[static_cast<size_t>(1 - options.rank)].data(), sizeof(mine));
  (*worker)->SetImmediateHandler([&](int, uint32_t) { ++pair.immediates; });
  for (const size_t bytes : kSizes) {
    Measure(pair, "message", bytes, IterationsFor(bytes), 2, [&] { MessageTurn(pair, bytes); });
  }
  for (const size_t bytes : kSizes) {
    Measure(pair, "write+immediate", bytes, IterationsFor(bytes), 2,
            [&] { ImmediateTurn(pair, bytes); });
  }
  // The target makes no calls from here on.
  if (pair.first) {
    for (const size_t bytes : kSizes) {
      Measure(pair, "write", bytes, IterationsFor(bytes), 1, [&] { WriteTurn(pair, bytes, 1); });
    }
    for (const size_t bytes : kSizes) {
      Measure(pair, "write, 32 at once", bytes, IterationsFor(bytes) / 10, kWindow,
              [&] { WriteTurn(pair, bytes, kWindow); });
    }
  }
  Check((*bootstrap)->Barrier("end", kPatience * 10));
}

}  // namespace
}  // namespace sumac::transport

int main(int argc, char** argv) {
  using namespace sumac;
  const std::string device = argc > 1 ? argv[1] : "soft0";
  std::printf("%-18s %9s %7s %10s %10s %10s %10s %12s\n", "#operation", "#bytes", "#iter",
              "t_min[us]", "t_typical", "t_avg", "99%", "BW_avg[MB/s]");
  std::fflush(stdout);
  test_support::ForkedJob job(
      2, [&](const transport::BootstrapOptions& options) { transport::RunRank(options, device); });
  for (const auto& outcome : job.ranks().Wait(std::chrono::minutes(10))) {
    std::fputs(outcome.output.c_str(), stdout);
    if (!outcome.ok()) return 1;
  }
  return 0;
}
