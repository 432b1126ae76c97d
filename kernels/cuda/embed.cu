/* kernels/cuda/embed.cu - token embedding: a look-up, and the sum of rows back in their order. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/product.h"

enum { THREADS = 256, SCAN_THREADS = 1024, ORDER_THREADS = 128,
       LONG_RUN = 2048 /* rows of one id that are not ranked, which takes their square */ };

/* The model checked its ids; a wrong one gives zeros here, and no wild address. */
template <int V> static __global__ void look_up(struct op_embed a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        int64_t id = a.ids[r];
        bool good = id >= 0 && id < a.vocab;
        const bf16 *from = (const bf16 *)a.table.data + (good ? id : 0) * a.dim;
        bf16 *to = (bf16 *)a.y + r * a.dim;

        for (int64_t i = (int64_t)threadIdx.x * V; i < a.dim; i += (int64_t)blockDim.x * V) {
            float x[V];
            load_v<V>(from + i, x);
            if (!good)
                for (int j = 0; j < V; j++)
                    x[j] = 0;
            store_v<V>(to + i, x);
        }
    }
}

extern "C" int cuda_embed(struct device *d, const struct op_embed *a)
{
    struct cuda *c = cuda_of(d);

    if (a->rows <= 0 || a->dim <= 0 || a->vocab <= 0)
        return a->rows == 0 ? 0 : E_BUG;
    if (a->table.type->plain != DT_BF16)
        return mat_embed(d, a, &c->fault);
    cuda_begin(c, OP_embed);
    if (a->dim % 8 == 0 && aligned16(a->table.data) && aligned16(a->y))
        look_up<8><<<cuda_blocks(c, a->rows, 1), THREADS, 0, c->stream>>>(*a);
    else
        look_up<1><<<cuda_blocks(c, a->rows, 1), THREADS, 0, c->stream>>>(*a);
    return cuda_end(d, 0, OP_embed, 0);
}

/*
 * No float is added atomically. Rows are sorted by id: counted, the counts summed up, each row
 * put into its id's bucket (in whatever order), each bucket then put in order by rank, or, a long
 * one, found again in the order of all rows; at last
 * one thread adds a channel of a bucket, row after row.
 */
static __global__ void count(struct op_embed_back a, int32_t *n)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t r = (int64_t)blockIdx.x * THREADS + threadIdx.x; r < a.rows; r += step)
        if (a.ids[r] >= 0 && a.ids[r] < a.vocab)
            atomicAdd(n + a.ids[r], 1);
}

/* start[v] = n[0] + ... + n[v-1], start[vocab] = all; one block. */
static __global__ void sum_up(int64_t vocab, const int32_t *n, int32_t *start, int32_t *next)
{
    __shared__ int32_t part[SCAN_THREADS];
    int64_t each = (vocab + SCAN_THREADS - 1) / SCAN_THREADS;
    int64_t from = threadIdx.x * each, to = from + each < vocab ? from + each : vocab;
    int32_t s = 0;

    for (int64_t v = from; v < to; v++)
        s += n[v];
    part[threadIdx.x] = s;
    __syncthreads();
    for (int o = 1; o < SCAN_THREADS; o <<= 1) {
        int32_t before = threadIdx.x >= (unsigned)o ? part[threadIdx.x - o] : 0;
        __syncthreads();
        part[threadIdx.x] += before;
        __syncthreads();
    }
    s = part[threadIdx.x] - s;
    for (int64_t v = from; v < to; v++) {
        start[v] = next[v] = s;
        s += n[v];
    }
    if (threadIdx.x == SCAN_THREADS - 1)
        start[vocab] = part[SCAN_THREADS - 1];
}

static __global__ void place(struct op_embed_back a, int32_t *next, int32_t *row)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t r = (int64_t)blockIdx.x * THREADS + threadIdx.x; r < a.rows; r += step)
        if (a.ids[r] >= 0 && a.ids[r] < a.vocab)
            row[atomicAdd(next + a.ids[r], 1)] = (int32_t)r;
}

/* The rows of one id, in order, by a look at all ids: block-wide, for a bucket that ranking would
 * take long for. */
static __device__ void find_rows(struct op_embed_back a, int64_t v, int32_t *sorted)
{
    __shared__ int32_t found[ORDER_THREADS / 32];
    int32_t done = 0, lane = (int32_t)threadIdx.x & 31, warp = (int32_t)threadIdx.x >> 5;

    for (int64_t from = 0; from < a.rows; from += ORDER_THREADS) {
        int64_t r = from + threadIdx.x;
        bool mine = r < a.rows && a.ids[r] == v;
        unsigned votes = __ballot_sync(0xffffffffu, mine);
        int32_t at = done + __popc(votes & ((1u << lane) - 1));

        if (lane == 0)
            found[warp] = __popc(votes);
        __syncthreads();
        for (int32_t w = 0; w < ORDER_THREADS / 32; w++) {
            at += w < warp ? found[w] : 0;
            done += found[w];
        }
        if (mine)
            sorted[at] = (int32_t)r;
        __syncthreads();
    }
}

static __global__ void __launch_bounds__(ORDER_THREADS)
    order(struct op_embed_back a, const int32_t *start, const int32_t *row, int32_t *sorted)
{
    for (int64_t v = blockIdx.x; v < a.vocab; v += gridDim.x) {
        int32_t from = start[v], n = start[v + 1] - from;
        if (n > LONG_RUN) {
            find_rows(a, v, sorted + from);
            continue;
        }
        for (int32_t i = (int32_t)threadIdx.x; i < n; i += ORDER_THREADS) {
            int32_t mine = row[from + i], rank = 0;
            for (int32_t j = 0; j < n; j++)
                rank += row[from + j] < mine;
            sorted[from + rank] = mine;
        }
    }
}

static __global__ void add_rows(struct op_embed_back a, const int32_t *start, const int32_t *sorted)
{
    int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;

    if (i >= a.dim)
        return;
    for (int64_t v = blockIdx.x; v < a.vocab; v += gridDim.x) {
        int32_t at = start[v], end = start[v + 1];
        float s;
        if (at == end)
            continue;
        s = a.d_table[v * a.dim + i];
#pragma unroll 8
        for (; at < end; at++)
            s += wide(((const bf16 *)a.dy)[(int64_t)sorted[at] * a.dim + i]);
        a.d_table[v * a.dim + i] = s;
    }
}

extern "C" int cuda_embed_back(struct device *d, const struct op_embed_back *a)
{
    struct cuda *c = cuda_of(d);
    int64_t words = 3 * a->vocab + 1 + 2 * a->rows;
    unsigned many = cuda_blocks(c, a->rows, THREADS);
    int32_t *n, *start, *next, *row, *sorted;
    dim3 grid;

    if (a->rows <= 0 || a->dim <= 0 || a->vocab <= 0 || a->rows >= INT32_MAX)
        return a->rows == 0 ? 0 : E_BUG;
    if (!(n = (int32_t *)cuda_scratch(c, SCRATCH_SORT, (size_t)words * sizeof *n)))
        return E_DEVICE;
    start = n + a->vocab;
    next = start + a->vocab + 1;
    row = next + a->vocab;
    sorted = row + a->rows;
    cuda_begin(c, OP_embed_back);
    cudaMemsetAsync(n, 0, (size_t)a->vocab * sizeof *n, c->stream);
    count<<<many, THREADS, 0, c->stream>>>(*a, n);
    sum_up<<<1, SCAN_THREADS, 0, c->stream>>>(a->vocab, n, start, next);
    place<<<many, THREADS, 0, c->stream>>>(*a, next, row);
    order<<<(unsigned)lesser(a->vocab, 1 << 16), ORDER_THREADS, 0, c->stream>>>(*a, start, row,
                                                                                 sorted);
    grid = dim3((unsigned)lesser(a->vocab, 1 << 16), (unsigned)ceil_div(a->dim, THREADS));
    add_rows<<<grid, THREADS, 0, c->stream>>>(*a, start, sorted);
    return cuda_end(d, 0, OP_embed_back, 0);
}
