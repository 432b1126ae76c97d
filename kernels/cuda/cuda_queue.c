/* kernels/cuda/cuda_queue.c - copies beside the ops, and the host's memory they run to and from. */
#include "kernels/cuda/cuda.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

/*
 * cudaHostAlloc takes 13 s for 16 GiB, because it touches page after page. Here all processors
 * touch huge pages while what is touched already is being registered: 0.4 s (on the host of an
 * H200). What is registered ends at multiples of PIECE, as addresses, and no copy crosses one.
 */
static const size_t PIECE = (size_t)4 << 30, TOUCH = (size_t)64 << 20, PAGE = 4096;
enum { TOUCHERS = 32 };

struct touching {
    unsigned char *from, *to;
    unsigned char *next;      /* to be touched by whom comes first */
    unsigned char *done[TOUCHERS]; /* what a thread has in hand, or is through: below it all is done */
    int threads;
    pthread_mutex_t lock;
    pthread_cond_t more;
};

struct toucher {
    struct touching *t;
    int i;
};

/* Takes pieces in the order of addresses; its mark is the start of the one in hand. */
static void *touch(void *arg)
{
    const struct toucher *me = arg;
    struct touching *t = me->t;

    pthread_mutex_lock(&t->lock);
    while (t->next < t->to) {
        unsigned char *at = t->next, *end = (size_t)(t->to - at) < TOUCH ? t->to : at + TOUCH;

        t->done[me->i] = at;
        t->next = end;
        pthread_cond_signal(&t->more);
        pthread_mutex_unlock(&t->lock);
        for (unsigned char *p = at; p < end; p += PAGE)
            *(volatile unsigned char *)p = 0;
        pthread_mutex_lock(&t->lock);
    }
    t->done[me->i] = t->to;
    pthread_cond_signal(&t->more);
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* The next multiple of PIECE after p, but not beyond to. */
static unsigned char *next_cut(const unsigned char *p, unsigned char *to)
{
    size_t left = PIECE - (uintptr_t)p % PIECE;

    return (size_t)(to - p) < left ? to : (unsigned char *)(uintptr_t)p + left;
}

/* Waits until every page below end is touched. Pieces are handed out in order, so that is
 * when none below end is left to take and every thread's mark is past it. */
static void wait_until_touched(struct touching *t, const unsigned char *end)
{
    bool ready = false;

    pthread_mutex_lock(&t->lock);
    while (!ready) {
        ready = t->next >= end || t->threads == 0;
        for (int i = 0; i < t->threads; i++)
            ready = ready && t->done[i] >= end;
        if (!ready)
            pthread_cond_wait(&t->more, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}

/* Has to end pieces at the same addresses as pin. */
static void unpin(unsigned char *p, unsigned char *to)
{
    for (unsigned char *end; p < to; p = end) {
        end = next_cut(p, to);
        cudaHostUnregister(p);
    }
}

/* Registers [p, to) piece by piece, as far as the threads are. */
static cudaError_t pin(struct touching *t)
{
    cudaError_t r = cudaSuccess;
    unsigned char *p = t->from;

    for (unsigned char *end; p < t->to && r == cudaSuccess; p = end) {
        end = next_cut(p, t->to);
        wait_until_touched(t, end);
        r = cudaHostRegister(p, (size_t)(end - p), cudaHostRegisterDefault);
        if (r != cudaSuccess)
            unpin(t->from, p);
    }
    return r;
}

static cudaError_t touch_and_pin(unsigned char *p, size_t nbytes)
{
    struct touching t = { .from = p, .to = p + nbytes, .next = p };
    struct toucher who[TOUCHERS];
    pthread_t thread[TOUCHERS];
    cudaError_t r;
    /* processors that this process may use */
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.more, NULL);
    pthread_mutex_lock(&t.lock); /* until all of them are there */
    for (int i = 0; i < n && i < TOUCHERS; i++) {
        who[i] = (struct toucher){ &t, i };
        t.done[i] = p;
        if (pthread_create(&thread[i], NULL, touch, &who[i]) != 0)
            break; /* fewer do it more slowly, none leaves it to cudaHostRegister */
        t.threads++;
    }
    pthread_mutex_unlock(&t.lock);
    r = pin(&t);
    for (int i = 0; i < t.threads; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&t.more);
    pthread_mutex_destroy(&t.lock);
    return r;
}

/* Memory for fast copies: in huge pages, touched, and registered with CUDA. */
int cuda_host_alloc(struct device *d, size_t nbytes, void **p, struct err *e)
{
    double gib = (double)nbytes / 0x1p30;
    cudaError_t r;

    (void)d;
    nbytes = (nbytes + PAGE) / PAGE * PAGE; /* never nothing */
    *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*p == MAP_FAILED) {
        *p = NULL;
        return err_sys(e, E_SYS, "cannot allocate %.1f GiB of host memory", gib);
    }
    madvise(*p, nbytes, MADV_HUGEPAGE);
    if ((r = touch_and_pin(*p, nbytes)) == cudaSuccess)
        return 0;
    (void)cudaGetLastError();
    munmap(*p, nbytes);
    *p = NULL;
    return err_set(e, E_DEVICE, "cannot pin %.1f GiB of host memory: %s", gib,
                   cudaGetErrorString(r));
}

void cuda_host_release(struct device *d, void *p, size_t nbytes)
{
    nbytes = (nbytes + PAGE) / PAGE * PAGE;
    if (!p)
        return;
    cuda_wait_all(cuda_of(d));
    if (links_stuck(cuda_of(d)))
        return;
    unpin(p, (unsigned char *)p + nbytes);
    munmap(p, nbytes);
}

/* A copy in parts that each stay within one registered piece, on both sides. */
cudaError_t cuda_copy_async(void *dst, const void *src, size_t nbytes, cudaStream_t s)
{
    cudaError_t r = cudaSuccess;

    /* to, from: bytes up to the next boundary of either side */
    for (size_t at = 0, n; at < nbytes && r == cudaSuccess; at += n) {
        size_t to = PIECE - ((uintptr_t)dst + at) % PIECE;
        size_t from = PIECE - ((uintptr_t)src + at) % PIECE;

        n = nbytes - at < to ? nbytes - at : to;
        n = n < from ? n : from;
        r = cudaMemcpyAsync((char *)dst + at, (const char *)src + at, n, cudaMemcpyDefault, s);
    }
    return r;
}

void cuda_wait_own(struct cuda *c)
{
    cuda_check(c, cuda_wait(c, c->stream), "queued work");
    for (int q = 0; q < QUEUES; q++)
        if (c->queue[q] && q != QUEUE_LINK)
            cuda_check(c, cuda_wait(c, c->queue[q]), "queued copies");
    links_waited(c);
}

void cuda_wait_all(struct cuda *c)
{
    cuda_wait_own(c);
    if (c->queue[QUEUE_LINK])
        cuda_check(c, cuda_wait(c, c->queue[QUEUE_LINK]), "queued exchanges");
    links_waited(c);
}

/* Made when it is first wanted. What other ranks wait for goes before this one's own work. */
cudaStream_t cuda_stream(struct cuda *c, enum queue q)
{
    int last = 0, first = 0;

    if (q == QUEUE_OPS)
        return c->stream;
    if (!c->queue[q]) {
        cudaDeviceGetStreamPriorityRange(&last, &first);
        cuda_check(c, cudaStreamCreateWithPriority(&c->queue[q], cudaStreamNonBlocking,
                                                   q == QUEUE_LINK ? first : last),
                   "opening a queue");
    }
    return c->queue[q];
}

/* A copy on a queue of its own beside the ops, timed as kind. */
static int copy_on(struct device *d, enum queue q, int kind, void *dst,
                   const void *src, size_t nbytes)
{
    struct cuda *c = cuda_of(d);
    cudaStream_t s = cuda_stream(c, q);
    int rc;

    if (!s)
        return E_DEVICE;
    clock_start(c->clock, kind, s);
    rc = cuda_check(c, cuda_copy_async(dst, src, nbytes, s), "a copy");
    clock_stop(c->clock, kind, 0, s);
    return rc;
}

int cuda_send(struct device *d, void *host, const void *src, size_t nbytes)
{
    return copy_on(d, QUEUE_OUT, CUDA_SEND, host, src, nbytes);
}

int cuda_fetch(struct device *d, void *dst, const void *host, size_t nbytes)
{
    return copy_on(d, QUEUE_IN, CUDA_FETCH, dst, host, nbytes);
}

/* Sets a fence behind what is queued on q so far; cuda_await makes another queue wait for
 * it. */
int cuda_mark(struct device *d, enum queue q, int fence)
{
    struct cuda *c = cuda_of(d);
    cudaStream_t s = cuda_stream(c, q);
    int rc = s ? 0 : E_DEVICE;

    c->fence_on[fence] = q;
    c->chained = false;
    if (rc == 0 && !c->fence[fence])
        rc = cuda_check(c, cudaEventCreateWithFlags(&c->fence[fence], cudaEventDisableTiming),
                        "making a fence");
    return rc ? rc : cuda_check(c, cudaEventRecord(c->fence[fence], s), "a fence");
}

/* How long the ops wait is an op of its own to the clock. */
int cuda_await(struct device *d, enum queue q, int fence)
{
    struct cuda *c = cuda_of(d);
    cudaStream_t s = cuda_stream(c, q);
    int kind = c->fence_on[fence] == QUEUE_LINK ? CUDA_WAIT_LINK : CUDA_WAIT, rc;

    if (!s)
        return E_DEVICE;
    if (!c->fence[fence]) /* never marked */
        return 0;
    if (q == QUEUE_OPS)
        cuda_begin(c, kind);
    rc = cuda_check(c, cudaStreamWaitEvent(s, c->fence[fence], 0), "waiting for a fence");
    return q == QUEUE_OPS ? cuda_end(d, rc, kind, 0) : rc;
}

/* Nothing may be queued any more: cuda_close has waited. */
void queues_close(struct cuda *c)
{
    for (int i = 0; i < FENCES; i++)
        if (c->fence[i])
            cudaEventDestroy(c->fence[i]);
    for (int q = 0; q < QUEUES; q++)
        if (c->queue[q])
            cudaStreamDestroy(c->queue[q]);
}
