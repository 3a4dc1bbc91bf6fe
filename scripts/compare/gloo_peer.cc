// Gloo's side of scripts/compare_peers: mean time of an allreduce of floats, mean over ranks.
//
//   gloo_peer FOLDER SIZE:ITERATIONS ...     a rank of a `sumac run` job; FOLDER: empty, where they
//   meet
//
// Rank 0 prints a line for each size: bytes, microseconds, wrong elements. Over TCP on loopback,
// the only transport for CPUs that Debian's Gloo has.
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

using Context = std::shared_ptr<gloo::rendezvous::Context>;

template <typename T>
void Sum(const Context& context, std::vector<T>& in, std::vector<T>& out, bool ring) {
  gloo::AllreduceOptions options(context);
  options.setInput(in.data(), in.size());
  options.setOutput(out.data(), out.size());
  options.setAlgorithm(ring ? gloo::AllreduceOptions::Algorithm::RING
                            : gloo::AllreduceOptions::Algorithm::BCUBE);
  options.setReduceFunction(
      static_cast<void (*)(void*, const void*, const void*, size_t)>(&gloo::sum<T>));
  gloo::allreduce(options);
}

float ValueAt(size_t i, int rank) {
  return static_cast<float>((i + i / 1024 + static_cast<size_t>(rank)) % 7);
}

void Measure(const Context& context, size_t bytes, long iterations) {
  std::vector<float> in(bytes / sizeof(float)), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = ValueAt(i, context->rank);
  const bool ring = bytes > 64 << 10;  // each is the faster one there
  for (long i = 0; i < iterations / 10 + 1; ++i) Sum(context, in, out, ring);
  gloo::BarrierOptions barrier(context);
  gloo::barrier(barrier);
  const auto start = std::chrono::steady_clock::now();
  for (long i = 0; i < iterations; ++i) Sum(context, in, out, ring);
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
  double wrong = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    float expected = 0;
    for (int rank = 0; rank < context->size; ++rank) expected += ValueAt(i, rank);
    wrong += out[i] != expected ? 1 : 0;
  }
  std::vector<double> mine = {spent.count() / static_cast<double>(iterations), wrong}, all(2);
  Sum(context, mine, all, true);
  if (context->rank == 0) std::printf("%zu %.4f %.0f\n", bytes, all[0] / context->size, all[1]);
}

}  // namespace

int main(int argc, char** argv) {
  const char* rank = std::getenv("SUMAC_RANK");
  const char* size = std::getenv("SUMAC_SIZE");
  if (argc < 3 || rank == nullptr || size == nullptr) {
    std::fprintf(stderr, "usage: sumac run -n N -- gloo_peer FOLDER SIZE:ITERATIONS ...\n");
    return 2;
  }
  gloo::transport::tcp::attr address("127.0.0.1");
  auto device = gloo::transport::tcp::CreateDevice(address);
  auto context = std::make_shared<gloo::rendezvous::Context>(std::atoi(rank), std::atoi(size));
  gloo::rendezvous::FileStore store(argv[1]);
  context->connectFullMesh(store, device);
  for (int i = 2; i < argc; ++i) {
    char* rest = nullptr;
    const size_t bytes = std::strtoull(argv[i], &rest, 10);
    const long iterations = *rest == ':' ? std::atol(rest + 1) : 0;
    if (bytes == 0 || bytes > 1u << 30 || iterations < 1) return 2;
    Measure(context, bytes, iterations);
  }
  return 0;
}
