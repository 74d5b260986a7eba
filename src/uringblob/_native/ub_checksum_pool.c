/* Checksums of many frames, shared among the caller and a few helper threads.

   A caller that got `busy` publishes its frames and opens them in `state`.  Caller and helpers claim frames
   from `next` until there are none.  Then the caller closes `state`: a helper that wakes later finds nothing
   to join, so the caller waits only for those that are computing, never for one to be scheduled.

   Helpers sleep on a futex between calls and do not spin: with few processors that would cost the event
   loop or the kernel's workers what they gain.  They are detached and hold nothing, so the end of the
   process needs no join that could hang; it ends them asleep.  They never run Python: they know no thread
   state, and all signals are blocked.  A forked child has none, and starts its own. */

#define _GNU_SOURCE

#include "ub_checksum.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HELPERS_MAX 3
/* Waking a helper takes some microseconds, in which 64 KiB from cache are done. */
#define SHARED_BYTES_MIN 65536
/* At most some microseconds: a pause takes 10 to 140 cycles. */
#define SPINS 60
/* A helper that lost its processor amid a frame keeps the caller waiting for milliseconds, ten times what the
   frame takes.  Whoever waited so long tries helpers again after so many calls. */
#define ALONE_CALLS 64
#define WAIT_NS(bytes) (100000 + (bytes) / 2) /* beyond 2 GB/s and a wake-up */

/* Python's, of its stable ABI: a detached pthread without a Python thread state; the GIL is not needed.
   pthread_create would be GLIBC_2.34 where that is what the build machine has, and keep the wheel from
   older systems. */
unsigned long PyThread_start_new_thread(void (*function)(void *), void *argument);
#define NOT_STARTED ((unsigned long)-1)

/* In pool.state. */
#define ACTIVE 1U /* times the helpers that are computing */
#define ACTIVE_MASK 0xffU
#define SEAT 0x100U /* times the helpers that may still join */
#define SEATS_MASK 0xff00U

static struct {
    /* The caller's frames: written with `state` at 0, read by those that joined. */
    struct ub_frame *frames;
    unsigned count;
    unsigned step; /* claimed at once */

    atomic_uint next;
    atomic_uint state;     /* futex of the caller that waits for the last helpers */
    atomic_uint published; /* futex of idle helpers: counts calls */
    atomic_uint busy;      /* some caller has the helpers */
    atomic_int allowed;    /* -1: not set, not asked for yet */
    unsigned threads;      /* started, by whoever is busy */
    unsigned alone;        /* calls to come without helpers, likewise */
} pool = {.allowed = -1};

static void futex(atomic_uint *word, int operation, unsigned value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static uint64_t now_ns(void)
{
    long time[2] = {0}; /* the kernel's struct timespec; the function would need glibc 2.17 */
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, time);
    return (uint64_t)time[0] * 1000000000U + (uint64_t)time[1];
}

static void compute(struct ub_frame *frames, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        frames[i].checksum = ub_xxh3(frames[i].address, frames[i].length);
}

static void compute_claimed(void)
{
    for (;;) {
        unsigned first = atomic_fetch_add_explicit(&pool.next, pool.step, memory_order_relaxed);
        if (first >= pool.count)
            return;
        unsigned left = pool.count - first;
        compute(pool.frames + first, left < pool.step ? left : pool.step);
    }
}

static int join(void)
{
    unsigned state = atomic_load_explicit(&pool.state, memory_order_relaxed);
    do {
        if (!(state & SEATS_MASK))
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&pool.state, &state, state - SEAT + ACTIVE,
                                                    memory_order_acquire, memory_order_relaxed));
    return 1;
}

static void leave(void)
{
    unsigned left = atomic_fetch_sub_explicit(&pool.state, ACTIVE, memory_order_release) - ACTIVE;
    if (!left)
        futex(&pool.state, FUTEX_WAKE, 1);
}

static void help(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "uringblob-xxh3");
    for (;;) {
        unsigned published = atomic_load_explicit(&pool.published, memory_order_acquire);
        if (join()) {
            compute_claimed();
            leave();
        } else {
            futex(&pool.published, FUTEX_WAIT, published);
        }
    }
}

/* In a forked child: the helpers are gone, and so is a caller that had them. */
static void forget_helpers(void)
{
    atomic_store(&pool.state, 0);
    atomic_store(&pool.busy, 0);
    pool.threads = 0;
    pool.alone = 0;
}

static void start_helpers(unsigned wanted)
{
    static int watching_forks;
    sigset_t all, before;
    if (pool.threads >= wanted)
        return;
    if (!watching_forks && pthread_atfork(NULL, NULL, forget_helpers))
        wanted = 0; /* out of memory */
    else
        watching_forks = 1;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before); /* Linux: of this thread, and inherited by the new one */
    while (pool.threads < wanted && PyThread_start_new_thread(help, NULL) != NOT_STARTED)
        pool.threads++;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pool.threads < wanted)
        atomic_store(&pool.allowed, (int)pool.threads); /* not to be tried at every call */
}

static void wait_for_active(uint64_t claimed_bytes)
{
    uint64_t began = 0;
    for (unsigned spins = 0;; spins++) {
        unsigned state = atomic_load_explicit(&pool.state, memory_order_acquire);
        if (!state)
            break;
        if (spins < SPINS) {
            relax();
            continue;
        }
        began = began ? began : now_ns();
        futex(&pool.state, FUTEX_WAIT, state);
    }
    if (began && now_ns() - began > WAIT_NS(claimed_bytes))
        pool.alone = ALONE_CALLS;
}

static void share(struct ub_frame *frames, unsigned count, unsigned helpers, uint64_t bytes)
{
    unsigned step = (unsigned)(SHARED_BYTES_MIN / (bytes / count + 1));
    unsigned step_max = count / (helpers + 1);
    pool.frames = frames;
    pool.count = count;
    pool.step = step > step_max ? step_max : step;
    pool.step += !pool.step;
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.state, helpers * SEAT, memory_order_release);
    atomic_fetch_add_explicit(&pool.published, 1, memory_order_release);
    futex(&pool.published, FUTEX_WAKE, helpers);
    compute_claimed();
    atomic_fetch_and_explicit(&pool.state, ACTIVE_MASK, memory_order_relaxed);
    wait_for_active((bytes / count + 1) * pool.step);
}

static int helpers_possible(void)
{
    cpu_set_t set;
    int processors = 0;
    if (sched_getaffinity(0, sizeof set, &set))
        return HELPERS_MAX; /* more than 1024 processors */
    for (int i = 0; i < CPU_SETSIZE && processors <= HELPERS_MAX; i++)
        processors += CPU_ISSET(i, &set) != 0; /* CPU_COUNT would need glibc 2.6 */
    return processors > 0 ? processors - 1 : 0;
}

int ub_checksum_helpers(int count)
{
    int unset = -1;
    if (count >= 0) {
        int possible = helpers_possible();
        atomic_store(&pool.allowed, count < possible ? count : possible);
    } else if (atomic_load_explicit(&pool.allowed, memory_order_relaxed) < 0) {
        atomic_compare_exchange_strong(&pool.allowed, &unset, helpers_possible());
    }
    return atomic_load_explicit(&pool.allowed, memory_order_relaxed);
}

void ub_checksum_frames(struct ub_frame *frames, unsigned count)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += frames[i].length;
    unsigned helpers = count > 1 && bytes >= SHARED_BYTES_MIN ? (unsigned)ub_checksum_helpers(-1) : 0;
    if (helpers > count - 1)
        helpers = count - 1;
    if (!helpers || atomic_exchange_explicit(&pool.busy, 1, memory_order_acquire)) {
        compute(frames, count);
        return;
    }
    start_helpers(helpers);
    if (helpers > pool.threads)
        helpers = pool.threads;
    if (pool.alone) {
        pool.alone--;
        helpers = 0;
    }
    if (helpers)
        share(frames, count, helpers, bytes);
    else
        compute(frames, count);
    atomic_store_explicit(&pool.busy, 0, memory_order_release);
}
