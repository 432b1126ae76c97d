/* kernels/cuda/heads.cu - copying heads from one layout to another. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

/* T: what is copied at once, of which a head has dim. */
template <typename T> static __global__ void copy(struct op_heads a)
{
    int64_t each = a.heads * a.dim, n = a.rows * each, step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        int64_t r = i / each, h = i % each / a.dim, k = i % a.dim;
        ((T *)a.y)[r * a.y_ld + h * a.y_stride + k] = ((const T *)a.x)[r * a.x_ld + h * a.x_stride + k];
    }
}

extern "C" int cuda_heads(struct device *d, const struct op_heads *a)
{
    struct cuda *c = cuda_of(d);
    struct op_heads e = *a;
    bool eights = (a->dim | a->x_ld | a->x_stride | a->y_ld | a->y_stride) % 8 == 0 && aligned16(a->x) &&
                  aligned16(a->y);

    if (a->rows <= 0 || a->heads <= 0 || a->dim <= 0)
        return a->rows == 0 ? 0 : E_BUG;
    cuda_begin(c, OP_heads);
    if (eights) {
        e.dim /= 8, e.x_ld /= 8, e.x_stride /= 8, e.y_ld /= 8, e.y_stride /= 8;
        copy<uint4><<<cuda_blocks(c, e.rows * e.heads * e.dim, THREADS), THREADS, 0, c->stream>>>(e);
    } else {
        copy<bf16><<<cuda_blocks(c, e.rows * e.heads * e.dim, THREADS), THREADS, 0, c->stream>>>(e);
    }
    return cuda_end(d, 0, OP_heads, 0);
}
