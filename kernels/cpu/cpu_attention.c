/* kernels/cpu/cpu_attention.c - causal attention inside segments: the forward. */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/simd.h"

#include <limits.h>
#include <math.h>

/*
 * For each tile of queries the keys are met tile by tile with a running maximum m and sum l
 * (online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867; tiled as in Dao 2022,
 * arXiv:2205.14135): memory is two tiles a thread, whatever the number of rows. The products
 * are BLAS's. KEYS is a multiple of QUERIES, so that every tile of keys starts at or before
 * the first query.
 */
enum { QUERIES = 128, KEYS = 512 };

struct job {
    struct cpu *c;
    const struct op_attention *a;
    int64_t blocks;
};

/* One tile of queries against its segment. */
struct tile {
    float *s;   /* [QUERIES][KEYS] scores, then weights */
    float *acc; /* [QUERIES][dim] weighted sum of values, times l */
    float m[QUERIES], l[QUERIES];
};

static int segments_ok(const struct op_segments *s, int64_t rows)
{
    if (s->n < 1 || s->cu[0] != 0 || s->cu[s->n] != rows)
        return E_BUG;
    for (int64_t i = 0; i < s->n; i++)
        if (s->cu[i] > s->cu[i + 1])
            return E_BUG;
    return 0;
}

int attention_check(const struct op_attention *a)
{
    if (a->rows < 1 || a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads ||
        a->dim < 1 || a->dim > 1024 || a->q_ld > INT_MAX || a->kv_ld > INT_MAX ||
        a->q_ld < a->heads * a->dim || a->kv_ld < a->kv_heads * a->dim)
        return E_BUG;
    return segments_ok(&a->seg[0], a->rows) < 0 ? E_BUG : segments_ok(&a->seg[1], a->rows);
}

double attention_pairs(const struct op_attention *a)
{
    double pairs[2] = { 0, 0 };

    for (int half = 0; half < 2; half++)
        for (int64_t i = 0; i < a->seg[half].n; i++) {
            double n = (double)(a->seg[half].cu[i + 1] - a->seg[half].cu[i]);
            pairs[half] += n * (n + 1) / 2;
        }
    return pairs[0] * (double)(a->heads / 2) + pairs[1] * (double)(a->heads - a->heads / 2);
}

SIMD_INLINE float maximum(const float *x, int64_t n, float floor)
{
    float lane[SIMD_LANES];
    int64_t i = 0;

    for (int l = 0; l < SIMD_LANES; l++)
        lane[l] = floor;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (int l = 0; i < n; i++, l++)
        lane[l] = x[i] > lane[l] ? x[i] : lane[l];
    for (int w = SIMD_LANES / 2; w > 0; w /= 2)
        for (int l = 0; l < w; l++)
            lane[l] = lane[l + w] > lane[l] ? lane[l + w] : lane[l];
    return lane[0];
}

/* x = exp(x - max); returns the sum. */
SIMD_INLINE float exp_sum(float *x, int64_t n, float max)
{
    float lane[SIMD_LANES] = { 0 };
    int64_t i = 0;

    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++) {
            x[i + l] = simd_exp(x[i + l] - max);
            lane[l] += x[i + l];
        }
    for (int l = 0; i < n; i++, l++)
        lane[l] += x[i] = simd_exp(x[i] - max);
    return simd_fold(lane);
}

/* Scores of queries q against keys k to weights; what was gathered so far is rescaled. */
SIMD_FN(void, soften, (struct tile *t, struct rows q, struct rows k, int64_t dim, bool first),
        (t, q, k, dim, first))
{
    for (int64_t i = 0; i < rows_n(q); i++) {
        float *s = t->s + i * KEYS, *acc = t->acc + i * dim;
        int64_t seen = min_i64(q.first + i + 1, k.end) - k.first;
        float max = maximum(s, seen, first ? s[0] : t->m[i]);
        float keep = first ? 0.0f : simd_exp(t->m[i] - max);
        t->m[i] = max;
        t->l[i] = (first ? 0.0f : t->l[i] * keep) + exp_sum(s, seen, max);
        for (int64_t j = seen; j < rows_n(k); j++)
            s[j] = 0.0f;
        if (!first && keep != 1.0f)
            for (int64_t j = 0; j < dim; j++)
                acc[j] *= keep;
    }
}

SIMD_FN(void, finish, (const struct tile *t, int64_t rows, int64_t dim, float *o, int64_t ld),
        (t, rows, dim, o, ld))
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < dim; j++)
            o[i * ld + j] = t->acc[i * dim + j] / t->l[i];
}

static void attend(const struct job *job, int thread, int64_t head, struct rows q,
                   int64_t start)
{
    const struct op_attention *a = job->a;
    int64_t shared = head / (a->heads / a->kv_heads), dim = a->dim;
    const float *qp = (const float *)a->q + q.first * a->q_ld + head * dim;
    struct tile *t = cpu_scratch_of(job->c, thread);
    struct rows k;

    t->s = (float *)(t + 1);
    t->acc = t->s + QUERIES * KEYS;
    for (int64_t at = start; at < q.end; at = k.end) {
        k = rows_tile(at, KEYS, q.end);
        cpu_sgemm(job->c, thread, false, true, rows_n(q), rows_n(k), dim, a->scale, qp, a->q_ld,
                  (const float *)a->k + at * a->kv_ld + shared * dim, a->kv_ld, 0, t->s, KEYS);
        soften(t, q, k, dim, at == start);
        cpu_sgemm(job->c, thread, false, false, rows_n(q), dim, rows_n(k), 1, t->s, KEYS,
                  (const float *)a->v + at * a->kv_ld + shared * dim, a->kv_ld, at != start,
                  t->acc, dim);
    }
    finish(t, rows_n(q), dim, (float *)a->o + q.first * a->q_ld + head * dim, a->q_ld);
    for (int64_t i = 0; i < rows_n(q); i++)
        a->lse[head * a->rows + q.first + i] = t->m[i] + logf(t->l[i]);
}

/* One task: a head's queries between two cuts, which may lie in several segments. Late blocks,
 * which see most, come first. */
static void task(void *ctx, int64_t number, int thread)
{
    const struct job *job = ctx;
    const struct op_attention *a = job->a;
    int64_t head = number % a->heads, block = job->blocks - 1 - number / a->heads;
    int64_t at = block * QUERIES, end = min_i64(at + QUERIES, a->rows);

    while (at < end) {
        struct rows s = attention_segment(&a->seg[attention_half(a, head)], at);
        struct rows q = { at, min_i64(end, s.end) };
        attend(job, thread, head, q, s.first);
        at = q.end;
    }
}

int cpu_attention(struct device *d, const struct op_attention *a)
{
    struct job job = { cpu_of(d), a, ceil_div(a->rows, QUERIES) };

    if (a->rows == 0)
        return 0;
    if (attention_check(a) < 0)
        return E_BUG;
    if (cpu_scratch(job.c, sizeof(struct tile) +
                               (size_t)(QUERIES * (KEYS + a->dim)) * sizeof(float)) < 0)
        return E_SYS;
    pool_run(job.c->pool, job.blocks * a->heads, task, &job);
    cpu_account(d, 4.0 * (double)a->dim * attention_pairs(a));
    return 0;
}
