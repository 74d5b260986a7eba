/* Shared by ub_checksum.c and ub_checksum_avx2.c: xxhash.h inlined, and whether there is one (UB_XXH3).

   __has_include asks the compiler that compiles these files, with the flags that it was given.
   XXH3 before xxHash 0.8 gave other bits. */

#ifndef UB_XXH3_H
#define UB_XXH3_H

#include <stddef.h>
#include <stdint.h>

#if defined(__has_include) && !defined(UB_WITHOUT_XXHASH)
#if __has_include(<xxhash.h>)
#define XXH_INLINE_ALL
#include <xxhash.h>
#if XXH_VERSION_NUMBER >= 800
#define UB_XXH3 1
#endif
#endif
#endif

#ifndef UB_XXH3
#define UB_XXH3 0
#endif

/* In ub_checksum_avx2.c, on x86-64 only.  The processor must have AVX2. */
uint64_t ub_xxh3_avx2(const void *data, size_t length);

#endif
