/* kernels/cpu/cpu_attention_back.c - causal attention inside segments: the backward. */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/simd.h"

/*
 * For a tile of queries i and one of keys j, with P = exp(scale q k^T - lse) recomputed and
 * D = sum(do * o):  dv_j += P^T do,  dS = P * (do v^T - D) * scale,  dk_j += dS^T q,
 * dq_i += dS k  (Dao 2022, arXiv:2205.14135, algorithm 4).
 *
 * Two orders, chosen by how many tasks there are for the threads, give the same bits, since
 * dq_i meets its keys in rising order and dk_j, dv_j meet heads, then queries, in rising order:
 *   one pass    a task is a key/value head and a run of rows that no segment crosses: five
 *               products a pair of tiles;
 *   two passes  dq by tiles of queries, then dk and dv by tiles of keys: seven products, but
 *               as many tasks as there are tiles.
 */
enum { TILE = 128 };
enum part { PART_DQ = 1, PART_DKV = 2 };

struct job {
    struct cpu *c;
    const struct op_attention_back *b;
    int64_t group, blocks;   /* query heads a key/value head; tiles of rows */
    struct op_segments both; /* cut where both halves' lists are */
};

/* D, by rows. */
SIMD_FN(void, row_sums, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_attention_back *b = op;
    const struct op_attention *a = &b->fwd;

    for (int64_t r = lo; r < hi; r++)
        for (int64_t h = 0; h < a->heads; h++)
            b->scratch[h * a->rows + r] =
                simd_dot((const float *)b->d_o + r * a->q_ld + h * a->dim,
                         (const float *)a->o + r * a->q_ld + h * a->dim, a->dim);
}

/* p: scores to weights. dp: to dS. Keys after the query give 0 in both. */
SIMD_FN(void, differentiate,
        (float *restrict p, float *restrict dp, struct rows q, struct rows k, const float *lse,
         const float *sums, float scale),
        (p, dp, q, k, lse, sums, scale))
{
    for (int64_t i = 0; i < rows_n(q); i++, p += TILE, dp += TILE) {
        int64_t seen = min_i64(q.first + i + 1, k.end) - k.first;
        for (int64_t j = 0; j < seen; j++) {
            float w = simd_exp(p[j] - lse[i]);
            p[j] = w;
            dp[j] = w * (dp[j] - sums[i]) * scale;
        }
        for (int64_t j = max_i64(seen, 0); j < rows_n(k); j++)
            p[j] = dp[j] = 0.0f;
    }
}

/* One head's tile of queries against one tile of keys. start: the segment's first row. */
static void pair(const struct job *job, int thread, int64_t head, struct rows q, struct rows k,
                 int64_t start, int parts)
{
    const struct op_attention *a = &job->b->fwd;
    int64_t dim = a->dim, nq = rows_n(q), nk = rows_n(k), shared = head / job->group;
    int64_t q_at = q.first * a->q_ld + head * dim, k_at = k.first * a->kv_ld + shared * dim;
    const float *qp = (const float *)a->q + q_at, *kp = (const float *)a->k + k_at;
    const float *d_o = (const float *)job->b->d_o + q_at;
    float *p = cpu_scratch_of(job->c, thread), *ds = p + TILE * TILE;
    float fresh = head % job->group == 0 && q.first == k.first ? 0.0f : 1.0f;

    cpu_sgemm(job->c, thread, false, true, nq, nk, dim, a->scale, qp, a->q_ld, kp, a->kv_ld, 0,
              p, TILE);
    cpu_sgemm(job->c, thread, false, true, nq, nk, dim, 1, d_o, a->q_ld,
              (const float *)a->v + k_at, a->kv_ld, 0, ds, TILE);
    differentiate(p, ds, q, k, a->lse + head * a->rows + q.first,
                  job->b->scratch + head * a->rows + q.first, a->scale);
    if (parts & PART_DQ)
        cpu_sgemm(job->c, thread, false, false, nq, dim, nk, 1, ds, TILE, kp, a->kv_ld,
                  k.first == start ? 0.0f : 1.0f, (float *)job->b->dq + q_at, a->q_ld);
    if (parts & PART_DKV) {
        cpu_sgemm(job->c, thread, true, false, nk, dim, nq, 1, p, TILE, d_o, a->q_ld, fresh,
                  (float *)job->b->dv + k_at, a->kv_ld);
        cpu_sgemm(job->c, thread, true, false, nk, dim, nq, 1, ds, TILE, qp, a->q_ld, fresh,
                  (float *)job->b->dk + k_at, a->kv_ld);
    }
}

/* All queries of a head that see the keys of one tile. */
static void keys(const struct job *job, int thread, int64_t head, struct rows k,
                 struct rows seg, int parts)
{
    struct rows q;

    for (int64_t at = k.first; at < seg.end; at = q.end) {
        q = rows_tile(at, TILE, seg.end);
        pair(job, thread, head, q, k, seg.first, parts);
    }
}

static const struct op_segments *segments_of(const struct job *job, int64_t head)
{
    return &job->b->fwd.seg[attention_half(&job->b->fwd, head)];
}

/* The runs of rows that the heads of key/value head 'shared' do not cross. */
static const struct op_segments *runs_of(const struct job *job, int64_t shared)
{
    const struct op_segments *first = segments_of(job, shared * job->group);

    return first == segments_of(job, (shared + 1) * job->group - 1) ? first : &job->both;
}

static void task_one_pass(void *ctx, int64_t number, int thread)
{
    const struct job *job = ctx;
    const struct op_segments *runs;
    int64_t shared = 0, end;
    struct rows k;

    while (number >= (runs = runs_of(job, shared))->n) {
        number -= runs->n;
        shared++;
    }
    end = runs->cu[number + 1];
    for (int64_t head = shared * job->group; head < (shared + 1) * job->group; head++)
        for (int64_t at = runs->cu[number]; at < end; at = k.end) {
            struct rows seg = attention_segment(segments_of(job, head), at);
            k = rows_tile(at, TILE, seg.end);
            keys(job, thread, head, k, seg, PART_DQ | PART_DKV);
        }
}

static void task_dkv(void *ctx, int64_t number, int thread)
{
    const struct job *job = ctx;
    const struct op_attention *a = &job->b->fwd;
    int64_t shared = number % a->kv_heads, first = number / a->kv_heads * TILE;
    int64_t end = min_i64(first + TILE, a->rows);
    struct rows k;

    for (int64_t head = shared * job->group; head < (shared + 1) * job->group; head++)
        for (int64_t at = first; at < end; at = k.end) {
            struct rows seg = attention_segment(segments_of(job, head), at);
            k = rows_tile(at, TILE, seg.end);
            keys(job, thread, head, k, seg, PART_DKV);
        }
}

static void task_dq(void *ctx, int64_t number, int thread)
{
    const struct job *job = ctx;
    const struct op_attention *a = &job->b->fwd;
    int64_t head = number % a->heads, block = job->blocks - 1 - number / a->heads;
    int64_t end = min_i64((block + 1) * TILE, a->rows);
    struct rows q, k;

    for (int64_t at = block * TILE; at < end; at = q.end) {
        struct rows seg = attention_segment(segments_of(job, head), at);
        q = rows_tile(at, TILE, seg.end);
        for (int64_t j = seg.first; j < q.end; j = k.end) {
            k = rows_tile(j, TILE, q.end);
            pair(job, thread, head, q, k, seg.first, PART_DQ);
        }
    }
}

/* Cuts that both lists have, into memory that the device keeps. */
static int common_cuts(struct job *job)
{
    const struct op_segments *s = job->b->fwd.seg;
    int64_t *cu, i = 0, j = 0, n = 0;

    if (cpu_shared(job->c, (size_t)(min_i64(s[0].n, s[1].n) + 1) * sizeof *cu) < 0)
        return E_SYS;
    cu = (int64_t *)job->c->shared;
    while (i <= s[0].n && j <= s[1].n) {
        if (s[0].cu[i] == s[1].cu[j] && (n == 0 || cu[n - 1] != s[0].cu[i]))
            cu[n++] = s[0].cu[i];
        if (s[0].cu[i] <= s[1].cu[j])
            i++;
        else
            j++;
    }
    job->both = (struct op_segments){ n - 1, cu };
    return 0;
}

size_t cpu_attention_scratch_bytes(const struct device *d, int64_t rows, int64_t heads,
                                   int64_t dim)
{
    (void)d, (void)dim;
    return (size_t)heads * (size_t)rows * sizeof(float);
}

int cpu_attention_back(struct device *d, const struct op_attention_back *b)
{
    const struct op_attention *a = &b->fwd;
    struct job job = { cpu_of(d), b, 0, ceil_div(a->rows, TILE), { 0, NULL } };
    int64_t tasks = 0, threads = job.c->threads;

    if (a->rows == 0)
        return 0;
    if (attention_check(a) < 0)
        return E_BUG;
    job.group = a->heads / a->kv_heads;
    if (cpu_scratch(job.c, 2 * TILE * TILE * sizeof(float)) < 0 || common_cuts(&job) < 0)
        return E_SYS;
    cpu_ranges(job.c, a->rows, max_i64((1 << 15) / (a->heads * a->dim), 1), row_sums, b);
    for (int64_t s = 0; s < a->kv_heads; s++)
        tasks += runs_of(&job, s)->n;
    /* The longest thread's share of one pass, at 5 products, against 7 shared evenly. */
    if (5 * ceil_div(tasks, threads) * threads <= 7 * tasks) {
        pool_run(job.c->pool, tasks, task_one_pass, &job);
    } else {
        pool_run(job.c->pool, job.blocks * a->heads, task_dq, &job);
        pool_run(job.c->pool, job.blocks * a->kv_heads, task_dkv, &job);
    }
    cpu_account(d, 10.0 * (double)a->dim * attention_pairs(a));
    return 0;
}
