/* kernels/cpu/cpu_attention_back.c - causal attention inside segments: the backward. */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/simd.h"

#include <string.h>

/*
 * For a tile of queries i and one of keys j, with P = exp(scale q k^T - lse) recomputed and
 * D = sum(do * o):  dv_j += P^T do,  dS = P * (do v^T - D) * scale,  dk_j += dS^T q,
 * dq_i += dS k  (Dao 2022, arXiv:2205.14135, algorithm 4). Scores that are capped are so before exp, and
 * dS is multiplied by the cap's slope, 1 - tanh^2.
 *
 * Two orders, chosen by how many tasks there are for the threads, give the same bits, since
 * dq_i meets its keys in rising order and dk_j, dv_j meet heads, then queries, in rising order:
 *   one pass    a task is a key/value head and a run of keys that no segment crosses: five
 *               products a pair of tiles;
 *   two passes  dq by tiles of queries, then dk and dv by tiles of keys: seven products, but
 *               as many tasks as there are tiles.
 */
enum { TILE = 128 };
enum part { PART_DQ = 1, PART_DKV = 2 };

/* Cuts of the rows of keys; n runs. */
struct cuts {
    int64_t n;
    const int64_t *at;
};
struct back_job {
    struct cpu *c;
    const struct op_attention_back *b;
    int64_t group;    /* query heads a key/value head */
    struct cuts both; /* where both halves' lists cut the keys */
    bool blind;       /* some query sees nothing */
};

/* The list of segments of the half that a head is in. */
static const struct op_segments *segments_of(const struct back_job *job, int64_t head)
{
    return &job->b->fwd.seg[attention_half(&job->b->fwd, head)];
}
/* The segment that has a row of queries, or of keys. */
static struct band band_of_query(const struct back_job *job, int64_t head, int64_t row)
{
    const struct op_segments *s = segments_of(job, head);

    return band_of(&job->b->fwd, s, segment_at(s->cu, s->n, row));
}
static struct band band_of_key(const struct back_job *job, int64_t head, int64_t row)
{
    const struct op_segments *s = segments_of(job, head);

    return band_of(&job->b->fwd, s, segment_at(segments_keys(s), s->n, row));
}

/* rows of [..][ld], one head's channels. */
static void clear(void *x, struct rows r, int64_t ld, int64_t head, int64_t dim)
{
    for (int64_t i = r.first; i < r.end; i++)
        memset((float *)x + i * ld + head * dim, 0, (size_t)dim * sizeof(float));
}

/* dq of the queries that see nothing, which no tile of keys comes to. */
static void clear_blind(const struct back_job *job, int64_t head, struct rows row)
{
    const struct op_attention *a = &job->b->fwd;
    struct band b = band_of_query(job, head, row.first);

    if (rows_n(band_seen(&b, row)) == 0)
        clear(job->b->dq, row, a->q_ld, head, a->dim);
}

/* D, by rows. */
SIMD_FN(void, row_sums, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct back_job *job = op;
    const struct op_attention_back *b = job->b;
    const struct op_attention *a = &b->fwd;

    for (int64_t r = lo; r < hi; r++)
        for (int64_t h = 0; h < a->heads; h++) {
            b->scratch[h * a->q_rows + r] =
                simd_dot((const float *)b->d_o + r * a->q_ld + h * a->dim,
                         (const float *)a->o + r * a->q_ld + h * a->dim, a->dim);
            if (job->blind)
                clear_blind(job, h, (struct rows){ r, r + 1 });
        }
}

/* n scores p of a query to weights, dp to dS. */
SIMD_INLINE void differentiate_seen(float *restrict p, float *restrict dp, int64_t n, float lse, float sum,
                                    float scale, float cap)
{
    for (int64_t j = 0; j < n; j++) {
        float t = cap > 0 ? simd_tanh(p[j] / cap) : 0.0f, w = simd_exp((cap > 0 ? cap * t : p[j]) - lse);

        p[j] = w;
        dp[j] = w * (dp[j] - sum) * (cap > 0 ? scale * (1.0f - t * t) : scale);
    }
}

/* p: scores to weights. dp: to dS. Keys that the query does not see give 0 in both. */
SIMD_FN(void, differentiate, (float *restrict p, float *restrict dp, const struct band *b,
        struct rows q, struct rows k, const float *lse, const float *sums, float scale, float cap),
        (p, dp, b, q, k, lse, sums, scale, cap))
{
    for (int64_t i = 0; i < rows_n(q); i++, p += TILE, dp += TILE) {
        struct rows seen = band_seen(b, (struct rows){ q.first + i, q.first + i + 1 });
        int64_t from = min_i64(max_i64(seen.first, k.first), k.end) - k.first;
        int64_t to = max_i64(min_i64(seen.end, k.end) - k.first, from);

        for (int64_t j = 0; j < from; j++)
            p[j] = dp[j] = 0.0f;
        if (cap > 0)
            differentiate_seen(p + from, dp + from, to - from, lse[i], sums[i], scale, cap);
        else
            differentiate_seen(p + from, dp + from, to - from, lse[i], sums[i], scale, 0);
        for (int64_t j = to; j < rows_n(k); j++)
            p[j] = dp[j] = 0.0f;
    }
}

/* One head's tile of queries against one tile of keys. fresh: dk and dv have nothing yet. The
 * product of dq takes those keys alone that some of the queries see: others may hold anything. */
static void pair(const struct back_job *job, int thread, int64_t head, const struct band *b,
                 struct rows q, struct rows k, int parts, bool fresh)
{
    const struct op_attention *a = &job->b->fwd;
    int64_t dim = a->dim, nq = rows_n(q), nk = rows_n(k), shared = head / job->group;
    int64_t q_at = q.first * a->q_ld + head * dim, k_at = k.first * a->kv_ld + shared * dim;
    const float *qp = (const float *)a->q + q_at, *kp = (const float *)a->k + k_at;
    const float *d_o = (const float *)job->b->d_o + q_at;
    float *p = cpu_scratch_of(job->c, thread), *ds = p + TILE * TILE, keep = fresh ? 0 : 1;
    struct rows seen = band_seen(b, q);
    int64_t from = max_i64(seen.first, k.first) - k.first;
    int64_t to = min_i64(seen.end, k.end) - k.first;

    cpu_sgemm(job->c, thread, false, true, nq, nk, dim, a->scale, qp, a->q_ld, kp, a->kv_ld, 0,
              p, TILE);
    cpu_sgemm(job->c, thread, false, true, nq, nk, dim, 1, d_o, a->q_ld,
              (const float *)a->v + k_at, a->kv_ld, 0, ds, TILE);
    differentiate(p, ds, b, q, k, a->lse + head * a->q_rows + q.first,
                  job->b->scratch + head * a->q_rows + q.first, a->scale, a->cap);
    if (parts & PART_DQ)
        cpu_sgemm(job->c, thread, false, false, nq, dim, to - from, 1, ds + from, TILE,
                  kp + from * a->kv_ld, a->kv_ld, k.first <= seen.first ? 0 : 1,
                  (float *)job->b->dq + q_at, a->q_ld);
    if (parts & PART_DKV) {
        cpu_sgemm(job->c, thread, true, false, nk, dim, nq, 1, p, TILE, d_o, a->q_ld, keep,
                  (float *)job->b->dv + k_at, a->kv_ld);
        cpu_sgemm(job->c, thread, true, false, nk, dim, nq, 1, ds, TILE, qp, a->q_ld, keep,
                  (float *)job->b->dk + k_at, a->kv_ld);
    }
}

/* One tile of keys, whose first row is given, against all queries of a head that see it. Returns
 * its end. */
static int64_t keys(const struct back_job *job, int thread, int64_t head, int64_t first, int64_t end,
                    int parts)
{
    const struct op_attention *a = &job->b->fwd;
    struct band b = band_of_key(job, head, first);
    struct rows k = rows_tile(first, TILE, min_i64(b.k.end, end)), seers = band_seers(&b, k), q;
    bool fresh = head % job->group == 0;

    for (int64_t at = rows_tile_first(seers, TILE, b.q.first); at < seers.end; at = q.end) {
        q = rows_tile(at, TILE, b.q.end);
        pair(job, thread, head, &b, q, k, parts, fresh);
        fresh = false;
    }
    if (fresh) {
        clear(job->b->dk, k, a->kv_ld, head / job->group, a->dim);
        clear(job->b->dv, k, a->kv_ld, head / job->group, a->dim);
    }
    return k.end;
}

/* The runs of keys that the heads of key/value head 'shared' do not cross. */
static struct cuts runs_of(const struct back_job *job, int64_t shared)
{
    const struct op_segments *first = segments_of(job, shared * job->group);

    if (first != segments_of(job, (shared + 1) * job->group - 1))
        return job->both;
    return (struct cuts){ first->n, segments_keys(first) };
}

static void task_one_pass(void *ctx, int64_t number, int thread)
{
    const struct back_job *job = ctx;
    struct cuts runs;
    int64_t shared = 0;

    /* number counts the runs of the first key/value head, then those of the next */
    for (; number >= (runs = runs_of(job, shared)).n; shared++)
        number -= runs.n;
    for (int64_t head = shared * job->group; head < (shared + 1) * job->group; head++)
        for (int64_t at = runs.at[number], end = runs.at[number + 1]; at < end;)
            at = keys(job, thread, head, at, end, PART_DQ | PART_DKV);
}

static void task_dkv(void *ctx, int64_t number, int thread)
{
    const struct back_job *job = ctx;
    const struct op_attention *a = &job->b->fwd;
    /* neighbouring tasks are different heads of the same keys */
    int64_t shared = number % a->kv_heads, first = number / a->kv_heads * TILE;
    int64_t end = min_i64(first + TILE, a->kv_rows);

    for (int64_t head = shared * job->group; head < (shared + 1) * job->group; head++)
        for (int64_t at = first; at < end;)
            at = keys(job, thread, head, at, end, PART_DKV);
}

static void task_dq(void *ctx, int64_t number, int thread)
{
    const struct back_job *job = ctx;
    const struct op_attention *a = &job->b->fwd;
    int64_t head = number % a->heads;
    /* the last queries see most keys, so their tasks start first */
    int64_t block = ceil_div(a->q_rows, TILE) - 1 - number / a->heads;
    int64_t end = min_i64((block + 1) * TILE, a->q_rows);
    struct rows q, k;

    for (int64_t at = block * TILE; at < end; at = q.end) {
        struct band b = band_of_query(job, head, at);
        struct rows seen;
        q = rows_tile(at, TILE, b.q.end);
        seen = band_seen(&b, q);
        for (int64_t j = rows_tile_first(seen, TILE, b.k.first); j < seen.end; j = k.end) {
            k = rows_tile(j, TILE, b.k.end);
            pair(job, thread, head, &b, q, k, PART_DQ, false);
        }
    }
}

/* Cuts that both lists have, into memory that the device keeps. */
static int common_cuts(struct back_job *job)
{
    const struct op_segments *s = job->b->fwd.seg;
    const int64_t *one = segments_keys(&s[0]), *two = segments_keys(&s[1]);
    int64_t *cu, i = 0, j = 0, n = 0;

    if (cpu_shared(job->c, (size_t)(min_i64(s[0].n, s[1].n) + 1) * sizeof *cu) < 0)
        return E_SYS;
    cu = (int64_t *)job->c->shared;
    while (i <= s[0].n && j <= s[1].n) {
        if (one[i] == two[j] && (n == 0 || cu[n - 1] != one[i]))
            cu[n++] = one[i];
        if (one[i] <= two[j])
            i++;
        else
            j++;
    }
    job->both = (struct cuts){ n - 1, cu };
    return 0;
}

size_t cpu_attention_scratch_bytes(const struct device *d, int64_t rows, int64_t heads,
                                   int64_t kv_heads, int64_t dim)
{
    (void)d, (void)kv_heads, (void)dim;
    return (size_t)heads * (size_t)rows * sizeof(float);
}

int cpu_attention_back(struct device *d, const struct op_attention_back *b)
{
    const struct op_attention *a = &b->fwd;
    struct back_job job = { .c = cpu_of(d), .b = b };
    int64_t tasks = 0, threads = job.c->threads;

    if (a->q_rows == 0 && a->kv_rows == 0)
        return 0;
    if (attention_check(a) < 0)
        return E_BUG;
    job.group = a->heads / a->kv_heads;
    job.blind = attention_blind(a);
    if (cpu_scratch(job.c, 2 * TILE * TILE * sizeof(float)) < 0 || common_cuts(&job) < 0)
        return E_SYS;
    cpu_ranges(job.c, a->q_rows, max_i64((1 << 15) / (a->heads * a->dim), 1), row_sums, &job);
    for (int64_t s = 0; s < a->kv_heads; s++)
        tasks += runs_of(&job, s).n;
    /* The longest thread's share of one pass, at 5 products, against 7 shared evenly. */
    if (5 * ceil_div(tasks, threads) * threads <= 7 * tasks) {
        pool_run(job.c->pool, tasks, task_one_pass, &job);
    } else {
        pool_run(job.c->pool, ceil_div(a->q_rows, TILE) * a->heads, task_dq, &job);
        pool_run(job.c->pool, ceil_div(a->kv_rows, TILE) * a->kv_heads, task_dkv, &job);
    }
    cpu_account(d, 10.0 * (double)a->dim * attention_pairs(a));
    return 0;
}
