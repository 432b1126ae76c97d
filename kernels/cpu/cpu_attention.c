/* kernels/cpu/cpu_attention.c - causal attention inside segments: the forward. */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/*
 * The scores of all queries and keys would be a matrix of rows x rows. Instead a thread takes 128
 * queries of one head and goes through the keys that they see, 512 at a time (tiles as in Dao
 * 2022, arXiv:2205.14135). Softmax needs the largest score and the sum over all keys; both are kept
 * as running values m and l, and what was added up is scaled down when a larger score appears
 * (online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867). With scores 1 | 3 in two tiles:
 *
 *     after tile 1   m 1   l 1           acc = v1
 *     after tile 2   m 3   l e^-2 + 1    acc = e^-2 v1 + v2        o = acc / l
 *
 * So memory is two tiles a thread, for any number of rows. The products are BLAS's. Keys that no
 * query of the tile sees are skipped; where only some queries see a key, its weight is 0 in the
 * others' rows.
 */
enum { QUERIES = 128, KEYS = 512 };

struct forward_job {
    struct cpu *c;
    const struct op_attention *a;
    int64_t blocks;
};

/* One tile of queries against its segment. */
struct tile {
    float *s;   /* [QUERIES][KEYS] scores, then weights */
    float *acc; /* [QUERIES][dim] weighted sum of values, times l */
    float *room; /* [KEYS][dim] keys, then values, of a cache; else not there */
    float m[QUERIES], l[QUERIES]; /* l < 0: nothing seen so far */
};

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
SIMD_FN(void, soften, (struct tile *t, const struct band *b, struct rows q, struct rows k,
        int64_t dim, float cap),
        (t, b, q, k, dim, cap))
{
    for (int64_t i = 0; i < rows_n(q); i++) {
        float *s = t->s + i * KEYS, *acc = t->acc + i * dim, max, keep;
        struct rows seen = band_seen(b, (struct rows){ q.first + i, q.first + i + 1 });
        int64_t from = max_i64(seen.first, k.first) - k.first;
        int64_t to = min_i64(seen.end, k.end) - k.first;
        bool fresh = t->l[i] < 0;

        for (int64_t j = 0; j < min_i64(from, rows_n(k)); j++)
            s[j] = 0.0f;
        for (int64_t j = max_i64(to, 0); j < rows_n(k); j++)
            s[j] = 0.0f;
        if (from >= to)
            continue;
        SIMD_LOOP
        for (int64_t j = from; j < to && cap > 0; j++)
            s[j] = cap * simd_tanh(s[j] / cap);
        max = maximum(s + from, to - from, fresh ? s[from] : t->m[i]);
        keep = fresh ? 0.0f : simd_exp(t->m[i] - max);
        t->m[i] = max;
        t->l[i] = (fresh ? 0.0f : t->l[i] * keep) + exp_sum(s + from, to - from, max);
        if (!fresh && keep != 1.0f)
            for (int64_t j = 0; j < dim; j++)
                acc[j] *= keep;
    }
}

SIMD_FN(void, finish, (const struct tile *t, int64_t rows, int64_t dim, float *o, int64_t
        ld, float *lse),
        (t, rows, dim, o, ld, lse))
{
    for (int64_t i = 0; i < rows; i++) {
        bool blind = t->l[i] < 0;
        float l = t->l[i];

        for (int64_t j = 0; j < dim; j++)
            o[i * ld + j] = blind ? 0.0f : t->acc[i * dim + j] / l;
        lse[i] = blind ? -INFINITY : t->m[i] + logf(l);
    }
}

static void attend(const struct forward_job *job, int thread, int64_t head, const struct band *b,
                   struct rows q)
{
    const struct op_attention *a = job->a;
    int64_t shared = head / (a->heads / a->kv_heads), dim = a->dim, ld;
    const float *p, *qp = (const float *)a->q + q.first * a->q_ld + head * dim;
    struct tile *t = cpu_scratch_of(job->c, thread);
    struct rows seen = band_seen(b, q), k;

    t->s = (float *)(t + 1);
    t->acc = t->s + QUERIES * KEYS;
    t->room = t->acc + QUERIES * dim;
    for (int64_t i = 0; i < rows_n(q); i++)
        t->l[i] = -1.0f;
    for (int64_t at = seen.first; at < seen.end; at = k.end) {
        k = rows_tile(at, KEYS, seen.end);
        p = cpu_keys(a, at, rows_n(k), shared, t->room, &ld);
        cpu_sgemm(job->c, thread, false, true, rows_n(q), rows_n(k), dim, a->scale, qp, a->q_ld, p,
                  ld, 0, t->s, KEYS);
        soften(t, b, q, k, dim, a->cap);
        p = cpu_values(a, at, rows_n(k), shared, t->room, &ld);
        cpu_sgemm(job->c, thread, false, false, rows_n(q), dim, rows_n(k), 1, t->s, KEYS, p, ld,
                  at != seen.first, t->acc, dim);
    }
    finish(t, rows_n(q), dim, (float *)a->o + q.first * a->q_ld + head * dim, a->q_ld,
           a->lse + head * a->q_rows + q.first);
}

/* One task: a head's queries between two cuts, which may lie in several segments. Late blocks,
 * which see most, come first. */
static void task(void *ctx, int64_t number, int thread)
{
    const struct forward_job *job = ctx;
    const struct op_attention *a = job->a;
    int64_t head = number % a->heads, block = job->blocks - 1 - number / a->heads;
    int64_t at = block * QUERIES, end = min_i64(at + QUERIES, a->q_rows);
    const struct op_segments *list = &a->seg[attention_half(a, head)];

    while (at < end) {
        struct band b = band_of(a, list, segment_at(list->cu, list->n, at));
        struct rows q = { at, min_i64(end, b.q.end) };
        attend(job, thread, head, &b, q);
        at = q.end;
    }
}

int cpu_attention(struct device *d, const struct op_attention *a)
{
    struct forward_job job = { cpu_of(d), a, ceil_div(a->q_rows, QUERIES) };
    int64_t room = a->kv_type == KV_ACT ? 0 : KEYS * a->dim;

    if (a->q_rows == 0)
        return 0;
    if (attention_check(a) < 0)
        return E_BUG;
    if (cpu_attention_is_few(a))
        return cpu_attention_few(job.c, a);
    if (cpu_scratch(job.c, sizeof(struct tile) +
                               (size_t)(QUERIES * (KEYS + a->dim) + room) * sizeof(float)) < 0)
        return E_SYS;
    pool_run(job.c->pool, job.blocks * a->heads, task, &job);
    cpu_account(d, 4.0 * (double)a->dim * attention_pairs(a));
    return 0;
}
