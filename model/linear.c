/* model/linear.c - a linear layer with an optional LoRA pair, forward and backward. */
#include "model/inside.h"

static void gemm(struct model *m, const struct op_gemm *g)
{
    if (m->rc == 0)
        m->rc = m->d->gemm(m->d, g);
}

static float pair_scale(const struct model *m)
{
    return (float)(m->o.alpha / (double)m->o.rank);
}

/* xa [rows][rank] = x A^T, into work.xa. */
static void down(struct model *m, const struct weight *w, int64_t rows, const void *x)
{
    gemm(m, &(struct op_gemm){ .trans_b = true, .m = rows, .n = w->rank, .k = w->in, .alpha = 1,
        .a = x, .lda = w->in, .b = w->pair.a, .ldb = w->in, .c = m->work.xa, .ldc = w->rank,
        .c_type = m->d->act });
}

void linear(struct model *m, const struct weight *w, int64_t rows, const void *x, void *y,
            bool add)
{
    gemm(m, &(struct op_gemm){ .trans_b = true, .m = rows, .n = w->out, .k = w->in, .alpha = 1,
        .beta = add, .a = x, .lda = w->in, .b = w->w, .ldb = w->in, .c = y, .ldc = w->out,
        .c_type = m->d->act });
    if (!w->rank)
        return;
    down(m, w, rows, x);
    gemm(m, &(struct op_gemm){ .trans_b = true, .m = rows, .n = w->out, .k = w->rank,
        .alpha = pair_scale(m), .beta = 1, .a = m->work.xa, .lda = w->rank, .b = w->pair.b,
        .ldb = w->rank, .c = y, .ldc = w->out, .c_type = m->d->act });
}

/* grad [out][in] += scale dy^T x: the gradient of a weight of any of the three matrices. */
static void weight_grad(struct model *m, int64_t rows, float scale, const void *dy, int64_t out,
                        const void *x, int64_t in, float *grad)
{
    gemm(m, &(struct op_gemm){ .trans_a = true, .m = out, .n = in, .k = rows, .alpha = scale,
        .beta = 1, .a = dy, .lda = out, .b = x, .ldb = in, .c = grad, .ldc = in,
        .c_type = DT_F32 });
}

void linear_back(struct model *m, const struct weight *w, int64_t rows, const void *x,
                 const void *dy, void *dx, bool add)
{
    gemm(m, &(struct op_gemm){ .m = rows, .n = w->in, .k = w->out, .alpha = 1, .beta = add,
        .a = dy, .lda = w->out, .b = w->w, .ldb = w->in, .c = dx, .ldc = w->in,
        .c_type = m->d->act });
    if (w->grad)
        weight_grad(m, rows, 1, dy, w->out, x, w->in, w->grad);
    if (!w->rank)
        return;
    down(m, w, rows, x);
    weight_grad(m, rows, pair_scale(m), dy, w->out, m->work.xa, w->rank, w->pair.grad_b);
    gemm(m, &(struct op_gemm){ .m = rows, .n = w->rank, .k = w->out, .alpha = pair_scale(m),
        .a = dy, .lda = w->out, .b = w->pair.b, .ldb = w->rank, .c = m->work.dxa,
        .ldc = w->rank, .c_type = m->d->act });
    weight_grad(m, rows, 1, m->work.dxa, w->rank, x, w->in, w->pair.grad_a);
    gemm(m, &(struct op_gemm){ .m = rows, .n = w->in, .k = w->rank, .alpha = 1, .beta = 1,
        .a = m->work.dxa, .lda = w->rank, .b = w->pair.a, .ldb = w->in, .c = dx, .ldc = w->in,
        .c_type = m->d->act });
}
