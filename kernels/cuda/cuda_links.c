/* kernels/cuda/cuda_links.c - links between the GPUs of a group: NCCL, found at run time. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/nccl_abi.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

/*
 * A kernel of NCCL's waits on the GPU for the other ranks, and for ever if one of them is gone.
 * So nothing here waits without looking: the communicator does not block, and whoever waits for a
 * stream (cuda_wait) asks now and then whether NCCL or the group knows of a failure. Then the
 * communicator is aborted, which ends its kernels, and the links are of no use any more.
 */
enum { OPEN_S = 120,      /* ranks find each other within so many seconds */
       ABORT_S = 5,       /* after an abort its kernels end within these */
       WARM = 1 << 20 };  /* values of the first sums, which load and connect everything */

struct cuda_links {
    struct nccl l;
    void *lib, *comm;     /* comm NULL: none, or aborted */
    int version;
    bool busy;            /* something was queued that was not waited for yet */
    bool stuck;           /* aborted, and the GPU works on for all that */
    double looked_s;
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the library ---- */

static bool load(void *lib, const char *name, void *to)
{
    void *sym = dlsym(lib, name);

    memcpy(to, &sym, sizeof sym); /* a cast to a function's pointer is not C */
    return sym != NULL;
}

static bool load_all(struct cuda_links *k)
{
    void *lib = k->lib;
    struct nccl *l = &k->l;

    return load(lib, "ncclGetVersion", &l->version) &&
           load(lib, "ncclGetUniqueId", &l->unique_id) &&
           load(lib, "ncclCommInitRankConfig", &l->init) &&
           load(lib, "ncclCommGetAsyncError", &l->async_error) &&
           load(lib, "ncclCommAbort", &l->abort) &&
           load(lib, "ncclGetErrorString", &l->error_string) &&
           load(lib, "ncclGetLastError", &l->last_error) &&
           load(lib, "ncclAllReduce", &l->all_reduce) &&
           load(lib, "ncclReduceScatter", &l->reduce_scatter) &&
           load(lib, "ncclAllGather", &l->all_gather) && load(lib, "ncclSend", &l->send) &&
           load(lib, "ncclRecv", &l->receive) && load(lib, "ncclGroupStart", &l->begin) &&
           load(lib, "ncclGroupEnd", &l->end);
}

/* Finds the library, or says in why what is missing and where it comes from. */
static bool find_library(struct cuda *c, struct cuda_links *k, char *why, size_t cap)
{
    const char *path = getenv("LONGLORA_NCCL");

    if (path && strcmp(path, "none") == 0) {
        snprintf(why, cap, "LONGLORA_NCCL is none");
        return false;
    }
    /* NVLink's multicast hangs on some hosts; the user's own word counts */
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    if (c->deterministic) { /* which way sums go must not be NCCL's choice of the day */
        setenv("NCCL_ALGO", "Ring", 0);
        setenv("NCCL_PROTO", "Simple", 0);
    }
    k->lib = dlopen(path && *path ? path : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!k->lib) {
        snprintf(why, cap, "no NCCL, which the package libnccl2 or pip's nvidia-nccl-cu13 has: %s",
                 dlerror());
        return false;
    }
    if (!load_all(k) || k->l.version(&k->version) != NCCL_OK || k->version < NCCL_OLDEST) {
        snprintf(why, cap, "NCCL 2.14 or later is needed, this is %d", k->version);
        k->version = 0;
    }
    return k->version > 0;
}

/* ---- failure ---- */

static int nccl_fault(struct cuda *c, int status, const char *what)
{
    struct cuda_links *k = c->links;
    const char *more = k->comm ? k->l.last_error(k->comm) : NULL;

    return cuda_fault(c, "%s failed between the GPUs: %s%s%.200s", what, k->l.error_string(status),
                      more && *more ? ": " : "", more ? more : "");
}

static void give_up(struct cuda_links *k)
{
    void *comm = k->comm;

    k->comm = NULL;
    if (comm)
        k->l.abort(comm);
}

/* E_DEVICE with the fault noted, and the links aborted, if a rank is gone or NCCL failed. look: once
 * in a millisecond at most. */
static int look_now(struct cuda *c)
{
    struct cuda_links *k = c->links;
    struct err why = { 0 };
    int status = NCCL_OK;

    if (!k->comm)
        return 0;
    k->looked_s = seconds();
    if (c->group->over) /* what some have queued others may not have */
        cuda_fault(c, "the ranks have parted after a failure");
    else if (c->group->check && c->group->check(c->group, &why) < 0)
        cuda_fault(c, "%s", why.msg);
    else if (k->l.async_error(k->comm, &status) != NCCL_OK ||
             (status != NCCL_OK && status != NCCL_IN_PROGRESS))
        nccl_fault(c, status, "an exchange");
    else
        return 0;
    give_up(k);
    return E_DEVICE;
}

static int look(struct cuda *c)
{
    return seconds() - c->links->looked_s < 1e-3 ? 0 : look_now(c);
}

static void nap(double since)
{
    /* short waits are the usual ones, and are not to become longer by sleeping */
    if (seconds() - since < 2e-4)
        sched_yield();
    else
        nanosleep(&(struct timespec){ 0, 20000 }, NULL);
}

/* Until nothing of the communicator is under way on the host. */
static int settle(struct cuda *c, const char *what, double limit_s)
{
    struct cuda_links *k = c->links;
    double start = seconds();
    int status = NCCL_IN_PROGRESS, r = NCCL_OK;

    while (k->comm && (r = k->l.async_error(k->comm, &status)) == NCCL_OK &&
           status == NCCL_IN_PROGRESS) {
        if (look(c) < 0)
            return E_DEVICE;
        if (seconds() - start > limit_s) {
            cuda_fault(c, "%s: not all ranks came within %.0f s", what, limit_s);
            give_up(k);
            return E_DEVICE;
        }
        nap(start);
    }
    if (k->comm && r == NCCL_OK && status == NCCL_OK)
        return 0;
    nccl_fault(c, r != NCCL_OK ? r : status, what);
    give_up(k);
    return E_DEVICE;
}

/* As cudaStreamSynchronize, but not longer than all ranks are there. */
cudaError_t cuda_wait(struct cuda *c, cudaStream_t s)
{
    struct cuda_links *k = c->links;
    double start, failed_s = 0;
    cudaError_t r;

    if (!k || !k->busy)
        return cudaStreamSynchronize(s);
    if (k->stuck)
        return cudaErrorLaunchTimeout;
    start = seconds();
    while ((r = cudaStreamQuery(s)) == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* not ready is not a failure */
        if (failed_s == 0 && (!k->comm || look(c) < 0))
            failed_s = seconds();
        if (failed_s > 0 && seconds() - failed_s > ABORT_S) {
            k->stuck = true;
            return cudaErrorLaunchTimeout;
        }
        nap(start);
    }
    /* a kernel that NCCL ended, as its neighbour is gone, ends like one that is done */
    look_now(c);
    return r;
}

/* Exchanges that nobody has waited for go on. */
void links_waited(struct cuda *c)
{
    cudaStream_t s = c->queue[QUEUE_LINK];

    if (!c->links || c->links->stuck || !c->links->busy)
        return;
    c->links->busy = s && cudaStreamQuery(s) == cudaErrorNotReady;
    (void)cudaGetLastError(); /* not ready is not a failure */
}

bool links_stuck(const struct cuda *c) { return c->links && c->links->stuck; }

/* ---- what travels ---- */

enum way { SUM, SUM_PARTS, SHARE_PARTS };

/* Before NCCL is called, and after it, with what it answered. */
static int begin(struct cuda *c, cudaStream_t *s)
{
    struct cuda_links *k = c->links;

    if (!(*s = cuda_stream(c, QUEUE_LINK)))
        return E_DEVICE;
    if (!k->comm)
        return cuda_fault(c, "the links between the GPUs are closed after a failure");
    k->busy = true;
    clock_start(c->clock, CUDA_LINK, *s);
    return 0;
}

static int end(struct cuda *c, int r, cudaStream_t s)
{
    if (r != NCCL_OK && r != NCCL_IN_PROGRESS) {
        nccl_fault(c, r, "an exchange");
        give_up(c->links);
        return E_DEVICE;
    }
    r = settle(c, "an exchange", OPEN_S);
    clock_stop(c->clock, CUDA_LINK, 0, s);
    return r;
}

static int queue(struct cuda *c, enum way way, float *x, int64_t n)
{
    struct cuda_links *k = c->links;
    size_t part = (size_t)(n / c->group->size);
    float *mine = x + (size_t)c->group->rank * part;
    cudaStream_t s;
    int r;

    if ((r = begin(c, &s)) < 0)
        return r;
    if (way == SUM)
        r = k->l.all_reduce(x, x, (size_t)n, NCCL_F32, NCCL_SUM, k->comm, s);
    else if (way == SUM_PARTS)
        r = k->l.reduce_scatter(x, mine, part, NCCL_F32, NCCL_SUM, k->comm, s);
    else
        r = k->l.all_gather(mine, x, part, NCCL_F32, k->comm, s);
    return end(c, r, s);
}

static bool goes(int r) { return r == NCCL_OK || r == NCCL_IN_PROGRESS; }

/* All in one call: nobody waits for its own turn. What stays here is copied behind it, and so beside
 * the ops, too. */
static int queue_moves(struct cuda *c, const struct device_move *m, int n)
{
    struct cuda_links *k = c->links;
    int own = c->group->rank, rc = 0, r, last;
    cudaStream_t s;

    if ((r = begin(c, &s)) < 0)
        return r;
    r = k->l.begin();
    for (int i = 0; i < n && goes(r); i++) {
        if (m[i].rank == own)
            continue;
        if (m[i].n_out)
            r = k->l.send(m[i].out, m[i].n_out, NCCL_BYTE, m[i].rank, k->comm, s);
        if (m[i].n_in && goes(r))
            r = k->l.receive(m[i].in, m[i].n_in, NCCL_BYTE, m[i].rank, k->comm, s);
    }
    last = k->l.end();
    rc = end(c, goes(r) ? last : r, s);
    for (int i = 0; i < n && rc == 0; i++)
        if (m[i].rank == own && m[i].n_out)
            rc = cuda_check(c, cuda_copy_async(m[i].in, m[i].out, m[i].n_out, s), "a copy");
    return rc;
}

/* What a ring carries: each rank sends and receives all but its own part, for a sum twice. */
static int travel(struct device *d, enum way way, float *x, int64_t n)
{
    struct group *g = d->group;
    int64_t bytes = n / g->size * (g->size - 1) * (int64_t)sizeof *x * (way == SUM ? 2 : 1);

    g->sent += bytes, g->received += bytes;
    return queue(cuda_of(d), way, x, n);
}

static int link_sum(struct device *d, float *x, int64_t n) { return travel(d, SUM, x, n); }

static int link_sum_parts(struct device *d, float *x, int64_t n)
{
    return travel(d, SUM_PARTS, x, n);
}

static int link_share_parts(struct device *d, float *x, int64_t n)
{
    return travel(d, SHARE_PARTS, x, n);
}

static int link_move(struct device *d, const struct device_move *m, int n)
{
    for (int i = 0; i < n; i++)
        if (m[i].rank != d->group->rank)
            d->group->sent += (int64_t)m[i].n_out, d->group->received += (int64_t)m[i].n_in;
    return queue_moves(cuda_of(d), m, n);
}

static const struct device_links nccl_links = { link_sum, link_sum_parts, link_share_parts,
                                                link_move };

/* ---- opening ---- */

/* What each rank tells all others of itself. */
struct card_of_rank {
    char uuid[16], host[64];
    int version;
};

/* Whether all have the same NCCL and a GPU each; else why not, decided alike on every rank. */
static bool all_can(const struct group *g, const struct card_of_rank *all, char *why, size_t cap)
{
    for (int r = 0; r < g->size; r++) {
        if (all[r].version != all[0].version || all[r].version == 0) {
            if (!*why)
                snprintf(why, cap, "rank %d has NCCL %d, rank 0 NCCL %d", r, all[r].version,
                         all[0].version);
            return false;
        }
        for (int q = 0; q < r; q++)
            if (memcmp(&all[q], &all[r], offsetof(struct card_of_rank, version)) == 0) {
                snprintf(why, cap, "ranks %d and %d share one GPU", q, r);
                return false;
            }
    }
    return true;
}

/* Ranks tell each other what they have. 1: all can be linked; 0: they cannot, which is noted. */
static int agree(struct cuda *c, struct group *g, struct err *e)
{
    struct cuda_links *k = c->links;
    struct card_of_rank mine = { .version = 0 }, *all = calloc((size_t)g->size, sizeof *all);
    struct cudaDeviceProp p;
    char why[400] = "";
    int rc;

    if (!all) /* as everywhere where no word can be had with the others */
        return group_leave(g, err_set(e, E_SYS, "out of memory for %d ranks", g->size));
    mine.version = find_library(c, k, why, sizeof why) ? k->version : 0;
    snprintf(mine.host, sizeof mine.host, "%s", g->host ? g->host : "");
    if (cudaGetDeviceProperties(&p, c->index) == cudaSuccess)
        memcpy(mine.uuid, &p.uuid, sizeof mine.uuid);
    rc = g->gather(g, &mine, all, sizeof mine, e);
    if (rc == 0 && !(rc = all_can(g, all, why, sizeof why)))
        cuda_note(c, "%s: the ranks' arrays are added by way of the host's memory, slowly", why);
    free(all);
    return rc;
}

/* Rank 0 makes the number by which all find each other, and says so if it cannot. begun: from here on a rank
 * that fails does so alone. */
static int find_ranks(struct cuda *c, struct group *g, bool *begun, struct err *e)
{
    struct cuda_links *k = c->links;
    struct nccl_config config = { sizeof config, NCCL_MAGIC, NCCL_OLDEST, 0 };
    struct { int status; struct nccl_id id; } first = { 0 };
    int rc, r;

    if (g->rank == 0)
        first.status = k->l.unique_id(&first.id);
    if ((rc = g->broadcast(g, 0, &first, sizeof first, e)) < 0)
        return rc;
    if (first.status != NCCL_OK)
        return err_set(e, E_DEVICE, "NCCL cannot start on rank 0: %s",
                       k->l.error_string(first.status));
    *begun = true;
    r = k->l.init(&k->comm, g->size, first.id, g->rank, &config);
    if (r != NCCL_OK && r != NCCL_IN_PROGRESS)
        return nccl_fault(c, r, "meeting the other ranks");
    return settle(c, "meeting the other ranks", OPEN_S);
}

/* A little to every rank, or of many to the neighbours: where a sequence may lie over them. */
static int warm_moves(struct cuda *c, char *x)
{
    enum { MOST = 64 };
    struct device_move m[MOST];
    int rank = c->group->rank, size = c->group->size, n = 0;

    for (int i = 0; i < size && n < MOST; i++) {
        size_t some = (size_t)(WARM / size) & ~(size_t)255;

        if (i != rank && (size <= MOST || i == rank - 1 || i == rank + 1))
            m[n++] = (struct device_move){ i, x, x + WARM + (size_t)i * some, some, some };
    }
    return queue_moves(c, m, n);
}

/* The first exchange of each kind takes memory and loads kernels: both before the plan. */
static int warm(struct cuda *c)
{
    int64_t n = WARM / c->group->size * c->group->size;
    void *x = NULL;
    int rc = cuda_check(c, cudaMalloc(&x, (size_t)n * sizeof(float)), "memory for the links");

    if (rc == 0) /* behind the clearing, which is not on the links' queue */
        rc = cuda_check(c, cudaMemset(x, 0, (size_t)n * sizeof(float)), "clearing memory");
    if (rc == 0)
        rc = cuda_check(c, cudaDeviceSynchronize(), "clearing memory");
    for (int way = SUM; way <= SHARE_PARTS && rc == 0; way++)
        rc = queue(c, (enum way)way, x, n);
    if (rc == 0)
        rc = warm_moves(c, x);
    cuda_wait_all(c);
    if (!links_stuck(c))
        cudaFree(x);
    return rc == 0 ? c->fault.code : rc;
}

int cuda_link(struct device *d, struct err *e)
{
    struct cuda *c = cuda_of(d);
    struct group *g = d->group;
    struct err why = { 0 };
    size_t n = strlen(d->detail);
    bool begun = false;
    int rc;

    if (g->size == 1 || c->links)
        return 0;
    prctl(PR_SET_TIMERSLACK, 1000); /* whoever waits for a GPU naps a few microseconds at a time */
    if (!(c->links = calloc(1, sizeof *c->links)))
        return group_leave(g, err_set(e, E_SYS, "out of memory"));
    if ((rc = agree(c, g, e)) <= 0)
        return rc;
    rc = find_ranks(c, g, &begun, &why);
    if (rc == 0)
        rc = warm(c);
    if (rc < 0) {
        d->sync(d, &why);
        err_set(e, rc, "%s", why.msg);
        err_hint(e, "NCCL_DEBUG=WARN says more; LONGLORA_NCCL=none does without NCCL");
        return begun ? group_leave(g, rc) : rc; /* others may wait on their GPUs, not in a meeting */
    }
    d->links = &nccl_links;
    d->held_bytes = cuda_held(c->used_before, c->index);
    snprintf(d->detail + n, sizeof d->detail - n, ", NCCL %d.%d.%d", c->links->version / 10000,
             c->links->version / 100 % 100, c->links->version % 100);
    return 0;
}

/* The others have waited for all that was queued, or are gone: nobody is asked. */
void links_close(struct cuda *c)
{
    if (!c->links)
        return;
    give_up(c->links);
    if (c->links->lib)
        dlclose(c->links->lib);
    free(c->links);
    c->links = NULL;
}
