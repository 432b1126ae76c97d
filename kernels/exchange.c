/* kernels/exchange.c - see exchange.h. */
#include "kernels/exchange.h"

#include <string.h>

/* What is done to an array of a device's memory: over its links, to such an array of the host's
 * memory, and to a piece of one, whose parts are not the array's. */
struct way {
    int (*links)(struct device *d, float *x, int64_t n);
    int (*host)(struct group *g, float *x, int64_t n, struct err *e);
    int (*pieces)(struct device *d, float *x, int64_t n, int *local, struct err *e);
    const char *what;
};

enum { PIECE = 1 << 14 }; /* floats of the host's memory, which cannot fail to be there */

/* A rank whose device fails goes on taking part, with whatever is in piece: the others would
 * wait for it for ever. Its failure is told when they meet (go). */
static int sum_pieces(struct device *d, float *x, int64_t n, int *local, struct err *e)
{
    float piece[PIECE] = { 0 };
    int rc = 0;

    for (int64_t i = 0, k; i < n && rc == 0; i += k) {
        k = n - i < PIECE ? n - i : PIECE;
        if (*local == 0)
            *local = d->to_host(d, piece, x + i, (size_t)k * sizeof *x);
        rc = d->group->sum(d->group, piece, k, e);
        if (*local == 0 && rc == 0)
            *local = d->to_device(d, x + i, piece, (size_t)k * sizeof *x);
    }
    return rc;
}

/* The parts side by side, each a share of the piece. */
static int share_pieces(struct device *d, float *x, int64_t n, int *local, struct err *e)
{
    struct group *g = d->group;
    float all[PIECE] = { 0 }, mine[PIECE] = { 0 };
    int64_t part = n / g->size, most = PIECE / g->size;
    int rc = most > 0 ? 0 : err_set(e, E_CONFIG, "%d ranks are too many", g->size);

    for (int64_t i = 0, k; i < part && rc == 0; i += k) {
        k = part - i < most ? part - i : most;
        if (*local == 0)
            *local = d->to_host(d, mine, x + g->rank * part + i, (size_t)k * sizeof *x);
        rc = g->gather(g, mine, all, (size_t)k * sizeof *x, e);
        for (int r = 0; r < g->size && *local == 0 && rc == 0; r++)
            if (r != g->rank)
                *local = d->to_device(d, x + r * part + i, all + r * k, (size_t)k * sizeof *x);
    }
    return rc;
}

/* Memory of the host is a device's whose copies are plain ones. */
static int host_copy(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    memcpy(dst, src, nbytes);
    return 0;
}

static int host_sum_parts(struct group *g, float *x, int64_t n, struct err *e)
{
    return (g->sum_parts ? g->sum_parts : g->sum)(g, x, n, e);
}

static int host_share_parts(struct group *g, float *x, int64_t n, struct err *e)
{
    struct device host = { .group = g, .to_device = host_copy, .to_host = host_copy };
    int local = 0;

    return g->share_parts ? g->share_parts(g, x, n, e) : share_pieces(&host, x, n, &local, e);
}

static int host_sum(struct group *g, float *x, int64_t n, struct err *e)
{
    return g->sum(g, x, n, e);
}

static int failed(const struct device *d, const char *what, int code, const struct err *why,
                  struct err *e)
{
    return err_set(e, code, "cannot %s the ranks' arrays on '%s'%s%.300s", what, d->name,
                   *why->msg ? ": " : "", why->msg);
}

/* Behind the ops queued so far. */
static int queue_links(struct device *d, int (*f)(struct device *d, float *x, int64_t n),
                       float *x, int64_t n)
{
    int rc = d->mark(d, QUEUE_OPS, FENCE_LINK);

    if (rc == 0)
        rc = d->await(d, QUEUE_LINK, FENCE_LINK);
    return rc < 0 ? rc : f(d, x, n);
}

int group_queue_sum(struct device *d, float *x, int64_t n)
{
    return queue_links(d, d->links->sum_parts, x, n);
}

int group_queue_share(struct device *d, float *x, int64_t n)
{
    return queue_links(d, d->links->share_parts, x, n);
}

/* After a failure nobody can be met: the others see that this rank leaves. */
int group_wait_queued(struct device *d, const char *what, struct err *e)
{
    struct err why = { 0 };
    int rc = d->mark(d, QUEUE_LINK, FENCE_LINK + 1);

    if (rc == 0)
        rc = d->await(d, QUEUE_OPS, FENCE_LINK + 1);
    if (rc == 0)
        rc = d->sync(d, &why);
    else
        d->sync(d, &why); /* which knows the reason */
    return rc < 0 ? group_leave(d->group, failed(d, what, rc, &why, e)) : 0;
}

/* All ranks have queued it, or none waits for it. */
static int go_links(struct device *d, const struct way *w, float *x, int64_t n, struct err *e)
{
    struct err why = { 0 };
    int rc = queue_links(d, w->links, x, n);

    if (rc < 0) {
        d->sync(d, &why);
        failed(d, w->what, rc, &why, e);
    }
    rc = group_meet(d->group, rc, NULL, e);
    return rc < 0 ? rc : group_wait_queued(d, w->what, e);
}

static int go(struct device *d, const struct way *w, float *x, int64_t n, struct err *e)
{
    struct err why = { 0 };
    int local, rc;

    if (d->group->size == 1)
        return 0;
    if (d->links)
        return go_links(d, w, x, n, e);
    /* where the device's memory is the host's, the array stays in its place */
    if ((local = d->sync(d, &why)) == 0 && !d->own_memory)
        rc = w->host(d->group, x, n, e);
    else
        rc = w->pieces(d, x, n, &local, e);
    if (rc < 0)
        return rc;
    if (local < 0)
        failed(d, w->what, local, &why, e);
    /* here all ranks learn whether one of them could not */
    return group_meet(d->group, local, NULL, e);
}

/* A rank without links, where others have some, would be alone: all of them or none. */
int group_link(struct device *d, int rc, struct err *e)
{
    struct group_note note = { .sum = { rc == 0 && d->link } };

    if (rc == 0 && d->group->size == 1)
        return 0;
    if ((rc = group_meet(d->group, rc, &note, e)) < 0 || note.sum[0] < d->group->size)
        return rc;
    return group_meet(d->group, d->link(d, e), NULL, e);
}

int group_sum(struct device *d, float *x, int64_t n, struct err *e)
{
    struct way w = { d->links ? d->links->sum : NULL, host_sum, sum_pieces, "add" };

    return go(d, &w, x, n, e);
}

int group_sum_parts(struct device *d, float *x, int64_t n, struct err *e)
{
    struct way w = { d->links ? d->links->sum_parts : NULL, host_sum_parts, sum_pieces, "add" };

    return go(d, &w, x, n, e);
}

int group_share_parts(struct device *d, float *x, int64_t n, struct err *e)
{
    struct way w = { d->links ? d->links->share_parts : NULL, host_share_parts, share_pieces,
                     "share" };

    return go(d, &w, x, n, e);
}
