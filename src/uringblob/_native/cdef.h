/* The part of ub_ring.h and ub_checksum.h that Python uses; cffi reads this file, the C compiler checks it
   against the headers.
   "...;" in a structure stands for further fields. */

struct ub_op {
    uint64_t user_data;
    uint64_t address;
    uint64_t offset;
    uint32_t length;
    int32_t file;
    uint32_t op_flags;
    uint16_t buf_index;
    uint8_t opcode;
    uint8_t flags;
};

struct ub_completion {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
};

struct ub_ring {
    int fd;
    unsigned sq_entries;
    unsigned cq_entries;
    unsigned setup_flags;
    uint64_t passed;
    uint64_t accepted;
    uint64_t reaped;
    uint64_t enters;
    uint64_t moved[2];
    unsigned consumed;
    unsigned staged;
    unsigned in_flight_max;
    struct ub_completion *cqe_buffer;
    ...;
};

struct ub_frame {
    uint64_t address;
    uint64_t length;
    uint64_t checksum;
};

struct iovec {
    void *iov_base;
    size_t iov_len;
};

int ub_open(struct ub_ring *ring, unsigned entries, unsigned setup_flags);
void ub_close(struct ub_ring *ring);
void ub_abandon(struct ub_ring *ring);

int ub_register_files(struct ub_ring *ring, const int *fds, unsigned count);
int ub_unregister_files(struct ub_ring *ring);
int ub_register_buffers(struct ub_ring *ring, const struct iovec *vectors, unsigned count);
int ub_unregister_buffers(struct ub_ring *ring);
int ub_probe(struct ub_ring *ring, uint8_t *supported, unsigned count);

int ub_submit(struct ub_ring *ring, const struct ub_op *ops, unsigned count);
int ub_stage(struct ub_ring *ring, uint64_t user_data, unsigned opcode, unsigned op_flags, unsigned buf_index,
             uint64_t address, uint64_t offset, uint32_t length, int check, uint64_t want);
int ub_push(struct ub_ring *ring);
uint64_t ub_staged(struct ub_ring *ring, unsigned index);
void ub_unstage(struct ub_ring *ring);
#define UB_MISMATCH ...
int ub_reap(struct ub_ring *ring, uint64_t bytes_max);
int ub_wait(struct ub_ring *ring);

const char *ub_liburing_version(void);
int ub_dioalign(int fd, uint32_t *memory_align, uint32_t *offset_align);
int ub_rename_noreplace(const char *old_path, const char *new_path);

int ub_has_xxh3(void);
uint64_t ub_xxh3(uint64_t address, uint64_t length);
void ub_checksum_frames(struct ub_frame *frames, unsigned count);
int ub_checksum_helpers(int count);
