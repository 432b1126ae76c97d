/* kernels/cuda/layernorm.cu - layer normalisation, forward and backward. A block a row. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256, PARTS = 128 /* of the rows, whose sums for dw and db are added at the end */ };

static __device__ float mean_of(const bf16 *x, int64_t n)
{
    float s = 0;

    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        s += wide(x[i]);
    return block_sum(s) / (float)n;
}

static __global__ void forward(struct op_layernorm a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const bf16 *x = (const bf16 *)a.x + r * a.dim;
        bf16 *y = (bf16 *)a.y + r * a.dim;
        float mean = mean_of(x, a.dim), s = 0, rstd;

        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS)
            s += (wide(x[i]) - mean) * (wide(x[i]) - mean);
        rstd = 1.0f / sqrtf(block_sum(s) / (float)a.dim + a.eps);
        if (a.rstd && threadIdx.x == 0)
            a.rstd[r] = rstd;
        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS)
            y[i] = narrow(a.w[i] * ((wide(x[i]) - mean) * rstd) + (a.b ? a.b[i] : 0.0f));
    }
}

extern "C" int cuda_layernorm(struct device *d, const struct op_layernorm *a)
{
    struct cuda *c = cuda_of(d);

    if (a->rows <= 0 || a->dim <= 0)
        return a->rows < 0 || a->dim <= 0 ? E_BUG : 0;
    cuda_begin(c, OP_layernorm);
    forward<<<cuda_blocks(c, a->rows, 1), THREADS, 0, c->stream>>>(*a);
    return cuda_end(d, 0, OP_layernorm, 0);
}

/* With u = w dy and z = (x - mean) rstd: dx = rstd (u - mean(u) - z mean(u z)). */
static __global__ void backward(struct op_layernorm_back a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const bf16 *x = (const bf16 *)a.x + r * a.dim, *dy = (const bf16 *)a.dy + r * a.dim;
        bf16 *dx = (bf16 *)a.dx + r * a.dim;
        float rstd = a.rstd[r], mean = mean_of(x, a.dim), m1 = 0, m2 = 0;

        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS) {
            float u = a.w[i] * wide(dy[i]);
            m1 += u;
            m2 += u * (wide(x[i]) - mean) * rstd;
        }
        m1 = block_sum(m1) / (float)a.dim;
        m2 = block_sum(m2) / (float)a.dim;
        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS) {
            float z = (wide(x[i]) - mean) * rstd, g = rstd * (a.w[i] * wide(dy[i]) - m1 - z * m2);
            dx[i] = narrow(a.overwrite ? g : wide(dx[i]) + g);
        }
    }
}

/* A thread a channel, a block row a part of the rows, which all parts take in turns. */
static __global__ void columns(struct op_layernorm_back a, const float *mean, float *partial)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float dw = 0, db = 0;

    if (i >= a.dim)
        return;
    for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
        float dy = wide(((const bf16 *)a.dy)[r * a.dim + i]);
        dw += dy * (wide(((const bf16 *)a.x)[r * a.dim + i]) - mean[r]) * a.rstd[r];
        db += dy;
    }
    partial[2 * blockIdx.y * a.dim + i] = dw;
    partial[(2 * blockIdx.y + 1) * a.dim + i] = db;
}

static __global__ void gather(const float *partial, int parts, int64_t dim, float *dw, float *db)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float w = 0, b = 0;

    if (i >= dim)
        return;
    for (int p = 0; p < parts; p++) {
        w += partial[2 * p * dim + i];
        b += partial[(2 * p + 1) * dim + i];
    }
    if (dw)
        dw[i] += w;
    if (db)
        db[i] += b;
}

/* The sums over rows read dy, which dx may overwrite: so they come first, with means of their own. */
static __global__ void means(int64_t rows, int64_t dim, const bf16 *x, float *mean)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        float m = mean_of(x + r * dim, dim);
        if (threadIdx.x == 0)
            mean[r] = m;
    }
}

extern "C" int cuda_layernorm_back(struct device *d, const struct op_layernorm_back *a)
{
    struct cuda *c = cuda_of(d);
    unsigned parts = (unsigned)lesser(a->rows, PARTS), wide_by = (unsigned)ceil_div(a->dim, THREADS);
    float *partial = NULL, *mean;

    if (a->rows <= 0 || a->dim <= 0)
        return a->rows < 0 || a->dim <= 0 ? E_BUG : 0;
    if ((a->dw || a->db) &&
        !(partial = (float *)cuda_scratch(c, SCRATCH_PARTIAL,
                                          (size_t)(2 * parts * a->dim + a->rows) * sizeof *partial)))
        return E_DEVICE;
    cuda_begin(c, OP_layernorm_back);
    if (partial) {
        mean = partial + 2 * parts * a->dim;
        means<<<cuda_blocks(c, a->rows, 1), THREADS, 0, c->stream>>>(a->rows, a->dim, (const bf16 *)a->x,
                                                                     mean);
        columns<<<dim3(wide_by, parts), THREADS, 0, c->stream>>>(*a, mean, partial);
        gather<<<wide_by, THREADS, 0, c->stream>>>(partial, (int)parts, a->dim, a->dw, a->db);
    }
    backward<<<cuda_blocks(c, a->rows, 1), THREADS, 0, c->stream>>>(*a);
    return cuda_end(d, 0, OP_layernorm_back, 0);
}
