/* kernels/cuda/naive.cu - a matrix product for the shapes that cuBLASLt refuses. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

static __global__ void multiply(struct op_gemm g)
{
    int64_t n = g.m * g.n, step = (int64_t)gridDim.x * THREADS;
    const bf16 *a = (const bf16 *)g.a, *b = (const bf16 *)g.b.data;
    struct product_end end = { g.alpha, g.beta, g.c, g.addend, g.c_type == DT_F32 };

    for (int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x; at < n; at += step) {
        int64_t i = at / g.n, j = at - i * g.n, o = i * g.ldc + j;
        float s = 0;
        for (int64_t p = 0; p < g.k; p++)
            s += wide(g.trans_a ? a[p * g.lda + i] : a[i * g.lda + p]) *
                 wide(g.trans_b ? b[j * g.ldb + p] : b[p * g.ldb + j]);
        put_product(end, o, s);
    }
}

extern "C" int gemm_naive(struct cuda *c, const struct op_gemm *a)
{
    multiply<<<cuda_blocks(c, a->m * a->n, THREADS), THREADS, 0, c->stream>>>(*a);
    return 0;
}
