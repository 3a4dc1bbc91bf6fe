// Bytes of one operand reduced a second: dst += b, as a ReceiveReduce step does.
#include <string>
#include <vector>

#include "benchmark/benchmark.h"

#include "collectives/reduce/reduce.h"

namespace sumac::collectives {
namespace {

void BM_Reduce(benchmark::State& state, const ReduceKernels* kernels, DataType type, ReduceOp op) {
  const auto bytes = static_cast<size_t>(state.range(0));
  std::vector<std::byte> a(bytes), b(bytes);
  for (auto _ : state) {
    kernels->reduce(a.data(), a.data(), b.data(), bytes / SizeOf(type), type, op);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

const bool kRegistered = [] {
  for (const ReduceKernels& kernels : AllReduceKernels()) {
    if (!kernels.supported()) continue;
    for (const DataType type : {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16,
                                DataType::kBfloat16, DataType::kInt32, DataType::kInt64}) {
      for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMin}) {
        const std::string name =
            std::string("Reduce/") + kernels.name + "/" + NameOf(type) + "/" + NameOf(op);
        benchmark::RegisterBenchmark(name.c_str(), BM_Reduce, &kernels, type, op)
            ->Arg(64 << 10)
            ->Arg(16 << 20);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace sumac::collectives
