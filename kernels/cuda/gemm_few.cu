/* kernels/cuda/gemm_few.cu - matrix products with a few rows, which reading the matrix bounds. */
#include "kernels/cuda/gemm_few.cuh"

/*
 * C [m][n] of m <= MOST rows: all of B [n][k] has to be read, 2 bytes for 2 m operations, so what
 * counts is how much of it is under way at a time. A warp has ROWS rows of B; a lane reads 16 bytes
 * of each, STEPS times before it needs the first. The rows of A are small and stay in L1. RESIDENT blocks of a
 * multiprocessor leave registers enough for that: without a word about them the compiler saves registers instead,
 * and reads 3 times before the first is needed.
 *
 * While the kernel in front ends, the first blocks read AHEAD values of their rows ahead (chain.cuh): 32 KiB a block,
 * on an H200 16 MB of a 7B's o and down, 26 of its other products: what the memory gives in 4 to 6 us.
 */
enum { WARPS = 4, THREADS = 32 * WARPS, ROWS = 2, STEPS = 4, MOST = 4, AHEAD = 2048 };
template <int M> struct few_shape {
    static constexpr int RESIDENT = M > 2 ? 4 : M > 1 ? 5 : 6;
};

static __device__ __forceinline__ uint4 stream16(const bf16 *p)
{
    return __ldcs((const uint4 *)p); /* read once: the first to leave the caches */
}

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

template <int M>
static __global__ void __launch_bounds__(THREADS, few_shape<M>::RESIDENT) few_rows(struct few_parts f)
{
    const struct few_part &g = few_part_of(f);
    int lane = threadIdx.x & 31;
    const bf16 *b[ROWS];
    float acc[ROWS][M] = {};
    int64_t at = lane * 8, j = ((int64_t)(blockIdx.x - g.first) * WARPS + (threadIdx.x >> 5)) * ROWS;
#pragma unroll
    for (int r = 0; r < ROWS; r++) /* past the last row: that row again */
        b[r] = g.b + (j + r < g.n ? j + r : g.n - 1) * g.ldb;
    chain_next();
    if (blockIdx.x < f.early && lane < ROWS && j + lane < g.n)
        chain_fetch(g.b + (j + lane) * g.ldb, 2 * (f.k < AHEAD ? f.k : (int64_t)AHEAD));
    chain_wait();
    if (j >= g.n)
        return;
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
    return a->m <= FEW_PRODUCT && a->trans_b && !a->trans_a && a->k % 8 == 0 && a->k >= 64 &&
           a->lda % 8 == 0 && a->ldb % 8 == 0 && a->n >= 16 && a->n < ((int64_t)1 << 31) &&
           aligned16(a->a) && aligned16(a->b.data);
}

template <int M> static void launch(struct cuda *c, unsigned blocks, struct few_parts *f)
{
    f->early = chain_reads(c) ? (unsigned)(c->sms * few_shape<M>::RESIDENT) : 0;
    chain_launch(c, few_rows<M>, blocks, THREADS, *f);
}

extern "C" int gemm_few(struct cuda *c, const struct op_gemm *a)
{
    int64_t m = a->m;

    if (m > MOST)
        return gemm_mma(c, a);
    while (a) {
        struct few_parts f;
        unsigned blocks = few_gather(a, WARPS * ROWS, &f, &a);

        if (m == 1)
            launch<1>(c, blocks, &f);
        else if (m == 2)
            launch<2>(c, blocks, &f);
        else if (m == 3)
            launch<3>(c, blocks, &f);
        else
            launch<4>(c, blocks, &f);
    }
    return 0;
}

extern "C" bool gemm_few_waits(void)
{
    struct cudaFuncAttributes a;
    bool known = cudaFuncGetAttributes(&a, few_rows<1>) == cudaSuccess;

    (void)cudaGetLastError();
    return known && a.ptxVersion >= 90;
}
