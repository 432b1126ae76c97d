/* kernels/cuda/rope.cu - rotary position embedding, in place. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

#include <string.h>

enum { THREADS = 256, MOST = 512 };

/* The frequencies go along as an argument: the caller's array may change once it has returned. */
struct turns {
    float inv_freq[MOST];
};

/* A block a row: cosines and sines once, in float64 (at position 100,000 a float32 product is
 * off by 0.006 radian), then all heads. */
static __global__ void rotate(struct op_rope a, struct turns t)
{
    __shared__ float cosine[MOST], sine[MOST];
    int64_t half = a.dim / 2, pairs = a.heads * half;

    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        bf16 *x = (bf16 *)a.x + r * a.ld;
        double position = (double)(a.first + r % a.period);

        __syncthreads();
        for (int64_t i = threadIdx.x; i < half; i += THREADS) {
            double s, k;
            sincos(position * (double)t.inv_freq[i], &s, &k);
            cosine[i] = (float)(k * (double)a.scale);
            sine[i] = (float)((a.inverse ? -s : s) * (double)a.scale);
        }
        __syncthreads();
        if (half % 2 == 0 && a.ld % 2 == 0 && ((uintptr_t)a.x & 3) == 0) {
            for (int64_t p = threadIdx.x; p < pairs / 2; p += THREADS) {
                int64_t h = p / (half / 2), i = 2 * (p - h * (half / 2));
                __nv_bfloat162 *lo = (__nv_bfloat162 *)(x + h * a.dim + i);
                __nv_bfloat162 *hi = (__nv_bfloat162 *)(x + h * a.dim + half + i);
                float2 u = __bfloat1622float2(*lo), v = __bfloat1622float2(*hi);
                *lo = __floats2bfloat162_rn(u.x * cosine[i] - v.x * sine[i],
                                            u.y * cosine[i + 1] - v.y * sine[i + 1]);
                *hi = __floats2bfloat162_rn(v.x * cosine[i] + u.x * sine[i],
                                            v.y * cosine[i + 1] + u.y * sine[i + 1]);
            }
        } else {
            for (int64_t p = threadIdx.x; p < pairs; p += THREADS) {
                int64_t h = p / half, i = p - h * half;
                bf16 *at = x + h * a.dim + i;
                float u = wide(at[0]), v = wide(at[half]);
                at[0] = narrow(u * cosine[i] - v * sine[i]);
                at[half] = narrow(v * cosine[i] + u * sine[i]);
            }
        }
    }
}

extern "C" int cuda_rope(struct device *d, const struct op_rope *a)
{
    struct cuda *c = cuda_of(d);
    struct turns t;

    if (a->dim < 2 || a->dim > 2 * MOST || a->dim % 2 || a->period < 1 || a->rows < 0)
        return E_BUG;
    if (a->rows == 0)
        return 0;
    memset(&t, 0, sizeof t);
    memcpy(t.inv_freq, a->inv_freq, (size_t)(a->dim / 2) * sizeof *t.inv_freq);
    cuda_begin(c, CUDA_ROPE);
    rotate<<<cuda_blocks(c, a->rows, 1), THREADS, 0, c->stream>>>(*a, t);
    return cuda_end(d, 0, CUDA_ROPE, 0);
}
