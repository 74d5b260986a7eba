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

struct ub_frame {
    uint64_t address;
    uint64_t length;
    uint64_t checksum; /* filled in */
};

/* Fill in `checksum` of each.  Only if ub_has_xxh3.

   From any thread.  Of 64 KiB or more together, up to ub_checksum_helpers() threads of this file take
   frames too; they are started by the first call that can use them.  Of callers at the same time one has
   the helpers, and the others compute alone; so do the calls after one that a busy machine kept waiting. */
void ub_checksum_frames(struct ub_frame *frames, unsigned count);

/* Let at most `count` helpers take part from now on, and no more than 3, nor than the processors that this
   thread may run on, less one; 0: none.  A negative `count` only asks.  Returns the number in force: as many
   as possible, unless it was set; fewer where the system refused a thread. */
int ub_checksum_helpers(int count);

#endif
