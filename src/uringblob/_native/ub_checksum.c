/* On x86-64 the baseline of XXH3 is SSE2; AVX2 is 15 % faster from memory and up to twice as fast from
   cache, where the processor has it. */

#include "ub_checksum.h"

#include "ub_xxh3.h"

int ub_has_xxh3(void)
{
    return UB_XXH3;
}

#if UB_XXH3

uint64_t ub_xxh3(uint64_t address, uint64_t length)
{
    const void *data = (const void *)(uintptr_t)address;
#if defined(__x86_64__) && !defined(__AVX2__) /* else the baseline has it */
    if (__builtin_cpu_supports("avx2"))
        return ub_xxh3_avx2(data, (size_t)length);
#endif
    return XXH3_64bits(data, (size_t)length);
}

#else

uint64_t ub_xxh3(uint64_t address, uint64_t length)
{
    (void)address, (void)length;
    return 0;
}

#endif
