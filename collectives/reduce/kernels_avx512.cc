// The kernels for CPUs with AVX512; CMakeLists.txt sets the compiler's flags.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "collectives/reduce/kernels.h"

#define SUMAC_KERNELS avx512
#include "collectives/reduce/kernels.inc"
