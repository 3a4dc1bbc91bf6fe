#include "collectives/reduce/reduce.h"

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
    {"portable", Always, portable::Reduce, portable::Divide},
#if defined(SUMAC_X86_KERNELS)
    {"avx2", HasAvx2, avx2::Reduce, avx2::Divide},
    {"avx512", HasAvx512, avx512::Reduce, avx512::Divide},
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

}  // namespace sumac::collectives
