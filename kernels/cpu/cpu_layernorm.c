/* kernels/cpu/cpu_layernorm.c - layer normalisation, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/* As of RMSNorm: dw and db are summed in float32 inside a group of rows and in float64 over groups. */
enum { GROUPS = 64, GROUP_ROWS = 32, ELEMENTS_A_TASK = 1 << 15 };

SIMD_FN(float, mean_of, (const float *x, int64_t n), (x, n))
{
    float lane[SIMD_LANES] = { 0 };
    int64_t i = 0;

    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++)
            lane[l] += x[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += x[i];
    return simd_fold(lane) / (float)n;
}

SIMD_FN(float, square_of, (const float *x, int64_t n, float mean), (x, n, mean))
{
    float lane[SIMD_LANES] = { 0 };
    int64_t i = 0;

    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++)
            lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (int l = 0; i < n; i++, l++)
        lane[l] += (x[i] - mean) * (x[i] - mean);
    return simd_fold(lane) / (float)n;
}

static void forward(const void *op, int64_t lo, int64_t hi)
{
    const struct op_layernorm *a = op;

    for (int64_t r = lo; r < hi; r++) {
        const float *x = (const float *)a->x + r * a->dim;
        float *y = (float *)a->y + r * a->dim, mean = mean_of(x, a->dim);
        float rstd = 1.0f / sqrtf(square_of(x, a->dim, mean) + a->eps);

        for (int64_t i = 0; i < a->dim; i++)
            y[i] = a->w[i] * ((x[i] - mean) * rstd) + (a->b ? a->b[i] : 0.0f);
        if (a->rstd)
            a->rstd[r] = rstd;
    }
}

int cpu_layernorm(struct device *d, const struct op_layernorm *a)
{
    cpu_ranges(cpu_of(d), a->rows, ELEMENTS_A_TASK / max_i64(a->dim, 1), forward, a);
    return 0;
}

struct back_job {
    const struct op_layernorm_back *a;
    float *partial; /* [groups][2][dim]: of dw and db, or NULL */
    int64_t group_rows;
};

/* With u = w dy and z = (x - mean) rstd: dx = rstd (u - mean(u) - z mean(u z)). */
static void back_row(const struct op_layernorm_back *a, int64_t r, float *dw, float *db)
{
    const float *x = (const float *)a->x + r * a->dim, *dy = (const float *)a->dy + r * a->dim;
    float *dx = (float *)a->dx + r * a->dim, mean = mean_of(x, a->dim), rstd = a->rstd[r];
    float one[SIMD_LANES] = { 0 }, two[SIMD_LANES] = { 0 };
    float m1, m2;

    for (int64_t i = 0; i < a->dim; i++) {
        float u = a->w[i] * dy[i], z = (x[i] - mean) * rstd;

        one[i % SIMD_LANES] += u;
        two[i % SIMD_LANES] += u * z;
        if (dw)
            dw[i] += dy[i] * z, db[i] += dy[i];
    }
    m1 = simd_fold(one) / (float)a->dim;
    m2 = simd_fold(two) / (float)a->dim;
    for (int64_t i = 0; i < a->dim; i++) {
        float z = (x[i] - mean) * rstd, g = rstd * (a->w[i] * dy[i] - m1 - z * m2);

        dx[i] = a->overwrite ? g : dx[i] + g;
    }
}

static void back_group(void *ctx, int64_t task, int thread)
{
    const struct back_job *job = ctx;
    const struct op_layernorm_back *a = job->a;
    float *dw = job->partial ? job->partial + task * 2 * a->dim : NULL;
    int64_t end = min_i64((task + 1) * job->group_rows, a->rows);

    (void)thread;
    if (dw)
        memset(dw, 0, (size_t)(2 * a->dim) * sizeof *dw);
    for (int64_t r = task * job->group_rows; r < end; r++)
        back_row(a, r, dw, dw ? dw + a->dim : NULL);
}

int cpu_layernorm_back(struct device *d, const struct op_layernorm_back *a)
{
    struct cpu *c = cpu_of(d);
    struct back_job job = { a, NULL, max_i64(ceil_div(a->rows, GROUPS), GROUP_ROWS) };
    int64_t groups = ceil_div(a->rows, job.group_rows);

    if (a->dw || a->db) {
        if (cpu_shared(c, (size_t)groups * 2 * (size_t)a->dim * sizeof *job.partial) < 0)
            return E_SYS;
        job.partial = (float *)c->shared;
    }
    pool_run(c->pool, groups, back_group, &job);
    for (int64_t i = 0; job.partial && i < a->dim; i++) {
        double dw = 0, db = 0;

        for (int64_t g = 0; g < groups; g++) {
            dw += job.partial[2 * g * a->dim + i];
            db += job.partial[(2 * g + 1) * a->dim + i];
        }
        if (a->dw)
            a->dw[i] += (float)dw;
        if (a->db)
            a->db[i] += (float)db;
    }
    return 0;
}
