/* kernels/cpu/cpu_loss.c - linear layer and cross-entropy in chunks of rows. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/* A row has as many logits as the vocabulary has tokens, so they exist for one chunk of rows
 * at a time. A product writes them, score_rows turns them into their gradient in place, and two
 * more products read that. */
enum { ELEMENTS_A_TASK = 1 << 15 };

struct rows_job {
    const struct op_loss *a;
    float *logits; /* [rows of this chunk][vocab] */
    int64_t first;
};

/* The largest of n values; lanes of the loop become one vector instruction. */
SIMD_FN(float, maximum, (const float *x, int64_t n), (x, n))
{
    float lane[SIMD_LANES], max = x[0];
    int64_t i = 0;

    for (int l = 0; l < SIMD_LANES; l++)
        lane[l] = x[0];
    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int l = 0; l < SIMD_LANES; l++)
        max = lane[l] > max ? lane[l] : max;
    return max;
}

/* x becomes exp(x - max); returns the sum: lanes in float32, blocks of them in float64. */
SIMD_FN(double, exp_sum, (float *x, int64_t n, float max), (x, n, max))
{
    double sum = 0;

    for (int64_t at = 0; at < n; at += 2048) {
        int64_t end = min_i64(at + 2048, n), i = at;
        float lane[SIMD_LANES] = { 0 };
        for (; i + SIMD_LANES <= end; i += SIMD_LANES)
            for (int l = 0; l < SIMD_LANES; l++) {
                x[i + l] = simd_exp(x[i + l] - max);
                lane[l] += x[i + l];
            }
        /* the rest goes to the first lanes, one value each */
        for (int l = 0; i < end; i++, l++)
            lane[l] += x[i] = simd_exp(x[i] - max);
        sum += (double)simd_fold(lane);
    }
    return sum;
}

SIMD_FN(void, scale, (float *x, int64_t n, float by), (x, n, by))
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= by;
}

SIMD_FN(void, cap_all, (float *x, int64_t n, float cap), (x, n, cap))
{
    for (int64_t i = 0; i < n; i++)
        x[i] = cap * simd_tanh(x[i] / cap);
}

/* Capped logits to the gradients of those before the cap, whose slope is 1 - tanh^2, but for the target's
 * own share. */
SIMD_FN(void, uncap, (float *x, int64_t n, float max, float by, float cap), (x, n, max, by, cap))
{
    for (int64_t i = 0; i < n; i++) {
        float t = x[i] / cap;

        x[i] = by * simd_exp(x[i] - max) * (1.0f - t * t);
    }
}

/* The sum of exp(x - max), of x that stay. */
SIMD_FN(double, sum_exp, (const float *x, int64_t n, float max), (x, n, max))
{
    double sum = 0;

    for (int64_t at = 0; at < n; at += 2048) {
        int64_t end = min_i64(at + 2048, n), i = at;
        float lane[SIMD_LANES] = { 0 };
        for (; i + SIMD_LANES <= end; i += SIMD_LANES)
            for (int l = 0; l < SIMD_LANES; l++)
                lane[l] += simd_exp(x[i + l] - max);
        for (int l = 0; i < end; i++, l++)
            lane[l] += simd_exp(x[i] - max);
        sum += (double)simd_fold(lane);
    }
    return sum;
}

/* The same as below of logits that are capped. */
static void score_capped(const struct op_loss *a, float *x, int32_t target, float *nll)
{
    float max, logit, slope;
    double sum;

    cap_all(x, a->vocab, a->cap);
    max = maximum(x, a->vocab);
    logit = x[target];
    slope = 1.0f - logit / a->cap * (logit / a->cap);
    sum = sum_exp(x, a->vocab, max);
    *nll = (float)(log(sum) + (double)max - (double)logit);
    if (!a->dh)
        return;
    uncap(x, a->vocab, max, (float)((double)a->grad_scale / sum), a->cap);
    x[target] -= a->grad_scale * slope;
}

/* Logits to nll, and to the gradient of grad_scale * nll where one is asked for. */
static void score_rows(const void *op, int64_t lo, int64_t hi)
{
    const struct rows_job *job = op;
    const struct op_loss *a = job->a;

    for (int64_t r = lo; r < hi; r++) {
        float *x = job->logits + r * a->vocab, max, logit;
        int32_t target = a->targets[job->first + r];
        double sum;
        /* a row without a target counts nothing: its loss and its gradient are 0 */
        if (target < 0) {
            a->nll[job->first + r] = 0.0f;
            if (a->dh)
                memset(x, 0, (size_t)a->vocab * sizeof *x);
            continue;
        }
        if (a->cap > 0) {
            score_capped(a, x, target, &a->nll[job->first + r]);
            continue;
        }
        max = maximum(x, a->vocab);
        logit = x[target];
        sum = exp_sum(x, a->vocab, max);
        /* -log softmax(x)[target] = log(sum of exp(x - max)) + max - x[target] */
        a->nll[job->first + r] = (float)(log(sum) + (double)max - (double)logit);
        /* the gradient is grad_scale * (softmax(x) - 1 at the target); x holds exp(x - max) */
        if (a->dh) {
            scale(x, a->vocab, (float)((double)a->grad_scale / sum));
            x[target] -= a->grad_scale;
        }
    }
}

static bool none_scored(const int32_t *targets, int64_t n)
{
    for (int64_t r = 0; r < n; r++)
        if (targets[r] >= 0)
            return false;
    return true;
}

/* Rows [first, first + n): their losses, dh, and what they add to the gradient of the head. */
static int chunk(struct device *d, const struct op_loss *a, int64_t first, int64_t n)
{
    struct rows_job job = { a, a->scratch, first };
    const float *h = (const float *)a->h + first * a->dim;
    float *dh = a->dh ? (float *)a->dh + first * a->dim : NULL;
    struct op_gemm logits = { false, true, n, a->vocab, a->dim, 1, 0, h, a->w, job.logits,
                              a->dim, a->dim, a->vocab, DT_F32, NULL, a->varies, NULL };
    struct op_gemm back_h = { false, false, n, a->dim, a->vocab, 1, 0, job.logits, a->w, dh,
                              a->vocab, a->dim, a->dim, DT_F32, NULL, a->varies, NULL };
    struct op_gemm back_w = { true, false, a->vocab, a->dim, n, 1, 1, job.logits,
                              mat_plain(DT_F32, h), a->dw, a->vocab, a->dim, a->dim, DT_F32,
                              NULL, false, NULL };
    int rc;

    /* nothing to learn here, as in a long prompt: three products are saved */
    if (none_scored(a->targets + first, n)) {
        memset(a->nll + first, 0, (size_t)n * sizeof *a->nll);
        if (dh)
            memset(dh, 0, (size_t)(n * a->dim) * sizeof *dh);
        return 0;
    }
    rc = cpu_gemm(d, &logits);
    if (rc == 0)
        cpu_ranges(cpu_of(d), n, ELEMENTS_A_TASK / a->vocab, score_rows, &job);
    if (rc == 0 && dh)
        rc = cpu_gemm(d, &back_h);
    if (rc == 0 && dh && a->dw)
        rc = cpu_gemm(d, &back_w);
    return rc;
}

size_t cpu_loss_scratch_bytes(const struct device *d, int64_t rows, int64_t vocab)
{
    (void)d;
    return (size_t)rows * (size_t)vocab * sizeof(float);
}

int cpu_loss(struct device *d, const struct op_loss *a)
{
    int rc = 0;

    if (a->chunk < 1 || a->vocab < 1 || a->dim < 1)
        return E_BUG;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->targets[r] < -1 || a->targets[r] >= a->vocab)
            return E_BUG;
    for (int64_t r = 0; r < a->rows && rc == 0; r += a->chunk)
        rc = chunk(d, a, r, min_i64(a->chunk, a->rows - r));
    return rc;
}
