// One fused reduction, as plain data: several inputs, several outputs, one pass over all of them.
//
// Taken by ReduceFused (reduce.h). Nothing but types here: the kernels' builds include it.
#pragma once

#include <cstddef>

#include "collectives/data_type.h"

namespace sumac::collectives {

struct Fusion {
  const void* const* from = nullptr;  // `inputs` arrays of `count` elements
  int inputs = 0;                     // at least 1; 1 copies
  void* const* to = nullptr;          // `outputs` of the same; each may be one of the inputs
  int outputs = 0;
  size_t count = 0;
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  int divisor = 1;      // what an average is divided by at the end
  bool stream = false;  // outputs are not to stay in the caches
};

}  // namespace sumac::collectives
