/* kernels/cuda/rmsnorm.cu - root-mean-square normalisation, forward and backward. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256, MOST_SHARED = 12288 }; /* channels whose float32 sums fit 48 KiB */

template <int V>
static __global__ void forward(struct op_rmsnorm a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const bf16 *x = (const bf16 *)a.x + r * a.dim;
        bf16 *y = (bf16 *)a.y + r * a.dim;
        float s = 0, rstd, v[V], w;

        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)THREADS * V) {
            load_v<V>(x + i, v);
#pragma unroll
            for (int j = 0; j < V; j++)
                s += v[j] * v[j];
        }
        rstd = 1.0f / sqrtf(block_sum(s) / (float)a.dim + a.eps);
        if (a.rstd && threadIdx.x == 0)
            a.rstd[r] = rstd;
        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)THREADS * V) {
            load_v<V>(x + i, v);
#pragma unroll
            for (int j = 0; j < V; j++) {
                w = a.w[i + j];
                v[j] = w * (v[j] * rstd);
            }
            store_v<V>(y + i, v);
        }
    }
}

extern "C" int cuda_rmsnorm(struct device *d, const struct op_rmsnorm *a)
{
    struct cuda *c = cuda_of(d);
    int eight = a->dim % 8 == 0 && aligned16(a->x) && aligned16(a->y);
    unsigned blocks = cuda_blocks(c, a->rows, 1);

    if (a->rows <= 0 || a->dim <= 0)
        return a->rows < 0 || a->dim <= 0 ? E_BUG : 0;
    cuda_begin(c, CUDA_NORM);
    if (eight)
        forward<8><<<blocks, THREADS, 0, c->stream>>>(*a);
    else
        forward<1><<<blocks, THREADS, 0, c->stream>>>(*a);
    return cuda_end(d, 0, CUDA_NORM, 0);
}

/* Each block takes rows in steps of the grid. acc, where asked for: dw of those rows, one sum a
 * channel in shared memory, each channel always the same thread's. */
template <int V>
static __global__ void backward(struct op_rmsnorm_back a, float *partial)
{
    extern __shared__ float acc[];

    if (partial)
        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)THREADS * V)
            for (int j = 0; j < V; j++)
                acc[i + j] = 0;
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const bf16 *x = (const bf16 *)a.x + r * a.dim, *dy = (const bf16 *)a.dy + r * a.dim;
        bf16 *dx = (bf16 *)a.dx + r * a.dim;
        float rstd = a.rstd[r], s = 0, vx[V], vy[V], vd[V];

        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)THREADS * V) {
            load_v<V>(x + i, vx);
            load_v<V>(dy + i, vy);
#pragma unroll
            for (int j = 0; j < V; j++)
                s += a.w[i + j] * vy[j] * vx[j];
        }
        s = block_sum(s) * rstd * rstd * rstd / (float)a.dim;
        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)THREADS * V) {
            load_v<V>(x + i, vx);
            load_v<V>(dy + i, vy);
            load_v<V>(dx + i, vd);
#pragma unroll
            for (int j = 0; j < V; j++) {
                vd[j] += rstd * a.w[i + j] * vy[j] - vx[j] * s;
                if (partial)
                    acc[i + j] += vy[j] * vx[j] * rstd;
            }
            store_v<V>(dx + i, vd);
        }
    }
    if (partial)
        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)THREADS * V)
            for (int j = 0; j < V; j++)
                partial[blockIdx.x * a.dim + i + j] = acc[i + j];
}

/* dw of channels too many for shared memory: a thread a channel, a block row a part of rows. */
static __global__ void columns(struct op_rmsnorm_back a, float *partial)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float s = 0;

    if (i >= a.dim)
        return;
    for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y)
        s += wide(((const bf16 *)a.dy)[r * a.dim + i]) * wide(((const bf16 *)a.x)[r * a.dim + i]) *
             a.rstd[r];
    partial[blockIdx.y * a.dim + i] = s;
}

static __global__ void gather(const float *partial, int64_t parts, int64_t dim, float *dw)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float s = 0;

    if (i >= dim)
        return;
    for (int64_t p = 0; p < parts; p++)
        s += partial[p * dim + i];
    dw[i] += s;
}

extern "C" int cuda_rmsnorm_back(struct device *d, const struct op_rmsnorm_back *a)
{
    struct cuda *c = cuda_of(d);
    int eight = a->dim % 8 == 0 && aligned16(a->x) && aligned16(a->dy) && aligned16(a->dx);
    int64_t parts = lesser(a->rows, (int64_t)c->sms * 4);
    bool shared = a->dim <= MOST_SHARED;
    float *partial = NULL, *acc;
    size_t bytes;

    if (a->rows <= 0 || a->dim <= 0)
        return a->rows < 0 || a->dim <= 0 ? E_BUG : 0;
    if (a->dw && !(partial = (float *)cuda_scratch(c, SCRATCH_PARTIAL,
                                                   (size_t)(parts * a->dim) * sizeof *partial)))
        return E_DEVICE;
    acc = shared ? partial : NULL;
    bytes = acc ? (size_t)a->dim * sizeof *acc : 0;
    cuda_begin(c, CUDA_NORM_BACK);
    if (eight)
        backward<8><<<(unsigned)parts, THREADS, bytes, c->stream>>>(*a, acc);
    else
        backward<1><<<(unsigned)parts, THREADS, bytes, c->stream>>>(*a, acc);
    if (a->dw && !shared)
        columns<<<dim3((unsigned)ceil_div(a->dim, THREADS), (unsigned)parts), THREADS, 0,
                  c->stream>>>(*a, partial);
    if (a->dw)
        gather<<<(unsigned)ceil_div(a->dim, 64), 64, 0, c->stream>>>(partial, parts, a->dim, a->dw);
    return cuda_end(d, 0, CUDA_NORM_BACK, 0);
}
