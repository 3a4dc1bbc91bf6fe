#include "collectives/reduce/reduce.h"

#include <cstring>

#if defined(SUMAC_X86_KERNELS)
#include <cpuid.h>
#endif

#include "collectives/reduce/kernels.h"

namespace sumac::collectives {
namespace {

bool Always() { return true; }

#if defined(SUMAC_X86_KERNELS)
bool HasF16c() {  // by hand: not every compiler's __builtin_cpu_supports knows the name
  unsigned int eax = 0;
  unsigned int ebx = 0;
  unsigned int ecx = 0;
  unsigned int edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
bool HasAvx2() { return __builtin_cpu_supports("avx2") != 0 && HasF16c(); }
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0;
}
#endif

constexpr ReduceKernels kKernels[] = {
    {"portable", Always, portable::Reduce, portable::Divide, portable::ReduceFused,
     portable::CopyStreaming},
#if defined(SUMAC_X86_KERNELS)
    {"avx2", HasAvx2, avx2::Reduce, avx2::Divide, avx2::ReduceFused, avx2::CopyStreaming},
    {"avx512", HasAvx512, avx512::Reduce, avx512::Divide, avx512::ReduceFused,
     avx512::CopyStreaming},
#endif
};

const ReduceKernels& Choose() {
  const ReduceKernels* best = &kKernels[0];
  for (const ReduceKernels& kernels : kKernels) {
    if (kernels.supported()) best = &kernels;
  }
  return *best;
}

}  // namespace

std::span<const ReduceKernels> AllReduceKernels() { return kKernels; }

const ReduceKernels& ChosenReduceKernels() {
  static const ReduceKernels& chosen = Choose();
  return chosen;
}

void Reduce(void* dst, const void* a, const void* b, size_t count, DataType type, ReduceOp op) {
  ChosenReduceKernels().reduce(dst, a, b, count, type, op);
}

void FinalizeReduction(void* dst, size_t count, DataType type, ReduceOp op, int n) {
  if (op == ReduceOp::kAvg && n > 1) ChosenReduceKernels().divide(dst, count, type, n);
}

void ReduceFused(const Fusion& fusion) { ChosenReduceKernels().reduce_fused(fusion); }

void Copy(void* to, const void* from, size_t bytes, bool stream) {
  if (stream) {
    ChosenReduceKernels().copy_streaming(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

}  // namespace sumac::collectives
