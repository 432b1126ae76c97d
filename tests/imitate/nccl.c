/* tests/imitate/nccl.c - an NCCL between processes of one host: calls that only begin, a kernel that waits
 * on its stream for the other ranks, for ever if one is gone, and ends when it is aborted. Where the real
 * one would hang, or move what was meant for another call, as two ranks do not call the same in the
 * same order, it says so and aborts.
 *
 * IMITATED_NCCL_FAILS="RANK CALL": the call of that number fails on that rank.
 * IMITATED_NCCL_STAYS=1: an abort does not end the kernels.
 */
#include "kernels/cuda/nccl_abi.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { RANKS = 16, PIPE = 1 << 15, PARTS = 2 * RANKS + 4, LOST_S = 40 };
enum what { ALL_REDUCE = 1, REDUCE_SCATTER, ALL_GATHER, MOVE };
static const char *const names[] = { "", "a sum", "a sum in parts", "a gather", "a move" };

/* From one rank to another. */
struct pipe {
    _Atomic uint64_t in, out; /* bytes so far */
    unsigned char x[PIPE];
};
struct shared {
    _Atomic int here;
    struct pipe pipe[RANKS][RANKS]; /* from, to */
};

struct comm {
    struct comm *older; /* they stay: a thread or a kernel may look at one */
    int rank, size;
    struct nccl_id id;
    struct shared *s;
    _Atomic int status;
    _Atomic bool aborted;
    int calls;
    bool stays;
};

/* One way between this rank and another; a header goes first. */
struct head { int32_t what, pad; uint64_t n; };
struct part {
    struct pipe *p;
    unsigned char *x;
    uint64_t n, at;  /* at: of the header and of x together */
    struct head head;
    bool out;
    int peer;
};
struct kernel {
    struct comm *c;
    enum what what;
    int parts;
    struct part part[PARTS];
    const float *from; /* sums: what this rank brings; the result's place; what the others bring */
    float *to, *theirs;
    size_t n;
};

/* ---- what is queued on the stream ---- */

/* True where some of it went. */
static bool push(struct part *p, const void *x, uint64_t n, uint64_t begin)
{
    uint64_t in = atomic_load_explicit(&p->p->in, memory_order_relaxed);
    uint64_t room = PIPE - (in - atomic_load_explicit(&p->p->out, memory_order_acquire));
    uint64_t k = n - (p->at - begin);

    k = k < room ? k : room;
    k = k < PIPE - in % PIPE ? k : PIPE - in % PIPE;
    memcpy(p->p->x + in % PIPE, (const unsigned char *)x + (p->at - begin), k);
    atomic_store_explicit(&p->p->in, in + k, memory_order_release);
    p->at += k;
    return k > 0;
}

static bool pull(struct part *p, void *x, uint64_t n, uint64_t begin)
{
    uint64_t out = atomic_load_explicit(&p->p->out, memory_order_relaxed);
    uint64_t there = atomic_load_explicit(&p->p->in, memory_order_acquire) - out;
    uint64_t k = n - (p->at - begin);

    k = k < there ? k : there;
    k = k < PIPE - out % PIPE ? k : PIPE - out % PIPE;
    memcpy((unsigned char *)x + (p->at - begin), p->p->x + out % PIPE, k);
    atomic_store_explicit(&p->p->out, out + k, memory_order_release);
    p->at += k;
    return k > 0;
}

static bool is_done(const struct part *p) { return p->at == sizeof p->head + p->n; }

static bool go_on(const struct kernel *k, struct part *p)
{
    bool went;

    if (p->at >= sizeof p->head)
        return p->out ? push(p, p->x, p->n, sizeof p->head) : pull(p, p->x, p->n, sizeof p->head);
    if (p->out)
        return push(p, &p->head, sizeof p->head, 0);
    went = pull(p, &p->head, sizeof p->head, 0);
    if (p->at == sizeof p->head && (p->head.what != (int32_t)k->what || p->head.n != p->n))
        imitated_die("rank %d is at %s of %llu bytes from rank %d, which sends %s of %llu", k->c->rank,
                     names[k->what], (unsigned long long)p->n, p->peer,
                     p->head.what > 0 && p->head.what <= MOVE ? names[p->head.what] : "nonsense",
                     (unsigned long long)p->head.n);
    return went;
}

static void add(struct kernel *k)
{
    for (size_t i = 0; i < k->n && k->to; i++) {
        float sum = 0;

        for (int r = 0, at = 0; r < k->c->size; r++)
            sum += r == k->c->rank ? k->from[i] : k->theirs[(size_t)at++ * k->n + i];
        k->to[i] = sum;
    }
}

static void run(void *arg)
{
    struct kernel *k = arg;
    struct timespec t;
    time_t since = 0;
    bool done = false, stays = k->c->stays;

    while (!done && (stays || !atomic_load_explicit(&k->c->aborted, memory_order_relaxed))) {
        bool went = false;

        done = true;
        for (int i = 0; i < k->parts; i++)
            if (!is_done(&k->part[i])) {
                went |= go_on(k, &k->part[i]);
                done &= is_done(&k->part[i]);
            }
        clock_gettime(CLOCK_MONOTONIC, &t);
        since = went || !since ? t.tv_sec : since;
        if (t.tv_sec - since > LOST_S)
            imitated_die("rank %d waits in %s for another, for ever", k->c->rank, names[k->what]);
        if (!went && !done)
            imitated_nap(50);
    }
    if (done)
        add(k);
    free(k->theirs);
}

/* ---- calls ---- */

static _Thread_local int depth;
static _Thread_local struct kernel *group;
static _Thread_local cudaStream_t group_stream;

struct begun {
    struct kernel *k;
    cudaStream_t s;
};

/* The call has returned; its kernel is queued a little later. */
static void *queue_late(void *arg)
{
    struct begun *b = arg;
    struct comm *c = b->k->c;
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    imitated_nap((int)(t.tv_nsec / 1000 % 200));
    imitated_launch(b->s, run, b->k);
    atomic_store_explicit(&c->status, NCCL_OK, memory_order_release);
    free(b);
    return NULL;
}

static void detach(void *(*f)(void *arg), void *arg)
{
    pthread_t t;

    if (pthread_create(&t, NULL, f, arg) != 0)
        imitated_die("no thread");
    pthread_detach(t);
}

static int begin(struct kernel *k, cudaStream_t s)
{
    struct begun *b = malloc(sizeof *b);

    *b = (struct begun){ k, s };
    atomic_store_explicit(&k->c->status, NCCL_IN_PROGRESS, memory_order_relaxed);
    detach(queue_late, b);
    return NCCL_IN_PROGRESS;
}

static void check(struct comm *c, cudaStream_t s)
{
    if (!c || atomic_load(&c->aborted))
        imitated_die("a call of NCCL after an abort");
    if (!s)
        imitated_die("a call of NCCL on no stream");
    if (atomic_load(&c->status) != NCCL_OK)
        imitated_die("a call of NCCL while another is under way");
}

/* By number and rank, as the environment wants it. */
static bool fails(struct comm *c)
{
    const char *v = getenv("IMITATED_NCCL_FAILS");
    int rank, call;

    c->calls++;
    return v && sscanf(v, "%d %d", &rank, &call) == 2 && rank == c->rank && call == c->calls;
}

static void add_part(struct kernel *k, int peer, const void *x, uint64_t n, bool out)
{
    struct comm *c = k->c;

    if (k->parts == PARTS || peer < 0 || peer >= c->size || peer == c->rank)
        imitated_die("rank %d moves something to or from rank %d of %d", c->rank, peer, c->size);
    k->part[k->parts++] = (struct part){ .p = out ? &c->s->pipe[c->rank][peer] : &c->s->pipe[peer][c->rank],
        .x = (unsigned char *)(uintptr_t)x, .n = n, .head = { out ? (int32_t)k->what : 0, 0, out ? n : 0 },
        .out = out, .peer = peer };
}

static struct kernel *kernel_of(struct comm *c, enum what what)
{
    struct kernel *k = calloc(1, sizeof *k);

    k->c = c, k->what = what;
    return k;
}

/* A sum of n values: to each rank its own of mine, from each as many. */
static int sum_of(enum what what, const float *mine, size_t step, float *to, const float *own, size_t n,
                  struct comm *c, cudaStream_t s)
{
    struct kernel *k;
    int at = 0;

    check(c, s);
    if (fails(c))
        return 6;
    k = kernel_of(c, what);
    k->from = own, k->to = to, k->n = n;
    k->theirs = calloc((size_t)c->size * n + 1, sizeof *k->theirs);
    for (int r = 0; r < c->size; r++)
        if (r != c->rank) {
            add_part(k, r, mine + (size_t)r * step, n * sizeof *mine, true);
            add_part(k, r, k->theirs + (size_t)at++ * n, n * sizeof *mine, false);
        }
    return begin(k, s);
}

EXPORT int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm, cudaStream_t s);
int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm, cudaStream_t s)
{
    if (type != NCCL_F32 || op != NCCL_SUM || depth)
        return 4;
    return sum_of(ALL_REDUCE, from, 0, to, from, n, comm, s);
}

EXPORT int ncclReduceScatter(const void *from, void *to, size_t n, int type, int op, void *comm, cudaStream_t s);
int ncclReduceScatter(const void *from, void *to, size_t n, int type, int op, void *comm, cudaStream_t s)
{
    struct comm *c = comm;

    if (type != NCCL_F32 || op != NCCL_SUM || depth)
        return 4;
    return sum_of(REDUCE_SCATTER, from, n, to, (const float *)from + (size_t)c->rank * n, n, comm, s);
}

EXPORT int ncclAllGather(const void *from, void *to, size_t n, int type, void *comm, cudaStream_t s);
int ncclAllGather(const void *from, void *to, size_t n, int type, void *comm, cudaStream_t s)
{
    struct comm *c = comm;
    size_t bytes = n * sizeof(float);
    struct kernel *k;

    check(c, s);
    if (type != NCCL_F32 || depth || from != (char *)to + (size_t)c->rank * bytes)
        return 4;
    if (fails(c))
        return 6;
    k = kernel_of(c, ALL_GATHER);
    for (int r = 0; r < c->size; r++)
        if (r != c->rank) {
            add_part(k, r, from, bytes, true);
            add_part(k, r, (char *)to + (size_t)r * bytes, bytes, false);
        }
    return begin(k, s);
}

static int move(const void *x, size_t n, int type, int peer, void *comm, cudaStream_t s, bool out)
{
    struct comm *c = comm;

    if (type != NCCL_BYTE || depth != 1)
        return 4;
    if (!group)
        check(c, s);
    if (fails(c))
        return 6;
    group = group ? group : kernel_of(c, MOVE);
    group_stream = s;
    add_part(group, peer, x, n, out);
    return NCCL_OK;
}

EXPORT int ncclSend(const void *from, size_t n, int type, int rank, void *comm, cudaStream_t s);
int ncclSend(const void *from, size_t n, int type, int rank, void *comm, cudaStream_t s)
{
    return move(from, n, type, rank, comm, s, true);
}

EXPORT int ncclRecv(void *to, size_t n, int type, int rank, void *comm, cudaStream_t s);
int ncclRecv(void *to, size_t n, int type, int rank, void *comm, cudaStream_t s)
{
    return move(to, n, type, rank, comm, s, false);
}

EXPORT int ncclGroupStart(void);
int ncclGroupStart(void) { return depth++, NCCL_OK; }

EXPORT int ncclGroupEnd(void);
int ncclGroupEnd(void)
{
    struct kernel *k = group;

    if (--depth < 0)
        imitated_die("a group of NCCL's calls ends twice");
    group = NULL;
    return k ? begin(k, group_stream) : NCCL_OK;
}

/* ---- ranks find each other ---- */

static void *meet(void *arg)
{
    struct comm *c = arg;
    int fd = open(c->id.bytes, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        imitated_die("no '%s'", c->id.bytes);
    c->s = mmap(NULL, sizeof *c->s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    atomic_fetch_add(&c->s->here, 1);
    while (atomic_load(&c->s->here) < c->size && !atomic_load(&c->aborted))
        imitated_nap(1000);
    if (c->rank == 0)
        unlink(c->id.bytes);
    atomic_store_explicit(&c->status, NCCL_OK, memory_order_release);
    return NULL;
}

EXPORT int ncclGetVersion(int *v);
int ncclGetVersion(int *v) { return *v = 22809, NCCL_OK; }

EXPORT int ncclGetUniqueId(struct nccl_id *id);
int ncclGetUniqueId(struct nccl_id *id)
{
    const char *dir = getenv("TMPDIR");
    int fd;

    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "%.90s/imitated_nccl.XXXXXX", dir ? dir : "/tmp");
    if ((fd = mkstemp(id->bytes)) < 0 || ftruncate(fd, sizeof(struct shared)) != 0)
        return 2;
    return close(fd), NCCL_OK;
}

EXPORT int ncclCommInitRankConfig(void **comm, int size, struct nccl_id id, int rank, struct nccl_config *f);
int ncclCommInitRankConfig(void **comm, int size, struct nccl_id id, int rank, struct nccl_config *f)
{
    static struct comm *all;
    struct comm *c = calloc(1, sizeof *c);

    if (size > RANKS || f->blocking || f->magic != NCCL_MAGIC || f->size != sizeof *f)
        return 4;
    *c = (struct comm){ .older = all, .rank = rank, .size = size, .id = id, .status = NCCL_IN_PROGRESS,
                        .stays = getenv("IMITATED_NCCL_STAYS") };
    *comm = all = c;
    detach(meet, c);
    return NCCL_IN_PROGRESS;
}

EXPORT int ncclCommGetAsyncError(struct comm *c, int *status);
int ncclCommGetAsyncError(struct comm *c, int *status)
{
    return *status = atomic_load_explicit(&c->status, memory_order_acquire), NCCL_OK;
}

EXPORT int ncclCommAbort(struct comm *c);
int ncclCommAbort(struct comm *c)
{
    if (depth)
        imitated_die("an abort of NCCL inside a group of its calls");
    atomic_store(&c->aborted, true);
    return NCCL_OK;
}

EXPORT const char *ncclGetErrorString(int status);
const char *ncclGetErrorString(int status) { return status == 6 ? "remote process exited" : "invalid argument"; }

EXPORT const char *ncclGetLastError(void *comm);
const char *ncclGetLastError(void *comm) { return (void)comm, ""; }
