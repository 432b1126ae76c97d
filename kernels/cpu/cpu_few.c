/* kernels/cpu/cpu_few.c - matrix products with few rows, and with matrices of bfloat16. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"
#include "kernels/product.h"

#include <stdlib.h>
#include <string.h>

/*
 * C [m][n] = A [m][k] B^T, B [n][k], of few rows m: what takes time is reading B, and a BLAS that packs it
 * first reads and writes it twice. So a thread takes rows of B, NR at a time, and multiplies them by all
 * rows of A as they come; bfloat16 is widened on the way. NR and m are constants to the compiler, so that
 * sums stay in registers: 8 of them or more are under way at a time, as many as an addition takes cycles.
 * Of 16 bfloat16 the even ones are a shift and the odd ones a mask away from float32, so for those the rows
 * of A are laid out alike before: of each 16 values the even ones, then the odd ones.
 * Each value of C is one sum in an order that depends on k alone. The rows that come next are asked for ahead: a
 * row of 4 KiB is a page, at whose end a processor stops fetching by itself (a fifth less time a token).
 */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpsabi"
#else
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
typedef float floats8 __attribute__((vector_size(32)));
typedef uint32_t words8 __attribute__((vector_size(32)));

enum { TASK_BYTES = 128 << 10, WIDE = 16 };

struct few_job {
    const struct op_gemm *g;
    const float *a; /* A as it is multiplied, rows lda apart */
    int64_t lda;
    int64_t rows; /* of B a task; a multiple of 4 */
};

/* 16 values of B from at on, in the order that A has. */
SIMD_INLINE void load16(const void *p, int64_t at, bool bf16, floats8 *lo, floats8 *hi)
{
    words8 w, even, odd;

    if (!bf16) {
        memcpy(lo, (const float *)p + at, sizeof *lo);
        memcpy(hi, (const float *)p + at + 8, sizeof *hi);
        return;
    }
    memcpy(&w, (const uint16_t *)p + at, sizeof w);
    even = w << 16;
    odd = w & 0xffff0000u;
    memcpy(lo, &even, sizeof even);
    memcpy(hi, &odd, sizeof odd);
}

SIMD_INLINE float value_at(const void *p, int64_t at, bool bf16)
{
    return bf16 ? float_of((uint32_t)((const uint16_t *)p)[at] << 16) : ((const float *)p)[at];
}

SIMD_INLINE float sum8(const floats8 *x, const floats8 *y)
{
    floats8 s = *x + *y;

    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

SIMD_INLINE void put(const struct op_gemm *g, int64_t i, int64_t j, float s)
{
    float *c = (float *)g->c + i * g->ldc + j;
    const float *add = g->addend ? (const float *)g->addend + i * g->ldc + j : c;

    s *= g->alpha;
    *c = g->beta == 0 ? s : s + g->beta * *add;
}

/* Rows [j, j + nr) of B by the m rows of A; nr and m are constants. */
SIMD_INLINE void block(const struct few_job *job, int64_t j, int nr, int m, bool bf16)
{
    const struct op_gemm *g = job->g;
    const size_t each = bf16 ? 2 : 4;
    const char *b = (const char *)g->b.data + (size_t)(j * g->ldb) * each;
    const size_t step = (size_t)g->ldb * each;
    const float *a = g->a; /* the last values of a row are in no 16 */
    floats8 lo[4][8] = { { { 0 } } }, hi[4][8] = { { { 0 } } };
    int64_t at = 0;

    for (; at + WIDE <= g->k; at += WIDE)
        for (int r = 0; r < nr; r++) {
            floats8 w, v, x;
            __builtin_prefetch(b + (size_t)(r + nr) * step + (size_t)at * each, 0, 2);
            load16(b + (size_t)r * step, at, bf16, &w, &v);
            for (int i = 0; i < m; i++) {
                memcpy(&x, job->a + i * job->lda + at, sizeof x);
                lo[r][i] += w * x;
                memcpy(&x, job->a + i * job->lda + at + 8, sizeof x);
                hi[r][i] += v * x;
            }
        }
    for (int r = 0; r < nr; r++)
        for (int i = 0; i < m; i++) {
            float s = sum8(&lo[r][i], &hi[r][i]);
            for (int64_t p = at; p < g->k; p++)
                s += a[i * g->lda + p] * value_at(b + (size_t)r * step, p, bf16);
            put(g, i, j + r, s);
        }
}

/* Rows [j, end) of B. */
SIMD_INLINE void blocks(const struct few_job *job, int64_t j, int64_t end, int nr, int m, bool bf16)
{
    for (; j + nr <= end; j += nr)
        block(job, j, nr, m, bf16);
    for (; j < end; j++)
        block(job, j, 1, m, bf16);
}

SIMD_INLINE void by_rows(const struct few_job *job, int64_t j, int64_t end, bool bf16)
{
    switch (job->g->m) {
    case 1: blocks(job, j, end, 4, 1, bf16); break;
    case 2: blocks(job, j, end, 2, 2, bf16); break;
    case 3: blocks(job, j, end, 2, 3, bf16); break;
    case 4: blocks(job, j, end, 1, 4, bf16); break;
    case 5: blocks(job, j, end, 1, 5, bf16); break;
    case 6: blocks(job, j, end, 1, 6, bf16); break;
    case 7: blocks(job, j, end, 1, 7, bf16); break;
    default: blocks(job, j, end, 1, 8, bf16); break;
    }
}

SIMD_FN(void, multiply, (const struct few_job *job, int64_t j, int64_t end), (job, j, end))
{
    if (job->g->b.type->plain == DT_BF16)
        by_rows(job, j, end, true);
    else
        by_rows(job, j, end, false);
}

static void task(void *ctx, int64_t number, int thread)
{
    const struct few_job *job = ctx;
    int64_t j = number * job->rows;

    (void)thread;
    multiply(job, j, min_i64(j + job->rows, job->g->n));
}

bool cpu_few_takes(const struct op_gemm *g)
{
    return g->trans_b && !g->trans_a && g->m <= (g->b.type->plain == DT_BF16 ? 8 : 4) && g->k >= 32;
}

static void even_odd(const float *x, int64_t n, float *y)
{
    for (int64_t at = 0; at + WIDE <= n; at += WIDE)
        for (int i = 0; i < WIDE / 2; i++) {
            y[at + i] = x[at + 2 * i];
            y[at + WIDE / 2 + i] = x[at + 2 * i + 1];
        }
}

int cpu_few(struct device *d, const struct op_gemm *g)
{
    struct cpu *c = cpu_of(d);
    bool bf16 = g->b.type->plain == DT_BF16;
    int64_t row = g->k * (bf16 ? 2 : 4);
    struct few_job job = { g, g->a, g->lda, max_i64(TASK_BYTES / row / 4 * 4, 4) };

    if (bf16) {
        if (cpu_shared(c, (size_t)(g->m * g->k) * sizeof(float)) < 0)
            return E_SYS;
        job.a = (float *)(void *)c->shared;
        job.lda = g->k;
        for (int64_t i = 0; i < g->m; i++)
            even_odd((const float *)g->a + i * g->lda, g->k, (float *)(void *)c->shared + i * g->k);
    }
    pool_run(c->pool, ceil_div(g->n, job.rows), task, &job);
    return 0;
}

/* More rows: a part of B after the other becomes float32, in blocks that a thread's scratch holds. */
enum { PART_COLS = 512, PART_DEPTH = 512, PART_ROWS = 512 };

struct part_job {
    struct cpu *c;
    const struct op_gemm *g;
    int64_t across;
};

SIMD_FN(void, widen, (const uint16_t *x, int64_t n, float *y), (x, n, y))
{
    SIMD_LOOP
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)x[i] << 16;

        memcpy(y + i, &u, sizeof u);
    }
}

/* B's columns [j, j + cols) for p in [at, at + depth), as they lie: [cols][depth] where B is
 * transposed, else [depth][cols]. */
static void widen_part(const struct op_gemm *g, int64_t j, int64_t cols, int64_t at, int64_t depth,
                       float *to)
{
    const uint16_t *b = g->b.data;

    for (int64_t r = 0; g->trans_b && r < cols; r++)
        widen(b + (j + r) * g->ldb + at, depth, to + r * depth);
    for (int64_t r = 0; !g->trans_b && r < depth; r++)
        widen(b + (at + r) * g->ldb + j, cols, to + r * cols);
}

static void part(void *ctx, int64_t number, int thread)
{
    const struct part_job *job = ctx;
    const struct op_gemm *g = job->g;
    int64_t i = number / job->across * PART_ROWS, j = number % job->across * PART_COLS;
    int64_t rows = min_i64(PART_ROWS, g->m - i), cols = min_i64(PART_COLS, g->n - j);
    float *room = cpu_scratch_of(job->c, thread), *c = (float *)g->c + i * g->ldc + j;

    if (g->addend && g->beta != 0)
        for (int64_t r = 0; r < rows; r++)
            memcpy(c + r * g->ldc, (const float *)g->addend + (i + r) * g->ldc + j,
                   (size_t)cols * sizeof *c);
    for (int64_t at = 0; at < max_i64(g->k, 1); at += PART_DEPTH) {
        int64_t depth = min_i64(PART_DEPTH, g->k - at);

        widen_part(g, j, cols, at, depth, room);
        cpu_sgemm(job->c, thread, g->trans_a, g->trans_b, rows, cols, depth, g->alpha,
                  (const float *)g->a + (g->trans_a ? at * g->lda + i : i * g->lda + at), g->lda, room,
                  g->trans_b ? depth : cols, at ? 1 : g->beta, c, g->ldc);
    }
}

static int bf16_gemm(struct device *d, const struct op_gemm *g)
{
    struct part_job job = { cpu_of(d), g, ceil_div(g->n, PART_COLS) };

    if (cpu_few_takes(g)) {
        if (cpu_few(d, g) < 0)
            return E_SYS;
    } else {
        if (cpu_scratch(job.c, (size_t)PART_COLS * PART_DEPTH * sizeof(float)) < 0)
            return E_SYS;
        pool_run(job.c->pool, ceil_div(g->m, PART_ROWS) * job.across, part, &job);
    }
    cpu_account(d, 2.0 * (double)g->m * (double)g->n * (double)g->k);
    return 0;
}

static void embed_rows(const void *op, int64_t lo, int64_t hi)
{
    const struct op_embed *a = op;

    for (int64_t r = lo; r < hi; r++)
        widen((const uint16_t *)a->table.data + a->ids[r] * a->dim, a->dim, (float *)a->y + r * a->dim);
}

static int bf16_embed(struct device *d, const struct op_embed *a)
{
    cpu_ranges(cpu_of(d), a->rows, 8, embed_rows, a);
    return 0;
}

const struct mat_product cpu_bf16 = { "BF16", bf16_gemm, bf16_embed };
