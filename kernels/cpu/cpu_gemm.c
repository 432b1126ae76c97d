/* kernels/cpu/cpu_gemm.c - matrix products, shared out in blocks of C. */
#include "base/log.h"
#include "kernels/cpu/cpu.h"
#include "kernels/product.h"

#include <limits.h>
#include <string.h>

/*
 * Each block of C is one single-threaded product over the whole of k, so that the bits do not
 * depend on who computes it, and the blocks depend on the shape alone. Large blocks repack
 * their operands less: blocks of 512 x 1024 reach 90% of what OpenBLAS does with the same two
 * threads, 128 x 256 80% (bench_ops 2 g; Emerald Rapids). Yet many cores want many blocks:
 * up to FEW where a block has some_work, up to MANY where it has much_work.
 */
enum { MOST_ROWS = 512, MOST_COLS = 1024, LEAST = 128, FEW = 8, MANY = 16, COLS_STEP = 16 };
static const double some_work = 64e6, much_work = 512e6; /* operations: about 0.5 and 4 ms */

struct gemm_job {
    struct cpu *c;
    const struct op_gemm *a;
    int64_t rows, cols, blocks_down, blocks_across;
};

/* Sets the sizes and numbers of blocks. A wide block is better than a tall one. */
static void cut(struct gemm_job *job, int64_t m, int64_t n, int64_t k)
{
    double mk = (double)m * (double)k, nk = (double)n * (double)k, mn = (double)m * (double)n;
    double work = 2 * mk * (double)n + 32 * (mk + nk + mn); /* thin ones are bound by memory */
    int64_t down = ceil_div(m, MOST_ROWS), across = ceil_div(n, MOST_COLS), blocks;

    for (;;) {
        job->rows = ceil_div(m, down);
        job->cols = ceil_div(ceil_div(n, across), COLS_STEP) * COLS_STEP;
        job->blocks_down = ceil_div(m, job->rows);
        job->blocks_across = ceil_div(n, job->cols);
        blocks = job->blocks_down * job->blocks_across;
        if (blocks >= MANY || (double)blocks * (blocks < FEW ? some_work : much_work) >= work)
            return;
        if (job->rows > LEAST && (job->rows > MOST_ROWS / 2 || 4 * job->rows > job->cols))
            down *= 2;
        else if (job->cols > LEAST)
            across *= 2;
        else
            return;
    }
}

void cpu_sgemm(struct cpu *c, int thread, bool trans_a, bool trans_b, int64_t m, int64_t n,
               int64_t k, float alpha, const float *a, int64_t lda, const float *b,
               int64_t ldb, float beta, float *out, int64_t ldc)
{
    double start = now_s();

    c->blas.sgemm(BLAS_ROW_MAJOR, trans_a ? BLAS_TRANS : BLAS_PLAIN,
                  trans_b ? BLAS_TRANS : BLAS_PLAIN, (int)m, (int)n, (int)k, alpha, a, (int)lda,
                  b, (int)ldb, beta, out, (int)ldc);
    c->t[thread].gemm_s += now_s() - start;
}

/* Adds the mean of the threads' seconds to the device's, and the operations done. */
void cpu_account(struct device *d, double flop)
{
    struct cpu *c = cpu_of(d);
    double s = 0;

    for (int i = 0; i < c->threads; i++) {
        s += c->t[i].gemm_s;
        c->t[i].gemm_s = 0;
    }
    d->gemm_s += s / c->threads;
    d->gemm_flop += flop;
}

static void gemm_block(void *ctx, int64_t task, int thread)
{
    const struct gemm_job *job = ctx;
    const struct op_gemm *g = job->a;
    int64_t i = task / job->blocks_across * job->rows;
    int64_t j = task % job->blocks_across * job->cols;
    const float *a = (const float *)g->a + (g->trans_a ? i : i * g->lda);
    const float *b = (const float *)g->b.data + (g->trans_b ? j * g->ldb : j);
    float *c = (float *)g->c + i * g->ldc + j;
    int64_t rows = min_i64(job->rows, g->m - i), cols = min_i64(job->cols, g->n - j);

    /* sgemm adds to what is in C, so the addend is copied there first */
    if (g->addend && g->beta != 0)
        for (int64_t r = 0; r < rows; r++)
            memcpy(c + r * g->ldc, (const float *)g->addend + (i + r) * g->ldc + j,
                   (size_t)cols * sizeof *c);
    cpu_sgemm(job->c, thread, g->trans_a, g->trans_b, rows, cols, g->k, g->alpha, a, g->lda, b,
              g->ldb, g->beta, c, g->ldc);
}

static int one_gemm(struct device *d, const struct op_gemm *g)
{
    struct gemm_job job = { .c = cpu_of(d), .a = g };

    if (!g->b.type || g->m < 0 || g->n < 0 || g->k < 0 || g->c_type != DT_F32 || g->k > INT_MAX ||
        g->lda > INT_MAX || g->ldb > INT_MAX || g->ldc > INT_MAX ||
        g->lda < (g->trans_a ? g->m : g->k) || g->ldb < (g->trans_b ? g->k : g->n) ||
        g->ldc < g->n)
        return E_BUG;
    if (g->m == 0 || g->n == 0)
        return 0;
    if (g->b.type->plain != DT_F32)
        return mat_gemm(d, g, &job.c->fault);
    if (cpu_few_takes(g)) {
        if (cpu_few(d, g) < 0)
            return E_SYS;
        cpu_account(d, 2.0 * (double)g->m * (double)g->n * (double)g->k);
        return 0;
    }
    cut(&job, g->m, g->n, g->k);
    pool_run(job.c->pool, job.blocks_down * job.blocks_across, gemm_block, &job);
    cpu_account(d, 2.0 * (double)g->m * (double)g->n * (double)g->k);
    return 0;
}

int cpu_gemm(struct device *d, const struct op_gemm *g)
{
    int rc = 0;

    for (; g && rc == 0; g = g->also) {
        struct op_gemm one = *g;

        one.also = NULL; /* a product of another type may hand it on */
        rc = one_gemm(d, &one);
    }
    return rc;
}
