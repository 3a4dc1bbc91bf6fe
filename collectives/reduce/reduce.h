// Elementwise reduction of host memory: what a ReceiveReduce step and a Finalize step compute, and
// the same of all ranks' data at once for collectives in shared memory.
//
// Called by the executor for each piece, and by collectives/host. Any alignment; `dst` may be the
// same as `a` or `b`, but may not overlap them otherwise. Pure; any thread; allocates nothing;
// cannot fail. The fastest of three builds of the same kernels (portable, AVX2 + F16C, AVX-512) is
// chosen once, by what the CPU can do; all three give the same bits (NaN payloads aside).
//
// Arithmetic:
//   f32, f64     IEEE 754. kAvg: the sum, divided by n at the end.
//   f16, bf16    each step in f32, rounded to nearest even (fused: only the result is rounded).
//   i32, i64     sum and product wrap modulo 2^32 / 2^64. kAvg: the wrapped sum divided by n,
//                truncated towards zero.
//   min, max     of floats: IEEE 754-2019 minimum and maximum: NaN if either is NaN, and -0 < +0.
//   So
//                they are commutative, and ranks that reduce in another order get the same bits.
#pragma once

#include <cstddef>
#include <span>

#include "collectives/data_type.h"
#include "collectives/reduce/fusion.h"

namespace sumac::collectives {

// dst[i] = a[i] op b[i]. kAvg adds.
void Reduce(void* dst, const void* a, const void* b, size_t count, DataType type, ReduceOp op);
// dst[i] /= n for kAvg, nothing for the others. n >= 1.
void FinalizeReduction(void* dst, size_t count, DataType type, ReduceOp op, int n);
// to[j][i] = (from[0][i] op from[1][i] op ...) / divisor, for every j. Elements of all inputs are
// read before those at the same place are written. After the call the outputs may be announced to
// other threads by a release store, streamed or not.
void ReduceFused(const Fusion& fusion);
// memcpy; `stream`: the destination is not to stay in the caches.
void Copy(void* to, const void* from, size_t bytes, bool stream);

// One build of the kernels; for tests and benchmarks.
struct ReduceKernels {
  const char* name;
  bool (*supported)();
  void (*reduce)(void* dst, const void* a, const void* b, size_t count, DataType type, ReduceOp op);
  void (*divide)(void* dst, size_t count, DataType type, int n);
  void (*reduce_fused)(const Fusion& fusion);
  void (*copy_streaming)(void* to, const void* from, size_t bytes);
};
// Slowest first; the portable one is always there.
std::span<const ReduceKernels> AllReduceKernels();
const ReduceKernels& ChosenReduceKernels();

}  // namespace sumac::collectives
