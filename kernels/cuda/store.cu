/* kernels/cuda/store.cu - keys and values into a cache; a cache of 8 bits out of it again. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

enum { THREADS = 128, WARPS = THREADS / 32, PIECES = 64 };

/* Pieces of a launch: they go along as an argument. */
struct pieces {
    int n;
    int64_t first;          /* row of the first */
    int64_t cu[PIECES + 1], to[PIECES];
};

static __device__ __forceinline__ int64_t place(const struct pieces &p, int64_t row)
{
    int i = 0;

    while (i + 1 < p.n && row >= p.cu[i + 1])
        i++;
    return p.to[i] + row - p.cu[i];
}

static __device__ void copy_row(const bf16 *x, bf16 *y, int64_t n)
{
    if (n % 8 == 0 && (((uintptr_t)x | (uintptr_t)y) & 15) == 0)
        for (int64_t i = threadIdx.x; i < n / 8; i += THREADS)
            ((uint4 *)y)[i] = ((const uint4 *)x)[i];
    else
        for (int64_t i = threadIdx.x; i < n; i += THREADS)
            y[i] = x[i];
}

/* A warp a head: its largest, then integers. */
static __device__ void pack_row(const bf16 *x, int8_t *y, float *scale, int heads, int dim)
{
    int lane = threadIdx.x & 31;

    for (int h = threadIdx.x >> 5; h < heads; h += WARPS) {
        float most = 0;

        for (int i = lane; i < dim; i += 32)
            most = fmaxf(most, fabsf(wide(x[h * dim + i])));
        for (int o = 16; o; o >>= 1)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, o));
        for (int i = lane; i < dim; i += 32)
            y[h * dim + i] = (int8_t)rintf(wide(x[h * dim + i]) * (most > 0 ? 127 / most : 0));
        if (lane == 0)
            scale[h] = most / 127;
    }
}

/* A block a row: its keys, and those of blockIdx.y 1 its values. */
static __global__ void __launch_bounds__(THREADS) store(struct op_store a, struct pieces p)
{
    int64_t row = p.first + blockIdx.x, to = place(p, row), width = a.heads * a.dim;
    const bf16 *x = (const bf16 *)(blockIdx.y ? a.v : a.k) + row * a.ld;
    void *y = blockIdx.y ? a.v_to : a.k_to;
    float *scale = blockIdx.y ? a.v_scale : a.k_scale;

    chain_next();
    chain_wait();
    if (a.type == KV_INT8)
        pack_row(x, (int8_t *)y + to * width, scale + to * a.heads, (int)a.heads, (int)a.dim);
    else
        copy_row(x, (bf16 *)y + to * width, width);
}

extern "C" int cuda_store(struct device *d, const struct op_store *a)
{
    struct cuda *c = cuda_of(d);

    if (a->rows < 0 || a->heads < 1 || a->dim < 1 || a->ld < a->heads * a->dim || a->n < 1 ||
        a->cu[0] != 0 || a->cu[a->n] != a->rows || a->rows >= INT32_MAX ||
        a->heads * a->dim > INT32_MAX || a->type < KV_ACT || a->type >= KV_TYPES)
        return E_BUG;
    cuda_begin_rows(c, OP_store, a->rows);
    for (int64_t at = 0; at < a->n; at += PIECES) {
        struct pieces p = { (int)lesser(a->n - at, PIECES), a->cu[at], { 0 }, { 0 } };
        int64_t rows = a->cu[at + p.n] - p.first;

        for (int i = 0; i < p.n; i++)
            p.cu[i] = a->cu[at + i], p.to[i] = a->to[at + i];
        p.cu[p.n] = a->cu[at + p.n];
        if (rows)
            chain_launch(c, store, dim3((unsigned)rows, a->v ? 2 : 1), THREADS, *a, p);
    }
    return cuda_end(d, 0, OP_store, 0);
}

static __global__ void unpack_rows(int64_t n, int dim, const int8_t *x, const float *scale, bf16 *y)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[i] = narrow((float)x[i] * scale[i / dim]);
}

extern "C" void store_unpack(struct cuda *c, int64_t rows, int64_t heads, int64_t dim,
                             const void *x, const float *scale, void *y)
{
    int64_t n = rows * heads * dim;

    if (n)
        unpack_rows<<<cuda_blocks(c, n, 256 * 4), 256, 0, c->stream>>>(
            n, (int)dim, (const int8_t *)x, scale, (bf16 *)y);
}
