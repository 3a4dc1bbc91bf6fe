// The kernels for CPUs with AVX2; CMakeLists.txt sets the compiler's flags.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "collectives/reduce/kernels.h"

#define SUMAC_KERNELS avx2
#include "collectives/reduce/kernels.inc"
