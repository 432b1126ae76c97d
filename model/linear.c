/* model/linear.c - linear layers of one input with optional LoRA pairs, forward and backward. */
#include "model/inside.h"

#include "base/perm.h"

/*
 * The As of layers that read one input lie together (layout.c), so that x A^T is one product for
 * all of them, [rows][ranks], and so are its gradients. The thin product of a pair comes first and
 * only writes; the wide one adds to it, where reading costs nothing, and rounds once.
 */

enum { READERS = 4 }; /* matrices with one input, at most */

/* Queues a product, unless something failed before. The m of weights' gradients, which turn A
 * round, is no number of rows. */
static void gemm(struct model *m, struct op_gemm *g)
{
    g->varies = m->varies && !g->trans_a;
    if (m->rc == 0)
        m->rc = m->d->gemm(m->d, g);
}

/* By what a pair's product is multiplied: its own scale, times the matrix's. */
static float pair_scale(const struct weight *w) { return w->scale * w->times; }

/* The columns in xa from the pair of w[i] to the next one's, which may be the same. */
static int64_t columns(const struct weight *w, int i, int n)
{
    return i + 1 < n && w[i + 1].shares ? 0 : w[i].rank;
}

/* The columns of the pairs of w[0..n) together; *first: the first of those, if any. */
static int64_t ranks_of(const struct weight *w, int n, const struct weight **first)
{
    int64_t ranks = 0;

    *first = NULL;
    for (int i = 0; i < n; i++) {
        if (w[i].rank && !*first)
            *first = &w[i];
        ranks += columns(w, i, n);
    }
    return ranks;
}

/* Dropout of rows of what the pairs of w read, its numbers those of the tokens, its seed the layer's
 * and the input's: the backward leaves out the same. */
static void drop(struct model *m, const struct weight *w, int64_t rows, const void *x, void *y)
{
    int64_t layer = ((const char *)w - (const char *)m->layers) / (int64_t)sizeof *m->layers;
    uint64_t input = (uint64_t)(layer * ROLES + (w - m->layers[layer].w));

    if (m->rc == 0)
        m->rc = m->d->dropout(m->d, &(struct op_dropout){ .n = rows * w->in,
            .first = (m->dropout.token + m->dropout.at) * w->in,
            .seed = mix64(m->dropout.seed ^ mix64(input)), .drop = m->dropout.drop, .x = x, .y = y });
}

/* What the pairs of w read: x, or with dropout a part of it, in work.xd. */
static const void *kept(struct model *m, const struct weight *w, int64_t rows, const void *x)
{
    if (!m->dropout.drop)
        return x;
    drop(m, w, rows, x, m->work.xd);
    return m->work.xd;
}

/* xa [rows][ranks] = x A^T for all pairs, into work.xa. */
static void down(struct model *m, const struct weight *first, int64_t ranks, int64_t rows,
                 const void *x)
{
    gemm(m, &(struct op_gemm){ .trans_b = true, .m = rows, .n = ranks, .k = first->in,
        .alpha = 1, .a = x, .lda = first->in, .b = act_mat(m, first->pair.a), .ldb = first->in,
        .c = m->work.xa, .ldc = ranks, .c_type = m->d->act });
}

/* y [rows][out] = bias (+ add): the product of a column of ones with a row. What follows adds to
 * it, so that a frozen bias is rounded with the sum only. */
static void add_bias(struct model *m, const struct weight *bias, float times, int64_t rows, void *y,
                     const void *add)
{
    gemm(m, &(struct op_gemm){ .trans_b = true, .m = rows, .n = bias->out, .k = 1, .alpha = times,
        .beta = add != NULL, .a = m->work.ones, .lda = 1, .b = act_mat(m, bias->w), .ldb = 1,
        .c = y, .ldc = bias->out, .c_type = m->d->act, .addend = add == y ? NULL : add });
}

void linear_begin(struct model *m, const struct weight *w, int n, int64_t rows, const void *x)
{
    const struct weight *first;
    int64_t ranks = ranks_of(w, n, &first);

    if (ranks)
        down(m, first, ranks, rows, kept(m, w, rows, x));
}

/* The product of matrix i of all, after its bias and its pair are in y. */
static struct op_gemm product(struct model *m, const struct weight *all, int n, int i, int64_t rows,
                              const void *x, void *y, const void *add)
{
    const struct weight *first, *w = &all[i];
    int64_t ranks = ranks_of(all, n, &first), at = 0;
    /* what the next product adds to: nothing, the caller's addend, or y as it is by then */
    const void *to = add;

    for (int k = 0; k < i; k++) /* the first column of this matrix's pair in xa */
        at += columns(all, k, n);
    if (w->bias) {
        add_bias(m, w->bias, w->times, rows, y, to);
        to = y;
    }
    if (w->rank) {
        gemm(m, &(struct op_gemm){ .trans_b = true, .m = rows, .n = w->out, .k = w->rank,
            .alpha = pair_scale(w), .beta = to != NULL, .a = act_at(m, m->work.xa, at), .lda = ranks,
            .b = act_mat(m, w->pair.b), .ldb = w->rank, .c = y, .ldc = w->out, .c_type = m->d->act,
            .addend = to == y ? NULL : to });
        to = y;
    }
    return (struct op_gemm){ .trans_b = true, .m = rows, .n = w->out, .k = w->in, .alpha = w->times,
        .beta = to != NULL, .a = x, .lda = w->in, .b = weight_mat(w), .ldb = w->in, .c = y,
        .ldc = w->out, .c_type = m->d->act, .addend = to == y ? NULL : to, .varies = m->varies };
}

void linear_one(struct model *m, const struct weight *all, int n, int i, int64_t rows, const void *x,
                void *y, const void *add)
{
    struct op_gemm g = product(m, all, n, i, rows, x, y, add);

    gemm(m, &g);
}

void linear(struct model *m, const struct weight *w, int n, int64_t rows, const void *x,
            void *const y[], const void *add)
{
    struct op_gemm g[READERS];

    linear_begin(m, w, n, rows, x);
    for (int i = 0; i < n; i++) {
        g[i] = product(m, w, n, i, rows, x, y[i], add);
        g[i].also = i + 1 < n ? &g[i + 1] : NULL;
    }
    gemm(m, g); /* all that read x, in one where the device can */
}

/* dx = or += (more) the gradient of x through all pairs. */
static void pairs_back(struct model *m, const struct weight *w, int n, int64_t rows,
                       const void *const dy[], bool more, void *dx)
{
    const struct weight *first;
    int64_t ranks = ranks_of(w, n, &first), at = 0;

    /* dxa [rows][ranks] = scale dy B, the pairs beside each other; of a shared A their sum */
    for (int i = 0; i < n; at += columns(w, i, n), i++)
        if (w[i].rank)
            gemm(m, &(struct op_gemm){ .m = rows, .n = w[i].rank, .k = w[i].out,
                .beta = w[i].shares, .alpha = pair_scale(&w[i]), .a = dy[i], .lda = w[i].out,
                .b = act_mat(m, w[i].pair.b), .ldb = w[i].rank, .c = act_at(m, m->work.dxa, at), .ldc = ranks,
                .c_type = m->d->act });
    /* dxa A for all pairs at once */
    if (ranks)
        gemm(m, &(struct op_gemm){ .m = rows, .n = first->in, .k = ranks, .alpha = 1, .beta = more,
            .a = m->work.dxa, .lda = ranks, .b = act_mat(m, first->pair.a), .ldb = first->in, .c = dx,
            .ldc = first->in, .c_type = m->d->act });
}

/* dx = or += (more) dy W */
static void matrix_back(struct model *m, const struct weight *w, int64_t rows, const void *dy,
                        bool more, void *dx)
{
    gemm(m, &(struct op_gemm){ .m = rows, .n = w->in, .k = w->out, .alpha = w->times, .beta = more,
        .a = dy, .lda = w->out, .b = weight_mat(w), .ldb = w->in, .c = dx, .ldc = w->in,
        .c_type = m->d->act });
}

void linear_back(struct model *m, const struct weight *w, int n, int64_t rows,
                 const void *const dy[], void *dx)
{
    const struct weight *first;
    bool pairs = ranks_of(w, n, &first) > 0;

    /* the pairs come first and only write; without them the first matrix does */
    pairs_back(m, w, n, rows, dy, false, dx);
    if (pairs && m->dropout.drop)
        drop(m, w, rows, dx, dx);
    for (int i = 0; i < n; i++)
        matrix_back(m, &w[i], rows, dy[i], i > 0 || pairs, dx);
}

bool linear_back_first(struct model *m, const struct weight *w, int64_t rows, const void *dy,
                       void *dx)
{
    if (m->dropout.drop) /* of what the pairs add alone, which is there first then */
        return false;
    matrix_back(m, w, rows, dy, false, dx);
    return true;
}

void linear_back_rest(struct model *m, const struct weight *w, int n, int64_t rows,
                      const void *const dy[], void *dx)
{
    pairs_back(m, w, n, rows, dy, true, dx);
    for (int i = 1; i < n; i++)
        matrix_back(m, &w[i], rows, dy[i], true, dx);
}

/* grad [out][in] += scale dy^T x: the gradient of a weight of any of the three matrices. */
static void weight_grad(struct model *m, int64_t rows, float scale, const void *dy, int64_t out,
                        const void *x, int64_t in, int64_t ldx, float *grad)
{
    gemm(m, &(struct op_gemm){ .trans_a = true, .m = out, .n = in, .k = rows, .alpha = scale,
        .beta = 1, .a = dy, .lda = out, .b = act_mat(m, x), .ldb = ldx, .c = grad, .ldc = in,
        .c_type = DT_F32 });
}

/* Whether any gradient of these matrices or of their pairs needs their input x. */
bool linear_reads_input(const struct weight *w, int n)
{
    bool any = false;

    for (int i = 0; i < n; i++)
        any |= w[i].grad || w[i].rank;
    return any;
}

void linear_back_weights(struct model *m, const struct weight *w, int n, int64_t rows,
                         const void *x, const void *const dy[])
{
    const struct weight *first;
    int64_t ranks = ranks_of(w, n, &first), at = 0;

    /* xa was overwritten since the forward, so it is made again */
    if (ranks) {
        const void *xd = kept(m, w, rows, x);

        down(m, first, ranks, rows, xd);
        /* the gradients of all As lie together as the As do: one product makes them */
        weight_grad(m, rows, 1, m->work.dxa, ranks, xd, first->in, first->in,
                    first->pair.grad_a);
    }
    for (int i = 0; i < n; at += columns(w, i, n), i++) {
        if (w[i].rank)
            weight_grad(m, rows, pair_scale(&w[i]), dy[i], w[i].out, act_at(m, m->work.xa, at),
                        w[i].rank, ranks, w[i].pair.grad_b);
        if (w[i].grad)
            weight_grad(m, rows, w[i].times, dy[i], w[i].out, x, w[i].in, w[i].in, w[i].grad);
        /* a bias's gradient is the sum of dy over the rows: a product with a column of ones */
        if (w[i].bias && w[i].bias->grad)
            weight_grad(m, rows, w[i].times, dy[i], w[i].out, m->work.ones, 1, 1, w[i].bias->grad);
    }
}
