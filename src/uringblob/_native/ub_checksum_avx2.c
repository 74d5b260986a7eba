/* XXH3 compiled for AVX2, in a file of its own: ub_checksum.c calls it on a processor that has AVX2.

   The target is switched on here and not by a flag of the build, which would apply to every file. */

#if defined(__x86_64__)

/* Before the switch, so that nothing else of these is compiled for AVX2. */
#include <immintrin.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define XXH_VECTOR XXH_AVX2
#include "ub_xxh3.h"

#if UB_XXH3
uint64_t ub_xxh3_avx2(const void *data, size_t length)
{
    return XXH3_64bits(data, length);
}
#endif

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else
typedef int ub_not_x86_64; /* an empty file is not C */
#endif
