// The kernels for any CPU.

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#include "collectives/reduce/kernels.h"

#define SUMAC_KERNELS portable
#include "collectives/reduce/kernels.inc"
