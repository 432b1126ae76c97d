/* kernels/cpu/cpu_rmsnorm.c - root-mean-square normalisation, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/* dw is summed in float32 inside a group of rows and in float64 over the groups, whose number
 * depends on the rows alone. */
enum { GROUPS = 64, GROUP_ROWS = 32, ELEMENTS_A_TASK = 1 << 15 };

SIMD_FN(void, forward, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_rmsnorm *a = op;
    const float *w = a->w;

    for (int64_t r = lo; r < hi; r++) {
        const float *x = (const float *)a->x + r * a->dim;
        float *y = (float *)a->y + r * a->dim;
        /* 1 / the root of the mean square; the backward reads it again */
        float rstd = 1.0f / sqrtf(simd_dot(x, x, a->dim) / (float)a->dim + a->eps);
        const float *add = a->add ? (const float *)a->add + r * a->dim : NULL;
        if (add) {
            SIMD_LOOP
            for (int64_t i = 0; i < a->dim; i++)
                y[i] = (w[i] + a->shift) * (x[i] * rstd) + add[i];
        } else {
            SIMD_LOOP
            for (int64_t i = 0; i < a->dim; i++)
                y[i] = (w[i] + a->shift) * (x[i] * rstd);
        }
        if (a->rstd)
            a->rstd[r] = rstd;
    }
}

int cpu_rmsnorm(struct device *d, const struct op_rmsnorm *a)
{
    cpu_ranges(cpu_of(d), a->rows, ELEMENTS_A_TASK / max_i64(a->dim, 1), forward, a);
    return 0;
}

/* dx += (or =) rstd * w dy - x * rstd^3 / dim * sum(w dy x); dw, unless NULL, += rstd * dy x. */
SIMD_FN(void, back_rows, (const struct op_rmsnorm_back *a, int64_t lo, int64_t hi, float *dw),
        (a, lo, hi, dw))
{
    const float *w = a->w, shift = a->shift;

    for (int64_t r = lo; r < hi; r++) {
        const float *x = (const float *)a->x + r * a->dim;
        const float *dy = (const float *)a->dy + r * a->dim;
        float *dx = (float *)a->dx + r * a->dim, rstd = a->rstd[r], sum;
        float lane[SIMD_LANES] = { 0 };
        int64_t i = 0;
        for (; i + SIMD_LANES <= a->dim; i += SIMD_LANES)
            for (int l = 0; l < SIMD_LANES; l++)
                lane[l] += (w[i + l] + shift) * dy[i + l] * x[i + l];
        for (int l = 0; i < a->dim; i++, l++)
            lane[l] += (w[i] + shift) * dy[i] * x[i];
        sum = simd_fold(lane) * rstd * rstd * rstd / (float)a->dim;
        if (dw) {
            SIMD_LOOP
            for (i = 0; i < a->dim; i++)
                dw[i] += rstd * (dy[i] * x[i]);
        }
        if (a->overwrite) {
            SIMD_LOOP
            for (i = 0; i < a->dim; i++)
                dx[i] = rstd * ((w[i] + shift) * dy[i]) - x[i] * sum;
            continue;
        }
        SIMD_LOOP
        for (i = 0; i < a->dim; i++)
            dx[i] += rstd * ((w[i] + shift) * dy[i]) - x[i] * sum;
    }
}

struct back_job {
    const struct op_rmsnorm_back *a;
    float *partial; /* [groups][dim], or NULL */
    int64_t group_rows;
};

/* Rows of one group; its part of dw begins at 0. */
static void back_group(void *ctx, int64_t task, int thread)
{
    const struct back_job *job = ctx;
    const struct op_rmsnorm_back *a = job->a;
    float *dw = job->partial ? job->partial + task * a->dim : NULL;

    (void)thread;
    if (dw)
        memset(dw, 0, (size_t)a->dim * sizeof *dw);
    back_rows(a, task * job->group_rows, min_i64((task + 1) * job->group_rows, a->rows), dw);
}

int cpu_rmsnorm_back(struct device *d, const struct op_rmsnorm_back *a)
{
    struct cpu *c = cpu_of(d);
    /* at most GROUPS groups, of at least GROUP_ROWS rows */
    struct back_job job = { a, NULL, max_i64(ceil_div(a->rows, GROUPS), GROUP_ROWS) };
    int64_t groups = ceil_div(a->rows, job.group_rows);

    if (a->dw) {
        if (cpu_shared(c, (size_t)groups * (size_t)a->dim * sizeof *job.partial) < 0)
            return E_SYS;
        job.partial = (float *)c->shared;
    }
    pool_run(c->pool, groups, back_group, &job);
    /* adds the groups' parts in their order */
    for (int64_t i = 0; a->dw && i < a->dim; i++) {
        double sum = 0;
        for (int64_t g = 0; g < groups; g++)
            sum += job.partial[g * a->dim + i];
        a->dw[i] += (float)sum;
    }
    return 0;
}
