/* tests/queued.h - the CPU device behind queues that run late and in the worst order. */
#ifndef TESTS_QUEUED_H
#define TESTS_QUEUED_H
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Every op and copy is only noted; what has to be waited for runs at to_host, sync and release.
 * Of the queues that may go on, the first in 'order' does, one entry at a time: with the queues
 * in each order, two entries that no fence keeps apart run in either order. So a fence that is
 * missing shows in the results. What an op's struct names on the host has to last until then.
 */
enum { QUEUED_MOST = 1 << 14 };
struct queued_entry {
    int (*run)(const void *arg); /* NULL: a mark or, with wait set, an await */
    void *arg;
    bool wait;
    int64_t ticket; /* of the mark */
};
static _Thread_local struct { /* each rank of a test is a thread */
    struct device under;
    const enum queue *order;
    struct queued_entry *entry[QUEUES];
    int64_t n[QUEUES], at[QUEUES];
    bool done[2 * QUEUED_MOST];
    int64_t tickets, last[FENCES];
    int64_t sent, fetched; /* copies that ran */
    int64_t left;          /* exchanges that the ops had not waited for, at sync */
} queued;

static inline void queued_die(const char *why)
{
    fprintf(stderr, "# queues: %s\n", why);
    abort();
}

static inline int queued_push(enum queue q, struct queued_entry x)
{
    if (queued.n[q] == QUEUED_MOST)
        queued_die("more than there is room for");
    queued.entry[q][queued.n[q]++] = x;
    return 0;
}

/* An entry with a copy of its argument and of 'extra' bytes behind it. */
static inline void *queued_op(enum queue q, int (*run)(const void *), const void *arg,
                              size_t nbytes, size_t extra)
{
    void *copy = malloc(nbytes + extra);

    memcpy(copy, arg, nbytes);
    queued_push(q, (struct queued_entry){ run, copy, false, 0 });
    return (char *)copy + nbytes;
}

static inline bool queued_step(enum queue q)
{
    struct queued_entry *x = &queued.entry[q][queued.at[q]];

    if (queued.at[q] == queued.n[q] || (x->wait && !queued.done[x->ticket]))
        return false;
    if (x->run && x->run(x->arg) < 0)
        queued_die("an op failed");
    else if (!x->run && !x->wait)
        queued.done[x->ticket] = true;
    queued.sent += q == QUEUE_OUT && x->run;
    queued.fetched += q == QUEUE_IN && x->run;
    free(x->arg);
    queued.at[q]++;
    return true;
}

/* Runs until a queue is empty. */
static inline void queued_empty(enum queue q)
{
    while (queued.at[q] < queued.n[q]) {
        int i = 0;

        while (i < QUEUES && !queued_step(queued.order[i]))
            i++;
        if (i == QUEUES)
            queued_die("each waits for another");
    }
}

static inline int queued_sync(struct device *d, struct err *e)
{
    (void)d, (void)e;
    for (int q = 0; q < QUEUES; q++) {
        if (q == QUEUE_LINK)
            queued.left += queued.n[q] - queued.at[q];
        queued_empty((enum queue)q);
    }
    memset(queued.n, 0, sizeof queued.n);
    memset(queued.at, 0, sizeof queued.at);
    memset(queued.done, 0, sizeof queued.done);
    memset(queued.last, 0, sizeof queued.last);
    queued.done[0] = true; /* a fence that was not marked lately holds nobody up */
    queued.tickets = 1;
    return 0;
}

static inline int queued_mark(struct device *d, enum queue q, int fence)
{
    (void)d;
    queued.last[fence] = queued.tickets++;
    return queued_push(q, (struct queued_entry){ NULL, NULL, false, queued.last[fence] });
}

static inline int queued_await(struct device *d, enum queue q, int fence)
{
    (void)d;
    return queued_push(q, (struct queued_entry){ NULL, NULL, true, queued.last[fence] });
}

struct queued_move {
    void *dst;
    const void *src;
    size_t nbytes;
};
static inline int queued_run_copy(const void *arg)
{
    const struct queued_move *c = arg;

    return queued.under.copy(&queued.under, c->dst, c->src ? c->src : c + 1, c->nbytes);
}

static inline int queued_run_zero(const void *arg)
{
    const struct queued_move *c = arg;

    return queued.under.zero(&queued.under, c->dst, c->nbytes);
}

static inline int queued_to_device(struct device *d, void *dst, const void *src, size_t nbytes)
{
    struct queued_move c = { dst, NULL, nbytes };

    (void)d;
    memcpy(queued_op(QUEUE_OPS, queued_run_copy, &c, sizeof c, nbytes), src, nbytes);
    return 0;
}

static inline int queued_to_host(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    queued_empty(QUEUE_OPS);
    return queued.under.copy(&queued.under, dst, src, nbytes);
}

static inline int queued_move_on(enum queue q, void *dst, const void *src, size_t nbytes)
{
    struct queued_move c = { dst, src, nbytes };

    queued_op(q, queued_run_copy, &c, sizeof c, 0);
    return 0;
}

static inline int queued_copy(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    return queued_move_on(QUEUE_OPS, dst, src, nbytes);
}

static inline int queued_send(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    return queued_move_on(QUEUE_OUT, dst, src, nbytes);
}

static inline int queued_fetch(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    return queued_move_on(QUEUE_IN, dst, src, nbytes);
}

static inline int queued_zero(struct device *d, void *dst, size_t nbytes)
{
    struct queued_move c = { dst, NULL, nbytes };

    (void)d;
    queued_op(QUEUE_OPS, queued_run_zero, &c, sizeof c, 0);
    return 0;
}

static inline void queued_release(struct device *d, void *p)
{
    queued_sync(d, NULL);
    queued.under.release(&queued.under, p);
}

static inline void queued_host_release(struct device *d, void *p, size_t nbytes)
{
    queued_sync(d, NULL);
    queued.under.host_release(&queued.under, p, nbytes);
}

static inline void queued_close(struct device *d)
{
    queued_sync(d, NULL);
    for (int q = 0; q < QUEUES; q++)
        free(queued.entry[q]);
    queued.under.close(&queued.under);
}

#define QUEUED_OP(name, matrix, words)                                                      \
    static inline int queued_run_##name(const void *arg)                                      \
    {                                                                                         \
        return queued.under.name(&queued.under, arg);                                         \
    }                                                                                         \
    static inline int queued_##name(struct device *d, const struct op_##name *a)              \
    {                                                                                         \
        (void)d;                                                                              \
        queued_op(QUEUE_OPS, queued_run_##name, a, sizeof *a, 0);                             \
        return 0;                                                                             \
    }
OPS(QUEUED_OP)

/* Products that go along are the caller's only during the call: each is queued by itself. */
static inline int queued_each_gemm(struct device *d, const struct op_gemm *a)
{
    for (; a; a = a->also) {
        struct op_gemm one = *a;

        one.also = NULL;
        queued_gemm(d, &one);
    }
    return 0;
}

/* The host looks at its result. */
static inline int queued_sum_now(struct device *d, const struct op_sum_squares *a)
{
    (void)d;
    queued_empty(QUEUE_OPS);
    return queued.under.sum_squares(&queued.under, a);
}

static inline int queued_open(struct device *d, int threads, struct err *e)
{
    static const enum queue plain[QUEUES] = { QUEUE_OPS, QUEUE_OUT, QUEUE_IN, QUEUE_LINK };
    int rc = device_open_cpu(&queued.under, &(struct device_options){ .threads = threads }, e);

    if (rc < 0)
        return rc;
    for (int q = 0; q < QUEUES; q++)
        queued.entry[q] = calloc(QUEUED_MOST, sizeof *queued.entry[q]);
    queued.order = plain, queued.left = 0;
    *d = (struct device){ .name = "queued", .act = queued.under.act, .state = queued.under.state,
        .group = queued.under.group, .alloc = queued.under.alloc, .free_bytes = queued.under.free_bytes,
        .host_alloc = queued.under.host_alloc, .profile = queued.under.profile,
        .attention_scratch_bytes = queued.under.attention_scratch_bytes,
        .loss_scratch_bytes = queued.under.loss_scratch_bytes, .release = queued_release,
        .host_release = queued_host_release, .to_device = queued_to_device,
        .to_host = queued_to_host, .copy = queued_copy, .zero = queued_zero,
        .send = queued_send, .fetch = queued_fetch, .mark = queued_mark, .await = queued_await,
        .sync = queued_sync, .close = queued_close };
#define QUEUED_FILL(name, matrix, words) d->name = queued_##name;
    OPS(QUEUED_FILL)
    d->gemm = queued_each_gemm;
    d->sum_squares = queued_sum_now;
    return queued_sync(d, e);
}
#endif
