/* kernels/cuda/rmsnorm.cu - root-mean-square normalisation, forward and backward. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

#include <limits.h>

/*
 * W threads hold a row in registers, E eights of channels each, packed as in memory, so that it is read once: a warp
 * where the row is short, so that nothing has to wait for other warps; a part of one for the norms of heads, so that
 * each lane has 32 bytes to read. Blocks are small, so that while one adds up others have their loads under way.
 */
enum { WIDEST = 512, MOST_EIGHTS = 4 }; /* threads a row; eights of a thread */
enum { THREADS = 256 };                 /* of the kernels for any shape, and of blocks with several rows */
enum { COLUMNS = 32, WAYS = 32 };       /* of gather */

template <int W> struct shape {
    static constexpr int rows = W <= 32 ? THREADS / W : 1, threads = W * rows; /* of a block */
    static constexpr int resident = 512 / threads; /* blocks a multiprocessor, backward */
    static constexpr int E = W < 32 ? 2 : MOST_EIGHTS;
};

/* Over the row's threads, the same in all. turn: 0 and 1 from row to row; by two sets of places
 * one barrier does. */
template <int W> static __device__ __forceinline__ float row_sum(float x, int turn)
{
    __shared__ float part[2][W > 32 ? W / 32 : 1];

    for (int o = W < 32 ? W / 2 : 16; o; o >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    if (W <= 32)
        return x;
    if ((threadIdx.x & 31) == 0)
        part[turn][threadIdx.x >> 5] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int i = 0; i < W / 32; i++)
        x += part[turn][i];
    return x;
}

static __device__ __forceinline__ void load_weights(const float *w, int eight, float x[8])
{
    float4 lo = ((const float4 *)w)[2 * eight], hi = ((const float4 *)w)[2 * eight + 1];

    x[0] = lo.x, x[1] = lo.y, x[2] = lo.z, x[3] = lo.w;
    x[4] = hi.x, x[5] = hi.y, x[6] = hi.z, x[7] = hi.w;
}

/* The row's eights k of this thread, zero beyond its end. */
template <int W>
static __device__ __forceinline__ void load_row(const bf16 *row, int n, uint4 u[shape<W>::E])
{
    int t = (int)threadIdx.x % W;

#pragma unroll
    for (int k = 0; k < shape<W>::E; k++)
        u[k] = t + k * W < n ? ((const uint4 *)row)[t + k * W] : make_uint4(0, 0, 0, 0);
}

template <int W>
static __global__ void __launch_bounds__(shape<W>::threads) forward(struct op_rmsnorm a)
{
    constexpr int rows = shape<W>::rows, E = shape<W>::E;
    int t = (int)threadIdx.x % W, turn = 0;

    chain_next();
    chain_wait();
    for (int64_t first = (int64_t)blockIdx.x * rows; first < a.rows; first += (int64_t)gridDim.x * rows, turn ^= 1) {
        int64_t r = first + threadIdx.x / W;
        int n = r < a.rows ? (int)(a.dim / 8) : 0; /* whole warps go along to the sum */
        uint4 u[E], *y = (uint4 *)((bf16 *)a.y + r * a.dim);
        float s = 0, rstd, v[8], w[8];

        load_row<W>((const bf16 *)a.x + r * a.dim, n, u);
#pragma unroll
        for (int k = 0; k < E; k++) {
            unpack(u[k], v);
#pragma unroll
            for (int j = 0; j < 8; j++)
                s += v[j] * v[j];
        }
        rstd = 1.0f / sqrtf(row_sum<W>(s, turn) / (float)a.dim + a.eps);
        if (a.rstd && t == 0 && n)
            a.rstd[r] = rstd;
#pragma unroll
        for (int k = 0; k < E; k++)
            if (t + k * W < n) {
                unpack(u[k], v);
                load_weights(a.w, t + k * W, w);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    v[j] = (w[j] + a.shift) * (v[j] * rstd);
                if (a.add) {
                    unpack(((const uint4 *)((const bf16 *)a.add + r * a.dim))[t + k * W], w);
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        v[j] += w[j];
                }
                y[t + k * W] = pack(v);
            }
    }
}

/* Any shape: a block a row, which is read twice. */
static __global__ void forward_any(struct op_rmsnorm a)
{
    chain_next();
    chain_wait();
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const bf16 *x = (const bf16 *)a.x + r * a.dim;
        bf16 *y = (bf16 *)a.y + r * a.dim;
        float s = 0, rstd;

        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS)
            s += wide(x[i]) * wide(x[i]);
        rstd = 1.0f / sqrtf(block_sum(s) / (float)a.dim + a.eps);
        if (a.rstd && threadIdx.x == 0)
            a.rstd[r] = rstd;
        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS)
            y[i] = narrow((a.w[i] + a.shift) * (wide(x[i]) * rstd) +
                          (a.add ? wide(((const bf16 *)a.add)[r * a.dim + i]) : 0.0f));
    }
}

/* Threads a row, 0 where rows do not go by eights. */
static int width_of(int64_t dim, const void *x, const void *y, const void *z, const void *w)
{
    int width = 4;

    if (dim % 8 || dim > WIDEST * MOST_EIGHTS * 8 || !aligned16(x) || !aligned16(y) || !aligned16(z) ||
        !aligned16(w))
        return 0;
    while (width * (width < 32 ? 2 : MOST_EIGHTS) * 8 < dim)
        width *= 2;
    return width;
}

template <int W> static void forward_by(struct cuda *c, const struct op_rmsnorm *a)
{
    unsigned blocks = (unsigned)lesser(ceil_div(a->rows, shape<W>::rows), INT_MAX);

    chain_launch(c, forward<W>, blocks, shape<W>::threads, *a);
}

extern "C" int cuda_rmsnorm(struct device *d, const struct op_rmsnorm *a)
{
    struct cuda *c = cuda_of(d);

    if (a->rows <= 0 || a->dim <= 0)
        return a->rows < 0 || a->dim <= 0 ? E_BUG : 0;
    cuda_begin_rows(c, OP_rmsnorm, lesser(a->rows, ceil_div(a->rows * a->dim, ROW_MOST)));
    switch (width_of(a->dim, a->x, a->y, a->add, a->w)) {
    case 4: forward_by<4>(c, a); break;
    case 8: forward_by<8>(c, a); break;
    case 16: forward_by<16>(c, a); break;
    case 32: forward_by<32>(c, a); break;
    case 64: forward_by<64>(c, a); break;
    case 128: forward_by<128>(c, a); break;
    case 256: forward_by<256>(c, a); break;
    case 512: forward_by<512>(c, a); break;
    default: chain_launch(c, forward_any, cuda_blocks(c, a->rows, 1), THREADS, *a);
    }
    return cuda_end(d, 0, OP_rmsnorm, 0);
}

/* The sums of dw that this block's threads hold for its rows, to its row of partial. */
template <int W>
static __device__ void put_sums(const float acc[shape<W>::E][8], int64_t dim, float *partial)
{
    constexpr int E = shape<W>::E;
    __shared__ float all[W <= 32 ? W * E * 8 : 1];
    int t = (int)threadIdx.x % W, row = (int)threadIdx.x / W, n = (int)(dim / 8);
    float *to = partial + blockIdx.x * dim;

    for (int who = 0; W <= 32 && who < shape<W>::rows; who++) { /* row after row */
        if (row == who)
#pragma unroll
            for (int k = 0; k < E; k++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    int at = (k * 8 + j) * W + t;
                    all[at] = who ? all[at] + acc[k][j] : acc[k][j];
                }
        __syncthreads();
    }
    if (row == 0)
#pragma unroll
        for (int k = 0; k < E; k++)
            if (t + k * W < n)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    to[8 * (t + k * W) + j] = W <= 32 ? all[(k * 8 + j) * W + t] : acc[k][j];
}

/* Each block takes rows in steps of the grid; its part of dw stays in registers meanwhile. */
template <int W>
static __global__ void __launch_bounds__(shape<W>::threads, shape<W>::resident)
    backward(struct op_rmsnorm_back a, float *partial)
{
    constexpr int rows = shape<W>::rows, E = shape<W>::E;
    int t = (int)threadIdx.x % W, turn = 0;
    float acc[E][8] = {};

    for (int64_t first = (int64_t)blockIdx.x * rows; first < a.rows; first += (int64_t)gridDim.x * rows, turn ^= 1) {
        int64_t r = first + threadIdx.x / W;
        int n = r < a.rows ? (int)(a.dim / 8) : 0; /* whole warps go along to the sum */
        uint4 ux[E], uy[E], ud[E], *dx = (uint4 *)((bf16 *)a.dx + r * a.dim);
        float rstd = n ? a.rstd[r] : 0, s = 0, x[8], y[8], d[8], w[8];

        load_row<W>((const bf16 *)a.x + r * a.dim, n, ux);
        load_row<W>((const bf16 *)a.dy + r * a.dim, n, uy);
        load_row<W>((const bf16 *)dx, a.overwrite ? 0 : n, ud);
#pragma unroll
        for (int k = 0; k < E; k++)
            if (t + k * W < n) {
                unpack(ux[k], x);
                unpack(uy[k], y);
                load_weights(a.w, t + k * W, w);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    s += (w[j] + a.shift) * y[j] * x[j];
            }
        s = row_sum<W>(s, turn) * rstd * rstd * rstd / (float)a.dim;
#pragma unroll
        for (int k = 0; k < E; k++)
            if (t + k * W < n) {
                unpack(ux[k], x);
                unpack(uy[k], y);
                unpack(ud[k], d);
                load_weights(a.w, t + k * W, w);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    d[j] += rstd * (w[j] + a.shift) * y[j] - x[j] * s;
                    acc[k][j] += y[j] * x[j] * rstd;
                }
                dx[t + k * W] = pack(d);
            }
    }
    if (partial)
        put_sums<W>(acc, a.dim, partial);
}

static __global__ void backward_any(struct op_rmsnorm_back a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const bf16 *x = (const bf16 *)a.x + r * a.dim, *dy = (const bf16 *)a.dy + r * a.dim;
        bf16 *dx = (bf16 *)a.dx + r * a.dim;
        float rstd = a.rstd[r], s = 0;

        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS)
            s += (a.w[i] + a.shift) * wide(dy[i]) * wide(x[i]);
        s = block_sum(s) * rstd * rstd * rstd / (float)a.dim;
        for (int64_t i = threadIdx.x; i < a.dim; i += THREADS)
            dx[i] = narrow((a.overwrite ? 0.0f : wide(dx[i])) + rstd * (a.w[i] + a.shift) * wide(dy[i]) -
                           wide(x[i]) * s);
    }
}

/* dw beside backward_any: a thread a channel, a block row a part of the rows. */
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

/* dw += the sum of the parts: WAYS threads a channel add every WAYSth, then one adds theirs. */
static __global__ void gather(const float *partial, int64_t parts, int64_t dim, float *dw)
{
    __shared__ float sum[WAYS][COLUMNS];
    int64_t i = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    float s = 0;

#pragma unroll 8
    for (int64_t p = threadIdx.y; i < dim && p < parts; p += WAYS)
        s += partial[p * dim + i];
    sum[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y || i >= dim)
        return;
    for (int k = 1; k < WAYS; k++)
        s += sum[k][threadIdx.x];
    dw[i] += s;
}

template <int W> static int64_t backward_blocks(const struct cuda *c, int64_t rows)
{
    return lesser(ceil_div(rows, shape<W>::rows), (int64_t)c->sms * shape<W>::resident);
}

template <int W>
static void backward_by(struct cuda *c, const struct op_rmsnorm_back *a, int64_t blocks,
                        float *partial)
{
    backward<W><<<(unsigned)blocks, shape<W>::threads, 0, c->stream>>>(*a, partial);
}

static int64_t parts_of(const struct cuda *c, int width, int64_t rows)
{
    switch (width) {
    case 4: return backward_blocks<4>(c, rows);
    case 8: return backward_blocks<8>(c, rows);
    case 16: return backward_blocks<16>(c, rows);
    case 32: return backward_blocks<32>(c, rows);
    case 64: return backward_blocks<64>(c, rows);
    case 128: return backward_blocks<128>(c, rows);
    case 256: return backward_blocks<256>(c, rows);
    case 512: return backward_blocks<512>(c, rows);
    default: return lesser(rows, (int64_t)c->sms * 4);
    }
}

extern "C" int cuda_rmsnorm_back(struct device *d, const struct op_rmsnorm_back *a)
{
    struct cuda *c = cuda_of(d);
    int width = width_of(a->dim, a->x, a->dy, a->dx, a->w);
    int64_t parts = parts_of(c, width, a->rows);
    float *partial = NULL;

    if (a->rows <= 0 || a->dim <= 0)
        return a->rows < 0 || a->dim <= 0 ? E_BUG : 0;
    if (a->dw && !(partial = (float *)cuda_scratch(c, SCRATCH_PARTIAL,
                                                   (size_t)(parts * a->dim) * sizeof *partial)))
        return E_DEVICE;
    cuda_begin(c, OP_rmsnorm_back);
    switch (width) {
    case 4: backward_by<4>(c, a, parts, partial); break;
    case 8: backward_by<8>(c, a, parts, partial); break;
    case 16: backward_by<16>(c, a, parts, partial); break;
    case 32: backward_by<32>(c, a, parts, partial); break;
    case 64: backward_by<64>(c, a, parts, partial); break;
    case 128: backward_by<128>(c, a, parts, partial); break;
    case 256: backward_by<256>(c, a, parts, partial); break;
    case 512: backward_by<512>(c, a, parts, partial); break;
    default: backward_any<<<(unsigned)parts, THREADS, 0, c->stream>>>(*a);
    }
    if (a->dw && !width)
        columns<<<dim3((unsigned)ceil_div(a->dim, THREADS), (unsigned)parts), THREADS, 0,
                  c->stream>>>(*a, partial);
    if (a->dw)
        gather<<<(unsigned)ceil_div(a->dim, COLUMNS), dim3(COLUMNS, WAYS), 0, c->stream>>>(
            partial, parts, a->dim, a->dw);
    return cuda_end(d, 0, OP_rmsnorm_back, 0);
}
