/* kernels/group.c - what ranks decide together, and the group of one; see group.h. */
#include "kernels/group.h"

#include <stdio.h>
#include <string.h>

/* The group of one: everybody's values are one's own. */
static int alone_gather(struct group *g, const void *mine, void *all, size_t nbytes,
                        struct err *e)
{
    (void)g, (void)e;
    if (nbytes && all != mine)
        memcpy(all, mine, nbytes);
    return 0;
}

static int alone_sum(struct group *g, float *x, int64_t n, struct err *e)
{
    (void)g, (void)x, (void)n, (void)e;
    return 0;
}

static int alone_broadcast(struct group *g, int root, void *x, size_t nbytes, struct err *e)
{
    (void)g, (void)root, (void)x, (void)nbytes, (void)e;
    return 0;
}

static int alone_pass(struct group *g, int step, const void *out, size_t n_out, void *in,
                      size_t n_in, struct err *e)
{
    (void)g, (void)step, (void)out, (void)in;
    return n_out || n_in ? err_set(e, E_BUG, "one process has no neighbours") : 0;
}

static void alone_close(struct group *g) { (void)g; }

struct group *group_alone(void)
{
    static struct group one = { .size = 1, .host = "", .gather = alone_gather,
                                .sum = alone_sum, .broadcast = alone_broadcast, .pass = alone_pass,
                                .close = alone_close };

    return &one;
}

bool group_writes(const struct group *g) { return g->rank == 0; }

/* The rank's share of n: 7 among 3 are [0, 3), [3, 5), [5, 7). */
void group_part(const struct group *g, int64_t n, int64_t *from, int64_t *to)
{
    int64_t each = n / g->size, more = n % g->size;

    *from = g->rank * each + (g->rank < more ? g->rank : more);
    *to = *from + each + (g->rank < more);
}

int group_bring(struct group *g, int from, void *x, size_t nbytes, struct err *e)
{
    if (from == 0)
        return 0;
    if (!g->bring)
        return g->broadcast(g, from, x, nbytes, e);
    return g->rank == 0 || g->rank == from ? g->bring(g, from, x, nbytes, e) : 0;
}

/* The failure of rank 'first', to those that have none of their own. */
static int spread(struct group *g, int first, int code, int own, struct err *e)
{
    struct { char host[64], msg[sizeof e->msg]; } from = { "", "" };
    int rc;

    if (g->rank == first) {
        snprintf(from.host, sizeof from.host, "%s", g->host);
        snprintf(from.msg, sizeof from.msg, "%s", e ? e->msg : "");
    }
    if ((rc = g->broadcast(g, first, &from, sizeof from, e)) < 0)
        return rc;
    if (own == 0) {
        char *remedy = strchr(from.msg, '\n'); /* has its own line there too */

        if (remedy)
            *remedy++ = '\0';
        err_set(e, code, "rank %d%s%.63s: %.*s", first, *from.host ? " on " : "", from.host,
                (int)sizeof from.msg - 96, from.msg);
        if (remedy && e)
            err_hint(e, "%s", remedy);
    } else if (e) {
        e->code = code;
    }
    return code;
}

/* Every rank brings its result and its note, and all leave with the same answer: the failure
 * of the first rank that has one, or the sums. A failure is final (over), since nobody knows
 * any more what the others do. */
int group_meet(struct group *g, int rc, struct group_note *n, struct err *e)
{
    struct group_note mine = { 0 }, all = { 0 };
    int sent;

    if (g->size == 1 || g->over)
        return g->over ? g->over : rc;
    mine = n ? *n : mine;
    mine.code = rc;
    /* a rank that failed keeps its own reason: e is not overwritten */
    if ((sent = g->gather(g, &mine, g->notes, sizeof mine, rc < 0 ? NULL : e)) < 0)
        return group_leave(g, rc < 0 ? rc : sent); /* what this rank found is nearer to the cause */
    for (int r = 0; r < g->size; r++) {
        if (g->notes[r].code < 0)
            return g->over = spread(g, r, g->notes[r].code, rc, e);
        /* the first flag that is set */
        all.flag = all.flag ? all.flag : g->notes[r].flag;
        if (r == 0 || g->notes[r].most > all.most)
            all.most = g->notes[r].most, all.most_rank = r;
        for (size_t i = 0; i < sizeof all.sum / sizeof *all.sum; i++)
            all.sum[i] += g->notes[r].sum[i];
    }
    if (n)
        *n = all;
    return 0;
}
