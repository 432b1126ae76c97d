/* tests/imitate/streams.c - streams that are threads, events between them, and memory; see streams.h.
 *
 * The only order there is: what the host does before it queues something comes before that; a stream keeps
 * its order; a wait for an event comes behind what stood before its record; the host comes behind a
 * stream that it has waited for. Atomics say exactly this and no more, so that ThreadSanitizer finds
 * whatever two streams, or a stream and the host, do to the same bytes without one of these in between
 * (make SAN=thread check-threads). Without it each entry is late at random, and the numbers show it.
 *
 * IMITATED_GPUS: so many (2). IMITATED_LATE=N: before an entry of stream N alone (counted as they are made:
 * 0 the ops) a wait of up to a millisecond; without it before those of all, of up to 60 us.
 */
#include "base/perm.h"

#include "tests/imitate/streams.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { STREAMS = 64, HANGS_S = 60 };
static const size_t MEMORY = (size_t)4 << 30;

struct entry {
    void (*run)(void *arg);
    void *arg;
    _Atomic(struct entry *) next;
};

struct stream {
    int number, late; /* late: IMITATED_LATE, -1 without it */
    pthread_t thread;
    pthread_mutex_t lock;      /* of those who queue, never of the thread that runs */
    struct entry *last, *first; /* first: the thread's */
    sem_t queued;
    _Atomic int64_t in, done;  /* entries */
    bool ends;                 /* the thread's own */
};

/* One record of an event. They stay: a wait that was queued reads the one of its time. */
struct mark {
    _Atomic bool reached;
    double at_s;
    struct mark *older;
};
struct event {
    struct mark *mark; /* the newest; NULL: never recorded */
};

static struct stream *stream[STREAMS]; /* of this process; NULL: there was one */
static int streams;
static struct mark *marks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic size_t used;
static _Thread_local cudaError_t last;

void imitated_die(const char *fmt, ...)
{
    va_list ap;

    fputs("# imitated GPU: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

void imitated_nap(int microseconds)
{
    nanosleep(&(struct timespec){ microseconds / 1000000, microseconds % 1000000 * 1000L }, NULL);
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static cudaError_t fail(cudaError_t r)
{
    last = r != cudaSuccess ? r : last;
    return r;
}

/* ---- streams ---- */

static void be_late(const struct stream *s, int64_t n)
{
    uint64_t r = mix64((uint64_t)n * STREAMS + (uint64_t)s->number + ((uint64_t)getpid() << 32));

    if (s->late == s->number)
        imitated_nap((int)(r % 1000));
    else if (s->late < 0 && r % 4 == 0)
        imitated_nap((int)(r / 4 % 60));
}

static void *work(void *arg)
{
    struct stream *s = arg;

    for (int64_t n = 1; !s->ends; n++) {
        struct entry *was = s->first;

        while (sem_wait(&s->queued) != 0)
            continue;
        s->first = atomic_load_explicit(&was->next, memory_order_acquire);
        free(was);
        be_late(s, n);
        s->first->run(s->first->arg);
        free(s->first->arg);
        atomic_store_explicit(&s->done, n, memory_order_release);
    }
    return NULL;
}

void imitated_launch(cudaStream_t s, void (*run)(void *arg), void *arg)
{
    struct entry *e = malloc(sizeof *e);

    if (!s || !e)
        imitated_die("something is queued on no stream");
    e->run = run, e->arg = arg;
    atomic_init(&e->next, NULL);
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&s->last->next, e, memory_order_release);
    s->last = e;
    atomic_fetch_add_explicit(&s->in, 1, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    sem_post(&s->queued);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *to, unsigned flags, int priority)
{
    struct stream *s = calloc(1, sizeof *s);
    const char *late = getenv("IMITATED_LATE");

    (void)flags, (void)priority;
    if (!s || !(s->first = s->last = calloc(1, sizeof *s->first)))
        return fail(cudaErrorMemoryAllocation);
    pthread_mutex_init(&s->lock, NULL);
    sem_init(&s->queued, 0, 0);
    pthread_mutex_lock(&lock);
    if (streams == STREAMS)
        imitated_die("more than %d streams", STREAMS);
    s->number = streams, s->late = late ? atoi(late) : -1;
    stream[streams++] = s;
    pthread_mutex_unlock(&lock);
    if (pthread_create(&s->thread, NULL, work, s) != 0)
        imitated_die("no thread for a stream");
    *to = s;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    return cudaStreamCreateWithPriority(s, flags, 0);
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    int64_t n = atomic_load_explicit(&s->in, memory_order_relaxed);

    return atomic_load_explicit(&s->done, memory_order_acquire) >= n ? cudaSuccess
                                                                   : fail(cudaErrorNotReady);
}

/* The real one waits for ever. */
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    int64_t n = atomic_load_explicit(&s->in, memory_order_relaxed);
    double start = now_s();

    while (atomic_load_explicit(&s->done, memory_order_acquire) < n) {
        imitated_nap(50);
        if (now_s() - start > HANGS_S)
            imitated_die("the host waits for stream %d for ever", s->number);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    for (int i = 0; i < streams; i++)
        if (stream[i])
            cudaStreamSynchronize(stream[i]);
    return cudaSuccess;
}

static void end(void *arg) { (*(struct stream **)arg)->ends = true; }

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    struct stream **arg = malloc(sizeof *arg);

    *arg = s;
    imitated_launch(s, end, arg);
    pthread_join(s->thread, NULL);
    stream[s->number] = NULL;
    free(s->first);
    sem_destroy(&s->queued);
    free(s);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0, *greatest = -5;
    return cudaSuccess;
}

/* ---- events ---- */

static void reach(void *arg)
{
    struct mark *m = *(struct mark **)arg;

    m->at_s = now_s();
    atomic_store_explicit(&m->reached, true, memory_order_release);
}

static void await(void *arg)
{
    struct mark *m = *(struct mark **)arg;
    double start = now_s();

    while (!atomic_load_explicit(&m->reached, memory_order_acquire)) {
        imitated_nap(50);
        if (now_s() - start > HANGS_S)
            imitated_die("a stream waits for an event for ever");
    }
}

static void launch_mark(cudaStream_t s, void (*run)(void *arg), struct mark *m)
{
    struct mark **arg = malloc(sizeof *arg);

    *arg = m;
    imitated_launch(s, run, arg);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    (void)flags;
    return (*e = calloc(1, sizeof **e)) ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    struct mark *m = calloc(1, sizeof *m);

    pthread_mutex_lock(&lock);
    m->older = marks, marks = m;
    pthread_mutex_unlock(&lock);
    e->mark = m;
    launch_mark(s, reach, m);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    (void)flags;
    if (e->mark)
        launch_mark(s, await, e->mark);
    return cudaSuccess;
}

/* No wait, and nothing that may be relied on for one. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (!from->mark || !to->mark)
        return fail(cudaErrorInvalidResourceHandle);
    if (!atomic_load_explicit(&from->mark->reached, memory_order_acquire) ||
        !atomic_load_explicit(&to->mark->reached, memory_order_acquire))
        return fail(cudaErrorNotReady);
    *ms = (float)(1e3 * (to->mark->at_s - from->mark->at_s));
    return cudaSuccess;
}

/* ---- memory ---- */

enum { ALIGN = 256 };

/* Not cleared, as there. */
cudaError_t cudaMalloc(void **p, size_t n)
{
    size_t all = (n + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
    unsigned char *at;

    if (all > MEMORY - used || !(at = aligned_alloc(ALIGN, all)))
        return fail(cudaErrorMemoryAllocation);
    memcpy(at, &all, sizeof all);
    memset(at + ALIGN, 0xa5, all - ALIGN);
    used += all;
    *p = at + ALIGN;
    return cudaSuccess;
}

/* Waits for all that is queued, as there, for ever too. */
cudaError_t cudaFree(void *p)
{
    unsigned char *at = p;
    size_t all;

    if (!p)
        return cudaSuccess;
    cudaDeviceSynchronize();
    memcpy(&all, at - ALIGN, sizeof all);
    used -= all;
    free(at - ALIGN);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    *left = MEMORY - used, *all = MEMORY;
    return cudaSuccess;
}

struct copy {
    void *to;
    const void *from; /* NULL: of value */
    size_t n;
    int value;
};

static void copy(void *arg)
{
    struct copy *c = arg;

    if (c->from)
        memcpy(c->to, c->from, c->n);
    else
        memset(c->to, c->value, c->n);
}

static cudaError_t launch_copy(struct copy c, cudaStream_t s)
{
    struct copy *arg = malloc(sizeof *arg);

    *arg = c;
    imitated_launch(s, copy, arg);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
    return launch_copy((struct copy){ p, NULL, n, value }, s);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, cudaStream_t s)
{
    (void)kind;
    return launch_copy((struct copy){ to, from, n, 0 }, s);
}

/* On a stream that no other one here waits for. */
cudaError_t cudaMemset(void *p, int value, size_t n)
{
    memset(p, value, n);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t n, unsigned flags)
{
    (void)p, (void)n, (void)flags;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    (void)p;
    return cudaDeviceSynchronize();
}

/* ---- the cards ---- */

cudaError_t cudaGetDeviceCount(int *n)
{
    const char *v = getenv("IMITATED_GPUS");

    *n = v ? atoi(v) : 2;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) { return index < 0 ? fail(cudaErrorInvalidDevice) : cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index)
{
    *p = (struct cudaDeviceProp){ .name = "imitated GPU", .uuid = { (char)(index + 1) }, .totalGlobalMem = MEMORY,
                                  .sharedMemPerBlockOptin = 227 << 10, .major = 9,
                                  .multiProcessorCount = 132 };
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int index)
{
    (void)index;
    *v = a == cudaDevAttrClockRate ? 1980000 : a == cudaDevAttrMemoryClockRate ? 3201000 : 6144;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *bus, int cap, int index)
{
    snprintf(bus, (size_t)cap, "0000:%02x:00.0", index);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *v) { return *v = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *v) { return *v = 13000, cudaSuccess; }

cudaError_t cudaGetLastError(void)
{
    cudaError_t r = last;

    last = cudaSuccess;
    return r;
}

const char *cudaGetErrorString(cudaError_t r)
{
    return r == cudaErrorMemoryAllocation ? "out of memory" : r == cudaErrorNotReady ? "not ready"
           : r == cudaErrorLaunchTimeout ? "the launch timed out" : "an error";
}

/* Of the driver: --gpus all asks it. */
EXPORT int cuInit(unsigned flags);
int cuInit(unsigned flags) { return (void)flags, 0; }
EXPORT int cuDeviceGetCount(int *n);
int cuDeviceGetCount(int *n) { return cudaGetDeviceCount(n); }
