/* kernels/cuda/gemm_few.cuh - products of few rows that have one input: the blocks of one after those of another. */
#ifndef KERNELS_CUDA_GEMM_FEW_CUH
#define KERNELS_CUDA_GEMM_FEW_CUH
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

enum { FEW_PARTS = 3 };

struct few_part {
    const bf16 *b;
    int64_t n, ldb, ldc;
    unsigned first; /* block */
    struct product_end end;
};
struct few_parts {
    const bf16 *a;
    int64_t k, lda;
    int m, n;       /* rows of A, parts */
    struct few_part part[FEW_PARTS];
};

/* The block's own. */
static __device__ __forceinline__ const struct few_part &few_part_of(const struct few_parts &f)
{
    int p = 0;

    while (p + 1 < f.n && blockIdx.x >= f.part[p + 1].first)
        p++;
    return f.part[p];
}

/* a and as many of those that go along as a launch takes, of blocks of so many columns of C each; *next: the first that
 * did not. Returns how many blocks. */
static inline unsigned few_gather(const struct op_gemm *a, int64_t each, struct few_parts *f,
                                  const struct op_gemm **next)
{
    unsigned blocks = 0;

    f->a = (const bf16 *)a->a, f->k = a->k, f->lda = a->lda, f->m = (int)a->m, f->n = 0;
    for (; a && f->n < FEW_PARTS; a = a->also) {
        f->part[f->n++] = { (const bf16 *)a->b.data, a->n, a->ldb, a->ldc, blocks,
                            { a->alpha, a->beta, a->c, a->addend, a->c_type == DT_F32 } };
        blocks += (unsigned)ceil_div(a->n, each);
    }
    *next = a;
    return blocks;
}
#endif
