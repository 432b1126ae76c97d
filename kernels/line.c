/* kernels/line.c - see line.h. */
#include "kernels/line.h"

#include "base/log.h"
#include "base/must.h"

#include <stdlib.h>
#include <string.h>

void line_open(struct line *l, struct device *d, struct group *g)
{
    *l = (struct line){ .d = d, .g = g };
}

void line_close(struct line *l)
{
    free(l->stage);
    *l = (struct line){ 0 };
}

int line_failed(const struct line *l, struct err *e)
{
    if (l->why.code < 0 && e)
        *e = l->why;
    return l->why.code;
}

static int note(struct line *l, int rc)
{
    if (rc < 0 && l->why.code == 0 && !*l->why.msg)
        err_set(&l->why, rc, "ranks could not exchange keys and values");
    if (rc < 0)
        l->why.code = rc;
    return rc;
}

/* Others wait on their devices for what is not queued here: they see that this rank leaves. */
static int leave(struct line *l, int rc)
{
    note(l, rc);
    group_leave(l->g, rc);
    return group_leave(l->d->group, rc);
}

/* The host's memory in between; without it the others would wait. */
static unsigned char *stage(struct line *l, size_t nbytes)
{
    if (nbytes > l->stage_bytes) {
        free(l->stage);
        l->stage = must_malloc(nbytes);
        l->stage_bytes = nbytes;
    }
    return l->stage;
}

/* Behind the ops queued so far. Who cannot queue its part leaves, so that the others see it: they wait
 * on their devices, not in a meeting. */
static int over_links(struct line *l, const struct device_move *m, int n)
{
    struct device *d = l->d;
    int rc = d->mark(d, QUEUE_OPS, FENCE_LINK);

    if (rc == 0)
        rc = d->await(d, QUEUE_LINK, FENCE_LINK);
    if (rc == 0)
        rc = d->links->move(d, m, n);
    l->begun++;
    if (rc == 0)
        rc = d->mark(d, QUEUE_LINK, FENCE_LINE + (int)(l->begun % FENCES_LINE));
    return rc < 0 ? leave(l, rc) : 0;
}

int line_wait(struct line *l, int64_t n)
{
    int rc;

    if (n <= l->waited || l->why.code < 0)
        return l->why.code;
    l->waited = n;
    rc = l->d->await(l->d, QUEUE_OPS, FENCE_LINE + (int)(n % FENCES_LINE));
    return rc < 0 ? leave(l, rc) : 0;
}

/* From or to memory of a device that ops have written; a failure is not the line's. */
static int to_host(struct line *l, bool ok, void *host, const void *x, size_t n)
{
    return ok && n ? l->d->to_host(l->d, host, x, n) : 0;
}

static int to_device(struct line *l, bool ok, void *x, const void *host, size_t n)
{
    return ok && n ? l->d->to_device(l->d, x, host, n) : 0;
}

/* Ops may be queued on a device whose memory is the host's, too. */
static int settle(struct line *l, bool ok)
{
    struct err why = { 0 };

    return ok ? l->d->sync(l->d, &why) : 0;
}

static int by_host(struct line *l, bool ok, int step, const void *out, size_t n_out, void *in,
                   size_t n_in)
{
    unsigned char *host = l->d->own_memory ? stage(l, n_out + n_in) : NULL;
    int own = settle(l, ok), rc;

    if (!host) {
        rc = l->g->pass(l->g, step, out, n_out, in, n_in, &l->why);
        return rc < 0 ? note(l, rc) : own;
    }
    if (own == 0)
        own = to_host(l, ok, host, out, n_out);
    if ((rc = l->g->pass(l->g, step, host, n_out, host + n_out, n_in, &l->why)) < 0)
        return note(l, rc);
    return own < 0 ? own : to_device(l, ok, in, host + n_out, n_in);
}

int line_pass(struct line *l, bool ok, int step, const void *out, size_t n_out, void *in,
              size_t n_in)
{
    int rank = l->g->first + l->g->rank;
    double start = now_s();
    int rc;

    if (l->why.code < 0)
        return l->why.code;
    if (n_out + n_in == 0)
        return 0;
    l->bytes += (int64_t)n_out;
    if (l->d->links)
        return over_links(l, (struct device_move[]){ { rank + step, out, NULL, n_out, 0 },
                                                     { rank - step, NULL, in, 0, n_in } }, 2);
    rc = by_host(l, ok, step, out, n_out, in, n_in);
    l->seconds += now_s() - start;
    return rc;
}

/* A bundle is what one rank sends past another, one way: its blocks for those from 'from' on. */
struct sweep {
    struct line *l;
    const size_t *n;
    int step;
};

static size_t bundle_bytes(const struct sweep *w, int source, int from)
{
    int size = w->l->g->size;
    size_t sum = 0;

    for (int j = from; source >= 0 && source < size && j >= 0 && j < size; j += w->step)
        sum += w->n[source * size + j];
    return sum;
}

/* One way along the line: in every step a rank passes on what came from the rank that began one
 * further away, without the block that was its own. held has room for three bundles. */
static int sweep(const struct sweep *w, unsigned char *mine, unsigned char *held, size_t cap,
                 unsigned char *const in[])
{
    struct group *g = w->l->g;
    int step = w->step, before = step > 0 ? g->rank : g->size - 1 - g->rank;
    unsigned char *out = mine, *get = held;
    int rc = 0;

    for (int s = 0; s < g->size - 1 && rc == 0; s++) {
        int source = g->rank - step * s, next = source - step;
        size_t n_out = s <= before ? bundle_bytes(w, source, g->rank + step) : 0;
        size_t n_in = s < before ? bundle_bytes(w, next, g->rank) : 0, own;

        if ((rc = g->pass(g, step, out, n_out, get, n_in, &w->l->why)) < 0 || s >= before)
            continue;
        own = w->n[next * g->size + g->rank];
        memcpy(in[next], get, own);
        out = get + own;
        get = get == held ? held + cap : held;
    }
    return rc;
}

/* By way of the host: what goes up in the order of its ranks, then what goes down. */
static int turn_by_host(struct line *l, bool ok, const void *const out[], void *const in[],
                        const size_t *n)
{
    struct group *g = l->g;
    int size = g->size, me = g->rank, own = settle(l, ok), rc = 0;
    unsigned char *got[1024], *p;
    size_t total_in = 0, most = 0;

    for (int i = 0; i < size; i++) {
        size_t all = 0;

        total_in += n[i * size + me];
        for (int j = 0; j < size; j++)
            all += n[i * size + j];
        most = all > most ? all : most;
    }
    p = stage(l, total_in + 3 * most);
    for (int i = 0; i < size; i++)
        got[i] = p, p += n[i * size + me];
    for (int step = 1; step >= -1 && rc == 0; step -= 2) {
        struct sweep w = { l, n, step };
        unsigned char *at = p;

        for (int j = me + step; j >= 0 && j < size; at += n[me * size + j], j += step)
            if (own == 0)
                own = to_host(l, ok, at, out[j], n[me * size + j]);
        rc = sweep(&w, p, p + most, most, got);
    }
    if (rc < 0)
        return note(l, rc);
    for (int i = 0; i < size; i++)
        if (i != me && own == 0)
            own = to_device(l, ok, in[i], got[i], n[i * size + me]);
    return own;
}

static int turn_by_links(struct line *l, const void *const out[], void *const in[],
                         const size_t *n)
{
    struct device_move m[1024];
    int size = l->g->size, me = l->g->rank;

    for (int i = 0; i < size; i++)
        m[i] = (struct device_move){ l->g->first + i, out[i], in[i], n[me * size + i],
                                     n[i * size + me] };
    return over_links(l, m, size);
}

int line_turn(struct line *l, bool ok, const void *const out[], void *const in[],
              const size_t *n)
{
    int size = l->g->size, me = l->g->rank, own = 0, rc;
    double start = now_s();

    if (l->why.code < 0)
        return l->why.code;
    if (size > 1024)
        return note(l, err_set(&l->why, E_CONFIG, "%d ranks are too many", size));
    for (int j = 0; j < size; j++)
        l->bytes += j == me ? 0 : (int64_t)n[me * size + j];
    if (l->d->links)
        return turn_by_links(l, out, in, n);
    if (ok && n[me * size + me])
        own = l->d->copy(l->d, in[me], out[me], n[me * size + me]);
    rc = turn_by_host(l, ok, out, in, n);
    l->seconds += now_s() - start;
    return rc < 0 ? rc : own;
}

static int share_by_links(struct line *l, const void *mine, char *all, size_t n)
{
    struct device_move m[1024];
    int size = l->g->size, rc;

    for (int i = 0; i < size; i++)
        m[i] = (struct device_move){ l->g->first + i, mine, all + (size_t)i * n, n, n };
    rc = l->d->links->move(l->d, m, size);
    return rc < 0 ? leave(l, rc) : 0;
}

static int share_by_host(struct line *l, bool ok, const void *mine, char *all, size_t n)
{
    int size = l->g->size, me = l->g->rank, own = settle(l, ok), rc;
    unsigned char *host = l->d->own_memory ? stage(l, n * (size_t)size) : (unsigned char *)all;

    if (own == 0 && l->d->own_memory)
        own = to_host(l, ok, host + (size_t)me * n, mine, n);
    rc = l->g->gather(l->g, l->d->own_memory ? host + (size_t)me * n : mine, host, n, &l->why);
    if (rc < 0)
        return note(l, rc);
    for (int i = 0; i < size && l->d->own_memory; i++)
        if (i != me && own == 0)
            own = to_device(l, ok, all + (size_t)i * n, host + (size_t)i * n, n);
    return own;
}

int line_share(struct line *l, bool ok, const void *mine, void *all, size_t n)
{
    int size = l->g->size, rc = 0;

    if (l->why.code < 0)
        return l->why.code;
    if (size > 1024)
        return note(l, err_set(&l->why, E_CONFIG, "%d ranks are too many", size));
    l->bytes += (int64_t)n * (size - 1);
    if (l->d->links)
        return share_by_links(l, mine, all, n);
    if (ok && l->d->own_memory)
        rc = l->d->copy(l->d, (char *)all + (size_t)l->g->rank * n, mine, n);
    return share_by_host(l, ok && rc == 0, mine, all, n);
}
