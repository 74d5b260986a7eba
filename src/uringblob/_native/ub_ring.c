/* This file writes the submission queue and reads the completion queue directly, with liburing's
   barriers: filling, entering and taking back must be one step, which liburing does not offer.
   Set-up, registration, probing and exit use liburing.

   Checked on Linux 6.18 with liburing 2.3.  Only the setup flags of SERVED are accepted.  SQE128 and
   CQE32 change the size of the entries, NO_SQARRAY removes the index array that is filled below, SQPOLL
   makes submission asynchronous, and IOPOLL and DEFER_TASKRUN post completions only on request. */

#define _GNU_SOURCE

#include "ub_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif

/* struct statx of an older libc lacks the fields of Linux 6.1; these are their fixed offsets. */
#define UB_STATX_DIOALIGN 0x00002000U
#define UB_STATX_DIO_MEM_ALIGN_AT 0x98
#define UB_STATX_DIO_OFFSET_ALIGN_AT 0x9c
#define UB_STATX_SIZE 0x100

_Static_assert(sizeof(struct ub_op) == 40, "Python packs ub_op as 40 bytes");
_Static_assert(sizeof(struct ub_completion) == 16, "Python unpacks ub_completion as 16 bytes");

#define SERVED (IORING_SETUP_CLAMP | UB_SETUP_SUBMIT_ALL | UB_SETUP_COOP_TASKRUN | UB_SETUP_TASKRUN_FLAG)

/* Not in the headers of an older kernel. */
#define UB_SETUP_SUBMIT_ALL (1U << 7)
#define UB_SETUP_COOP_TASKRUN (1U << 8)
#define UB_SETUP_TASKRUN_FLAG (1U << 9)

static int enter(struct ub_ring *ring, unsigned submit, unsigned wait, unsigned flags)
{
    ring->enters++;
    long rc = syscall(__NR_io_uring_enter, ring->fd, submit, wait, flags, NULL, 0);
    return rc < 0 ? -errno : (int)rc;
}

static void free_check(struct ub_ring *ring, uint32_t number)
{
    if (!number)
        return;
    ring->checks[number - 1].next_free = ring->free_check;
    ring->free_check = number;
}

int ub_open(struct ub_ring *ring, unsigned entries, unsigned setup_flags)
{
    struct io_uring_params params = {.flags = setup_flags};
    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
    if (setup_flags & ~SERVED)
        return -EINVAL;
    int rc = io_uring_queue_init_params(entries, &ring->uring, &params);
    if (rc < 0)
        return rc;
    ring->fd = ring->uring.ring_fd;
    ring->sq_entries = params.sq_entries;
    ring->cq_entries = params.cq_entries;
    ring->setup_flags = params.flags;
    ring->in_flight_max = params.cq_entries;
    ring->checks = calloc(params.cq_entries, sizeof *ring->checks);
    if (!ring->checks) {
        ub_abandon(ring);
        return -ENOMEM;
    }
    for (unsigned i = params.cq_entries; i > 0; i--)
        free_check(ring, i);
    return 0;
}

void ub_close(struct ub_ring *ring)
{
    /* Exiting the ring releases these later, from a kernel worker: until then a reopen finds the
       file locked and the memory charged.  Unregistering releases them now. */
    ub_unregister_files(ring);
    ub_unregister_buffers(ring);
    ub_abandon(ring);
}

void ub_abandon(struct ub_ring *ring)
{
    if (ring->fd < 0)
        return;
    ring->fd = -1;
    ring->buffered = 0;
    ring->staged = 0;
    free(ring->checks);
    ring->checks = NULL;
    io_uring_queue_exit(&ring->uring); /* munmap and close: invisible to other processes */
}

int ub_register_files(struct ub_ring *ring, const int *fds, unsigned count)
{
    if (ring->fd < 0)
        return -EBADF;
    int rc = io_uring_register_files(&ring->uring, fds, count);
    if (rc >= 0)
        ring->files_registered = count;
    return rc;
}

int ub_unregister_files(struct ub_ring *ring)
{
    if (ring->fd < 0 || !ring->files_registered)
        return 0;
    ring->files_registered = 0;
    return io_uring_unregister_files(&ring->uring);
}

int ub_register_buffers(struct ub_ring *ring, const struct iovec *vectors, unsigned count)
{
    if (ring->fd < 0)
        return -EBADF;
    int rc = io_uring_register_buffers(&ring->uring, vectors, count);
    if (rc >= 0)
        ring->buffers_registered = count;
    return rc;
}

int ub_unregister_buffers(struct ub_ring *ring)
{
    if (ring->fd < 0 || !ring->buffers_registered)
        return 0;
    ring->buffers_registered = 0;
    return io_uring_unregister_buffers(&ring->uring);
}

int ub_probe(struct ub_ring *ring, uint8_t *supported, unsigned count)
{
    if (ring->fd < 0)
        return -EBADF;
    struct io_uring_probe *probe = calloc(1, sizeof *probe + 256 * sizeof probe->ops[0]);
    if (!probe)
        return -ENOMEM;
    int rc = io_uring_register_probe(&ring->uring, probe, 256);
    int known = 0;
    memset(supported, 0, count);
    for (unsigned i = 0; rc >= 0 && i < probe->ops_len && i < count; i++) {
        supported[i] = (probe->ops[i].flags & IO_URING_OP_SUPPORTED) != 0;
        known += supported[i];
    }
    free(probe);
    return rc < 0 ? rc : known;
}

/* What a completion does not say is kept in its user_data: the direction of its bytes in the two uppermost
   bits, the number of its check (index + 1) in the 16 below.  Python counts the rest up from 1. */
#define UB_DIRECTION_SHIFT 62
#define UB_CHECK_SHIFT 46
#define UB_CHECKS_MAX 0xffffU

static uint64_t direction_of(uint8_t opcode)
{
    switch (opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
    case 60: /* READV_FIXED, Linux 6.15: older headers lack the names */
        return 1;
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
    case 61: /* WRITEV_FIXED */
        return 2;
    default:
        return 0;
    }
}

static void fill(struct io_uring_sqe *sqe, const struct ub_op *op)
{
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = op->opcode;
    sqe->flags = op->flags;
    sqe->fd = op->file;
    sqe->off = op->offset;
    sqe->addr = op->address;
    sqe->len = op->length;
    sqe->rw_flags = (__kernel_rwf_t)op->op_flags; /* a union with the flags of every opcode */
    sqe->user_data = op->user_data | direction_of(op->opcode) << UB_DIRECTION_SHIFT;
    sqe->buf_index = op->buf_index;
}

/* The SQE `ahead` places behind the kernel's tail. */
static struct io_uring_sqe *place(struct ub_ring *ring, unsigned ahead)
{
    struct io_uring_sq *sq = &ring->uring.sq;
    unsigned index = (*sq->ktail + ahead) & (ring->sq_entries - 1);
    sq->array[index] = index;
    return &sq->sqes[index];
}

/* Hand over `count` filled SQEs; returns how many were taken, and stores the error, if any. */
static unsigned hand_over(struct ub_ring *ring, unsigned count, int *error)
{
    struct io_uring_sq *sq = &ring->uring.sq;
    unsigned tail = *sq->ktail;
    io_uring_smp_store_release(sq->ktail, tail + count);
    *error = enter(ring, count, 0, 0);
    /* The head counts what the kernel took; the return value does not: an error hides a partial success. */
    unsigned taken = io_uring_smp_load_acquire(sq->khead) - tail;
    io_uring_smp_store_release(sq->ktail, tail + taken);
    ring->accepted += taken;
    return taken;
}

int ub_submit(struct ub_ring *ring, const struct ub_op *ops, unsigned count)
{
    if (ring->fd < 0)
        return -EBADF;
    if (count > ring->sq_entries)
        return -EINVAL;
    if (ring->staged + count > ring->sq_entries) {
        int pushed = ub_push(ring);
        if (ring->staged)
            return pushed < 0 ? pushed : -EAGAIN;
    }
    for (unsigned i = 0; i < count; i++)
        fill(place(ring, ring->staged + i), &ops[i]);
    int rc;
    unsigned taken = hand_over(ring, ring->staged + count, &rc);
    unsigned of_staged = taken < ring->staged ? taken : ring->staged;
    ring->staged -= of_staged;
    taken -= of_staged;
    ring->passed += taken;
    return taken || rc >= 0 ? (int)taken : rc;
}

int ub_stage(struct ub_ring *ring, uint64_t user_data, unsigned opcode, unsigned op_flags, unsigned buf_index,
             uint64_t address, uint64_t offset, uint32_t length, int check, uint64_t want)
{
    if (ring->fd < 0)
        return -EBADF;
    if (user_data >> UB_CHECK_SHIFT)
        return -EINVAL;
    uint64_t in_flight = ring->accepted - ring->reaped + ring->staged;
    if (ring->staged >= ring->sq_entries || in_flight >= ring->in_flight_max)
        return -EAGAIN;
    if (check) {
        uint32_t number = ring->free_check;
        if (!number || number > UB_CHECKS_MAX)
            return -EAGAIN;
        struct ub_check *slot = &ring->checks[number - 1];
        ring->free_check = slot->next_free;
        slot->address = address;
        slot->length = length;
        slot->want = want;
        user_data |= (uint64_t)number << UB_CHECK_SHIFT;
    }
    const struct ub_op op = {
        .user_data = user_data,
        .address = address,
        .offset = offset,
        .length = length,
        .file = 0,
        .op_flags = op_flags,
        .buf_index = (uint16_t)buf_index,
        .opcode = (uint8_t)opcode,
        .flags = IOSQE_FIXED_FILE,
    };
    fill(place(ring, ring->staged), &op);
    return (int)++ring->staged;
}

int ub_push(struct ub_ring *ring)
{
    if (ring->fd < 0)
        return -EBADF;
    if (!ring->staged)
        return 0;
    int rc;
    unsigned taken = hand_over(ring, ring->staged, &rc);
    ring->staged -= taken;
    return taken || rc >= 0 ? (int)taken : rc;
}

static uint64_t counter_of(uint64_t user_data)
{
    return user_data & ((UINT64_C(1) << UB_CHECK_SHIFT) - 1);
}

static uint32_t check_of(uint64_t user_data)
{
    return (user_data >> UB_CHECK_SHIFT) & UB_CHECKS_MAX;
}

uint64_t ub_staged(struct ub_ring *ring, unsigned index)
{
    return ring->fd < 0 || index >= ring->staged ? 0 : counter_of(place(ring, index)->user_data);
}

void ub_unstage(struct ub_ring *ring)
{
    for (; ring->fd >= 0 && ring->staged; ring->staged--)
        free_check(ring, check_of(place(ring, ring->staged - 1)->user_data));
}

static unsigned completions_ready(struct ub_ring *ring)
{
    struct io_uring_cq *cq = &ring->uring.cq;
    return io_uring_smp_load_acquire(cq->ktail) - *cq->khead;
}

/* Whether the kernel has completions that did not fit the queue, or task work to run at the next enter. */
static int kernel_holds_back(struct ub_ring *ring)
{
    unsigned flags = IO_URING_READ_ONCE(*ring->uring.sq.kflags);
    return (flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

/* If this completion is of a whole checked read, note its frame as the `count`-th to be checked. */
static unsigned note_frame(struct ub_ring *ring, const struct io_uring_cqe *cqe, unsigned at, unsigned count)
{
    uint32_t number = check_of(cqe->user_data);
    if (!number)
        return count;
    const struct ub_check *check = &ring->checks[number - 1];
    if (cqe->res >= 0 && (uint32_t)cqe->res == check->length) {
        ring->frames[count] = (struct ub_frame){check->address, check->length, 0};
        ring->checking[count++] = at;
    } else {
        free_check(ring, number);
    }
    return count;
}

/* Check the noted frames, and mark the completions of those that have another checksum than wanted. */
static void check_frames(struct ub_ring *ring, unsigned count)
{
    struct io_uring_cq *cq = &ring->uring.cq;
    if (count == 1)
        ring->frames[0].checksum = ub_xxh3(ring->frames[0].address, ring->frames[0].length);
    else if (count)
        ub_checksum_frames(ring->frames, count);
    for (unsigned i = 0; i < count; i++) {
        unsigned at = ring->checking[i];
        uint32_t number = check_of(cq->cqes[(*cq->khead + at) & (ring->cq_entries - 1)].user_data);
        if (ring->frames[i].checksum != ring->checks[number - 1].want)
            ring->cqe_buffer[at].flags |= UB_MISMATCH;
        free_check(ring, number);
    }
}

int ub_reap(struct ub_ring *ring, uint64_t bytes_max)
{
    if (ring->fd < 0)
        return -EBADF;
    struct io_uring_cq *cq = &ring->uring.cq;
    unsigned mask = ring->cq_entries - 1;
    if (ring->buffered && !ring->consumed)
        return (int)ring->buffered;
    io_uring_smp_store_release(cq->khead, *cq->khead + ring->buffered);
    ring->reaped += ring->buffered;
    ring->consumed = 0;
    ring->buffered = 0;
    unsigned ready = completions_ready(ring);
    if (!ready && kernel_holds_back(ring)) {
        enter(ring, 0, 0, IORING_ENTER_GETEVENTS);
        ready = completions_ready(ring);
    }
    uint64_t bytes = 0;
    unsigned frames = 0;
    for (; ring->buffered < ready && bytes < bytes_max && frames < UB_FRAMES_AT_ONCE; ring->buffered++) {
        const struct io_uring_cqe *cqe = &cq->cqes[(*cq->khead + ring->buffered) & mask];
        struct ub_completion *completion = &ring->cqe_buffer[ring->buffered];
        uint64_t direction = cqe->user_data >> UB_DIRECTION_SHIFT;
        if (direction && cqe->res > 0)
            ring->moved[direction - 1] += (uint64_t)cqe->res;
        completion->user_data = counter_of(cqe->user_data);
        completion->result = cqe->res;
        completion->flags = cqe->flags & ~UB_MISMATCH;
        unsigned noted = note_frame(ring, cqe, ring->buffered, frames);
        if (noted > frames)
            bytes += ring->frames[frames].length;
        frames = noted;
    }
    check_frames(ring, frames);
    return (int)ring->buffered;
}

int ub_wait(struct ub_ring *ring)
{
    if (ring->fd < 0)
        return -EBADF;
    int rc = enter(ring, 0, 1, IORING_ENTER_GETEVENTS);
    return rc < 0 ? rc : 0;
}

/* Headers before liburing 2.4 lack their version: build_ffi.py defines it. */
#ifndef UB_LIBURING_VERSION
#define UB_LIBURING_VERSION "unknown"
#endif

const char *ub_liburing_version(void)
{
    return UB_LIBURING_VERSION;
}

int ub_dioalign(int fd, uint32_t *memory_align, uint32_t *offset_align)
{
    union {
        unsigned char bytes[UB_STATX_SIZE];
        uint64_t aligned;
    } answer = {{0}};
    uint32_t mask;
    if (syscall(__NR_statx, fd, "", AT_EMPTY_PATH, UB_STATX_DIOALIGN, &answer) < 0)
        return -errno;
    memcpy(&mask, answer.bytes, sizeof mask);
    if (!(mask & UB_STATX_DIOALIGN))
        return -EOPNOTSUPP;
    memcpy(memory_align, answer.bytes + UB_STATX_DIO_MEM_ALIGN_AT, sizeof *memory_align);
    memcpy(offset_align, answer.bytes + UB_STATX_DIO_OFFSET_ALIGN_AT, sizeof *offset_align);
    return 0;
}

int ub_rename_noreplace(const char *old_path, const char *new_path)
{
    long rc = syscall(__NR_renameat2, AT_FDCWD, old_path, AT_FDCWD, new_path, RENAME_NOREPLACE);
    return rc < 0 ? -errno : 0;
}
