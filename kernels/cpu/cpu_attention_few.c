/* kernels/cpu/cpu_attention_few.c - attention of a few queries over long caches. */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/simd.h"

#include <math.h>
#include <stdlib.h>

/*
 * One new token has one query a head, and what takes time is reading the keys and values. So a task
 * is a key head and a block of KEYS keys, read once for all query heads that share it (as
 * Flash-Decoding, Dao et al. 2023, cuts the keys of one query): it leaves, for each query, the
 * largest score m, the sum l of the weights and the weighted sum of values. Then the blocks of a
 * query are put together. With scores 1 | 3 in two blocks:
 *
 *     block 1   m 1  l 1  acc v1        together   m 3   l e^-2 + 1   acc e^-2 v1 + v2
 *     block 2   m 3  l 1  acc v2
 *
 * Blocks are cut at fixed places of a segment's keys, so the bits do not depend on the threads.
 */
enum { MOST_QUERIES = 4, KEYS = 512, TILE = 64 };

struct part {
    float m, l; /* and dim floats after them; l < 0: saw nothing */
};

struct few {
    struct cpu *c;
    const struct op_attention *a;
    const struct op_segments *s;
    int64_t share;    /* query heads of a key head */
    int64_t *first;   /* [s->n + 1] tasks before a segment's */
    float *parts;     /* [tasks][queries of the segment * share][2 + dim]; a segment's at at[s] */
    int64_t *at;      /* [s->n + 1] */
};

static int64_t queries_of(const struct op_segments *s, int64_t i) { return s->cu[i + 1] - s->cu[i]; }

bool cpu_attention_is_few(const struct op_attention *a)
{
    const struct op_segments *s = &a->seg[0];

    if (s->cu != a->seg[1].cu || s->kv != a->seg[1].kv || s->first != a->seg[1].first ||
        s->n != a->seg[1].n || !s->kv)
        return false;
    for (int64_t i = 0; i < s->n; i++)
        if (queries_of(s, i) > MOST_QUERIES)
            return false;
    return true;
}

/* The keys that any query of segment i sees. */
static struct rows seen_by(const struct few *f, int64_t i)
{
    struct band b = band_of(f->a, f->s, i);

    return band_seen(&b, b.q);
}

static int64_t blocks_of(struct rows seen)
{
    return rows_n(seen) > 0 ? ceil_div(rows_n(seen), KEYS) : 0;
}

/* A tile of scores: those of one query to weights, and what it gathered before rescaled. */
SIMD_FN(void, add_tile, (float *part, float *s, const float *v, int64_t ld, int64_t n, int64_t dim),
        (part, s, v, ld, n, dim))
{
    struct part *p = (struct part *)(void *)part;
    float *acc = part + 2, m = s[0], sum = 0, keep;

    for (int64_t j = 1; j < n; j++)
        m = s[j] > m ? s[j] : m;
    m = p->l >= 0 && p->m > m ? p->m : m;
    keep = p->l >= 0 ? simd_exp(p->m - m) : 0.0f;
    SIMD_LOOP
    for (int64_t j = 0; j < n; j++)
        s[j] = simd_exp(s[j] - m);
    for (int64_t j = 0; j < n; j++)
        sum += s[j];
    p->l = (p->l >= 0 ? p->l * keep : 0.0f) + sum;
    p->m = m;
    SIMD_LOOP
    for (int64_t i = 0; i < dim; i++)
        acc[i] *= keep;
    for (int64_t j = 0; j < n; j++) {
        const float *row = v + j * ld;
        float w = s[j];
        SIMD_LOOP
        for (int64_t i = 0; i < dim; i++)
            acc[i] += w * row[i];
    }
}

SIMD_FN(void, score_tile,
        (const struct op_attention *a, const float *q, const float *k, int64_t ld, int64_t n, float *s),
        (a, q, k, ld, n, s))
{
    float cap = a->cap;

    for (int64_t j = 0; j < n; j++)
        s[j] = a->scale * simd_dot(q, k + j * ld, a->dim);
    for (int64_t j = 0; j < n && cap > 0; j++)
        s[j] = cap * simd_tanh(s[j] / cap);
}

/* One key head's keys k for all queries of segment i. */
static void attend(const struct few *f, int64_t i, int64_t head, struct rows k, float *parts,
                   float *room)
{
    const struct op_attention *a = f->a;
    struct band b = band_of(a, f->s, i);
    int64_t queries = rows_n(b.q), ld_k, ld_v;
    float s[TILE];

    for (int64_t p = 0; p < queries * f->share; p++) {
        memset(parts + p * (2 + a->dim), 0, (size_t)(2 + a->dim) * sizeof *parts);
        ((struct part *)(void *)(parts + p * (2 + a->dim)))->l = -1;
    }
    for (int64_t at = k.first; at < k.end; at += TILE) {
        int64_t n = min_i64(TILE, k.end - at);
        const float *kp = cpu_keys(a, at, n, head, room, &ld_k);
        const float *vp = cpu_values(a, at, n, head, room + TILE * a->dim, &ld_v);

        for (int64_t q = 0; q < queries; q++) {
            struct rows sees = band_seen(&b, (struct rows){ b.q.first + q, b.q.first + q + 1 });
            int64_t from = max_i64(sees.first, at) - at, to = min_i64(sees.end, at + n) - at;

            for (int64_t h = 0; h < f->share && from < to; h++) {
                const float *qp = (const float *)a->q + (b.q.first + q) * a->q_ld +
                                  (head * f->share + h) * a->dim;

                score_tile(a, qp, kp + from * ld_k, ld_k, to - from, s);
                add_tile(parts + (q * f->share + h) * (2 + a->dim), s, vp + from * ld_v, ld_v,
                         to - from, a->dim);
            }
        }
    }
}

/* A task: segment, block of its keys, key head. */
static void task(void *ctx, int64_t number, int thread)
{
    const struct few *f = ctx;
    int64_t i = segment_at(f->first, f->s->n, number), heads = f->a->kv_heads;
    int64_t block = (number - f->first[i]) / heads, head = (number - f->first[i]) % heads;
    int64_t each = queries_of(f->s, i) * f->share * (2 + f->a->dim);
    struct rows seen = seen_by(f, i), k;

    k.first = seen.first + block * KEYS;
    k.end = min_i64(k.first + KEYS, seen.end);
    attend(f, i, head, k, f->parts + f->at[i] + (head * blocks_of(seen) + block) * each,
           cpu_scratch_of(f->c, thread));
}

/* The blocks of one query and head of segment i. */
static void together(const struct few *f, int64_t i, int64_t q, int64_t h)
{
    const struct op_attention *a = f->a;
    int64_t width = 2 + a->dim, queries = queries_of(f->s, i), blocks = blocks_of(seen_by(f, i));
    int64_t each = queries * f->share * width, row = f->s->cu[i] + q;
    const float *parts = f->parts + f->at[i] + h / f->share * blocks * each +
                         (q * f->share + h % f->share) * width;
    float *o = (float *)a->o + row * a->q_ld + h * a->dim, m = -INFINITY, l = 0;

    for (int64_t k = 0; k < blocks; k++)
        if (parts[k * each + 1] >= 0 && parts[k * each] > m)
            m = parts[k * each];
    memset(o, 0, (size_t)a->dim * sizeof *o);
    for (int64_t k = 0; k < blocks; k++) {
        const float *p = parts + k * each;
        float w = p[1] >= 0 ? expf(p[0] - m) : 0;

        if (w == 0)
            continue;
        l += w * p[1];
        for (int64_t j = 0; j < a->dim; j++)
            o[j] += w * p[2 + j];
    }
    for (int64_t j = 0; j < a->dim && l > 0; j++)
        o[j] /= l;
    a->lse[h * a->q_rows + row] = l > 0 ? m + logf(l) : -INFINITY;
}

static void merge(void *ctx, int64_t i, int thread)
{
    const struct few *f = ctx;

    (void)thread;
    for (int64_t q = 0; q < queries_of(f->s, i); q++)
        for (int64_t h = 0; h < f->a->heads; h++)
            together(f, i, q, h);
}

/* Counts tasks and parts of every segment. */
static void count(struct few *f)
{
    int64_t tasks = 0, at = 0;

    for (int64_t i = 0; i < f->s->n; i++) {
        int64_t queries = queries_of(f->s, i), n = queries ? blocks_of(seen_by(f, i)) : 0;

        f->first[i] = tasks;
        f->at[i] = at;
        tasks += n * f->a->kv_heads;
        at += n * f->a->heads * queries * (2 + f->a->dim);
    }
    f->first[f->s->n] = tasks;
    f->at[f->s->n] = at;
}

int cpu_attention_few(struct cpu *c, const struct op_attention *a)
{
    struct few f = { .c = c, .a = a, .s = &a->seg[0], .share = a->heads / a->kv_heads };
    int64_t n = f.s->n;
    int rc = E_SYS;

    f.first = malloc((size_t)(2 * n + 2) * sizeof *f.first);
    if (!f.first)
        return E_SYS;
    f.at = f.first + n + 1;
    count(&f);
    if (cpu_shared(c, (size_t)f.at[n] * sizeof(float) + 1) == 0 &&
        cpu_scratch(c, (size_t)(2 * TILE * a->dim) * sizeof(float)) == 0) {
        f.parts = (float *)(void *)c->shared;
        pool_run(c->pool, f.first[n], task, &f);
        pool_run(c->pool, n, merge, &f);
        rc = 0;
    }
    free(f.first);
    return rc;
}
