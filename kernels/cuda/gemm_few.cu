/* kernels/cuda/gemm_few.cu - matrix products with a few rows, which reading the matrix bounds. */
#include "kernels/cuda/gemm_few.cuh"

/*
 * C [1][n]: all of B [n][k] has to be read, 2 bytes for 2 operations, so what counts is how much of it is under way at a
 * time. A warp has ROWS rows of B; a lane reads 16 bytes of each, STEPS times before it needs the first. A's only row is
 * small and stays in L1. RESIDENT blocks of a multiprocessor leave registers enough for that: without a word about them
 * the compiler saves registers instead, and reads 3 times before the first is needed. More rows go to the tensor
 * cores (gemm_mma.cu): from two on, units that add one product at a time are slower there than the memory.
 */
enum { WARPS = 4, THREADS = 32 * WARPS, ROWS = 2, STEPS = 4, RESIDENT = 6 };

static __device__ __forceinline__ uint4 stream16(const bf16 *p)
{
    return __ldcs((const uint4 *)p); /* read once: the first to leave the caches */
}

static __device__ __forceinline__ void few_add(float sum[ROWS], const uint4 w[ROWS], const bf16 *a)
{
    float x[8], y[8];

    load8(a, x);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        unpack(w[r], y);
#pragma unroll
        for (int j = 0; j < 8; j++)
            sum[r] += x[j] * y[j];
    }
}

static __global__ void __launch_bounds__(THREADS, RESIDENT) one_row(struct few_parts f)
{
    const struct few_part &g = few_part_of(f);
    int lane = threadIdx.x & 31;
    const bf16 *b[ROWS];
    float sum[ROWS] = {};
    int64_t at = lane * 8, j = ((int64_t)(blockIdx.x - g.first) * WARPS + (threadIdx.x >> 5)) * ROWS;

#pragma unroll
    for (int r = 0; r < ROWS; r++) /* past the last row: that row again */
        b[r] = g.b + (j + r < g.n ? j + r : g.n - 1) * g.ldb;
    chain_next();
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
            few_add(sum, w[s], f.a + at + s * 256);
    }
    for (; at < f.k; at += 256) {
        uint4 w[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            w[r] = stream16(b[r] + at);
        few_add(sum, w, f.a + at);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        for (int o = 16; o; o >>= 1)
            sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], o);
        if (lane == 0 && j + r < g.n)
            put_product(g.end, j + r, sum[r]);
    }
}

extern "C" bool gemm_few_takes(const struct op_gemm *a)
{
    return a->m <= FEW_PRODUCT && a->trans_b && !a->trans_a && a->k % 8 == 0 && a->k >= 64 &&
           a->lda % 8 == 0 && a->ldb % 8 == 0 && a->n >= 16 && a->n < ((int64_t)1 << 31) &&
           aligned16(a->a) && aligned16(a->b.data);
}

extern "C" int gemm_few(struct cuda *c, const struct op_gemm *a)
{
    if (a->m > 1)
        return gemm_mma(c, a);
    while (a) {
        struct few_parts f;
        unsigned blocks = few_gather(a, WARPS * ROWS, &f, &a);

        chain_launch(c, one_row, blocks, THREADS, f);
    }
    return 0;
}

extern "C" bool gemm_few_waits(void)
{
    struct cudaFuncAttributes a;
    bool known = cudaFuncGetAttributes(&a, one_row) == cudaSuccess;

    (void)cudaGetLastError();
    return known && a.ptxVersion >= 90;
}
