// The builds of kernels.inc. Internal to this folder.
#pragma once

#include <cstddef>

#include "collectives/data_type.h"
#include "collectives/reduce/fusion.h"

#define SUMAC_DECLARE_KERNELS(build)                                                              \
  namespace build {                                                                               \
  void Reduce(void* dst, const void* a, const void* b, size_t count, DataType type, ReduceOp op); \
  void Divide(void* dst, size_t count, DataType type, int n);                                     \
  void ReduceFused(const Fusion& fusion);                                                         \
  void CopyStreaming(void* to, const void* from, size_t bytes);                                   \
  }

namespace sumac::collectives {
SUMAC_DECLARE_KERNELS(portable)
SUMAC_DECLARE_KERNELS(avx2)
SUMAC_DECLARE_KERNELS(avx512)
}  // namespace sumac::collectives

#undef SUMAC_DECLARE_KERNELS
