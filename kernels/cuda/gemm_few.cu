/* kernels/cuda/gemm_few.cu - matrix products with a few rows, which reading the matrix bounds. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

/*
 * C [m][n] of m <= MOST rows: all of B [n][k] has to be read, 2 bytes for 2 m operations, so what
 * counts is how much of it is under way at a time. A warp has ROWS rows of B; a lane reads 16 bytes
 * of each, STEPS times before it needs the first. The rows of A are small and stay in L1.
 */
enum { WARPS = 4, THREADS = 32 * WARPS, ROWS = 2, STEPS = 4, MOST = 4, PARTS = 3 };

static __device__ __forceinline__ uint4 stream16(const bf16 *p)
{
    return __ldcs((const uint4 *)p); /* read once: the first to leave the caches */
}

/* Products with one A: the blocks of one after those of another. */
struct few_part {
    const bf16 *b;
    int64_t n, ldb, ldc;
    unsigned first; /* block */
    struct product_end end;
};
struct few_parts {
    const bf16 *a;
    int64_t k, lda;
    int n;
    struct few_part part[PARTS];
};

template <int M>
static __device__ __forceinline__ void few_add(float acc[ROWS][M], const uint4 w[ROWS],
                                               const bf16 *a, int64_t lda, int64_t at)
{
    float x[8], y[8];

#pragma unroll
    for (int i = 0; i < M; i++) {
        load8(a + i * lda + at, x);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            unpack(w[r], y);
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[r][i] += x[j] * y[j];
        }
    }
}

template <int M> static __global__ void __launch_bounds__(THREADS) few_rows(struct few_parts f)
{
    int lane = threadIdx.x & 31, p = 0;
    const bf16 *b[ROWS];
    float acc[ROWS][M] = {};
    int64_t at = lane * 8, j;

    while (p + 1 < f.n && blockIdx.x >= f.part[p + 1].first)
        p++;
    const struct few_part &g = f.part[p];
    j = ((int64_t)(blockIdx.x - g.first) * WARPS + (threadIdx.x >> 5)) * ROWS;
    if (j >= g.n)
        return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) /* past the last row: that row again */
        b[r] = g.b + (j + r < g.n ? j + r : g.n - 1) * g.ldb;
    for (; at + (STEPS - 1) * 256 < f.k; at += STEPS * 256) {
        uint4 w[STEPS][ROWS];
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                w[s][r] = stream16(b[r] + at + s * 256);
#pragma unroll
        for (int s = 0; s < STEPS; s++)
            few_add<M>(acc, w[s], f.a, f.lda, at + s * 256);
    }
    for (; at < f.k; at += 256) {
        uint4 w[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            w[r] = stream16(b[r] + at);
        few_add<M>(acc, w, f.a, f.lda, at);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int i = 0; i < M; i++) {
            float s = acc[r][i];
            for (int o = 16; o; o >>= 1)
                s += __shfl_xor_sync(0xffffffffu, s, o);
            if (lane == 0 && j + r < g.n)
                put_product(g.end, i * g.ldc + j + r, s);
        }
}

extern "C" bool gemm_few_takes(const struct op_gemm *a)
{
    return a->m <= MOST && a->trans_b && !a->trans_a && a->k % 8 == 0 && a->k >= 64 &&
           a->lda % 8 == 0 && a->ldb % 8 == 0 && a->n >= 16 && a->n < ((int64_t)1 << 31) &&
           aligned16(a->a) && aligned16(a->b.data);
}

/* a and as many of those that go along as a launch takes; *next: the first that did not. */
static unsigned gather(const struct op_gemm *a, struct few_parts *f, const struct op_gemm **next)
{
    unsigned blocks = 0;

    f->a = (const bf16 *)a->a, f->k = a->k, f->lda = a->lda, f->n = 0;
    for (; a && f->n < PARTS; a = a->also) {
        f->part[f->n++] = { (const bf16 *)a->b.data, a->n, a->ldb, a->ldc, blocks,
                            { a->alpha, a->beta, a->c, a->addend, a->c_type == DT_F32 } };
        blocks += (unsigned)ceil_div(a->n, WARPS * ROWS);
    }
    *next = a;
    return blocks;
}

extern "C" int gemm_few(struct cuda *c, const struct op_gemm *a)
{
    int64_t m = a->m;

    while (a) {
        struct few_parts f;
        unsigned blocks = gather(a, &f, &a);

        if (m == 1)
            few_rows<1><<<blocks, THREADS, 0, c->stream>>>(f);
        else if (m == 2)
            few_rows<2><<<blocks, THREADS, 0, c->stream>>>(f);
        else if (m == 3)
            few_rows<3><<<blocks, THREADS, 0, c->stream>>>(f);
        else
            few_rows<4><<<blocks, THREADS, 0, c->stream>>>(f);
    }
    return 0;
}
