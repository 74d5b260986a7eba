/* The checksum of frames: XXH3-64 with seed 0, the bits of the Python package xxhash.

   The algorithm is the system's header xxhash.h (0.8 or newer), inlined: no library at run time.
   Where the build found no such header, ub_has_xxh3 answers 0 and the caller uses the Python package. */

#ifndef UB_CHECKSUM_H
#define UB_CHECKSUM_H

#include <stdint.h>

/* 1, or 0: nothing else of this file may be called. */
int ub_has_xxh3(void);

/* The XXH3-64 of `length` bytes at `address`, of any alignment.  Only if ub_has_xxh3. */
uint64_t ub_xxh3(uint64_t address, uint64_t length);

#endif
