/* The C half of uringblob: operations in, arrays of completions out.  Python decides, C moves.

   Every function returns >= 0, or -errno; errno itself is never read by the caller.
   A ring belongs to one thread: no function here takes a lock.

   Operations take one of two ways.  ub_submit gives an array to the kernel at once: SQEs that it did not
   take are withdrawn, and ub_ring.passed counts those it took.  ub_stage fills one SQE and gives nothing
   to the kernel: staged SQEs stay behind the kernel's tail, in order, until ub_push or the next ub_submit
   hands them over; the kernel takes them first.

   A staged read may be checked: ub_reap compares the XXH3 of its memory.  The memory of every operation
   is the caller's, and stays so until its completion. */

#ifndef UB_RING_H
#define UB_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <liburing.h>

#include "ub_checksum.h"

/* One operation; ub_submit makes it an SQE.  40 bytes without padding, because Python packs it. */
struct ub_op {
    uint64_t user_data; /* comes back with the completion */
    uint64_t address;   /* memory, or an array of struct iovec; fallocate: the length in bytes */
    uint64_t offset;    /* position in the file, in bytes */
    uint32_t length;    /* bytes, or entries of the iovec array; fallocate: the mode */
    int32_t file;       /* descriptor, or index of a registered file (with IOSQE_FIXED_FILE) */
    uint32_t op_flags;  /* rw_flags, fsync_flags, ... */
    uint16_t buf_index; /* registered buffer, for the *_FIXED opcodes */
    uint8_t opcode;     /* IORING_OP_* */
    uint8_t flags;      /* IOSQE_* */
};

struct ub_completion {
    uint64_t user_data;
    int32_t result; /* >= 0 or -errno */
    uint32_t flags; /* IORING_CQE_F_* */
};

/* Frames that one call of ub_reap checks, at most. */
#define UB_FRAMES_AT_ONCE 64

/* A checked read that is staged or in flight, or a link of the list of free ones. */
struct ub_check {
    uint64_t address;
    uint64_t want;
    uint32_t length;
    uint32_t next_free; /* index + 1; 0 ends the list */
};

struct ub_ring {
    int fd; /* -1: closed or abandoned */
    unsigned sq_entries;
    unsigned cq_entries;
    unsigned setup_flags;
    uint64_t passed;   /* operations accepted by the kernel, or given up by the submitter */
    uint64_t accepted; /* operations the kernel took */
    uint64_t reaped;   /* completions consumed */
    uint64_t enters;   /* calls of io_uring_enter */
    uint64_t moved[2]; /* bytes that came with completions: read, written */
    unsigned consumed; /* set by the caller when it has handled every completion in cqe_buffer */
    unsigned buffered; /* completions in cqe_buffer */
    unsigned staged;   /* SQEs behind the kernel's tail */
    unsigned in_flight_max; /* operations staged and in the kernel, at most: cq_entries */
    uint32_t free_check;    /* index + 1 of the first free check */
    struct ub_check *checks; /* one for each operation that may be in flight */
    struct ub_frame frames[UB_FRAMES_AT_ONCE]; /* those that are being checked, and their completions */
    unsigned checking[UB_FRAMES_AT_ONCE];
    unsigned files_registered;
    unsigned buffers_registered;
    struct ub_completion *cqe_buffer; /* the caller's, cq_entries long; set after ub_open */
    struct io_uring uring;
};

/* Make a ring of `entries` SQEs with exactly these IORING_SETUP_* flags.  `ring` is the caller's
   memory; its fd is -1 if this fails.  -EINVAL also for flags that the queues here do not support. */
int ub_open(struct ub_ring *ring, unsigned entries, unsigned setup_flags);

/* Unregister files and buffers and leave the ring.  Nothing may be in flight.
   From then on every function answers -EBADF; a second call does nothing. */
void ub_close(struct ub_ring *ring);

/* Drop this process's copies (descriptor and mappings) and change nothing another process shares. */
void ub_abandon(struct ub_ring *ring);

int ub_register_files(struct ub_ring *ring, const int *fds, unsigned count);
int ub_unregister_files(struct ub_ring *ring);
int ub_register_buffers(struct ub_ring *ring, const struct iovec *vectors, unsigned count);
int ub_unregister_buffers(struct ub_ring *ring);

/* Set supported[opcode] to 1 for every opcode below `count` that the kernel has, else to 0.
   Returns their number. */
int ub_probe(struct ub_ring *ring, uint8_t *supported, unsigned count);

/* Submit what is staged and `count` operations (at most sq_entries) by one io_uring_enter.
   Returns how many of the operations the kernel took, which may be fewer; the rest is as if never submitted. */
int ub_submit(struct ub_ring *ring, const struct ub_op *ops, unsigned count);

/* Stage one operation on registered file 0.  With `check`, a read is checked against `want`.
   user_data is below 2^46.  Returns how many are staged now; -EAGAIN: no room, push or reap first. */
int ub_stage(struct ub_ring *ring, uint64_t user_data, unsigned opcode, unsigned op_flags, unsigned buf_index,
             uint64_t address, uint64_t offset, uint32_t length, int check, uint64_t want);

/* Hand everything staged to the kernel by one io_uring_enter.  Returns how many it took; the rest stays. */
int ub_push(struct ub_ring *ring);

/* The user_data of the `index`-th staged operation, 0 if there is none. */
uint64_t ub_staged(struct ub_ring *ring, unsigned index);

/* Withdraw everything staged. */
void ub_unstage(struct ub_ring *ring);

/* Copy completions into cqe_buffer and return their number.  They leave the completion queue at the next
   call, and only if `consumed` was set: a caller that an exception interrupted gets the same ones again,
   and the descriptor stays readable until then.

   Stops behind the checked read with which the bytes checked reach `bytes_max`; several are shared among
   threads (ub_checksum_frames).  UB_MISMATCH is set in the
   flags of a checked read that was whole and whose memory does not have the checksum wanted. */
#define UB_MISMATCH (1U << 31)
int ub_reap(struct ub_ring *ring, uint64_t bytes_max);

/* Block until there is a completion to reap.  -EINTR: a signal arrived; call again. */
int ub_wait(struct ub_ring *ring);

/* The version of liburing at build time, such as "2.3", or "unknown". */
const char *ub_liburing_version(void);

/* The alignment that O_DIRECT needs, in bytes, from statx.  -EOPNOTSUPP: statx does not report it. */
int ub_dioalign(int fd, uint32_t *memory_align, uint32_t *offset_align);

/* Rename, unless `new_path` exists: -EEXIST. */
int ub_rename_noreplace(const char *old_path, const char *new_path);

#endif
