// The kernels for any CPU.

#include <cstddef>
#include <cstdint>

#include "collectives/reduce/kernels.h"

#define SUMAC_KERNELS portable
#include "collectives/reduce/kernels.inc"
