/* Shared by ub_checksum.c and the files for AVX2 and AVX-512: xxhash.h inlined, and whether there is one
   (UB_XXH3).

   __has_include asks the compiler that compiles these files, with the flags that it was given.
   XXH3 before xxHash 0.8 gave other bits. */

#ifndef UB_XXH3_H
#define UB_XXH3_H

#include <stddef.h>
#include <stdint.h>

#if defined(__has_include) && !defined(UB_WITHOUT_XXHASH)
#if __has_include(<xxhash.h>)
#define XXH_INLINE_ALL
/* Bytes ahead.  xxhash's 384 or 512 are too near for memory: 512 KiB took 50 us, not 67, with 4096 (AVX2,
   Xeon of 2023); 8192 gave no more, from cache it makes no difference, a frame of 4 KiB loses 0.1 us. */
#define XXH_PREFETCH_DIST 4096
#include <xxhash.h>
#if XXH_VERSION_NUMBER >= 800
#define UB_XXH3 1
#endif
#endif
#endif

#ifndef UB_XXH3
#define UB_XXH3 0
#endif

/* x86-64 only; the processor must have what the name says. */
uint64_t ub_xxh3_avx2(const void *data, size_t length);
uint64_t ub_xxh3_avx512(const void *data, size_t length);

#endif
