/* tests/rankstest.h - a made-up group: threads of one process are the ranks. */
#ifndef TESTS_RANKSTEST_H
#define TESTS_RANKSTEST_H
#include "kernels/group.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * Every call is two meetings of all threads: what each brings is there after the first, and has
 * been read after the second. A meeting fails on all, and all later ones too, when a rank has
 * left (its function has returned), when two ranks call different things, and when one does not
 * come for 20 seconds, which the tests take for a hang.
 */
enum { RANKS_MAX = 4 };
static struct {
    pthread_mutex_t lock;
    pthread_cond_t came;
    int size, here;
    int64_t round;
    char call[64], broken[96];      /* what this meeting is for; why there are no more */
    const void *in[RANKS_MAX];
    int64_t bytes;                  /* brought by all to gather, sum and broadcast */
    int64_t sums, failed;           /* calls of sum; calls that failed here */
    bool parts;                     /* the groups have sum_parts and share_parts of their own */
    int64_t parts_bytes;            /* what these carried, of all ranks */
    bool straight;                  /* they have bring, from one rank to rank 0 */
    int64_t brought;                /* bytes */
    const void *hand[RANKS_MAX];    /* what a rank holds out to rank 0 */
    struct { const void *x; size_t nbytes; bool full; } box[RANKS_MAX][2]; /* for this rank: from
                                       below, from above */
    bool gone[RANKS_MAX], lost;
    int64_t passed;                 /* bytes from neighbour to neighbour */
} made = { .lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER };

static inline void made_break(const char *why)
{
    if (!*made.broken)
        snprintf(made.broken, sizeof made.broken, "%s", why);
    pthread_cond_broadcast(&made.came);
}

static inline int made_meet(const char *call, struct err *e)
{
    struct timespec until;
    int64_t round;
    bool ok;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&made.lock);
    round = made.round;
    if (made.here == 0)
        snprintf(made.call, sizeof made.call, "%s", call);
    else if (strcmp(made.call, call) != 0)
        made_break("ranks call different things");
    if (!*made.broken && ++made.here == made.size) {
        made.here = 0;
        made.round++;
        pthread_cond_broadcast(&made.came);
    }
    while (!*made.broken && made.round == round)
        if (pthread_cond_timedwait(&made.came, &made.lock, &until) != 0)
            made_break("a rank hangs");
    ok = made.round != round;
    made.failed += !ok;
    pthread_mutex_unlock(&made.lock);
    return ok ? 0 : err_set(e, E_DEVICE, "%s", made.broken);
}

static inline int made_bring(struct group *g, const char *what, const void *mine, size_t nbytes,
                             struct err *e)
{
    char call[64];

    snprintf(call, sizeof call, "%s %zu", what, nbytes);
    pthread_mutex_lock(&made.lock);
    made.in[g->rank] = mine;
    made.bytes += (int64_t)nbytes;
    pthread_mutex_unlock(&made.lock);
    return made_meet(call, e);
}

static inline int made_gather(struct group *g, const void *mine, void *all, size_t nbytes,
                              struct err *e)
{
    int rc = made_bring(g, "gather", mine, nbytes, e);

    for (int r = 0; r < g->size && rc == 0; r++)
        memcpy((char *)all + (size_t)r * nbytes, made.in[r], nbytes);
    return rc < 0 ? rc : made_meet("gathered", e);
}

static inline int made_sum(struct group *g, float *x, int64_t n, struct err *e)
{
    float *sum = calloc((size_t)n, sizeof *sum);
    int rc = made_bring(g, "sum", x, (size_t)n * sizeof *x, e);

    for (int r = 0; r < g->size && rc == 0; r++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += ((const float *)made.in[r])[i];
    if (rc == 0 && (rc = made_meet("summed", e)) == 0)
        memcpy(x, sum, (size_t)n * sizeof *x);
    pthread_mutex_lock(&made.lock);
    made.sums += g->rank == 0;
    pthread_mutex_unlock(&made.lock);
    free(sum);
    return rc;
}

static inline int made_broadcast(struct group *g, int root, void *x, size_t nbytes,
                                 struct err *e)
{
    int rc = made_bring(g, "broadcast", x, nbytes, e);

    if (rc == 0 && g->rank != root)
        memcpy(x, made.in[root], nbytes);
    return rc < 0 ? rc : made_meet("broadcast", e);
}

/* As much as a ring carries: all but its own part from each rank. */
static inline void made_carried(const struct group *g, int64_t n)
{
    pthread_mutex_lock(&made.lock);
    made.parts_bytes += n * 4 / g->size * (g->size - 1);
    pthread_mutex_unlock(&made.lock);
}

/* What is no part of this rank's is spoilt: nobody may use it. */
static inline int made_sum_parts(struct group *g, float *x, int64_t n, struct err *e)
{
    float *sum = calloc((size_t)n, sizeof *sum);
    int rc = made_bring(g, "sum parts", x, (size_t)n * sizeof *x, e);
    int64_t from, to;

    group_part(g, n, &from, &to);
    for (int r = 0; r < g->size && rc == 0; r++)
        for (int64_t i = from; i < to; i++)
            sum[i] += ((const float *)made.in[r])[i];
    if (rc == 0 && (rc = made_meet("summed parts", e)) == 0)
        for (int64_t i = 0; i < n; i++)
            x[i] = i >= from && i < to ? sum[i] : 1e30f;
    made_carried(g, n);
    free(sum);
    return rc;
}

static inline int made_share_parts(struct group *g, float *x, int64_t n, struct err *e)
{
    int rc = made_bring(g, "share parts", x, (size_t)n * sizeof *x, e);

    for (int r = 0; r < g->size && rc == 0; r++) {
        struct group who = { .rank = r, .size = g->size };
        int64_t from, to;

        group_part(&who, n, &from, &to);
        if (r != g->rank)
            memcpy(x + from, (const float *)made.in[r] + from, (size_t)(to - from) * sizeof *x);
    }
    made_carried(g, n);
    return rc < 0 ? rc : made_meet("shared parts", e);
}

/* Only the two of them wait for each other. */
static inline int made_straight(struct group *g, int from, void *x, size_t nbytes, struct err *e)
{
    bool broken;

    pthread_mutex_lock(&made.lock);
    if (g->rank == from) {
        made.hand[from] = x;
        pthread_cond_broadcast(&made.came);
        while (made.hand[from] && !*made.broken)
            pthread_cond_wait(&made.came, &made.lock);
    } else {
        while (!made.hand[from] && !*made.broken)
            pthread_cond_wait(&made.came, &made.lock);
        if (made.hand[from])
            memcpy(x, made.hand[from], nbytes);
        made.hand[from] = NULL, made.brought += (int64_t)nbytes;
        pthread_cond_broadcast(&made.came);
    }
    broken = *made.broken;
    pthread_mutex_unlock(&made.lock);
    return broken ? err_set(e, E_DEVICE, "%s", made.broken) : 0;
}

/* Waits, with the lock, until a box is full or empty; not for one who has left. */
static inline bool made_await(int rank, int way, bool full, int peer, const struct timespec *until)
{
    while (made.box[rank][way].full != full && !made.gone[peer] && !made.lost)
        if (pthread_cond_timedwait(&made.came, &made.lock, until) != 0) {
            made.lost = true;
            made_break("a rank hangs");
        }
    return made.box[rank][way].full == full;
}

/* Into the neighbour's box and out of one's own; a sender stays until it is empty. Only these two
 * must be there. */
static inline int made_pass(struct group *g, int step, const void *out, size_t n_out, void *in,
                            size_t n_in, struct err *e)
{
    int way = step < 0, to = g->rank + step, from = g->rank - step;
    struct timespec until;
    bool ok = (!n_out || (to >= 0 && to < g->size)) && (!n_in || (from >= 0 && from < g->size));

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&made.lock);
    if (n_out && ok && (ok = made_await(to, way, false, to, &until))) {
        made.box[to][way].x = out, made.box[to][way].nbytes = n_out;
        made.box[to][way].full = true;
        made.passed += (int64_t)n_out;
        pthread_cond_broadcast(&made.came);
    }
    if (n_in && ok && (ok = made_await(g->rank, way, true, from, &until))) {
        if ((ok = made.box[g->rank][way].nbytes == n_in))
            memcpy(in, made.box[g->rank][way].x, n_in);
        made.box[g->rank][way].full = false;
        pthread_cond_broadcast(&made.came);
    }
    if (n_out && ok)
        ok = made_await(to, way, false, to, &until);
    made.failed += !ok;
    pthread_mutex_unlock(&made.lock);
    return ok ? 0 : err_set(e, E_DEVICE, "a neighbour passes something else, or is gone");
}

static inline void made_leave(struct group *g)
{
    pthread_mutex_lock(&made.lock);
    made.gone[g->rank] = true;
    made_break("a rank has left");
    pthread_mutex_unlock(&made.lock);
    free(g->notes);
}

struct made_rank {
    struct group g;
    void (*run)(struct group *g, void *arg);
    void *arg;
};

static inline void *made_thread(void *arg)
{
    struct made_rank *m = arg;

    m->run(&m->g, m->arg);
    m->g.close(&m->g);
    return NULL;
}

/* run(group, args + k * each) as rank k of size, each in a thread of its own. */
static inline void made_ranks(int size, void (*run)(struct group *g, void *arg), void *args,
                              size_t each)
{
    struct made_rank rank[RANKS_MAX];
    pthread_t thread[RANKS_MAX];

    made.size = size, made.here = 0, made.round = 0, made.bytes = made.sums = made.failed = 0;
    made.parts_bytes = made.brought = made.passed = 0;
    made.lost = false;
    memset(made.gone, 0, sizeof made.gone);
    memset(made.box, 0, sizeof made.box);
    made.broken[0] = '\0';
    for (int k = 0; k < size; k++) {
        rank[k] = (struct made_rank){ { .rank = k, .size = size, .host = k ? "b" : "a",
                                        .gather = made_gather, .sum = made_sum,
                                        .broadcast = made_broadcast, .pass = made_pass,
                                        .close = made_leave },
                                      run, (char *)args + (size_t)k * each };
        if (made.parts)
            rank[k].g.sum_parts = made_sum_parts, rank[k].g.share_parts = made_share_parts;
        if (made.straight)
            rank[k].g.bring = made_straight;
        rank[k].g.notes = calloc((size_t)size, sizeof *rank[k].g.notes);
        pthread_create(&thread[k], NULL, made_thread, &rank[k]);
    }
    for (int k = 0; k < size; k++)
        pthread_join(thread[k], NULL);
}
#endif
