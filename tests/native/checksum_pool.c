/* The checksum pool without Python, for the sanitizers: several callers, forks between, every variant. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ub_checksum.h"
#include "ub_xxh3.h"

#define FRAMES 64
#define FRAME_BYTES 16384

static unsigned char data[FRAMES * FRAME_BYTES];
static uint64_t right[FRAMES];
static unsigned started;

struct start {
    void (*function)(void *);
    void *argument;
};

static void *run(void *pointer)
{
    struct start start = *(struct start *)pointer;
    free(pointer);
    start.function(start.argument);
    return NULL;
}

/* As Python has it. */
unsigned long PyThread_start_new_thread(void (*function)(void *), void *argument);
unsigned long PyThread_start_new_thread(void (*function)(void *), void *argument)
{
    pthread_t thread;
    struct start *start = malloc(sizeof *start);
    if (REFUSED && started) {
        free(start);
        return (unsigned long)-1;
    }
    started++;
    *start = (struct start){function, argument};
    if (pthread_create(&thread, NULL, run, start))
        return (unsigned long)-1;
    pthread_detach(thread);
    return (unsigned long)thread;
}

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "not so: %s\n", what);
        _exit(1);
    }
}

static void *call(void *unused)
{
    struct ub_frame frames[FRAMES];
    (void)unused;
    for (int round = 0; round < 100; round++) {
        for (unsigned i = 0; i < FRAMES; i++)
            frames[i] = (struct ub_frame){(uint64_t)(uintptr_t)(data + i * FRAME_BYTES), FRAME_BYTES - i, 0};
        ub_checksum_frames(frames, FRAMES);
        for (unsigned i = 0; i < FRAMES; i++)
            check(frames[i].checksum == right[i], "a frame among many");
    }
    return NULL;
}

static void check_variants(const unsigned char *frame, uint64_t length, uint64_t expected)
{
    check(XXH3_64bits(frame, length) == expected, "the baseline");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        check(ub_xxh3_avx2(frame, length) == expected, "AVX2");
    if (__builtin_cpu_supports("avx512f"))
        check(ub_xxh3_avx512(frame, length) == expected, "AVX-512");
#endif
}

int main(void)
{
    pthread_t threads[3];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 2654435761U >> 24);
    for (unsigned i = 0; i < FRAMES; i++) {
        right[i] = ub_xxh3((uint64_t)(uintptr_t)(data + i * FRAME_BYTES), FRAME_BYTES - i);
        check_variants(data + i * FRAME_BYTES, FRAME_BYTES - i, right[i]);
    }
    for (unsigned length = 0; length < 2048; length++)
        check_variants(data + 1, length, ub_xxh3((uint64_t)(uintptr_t)(data + 1), length));
    for (int i = 0; i < 3; i++)
        check(!pthread_create(&threads[i], NULL, call, NULL), "a caller's thread");
    call(NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    pid_t child = fork();
    int status = 1;
    if (!child) {
        started = 0;
        call(NULL);
        _exit(0);
    }
    check(waitpid(child, &status, 0) == child && !status, "the forked child");
    puts("equal");
    return 0;
}
