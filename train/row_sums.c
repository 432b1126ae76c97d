/* train/row_sums.c - see row_sums.h. */
#include "train/row_sums.h"

#include <stdlib.h>
#include <string.h>

#define ALL_BYTES ((size_t)16 << 20) /* of everybody's nodes, brought together a piece at a time */

int row_sums_open(struct row_sums *s, int64_t n, int64_t rows, struct err *e)
{
    s->n = n;
    s->number = calloc((size_t)rows, sizeof *s->number);
    return s->number ? 0 : err_set(e, E_SYS, "out of memory for %lld rows", (long long)rows);
}

void row_sums_begin(struct row_sums *s) { s->nodes = 0; }

void row_sums_close(struct row_sums *s)
{
    for (int i = 0; i < s->buffers; i++)
        free(s->node[i].x);
    free(s->number);
    *s = (struct row_sums){ 0 };
}

static void add(float *to, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += x[i];
}

/* b is the right half of the node whose left half is a. */
static bool halves(const struct row_node *a, const struct row_node *b)
{
    return a->level == b->level && a->first + ((int64_t)1 << a->level) == b->first &&
           a->first % ((int64_t)2 << a->level) == 0;
}

/* As a binary counter carries: the last two nodes become one while they are halves of one. */
static void carry(struct row_sums *s)
{
    while (s->nodes > 1 && halves(&s->node[s->nodes - 2], &s->node[s->nodes - 1])) {
        struct row_node *a = &s->node[s->nodes - 2];

        add(a->x, a[1].x, s->n);
        a->level++;
        s->nodes--; /* its array is spare */
    }
}

int row_sums_add(struct row_sums *s, struct device *d, int64_t row, const float *grad,
                 struct err *e)
{
    struct row_node *to = &s->node[s->nodes];
    int rc;

    if (s->nodes == ROW_SUMS_MOST)
        return err_set(e, E_BUG, "more nodes than any batch has");
    if (s->nodes == s->buffers) {
        if (!(to->x = malloc((size_t)s->n * sizeof *to->x)))
            return err_set(e, E_SYS, "out of memory for %d gradients of rows", s->nodes + 1);
        s->buffers++;
    }
    to->first = row, to->level = 0;
    if ((rc = d->to_host(d, to->x, grad, (size_t)s->n * sizeof *grad)) < 0)
        return err_set(e, rc, "cannot read a gradient from '%s'", d->name);
    s->nodes++;
    carry(s);
    return 0;
}

/* The nodes of rows [from, to), as row_sums_add leaves them: how many, and each in node. */
static int nodes_of(int64_t from, int64_t to, struct row_node *node)
{
    struct row_sums s = { .nodes = 0 };

    for (int64_t k; from < to; from += k) { /* the largest that begins here and ends in time */
        int level = 0;

        while (from % ((int64_t)2 << level) == 0 && from + ((int64_t)2 << level) <= to)
            level++;
        k = (int64_t)1 << level;
        s.node[s.nodes++] = (struct row_node){ .first = from, .level = level };
    }
    memcpy(node, s.node, (size_t)s.nodes * sizeof *node);
    return s.nodes;
}

/* Everybody's nodes in the order of their rows. */
struct tree {
    struct row_node *node;
    int64_t n, next, batch, values;
};

/* The sum of the rows of a node, in the array of its first node. Nodes are met in their order. */
static float *sum_of(struct tree *t, int64_t first, int level)
{
    int64_t half = ((int64_t)1 << level) / 2;
    struct row_node *here = &t->node[t->next];
    float *x;

    if (here->first == first && here->level == level) {
        t->next++;
        return here->x;
    }
    x = sum_of(t, first, level - 1);
    if (first + half < t->batch)
        add(x, sum_of(t, first + half, level - 1), t->values);
    return x;
}

static float *sum_all(struct tree *t, int64_t values)
{
    int level = 0;

    while (((int64_t)1 << level) < t->batch)
        level++;
    t->next = 0, t->values = values;
    return sum_of(t, 0, level);
}

/* What bringing the nodes together needs: of a piece of 'piece' values, most nodes a rank. */
struct round {
    struct tree t;
    float *mine, *all;
    int64_t most, piece;
};

/* Lists everybody's nodes, each at its place in 'all' or in this rank's own arrays. */
static int list_nodes(struct round *r, const struct row_sums *s, const struct group *g,
                      struct err *e)
{
    struct row_node one[ROW_SUMS_MOST];

    for (int k = 0; k < g->size; k++) {
        struct group who = { .rank = k, .size = g->size };
        int64_t from, to;
        int n;

        group_part(&who, r->t.batch, &from, &to);
        n = nodes_of(from, to, one);
        r->most = n > r->most ? n : r->most;
    }
    r->piece = (int64_t)(ALL_BYTES / sizeof(float)) / (r->most * g->size);
    r->piece = r->piece < 64 ? 64 : r->piece > s->n ? s->n : r->piece;
    r->t.node = malloc((size_t)(r->most * g->size) * sizeof *r->t.node);
    r->mine = malloc((size_t)(r->most * r->piece) * sizeof *r->mine);
    r->all = malloc((size_t)(r->most * r->piece * g->size) * sizeof *r->all);
    if (!r->t.node || !r->mine || !r->all)
        return err_set(e, E_SYS, "out of memory for the gradients of %d ranks", g->size);
    for (int k = 0; k < g->size; k++) {
        struct group who = { .rank = k, .size = g->size };
        int64_t from, to;
        int n;

        group_part(&who, r->t.batch, &from, &to);
        n = nodes_of(from, to, r->t.node + r->t.n);
        for (int i = 0; i < n; i++)
            r->t.node[r->t.n++].x = r->all + (k * r->most + i) * r->piece;
    }
    return 0;
}

/* Values [at, at + n) of everybody's nodes come together and are added. */
static int one_piece(struct round *r, const struct row_sums *s, struct device *d, int64_t at,
                     int64_t n, float *grad, int *local, struct err *e)
{
    struct group *g = d->group;
    int rc;

    memset(r->mine, 0, (size_t)(r->most * r->piece) * sizeof *r->mine);
    for (int i = 0; i < s->nodes; i++)
        memcpy(r->mine + i * r->piece, s->node[i].x + at, (size_t)n * sizeof *r->mine);
    rc = g->gather(g, r->mine, r->all, (size_t)(r->most * r->piece) * sizeof *r->mine, e);
    if (rc == 0 && *local == 0)
        *local = d->to_device(d, grad + at, sum_all(&r->t, n), (size_t)n * sizeof *grad);
    return rc;
}

int row_sums_finish(struct row_sums *s, struct device *d, int64_t batch, float *grad,
                    struct err *e)
{
    struct round r = { .t = { .batch = batch } };
    int local = 0, rc = list_nodes(&r, s, d->group, e);

    rc = group_meet(d->group, rc, NULL, e);
    for (int64_t at = 0, n; at < s->n && rc == 0; at += n) {
        n = s->n - at < r.piece ? s->n - at : r.piece;
        rc = one_piece(&r, s, d, at, n, grad, &local, e);
    }
    free(r.t.node);
    free(r.mine);
    free(r.all);
    if (rc < 0)
        return rc;
    if (local < 0)
        err_set(e, local, "cannot write the gradients to '%s'", d->name);
    return group_meet(d->group, local, NULL, e);
}

int row_sums_numbers(const struct row_sums *s, struct group *g, int64_t n, double *sum,
                     struct err *e)
{
    int64_t from, to, most = (n + g->size - 1) / g->size;
    size_t bytes = (size_t)(most > 0 ? most : 1) * sizeof *sum;
    double *mine = calloc(1, bytes), *all = malloc(bytes * (size_t)g->size);
    int rc = group_meet(g, mine && all ? 0 : err_set(e, E_SYS, "out of memory"), NULL, e);

    *sum = 0;
    group_part(g, n, &from, &to);
    if (rc == 0)
        memcpy(mine, s->number, (size_t)(to - from) * sizeof *mine);
    if (rc == 0)
        rc = g->gather(g, mine, all, bytes, e);
    for (int k = 0; k < g->size && rc == 0; k++) {
        struct group who = { .rank = k, .size = g->size };

        group_part(&who, n, &from, &to);
        for (int64_t i = 0; i < to - from; i++)
            *sum += all[(size_t)k * (bytes / sizeof *all) + (size_t)i];
    }
    free(mine);
    free(all);
    return rc;
}
