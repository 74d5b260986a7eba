/* The C half of uringblob: arrays of operations in, arrays of completions out.

   Every function returns >= 0, or -errno; errno itself is never read by the caller.
   A ring belongs to one thread: no function here takes a lock.
   No SQE outlives the call that made it: what the kernel did not take is taken back,
   and ub_ring.passed says how far it came. */

#ifndef UB_RING_H
#define UB_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <liburing.h>

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

struct ub_ring {
    int fd; /* -1: closed or abandoned */
    unsigned sq_entries;
    unsigned cq_entries;
    unsigned setup_flags;
    unsigned features;
    uint64_t passed;   /* operations the submitter is done with: accepted, or given up by it */
    uint64_t accepted; /* operations the kernel took */
    uint64_t reaped;   /* completions settled */
    uint64_t enters;   /* calls of io_uring_enter */
    unsigned settled;  /* set by the reader when it has dealt with the whole inbox */
    unsigned in_inbox;
    unsigned files_registered;
    unsigned buffers_registered;
    struct ub_completion *inbox; /* the caller's, cq_entries long; set after ub_open */
    struct io_uring uring;
};

/* Those of these IORING_SETUP_* flags that the queues here cannot be used with. */
unsigned ub_unserved_flags(unsigned setup_flags);

/* The name of the flag 1 << `bit`, such as "SQPOLL"; NULL: it is none that is known. */
const char *ub_setup_flag_name(unsigned bit);

/* Make a ring of `entries` SQEs with exactly these IORING_SETUP_* flags.  `ring` is the caller's
   memory and stays valid as long as anybody may ask it; its fd is -1 if this fails.
   -EINVAL, as the kernel says of a flag it does not know: there are unserved ones among them. */
int ub_open(struct ub_ring *ring, unsigned entries, unsigned setup_flags);

/* Unregister files and buffers and leave the ring.  Nothing may be in flight.
   From then on every function answers -EBADF; a second call does nothing. */
void ub_close(struct ub_ring *ring);

/* Drop this process's copies (descriptor and mappings) and change nothing another process shares. */
void ub_abandon(struct ub_ring *ring);

int ub_register_files(struct ub_ring *ring, const int *fds, unsigned count);
int ub_unregister_files(struct ub_ring *ring);
int ub_register_buffers(struct ub_ring *ring, const struct iovec *stretches, unsigned count);
int ub_unregister_buffers(struct ub_ring *ring);

/* Set supported[opcode] to 1 for every opcode below `count` that the kernel has, else to 0.
   Returns how many it has. */
int ub_probe(struct ub_ring *ring, uint8_t *supported, unsigned count);

/* Hand `count` operations (at most sq_entries) to the kernel in one io_uring_enter.
   Returns how many it took, which may be fewer; the rest is as if never submitted. */
int ub_submit(struct ub_ring *ring, const struct ub_op *ops, unsigned count);

/* Copy completions into the inbox and return how many lie in it.
   They leave the completion queue only at the next call, and only if `settled` was set: a reader
   that was interrupted gets the same ones again, and the descriptor stays readable until then. */
int ub_reap(struct ub_ring *ring);

/* Block until there is a completion to reap.  -EINTR: a signal arrived; call again. */
int ub_wait(struct ub_ring *ring);

/* The liburing that this was built with, such as "2.3"; "unknown" where it did not say. */
const char *ub_liburing_version(void);

/* The alignment O_DIRECT asks for, in bytes, as statx says it.  -EOPNOTSUPP: it does not say. */
int ub_dioalign(int fd, uint32_t *memory_align, uint32_t *offset_align);

/* Rename, unless `new_path` exists: -EEXIST. */
int ub_rename_noreplace(const char *old_path, const char *new_path);

/* Allocate blocks and lengthen the file, where the file system itself can: else -EOPNOTSUPP. */
int ub_fallocate(int fd, uint64_t offset, uint64_t size);

#endif
