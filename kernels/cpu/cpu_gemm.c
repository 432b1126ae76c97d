/* kernels/cpu/cpu_gemm.c - matrix products, shared out in blocks of C. */
#include "base/log.h"
#include "kernels/cpu/cpu.h"

#include <limits.h>

/* Each block of C is one single-threaded product over the whole of k, so that the bits do not
 * depend on who computes it. The sizes depend on the shape alone. */
enum { BLOCK_ROWS = 256, BLOCK_COLS = 512, MIN_BLOCK = 64 };
static const double min_block_flop = 2e6; /* about 20 us: below, sharing costs more */

struct gemm_job {
    struct cpu *c;
    const struct op_gemm *a;
    int64_t rows, cols, blocks_across;
};

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
    int64_t i = task / job->blocks_across * job->rows, j = task % job->blocks_across * job->cols;
    const float *a = (const float *)g->a + (g->trans_a ? i : i * g->lda);
    const float *b = (const float *)g->b + (g->trans_b ? j * g->ldb : j);

    cpu_sgemm(job->c, thread, g->trans_a, g->trans_b, min_i64(job->rows, g->m - i),
              min_i64(job->cols, g->n - j), g->k, g->alpha, a, g->lda, b, g->ldb, g->beta,
              (float *)g->c + i * g->ldc + j, g->ldc);
}

int cpu_gemm(struct device *d, const struct op_gemm *g)
{
    struct gemm_job job = { cpu_of(d), g, min_i64(BLOCK_ROWS, g->m), min_i64(BLOCK_COLS, g->n),
                            0 };

    if (g->m < 0 || g->n < 0 || g->k < 0 || g->c_type != DT_F32 || g->k > INT_MAX ||
        g->lda > INT_MAX || g->ldb > INT_MAX || g->ldc > INT_MAX ||
        g->lda < (g->trans_a ? g->m : g->k) || g->ldb < (g->trans_b ? g->k : g->n) ||
        g->ldc < g->n)
        return E_BUG;
    if (g->m == 0 || g->n == 0)
        return 0;
    /* Small results over a long k (gradients of weights) give more blocks by halving. */
    while (job.rows > MIN_BLOCK && ceil_div(g->m, job.rows) * ceil_div(g->n, job.cols) < 16 &&
           2.0 * (double)job.rows * (double)job.cols * (double)g->k > 2 * min_block_flop)
        if (job.cols > job.rows)
            job.cols = (job.cols + 1) / 2;
        else
            job.rows = (job.rows + 1) / 2;
    job.blocks_across = ceil_div(g->n, job.cols);
    pool_run(job.c->pool, ceil_div(g->m, job.rows) * job.blocks_across, gemm_block, &job);
    cpu_account(d, 2.0 * (double)g->m * (double)g->n * (double)g->k);
    return 0;
}
