// Allreduce among the ranks of one host against what the machine allows, interleaved in one run.
//
//   sumac run -n 2 -- build/bench/host_allreduce_limits [ROUNDS [MAX_BYTES [MIN_BYTES]]]
//
// For each size (float32, sum, out of place), microseconds, median over the rounds:
//
//   ideal: buffers that all ranks have mapped, each reduces its share to all outputs; two waits for
//   flags, no protocol; with or without streaming stores, what is better.
//
//   registered: Communicator::AllReduce, buffers from Communicator::Allocate; its ratio to ideal.
//
//   floor: private buffers; copying in, reducing and copying out in chunks of a shared stage,
//   without any waiting: what a staged allreduce can't be faster than.
//
//   malloc: Communicator::AllReduce, heap buffers; its ratio to floor.
//
//   p99: of single calls, with registered and with heap buffers.
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

#include "collectives/communicator.h"
#include "collectives/host/chunks.h"
#include "collectives/reduce/reduce.h"
#include "runtime/host/host_group.h"

namespace sumac::collectives {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kChunk = 64 * 1024;

double Microseconds(Clock::duration spent) {
  return std::chrono::duration<double, std::micro>(spent).count();
}

// Each rank's memory: a flag, then send, recv, a stage and results.
class Limits {
 public:
  Limits(runtime::HostGroup& group, size_t bytes_max)
      : group_(group), bytes_max_(bytes_max), in_(bytes_max), out_(bytes_max) {}

  static size_t AreaBytes(size_t bytes_max) { return kLineBytes + 2 * bytes_max + 2 * kChunk; }

  void Barrier() {
    ++turn_;
    Flag(group_.rank()).store(turn_, std::memory_order_release);
    for (int peer = 0; peer < group_.size(); ++peer) {
      for (int tries = 1; Flag(peer).load(std::memory_order_acquire) < turn_; ++tries) {
        runtime::HostGroup::Pause();
        if (tries % (group_.oversubscribed() ? 20 : 2000) == 0) sched_yield();
      }
    }
  }

  void Ideal(size_t count, bool stream) {
    Barrier();
    const Share share = ShareOf(group_.rank(), group_.size(), count, sizeof(float));
    std::vector<const void*> from;
    std::vector<void*> to;
    for (int rank = 0; rank < group_.size(); ++rank) {
      from.push_back(Send(rank) + share.begin * sizeof(float));
      to.push_back(Recv(rank) + share.begin * sizeof(float));
    }
    if (share.count > 0) Fuse(from, to, share.count, stream);
    Barrier();
  }

  void Floor(size_t count, bool stream) {
    const int ranks = group_.size(), rank = group_.rank(), next = (rank + 1) % ranks;
    std::vector<const void*> from(static_cast<size_t>(ranks));
    for (size_t begin = 0; begin < count; begin += kChunk / sizeof(float)) {
      const size_t n = std::min(count - begin, kChunk / sizeof(float));
      const size_t others = n - n / static_cast<size_t>(ranks);
      std::byte* const in = in_.data() + begin * sizeof(float);
      std::byte* const out = out_.data() + begin * sizeof(float);
      std::memcpy(Stage(rank), in, others * sizeof(float));
      for (int peer = 0; peer < ranks; ++peer) from[static_cast<size_t>(peer)] = Stage(peer);
      from[static_cast<size_t>(rank)] = in + others * sizeof(float);
      Fuse(from, {out + others * sizeof(float), Stage(rank) + kChunk}, n - others, false);
      Copy(out, Stage(next) + kChunk, others * sizeof(float), stream);
    }
  }

 private:
  static void Fuse(const std::vector<const void*>& from, const std::vector<void*>& to, size_t count,
                   bool stream) {
    Fusion fusion;
    fusion.from = from.data();
    fusion.inputs = static_cast<int>(from.size());
    fusion.to = to.data();
    fusion.outputs = static_cast<int>(to.size());
    fusion.count = count;
    fusion.stream = stream;
    ReduceFused(fusion);
  }
  runtime::HostFlag& Flag(int rank) {
    return *reinterpret_cast<runtime::HostFlag*>(group_.area(rank));
  }
  std::byte* Send(int rank) { return group_.area(rank) + kLineBytes; }
  std::byte* Recv(int rank) { return Send(rank) + bytes_max_; }
  std::byte* Stage(int rank) { return Recv(rank) + bytes_max_; }

  runtime::HostGroup& group_;
  const size_t bytes_max_;
  std::vector<std::byte> in_, out_;
  uint64_t turn_ = 0;
};

struct Samples {
  std::vector<double> values;
  double At(double quantile) {
    std::sort(values.begin(), values.end());
    return values[static_cast<size_t>(quantile * static_cast<double>(values.size() - 1))];
  }
};

int Main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  const size_t bytes_max = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : size_t{64} << 20;
  const size_t bytes_min = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 8;
  auto made = Communicator::FromEnvironment();
  if (!made.ok() || rounds < 1) {
    std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
    return 1;
  }
  Communicator& communicator = **made;
  runtime::HostGroupOptions options;
  options.name = "limits";
  options.area_bytes = Limits::AreaBytes(bytes_max);
  auto group = runtime::HostGroup::Create(communicator.domain().worker().bootstrap(), options);
  if (!group.ok()) {
    std::fprintf(stderr, "%s\n", group.status().ToString().c_str());
    return 1;
  }
  Limits limits(**group, bytes_max);
  auto send = communicator.Allocate(bytes_max);
  auto recv = communicator.Allocate(bytes_max);
  if (!send.ok() || !recv.ok()) return 1;
  std::vector<std::byte> in(bytes_max), out(bytes_max);

  if (communicator.rank() == 0) {
    std::printf("%10s %10s %10s %6s %10s %10s %6s %10s %10s   (us)\n", "bytes", "ideal",
                "registered", "ratio", "floor", "malloc", "ratio", "p99", "p99 malloc");
  }
  for (size_t bytes = 8; bytes <= bytes_max; bytes *= bytes < 4096 ? 512 : bytes < 65536 ? 16 : 4) {
    if (bytes < bytes_min) continue;
    const size_t count = bytes / sizeof(float);
    const int iterations =
        static_cast<int>(std::clamp<size_t>((size_t{64} << 20) / (bytes + 1024), 8, 2000));
    Samples means[6], singles[2];
    const auto reduce = [&](const void* from, void* to) {
      if (!communicator.AllReduce(from, to, count, DataType::kFloat32, ReduceOp::kSum).ok()) {
        std::abort();
      }
    };
    const std::function<void()> ways[] = {
        [&] { limits.Ideal(count, false); },         [&] { limits.Ideal(count, true); },
        [&] { reduce(send->data(), recv->data()); }, [&] { limits.Floor(count, false); },
        [&] { limits.Floor(count, true); },          [&] { reduce(in.data(), out.data()); }};
    for (int round = -1; round < rounds; ++round) {  // the first one warms up
      for (int way = 0; way < 6; ++way) {
        limits.Barrier();
        const Clock::time_point began = Clock::now();
        for (int i = 0; i < iterations; ++i) ways[way]();
        limits.Barrier();
        const double mean = Microseconds(Clock::now() - began) / iterations;
        if (round >= 0) means[way].values.push_back(mean);
      }
      for (int way = 0; way < 2; ++way) {
        limits.Barrier();
        for (int i = 0; i < iterations; ++i) {
          const Clock::time_point began = Clock::now();
          ways[way == 0 ? 2 : 5]();
          singles[way].values.push_back(Microseconds(Clock::now() - began));
        }
      }
    }
    const auto at = [&](int way) { return means[way].At(0.5); };
    const double ideal = std::min(at(0), at(1)), floor = std::min(at(3), at(4));
    if (communicator.rank() == 0) {
      std::printf("%10zu %10.2f %10.2f %6.2f %10.2f %10.2f %6.2f %10.2f %10.2f\n", bytes, ideal,
                  at(2), at(2) / ideal, floor, at(5), at(5) / floor, singles[0].At(0.99),
                  singles[1].At(0.99));
      if (std::getenv("LIMITS_ALL"))
        std::printf("  ideal %.2f stream %.2f floor %.2f stream %.2f\n", at(0), at(1), at(3),
                    at(4));
      std::fflush(stdout);
    }
  }
  return communicator.Barrier().ok() ? 0 : 1;
}

}  // namespace
}  // namespace sumac::collectives

int main(int argc, char** argv) { return sumac::collectives::Main(argc, argv); }
