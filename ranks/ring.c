/* ranks/ring.c - see ring.h. */
#include "ranks/ring.h"

#include "base/bytes.h"
#include "ranks/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 18 }; /* floats that are on their way at once: 1 MiB */
enum call { CALL_GATHER = 1, CALL_SUM, CALL_BROADCAST, CALL_SUM_PARTS, CALL_SHARE_PARTS,
            CALL_PASS, CALLS };
static const char *const names[CALLS] = { "?", "gather", "sum", "broadcast", "sum in parts",
                                          "share", "pass" };

struct ring {
    struct group g;
    struct carrier c;
    uint64_t calls;
    float *piece; /* [PIECE]: what has come and is to be added */
};

static int move(struct ring *r, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e)
{
    int rc = r->c.exchange(&r->c, out, n_out, in, n_in, e);

    if (rc == 0) {
        r->g.sent += (int64_t)n_out;
        r->g.received += (int64_t)n_in;
    }
    return rc;
}

/* What the rank before calls must be what this one calls. */
static int begin(struct ring *r, enum call what, int64_t detail, struct err *e)
{
    unsigned char mine[RING_HEAD], its[RING_HEAD];
    uint64_t call;
    int rc;

    watch_call();
    put_le(mine, ++r->calls, 8);
    put_le(mine + 8, what, 8);
    put_le(mine + 16, (uint64_t)detail, 8);
    if ((rc = move(r, mine, sizeof mine, its, sizeof its, e)) < 0)
        return rc;
    if (memcmp(mine, its, sizeof mine) == 0)
        return 0;
    call = get_le(its + 8, 8);
    return err_set(e, E_BUG, "rank %d calls %s of %lld, the rank before %s of %lld", r->g.rank,
                   names[what], (long long)detail, names[call < CALLS ? call : 0],
                   (long long)get_le(its + 16, 8));
}

/* Part s steps before this rank's own, round the ring. */
static int part(const struct ring *r, int s)
{
    return (r->g.rank - s % r->g.size + r->g.size) % r->g.size;
}

static int gather(struct group *g, const void *mine, void *all, size_t nbytes, struct err *e)
{
    struct ring *r = g->state;
    char token[2] = { 0 }, *to = all;
    int rc = begin(r, CALL_GATHER, (int64_t)nbytes, e);

    if (rc == 0 && nbytes && mine != to + (size_t)g->rank * nbytes)
        memmove(to + (size_t)g->rank * nbytes, mine, nbytes);
    for (int s = 0; s < g->size - 1 && rc == 0; s++) {
        if (nbytes == 0) /* who has heard of all others by way of its neighbour may go on */
            rc = move(r, token, 1, token + 1, 1, e);
        else
            rc = move(r, to + (size_t)part(r, s) * nbytes, nbytes,
                      to + (size_t)part(r, s + 1) * nbytes, nbytes, e);
    }
    return rc;
}

/* x[from, to) of rank 'rank' of the group. */
static void bounds(const struct group *g, int rank, int64_t n, int64_t *from, int64_t *to)
{
    struct group other = { .rank = rank, .size = g->size };

    group_part(&other, n, from, to);
}

/* One step of the ring: part 'out' goes to the next rank while part 'in' comes, a piece at a
 * time, and is added to x or replaces it. */
static int step(struct ring *r, float *x, int64_t n, int out, int in, bool add, struct err *e)
{
    int64_t o, o_end, i, i_end;
    int rc = 0;

    bounds(&r->g, out, n, &o, &o_end);
    bounds(&r->g, in, n, &i, &i_end);
    while (rc == 0 && (o < o_end || i < i_end)) {
        int64_t ko = o_end - o < PIECE ? o_end - o : PIECE;
        int64_t ki = i_end - i < PIECE ? i_end - i : PIECE;

        rc = move(r, x + o, (size_t)ko * sizeof *x, add ? r->piece : x + i,
                  (size_t)ki * sizeof *x, e);
        for (int64_t k = 0; k < ki && add && rc == 0; k++)
            x[i + k] += r->piece[k];
        o += ko, i += ki;
    }
    return rc;
}

/* The part that a rank begins with is the one before its own, so that after size - 1 steps it
 * holds the sum of its own. */
static int add_parts(struct ring *r, float *x, int64_t n, struct err *e)
{
    int rc = 0;

    for (int s = 0; s < r->g.size - 1 && rc == 0; s++)
        rc = step(r, x, n, part(r, s + 1), part(r, s + 2), true, e);
    return rc;
}

static int share_parts(struct ring *r, float *x, int64_t n, struct err *e)
{
    int rc = 0;

    for (int s = 0; s < r->g.size - 1 && rc == 0; s++)
        rc = step(r, x, n, part(r, s), part(r, s + 1), false, e);
    return rc;
}

static int sum(struct group *g, float *x, int64_t n, struct err *e)
{
    struct ring *r = g->state;
    int rc = begin(r, CALL_SUM, n, e);

    if (rc == 0 && (rc = add_parts(r, x, n, e)) == 0)
        rc = share_parts(r, x, n, e);
    return rc;
}

static int sum_parts(struct group *g, float *x, int64_t n, struct err *e)
{
    int rc = begin(g->state, CALL_SUM_PARTS, n, e);

    return rc < 0 ? rc : add_parts(g->state, x, n, e);
}

static int share(struct group *g, float *x, int64_t n, struct err *e)
{
    int rc = begin(g->state, CALL_SHARE_PARTS, n, e);

    return rc < 0 ? rc : share_parts(g->state, x, n, e);
}

static int check(struct group *g, struct err *e)
{
    (void)g;
    return watch_check(e);
}

/* Each rank passes a piece on while the next one comes. */
static int broadcast(struct group *g, int root, void *x, size_t nbytes, struct err *e)
{
    enum { BYTES = PIECE * sizeof(float) };
    struct ring *r = g->state;
    bool first = g->rank == root, last = (g->rank + 1) % g->size == root;
    char *p = x;
    int rc = begin(r, CALL_BROADCAST, (int64_t)nbytes, e);

    for (size_t have = first ? nbytes : 0, given = last ? nbytes : 0;
         rc == 0 && (have < nbytes || given < nbytes);) {
        size_t in = nbytes - have < BYTES ? nbytes - have : BYTES;
        size_t out = last ? 0 : have - given < BYTES ? have - given : BYTES;

        rc = move(r, p + given, out, p + have, in, e);
        have += in, given += out;
    }
    return rc;
}

/* No part of the ring's calls: only two ranks are at it. */
static int bring(struct group *g, int from, void *x, size_t nbytes, struct err *e)
{
    struct ring *r = g->state;
    int rc;

    watch_call();
    if ((rc = r->c.bring(&r->c, from, x, nbytes, e)) == 0)
        *(g->rank == from ? &g->sent : &g->received) += (int64_t)nbytes;
    return rc;
}

/* The head of what a neighbour is given: no number of the call, as others may have made more. */
static void pass_head(unsigned char *head, int step, size_t nbytes)
{
    put_le(head, 0, 8);
    put_le(head + 8, CALL_PASS, 8);
    put_le(head + 16, nbytes << 1 | (step > 0), 8);
}

static int pass(struct group *g, int step, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e)
{
    struct ring *r = g->state;
    int (*way)(struct carrier *, const void *, size_t, void *, size_t, struct err *) =
        step > 0 ? r->c.exchange : r->c.back;
    unsigned char mine[RING_HEAD], its[RING_HEAD], want[RING_HEAD];
    bool to = n_out > 0, from = n_in > 0;
    int rc;

    if ((to && (g->rank + step < 0 || g->rank + step >= g->size)) ||
        (from && (g->rank - step < 0 || g->rank - step >= g->size)))
        return err_set(e, E_BUG, "rank %d has no neighbour there", g->rank);
    watch_call();
    pass_head(mine, step, n_out);
    pass_head(want, step, n_in);
    if ((rc = way(&r->c, mine, to ? RING_HEAD : 0, its, from ? RING_HEAD : 0, e)) < 0)
        return rc;
    if (from && memcmp(its, want, RING_HEAD) != 0)
        return err_set(e, E_BUG, "rank %d waits for %zu bytes of rank %d, which calls %s",
                       g->rank, n_in, g->rank - step,
                       names[get_le(its + 8, 8) < CALLS ? get_le(its + 8, 8) : 0]);
    if ((rc = way(&r->c, out, n_out, in, n_in, e)) < 0)
        return rc;
    g->sent += (int64_t)n_out + to * RING_HEAD;
    g->received += (int64_t)n_in + from * RING_HEAD;
    return 0;
}

static void close_well(struct group *g) { ring_close(g, 0); }

int ring_open(struct group **g, const struct carrier *c, const char *host, struct err *e)
{
    struct ring *r = calloc(1, sizeof *r);

    if (r) {
        r->g = (struct group){ .rank = c->rank, .size = c->size, .host = host, .state = r,
                               .gather = gather, .sum = sum, .broadcast = broadcast,
                               .sum_parts = sum_parts, .share_parts = share, .check = check,
                               .bring = bring, .pass = pass,
                               .close = close_well };
        r->c = *c;
        r->piece = malloc(PIECE * sizeof *r->piece);
        r->g.notes = calloc((size_t)c->size, sizeof *r->g.notes);
    }
    if (!r || !r->piece || !r->g.notes) {
        if (r) {
            free(r->piece);
            free(r->g.notes);
        }
        free(r);
        return err_set(e, E_SYS, "out of memory");
    }
    *g = &r->g;
    return 0;
}

void ring_close(struct group *g, int code)
{
    struct ring *r = g->state;

    r->c.close(&r->c, code);
    free(r->piece);
    free(g->notes);
    free(r);
}
