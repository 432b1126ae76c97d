/* kernels/subgroup.c - see subgroup.h. */
#include "kernels/subgroup.h"

#include <stdlib.h>
#include <string.h>

struct part {
    struct group g, *whole;
};

static int pass(struct group *g, int step, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e)
{
    struct group *w = ((struct part *)g->state)->whole;
    int64_t sent = w->sent, received = w->received;
    int rc;

    if ((n_out && (g->rank + step < 0 || g->rank + step >= g->size)) ||
        (n_in && (g->rank - step < 0 || g->rank - step >= g->size)))
        return err_set(e, E_BUG, "rank %d of a part has no neighbour there", g->rank);
    rc = w->pass(w, step, out, n_out, in, n_in, e);
    g->sent += w->sent - sent, g->received += w->received - received;
    return rc;
}

/* Each rank passes on what it has had longest, until what began furthest away is here: from the
 * ranks before, then from those behind. */
static int sweep(struct group *g, int step, char *all, size_t nbytes, struct err *e)
{
    int before = step > 0 ? g->rank : g->size - 1 - g->rank; /* ranks on the side it comes from */
    bool last = before == g->size - 1;
    int rc = 0;

    for (int s = 0; s < g->size - 1 && rc == 0; s++) {
        bool out = s <= before && !last, in = s < before;

        rc = pass(g, step, all + (size_t)(out ? g->rank - step * s : 0) * nbytes, out ? nbytes : 0,
                  all + (size_t)(in ? g->rank - step * (s + 1) : 0) * nbytes, in ? nbytes : 0, e);
    }
    return rc;
}

static int gather(struct group *g, const void *mine, void *all, size_t nbytes, struct err *e)
{
    char token[1024] = { 0 }, *to = all;
    int rc;

    if (nbytes == 0 && g->size > (int)sizeof token)
        return err_set(e, E_CONFIG, "%d ranks are too many", g->size);
    if (nbytes == 0) /* a barrier */
        to = token, nbytes = 1;
    else if (mine != to + (size_t)g->rank * nbytes)
        memmove(to + (size_t)g->rank * nbytes, mine, nbytes);
    rc = sweep(g, 1, to, nbytes, e);
    return rc < 0 ? rc : sweep(g, -1, to, nbytes, e);
}

static int broadcast(struct group *g, int root, void *x, size_t nbytes, struct err *e)
{
    int step = g->rank < root ? -1 : 1, rc = 0;

    if (g->rank != root)
        rc = pass(g, step, NULL, 0, x, nbytes, e);
    if (rc == 0 && g->rank >= root && g->rank < g->size - 1)
        rc = pass(g, 1, x, nbytes, NULL, 0, e);
    if (rc == 0 && g->rank <= root && g->rank > 0)
        rc = pass(g, -1, x, nbytes, NULL, 0, e);
    return rc;
}

static int sum(struct group *g, float *x, int64_t n, struct err *e)
{
    float all[1 << 14];
    int64_t most = (int64_t)(sizeof all / sizeof *all) / g->size;
    int rc = most > 0 ? 0 : err_set(e, E_CONFIG, "%d ranks are too many", g->size);

    for (int64_t i = 0, k; i < n && rc == 0; i += k) {
        k = n - i < most ? n - i : most;
        rc = gather(g, x + i, all, (size_t)k * sizeof *x, e);
        for (int64_t j = 0; j < k && rc == 0; j++) {
            float s = 0;

            for (int r = 0; r < g->size; r++)
                s += all[r * k + j];
            x[i + j] = s;
        }
    }
    return rc;
}

static int check(struct group *g, struct err *e)
{
    struct group *w = ((struct part *)g->state)->whole;

    return w->check ? w->check(w, e) : 0;
}

static void part_close(struct group *g)
{
    free(g->notes);
    free(g->state);
}

int group_split(struct group *whole, int size, struct group **part, struct err *e)
{
    struct part *p;

    *part = group_alone();
    if (size == 1)
        return 0;
    if (size < 1 || whole->size % size)
        return err_set(e, E_BUG, "parts of %d of %d ranks", size, whole->size);
    if (!whole->pass)
        return err_set(e, E_CONFIG, "these ranks cannot be grouped");
    if (!(p = calloc(1, sizeof *p)) || !(p->g.notes = calloc((size_t)size, sizeof *p->g.notes))) {
        free(p);
        return err_set(e, E_SYS, "out of memory for %d ranks", size);
    }
    p->whole = whole;
    p->g.rank = whole->rank % size, p->g.size = size;
    p->g.first = whole->first + whole->rank - p->g.rank;
    p->g.host = whole->host;
    p->g.state = p;
    p->g.gather = gather, p->g.sum = sum, p->g.broadcast = broadcast, p->g.pass = pass;
    p->g.check = check, p->g.close = part_close;
    *part = &p->g;
    return 0;
}
