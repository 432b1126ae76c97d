/* kernels/cuda/flash_any.cu - our own segmented causal attention, for all that the kernels of
 * flash_forward.cu and flash_back.cu do not take. */
#include "kernels/cuda/flash.cuh"

#include <mma.h>

/*
 * Tiles of 32 rows against tiles of 32, products by the tensor cores through wmma (sm_80 and
 * later), sums float32 in shared memory, softmax online (Milakov and Gimelshein 2018,
 * arXiv:1805.02867; tiled as in Dao 2022, arXiv:2205.14135). Any head dimension to 256 (padded
 * with zeros to a multiple of 16), any alignment, any segments. Keys that no query sees
 * count as zeros: they may hold anything. The backward is two kernels, one that owns rows of keys and one that owns rows of queries, so that
 * nothing is added atomically and the bits do not depend on the run.
 */
enum { TILE = 32, THREADS = 128, LDS = TILE + 4, LDP = TILE + 8, MOST_DIM = 256 };

using namespace nvcuda;

/* By row of an array, of those who see it: none where first is not below end. */
struct seers {
    const int32_t *first, *end;
};

/* 32 rows from row at of a [rows][ld] array, zeros past its end and its dimension, and for rows
 * that have no seers, where these are given. */
static __device__ void load(const struct flash &f, bf16 *to, const void *array, int64_t ld,
                            int64_t head, int64_t at, int64_t rows, struct seers by)
{
    const bf16 *x = (const bf16 *)array + head * f.dim;
    bool eight = f.dim % 8 == 0 && ld % 8 == 0 && ((uintptr_t)x & 15) == 0;
    int pieces = eight ? f.dp / 8 : f.dp;

    for (int i = threadIdx.x; i < TILE * pieces; i += THREADS) {
        int r = i / pieces, j = (i - r * pieces) * (eight ? 8 : 1);
        bool there = at + r < rows && j < f.dim &&
                     (!by.first || by.first[at + r] < by.end[at + r]);
        if (eight)
            *(uint4 *)(to + r * f.ld + j) =
                there ? *(const uint4 *)(x + (at + r) * ld + j) : make_uint4(0, 0, 0, 0);
        else
            to[r * f.ld + j] = there ? x[(at + r) * ld + j] : narrow(0.0f);
    }
}
static __device__ __forceinline__ void load(const struct flash &f, bf16 *to, const void *array,
                                            int64_t ld, int64_t head, int64_t at, int64_t rows)
{
    struct seers all = { NULL, NULL };

    load(f, to, array, ld, head, at, rows, all);
}

typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum_tile;
typedef wmma::fragment<wmma::matrix_a, 16, 16, 16, bf16, wmma::row_major> left_tile;
typedef wmma::fragment<wmma::matrix_b, 16, 16, 16, bf16, wmma::row_major> right_tile;
typedef wmma::fragment<wmma::matrix_b, 16, 16, 16, bf16, wmma::col_major> turned_tile;

/* s [32][32] = a b^T, both [32][dp]: one quarter a warp. */
static __device__ void scores(const struct flash &f, float *s, const bf16 *a, const bf16 *b)
{
    int warp = threadIdx.x >> 5, i = warp / 2 * 16, j = warp % 2 * 16;
    sum_tile acc;
    left_tile l;
    turned_tile t;

    wmma::fill_fragment(acc, 0.0f);
    for (int k = 0; k < f.dp; k += 16) {
        wmma::load_matrix_sync(l, a + i * f.ld + k, (unsigned)f.ld);
        wmma::load_matrix_sync(t, b + j * f.ld + k, (unsigned)f.ld);
        wmma::mma_sync(acc, l, t, acc);
    }
    wmma::store_matrix_sync(s + i * LDS + j, acc, LDS, wmma::mem_row_major);
}

/* o [32][dp] += p x, p [32][32], x [32][dp]. */
static __device__ void gather(const struct flash &f, float *o, const bf16 *p, const bf16 *x)
{
    int warp = threadIdx.x >> 5, across = f.dp / 16;
    sum_tile acc;
    left_tile l;
    right_tile r;

    for (int t = warp; t < 2 * across; t += THREADS / 32) {
        int i = t / across * 16, j = t % across * 16;
        wmma::load_matrix_sync(acc, o + i * f.ldo + j, (unsigned)f.ldo, wmma::mem_row_major);
        for (int k = 0; k < TILE; k += 16) {
            wmma::load_matrix_sync(l, p + i * LDP + k, LDP);
            wmma::load_matrix_sync(r, x + k * f.ld + j, (unsigned)f.ld);
            wmma::mma_sync(acc, l, r, acc);
        }
        wmma::store_matrix_sync(o + i * f.ldo + j, acc, (unsigned)f.ldo, wmma::mem_row_major);
    }
}

static __device__ void clear(const struct flash &f, float *o)
{
    for (int i = threadIdx.x; i < TILE * f.ldo; i += THREADS)
        o[i] = 0.0f;
}

static __device__ void put(const struct flash &f, void *to, int64_t ld, int64_t head, int64_t at,
                           int64_t rows, const float *o, const float *over)
{
    bf16 *x = (bf16 *)to + head * f.dim;

    for (int i = threadIdx.x; i < TILE * f.dim; i += THREADS) {
        int r = i / f.dim, j = i - r * f.dim;
        if (at + r < rows)
            x[(at + r) * ld + j] = narrow(over ? o[r * f.ldo + j] / over[r] : o[r * f.ldo + j]);
    }
}

/* Four neighbouring threads hold a row of the tile, eight columns each. */
static __device__ __forceinline__ float four_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
static __device__ __forceinline__ float four_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* What the rows of a tile see, or who sees them. */
struct reach {
    int64_t from, end;
};
static __device__ __forceinline__ struct reach reach_of(const int32_t *first, const int32_t *end,
                                                      int64_t at, int64_t rows)
{
    int64_t last = (at + TILE < rows ? at + TILE : rows) - 1;
    struct reach s = { first[at], end[last] };

    return s;
}

static __global__ void __launch_bounds__(THREADS) forward(const struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *q = (bf16 *)room, *k = q + TILE * f.ld, *v = k + TILE * f.ld, *p = v + TILE * f.ld;
    float *s = (float *)(p + TILE * LDP), *o = s + TILE * LDS, *total = o + TILE * f.ldo;
    int64_t tiles = (a.q_rows + TILE - 1) / TILE;
    int64_t at = (tiles - 1 - blockIdx.x) * TILE, h = blockIdx.y; /* late tiles see most */
    int64_t shared = h / (a.heads / a.kv_heads);
    const int32_t *first = f.key_first[half_of(f, h)], *end = f.key_end[half_of(f, h)];
    struct reach seen = reach_of(first, end, at, a.q_rows);
    struct seers by = { f.query_first[half_of(f, h)], f.query_end[half_of(f, h)] };
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;
    int64_t t = at + row, from = t < a.q_rows ? first[t] : 0, to = t < a.q_rows ? end[t] : 0;
    float max = -INFINITY, sum = 0;

    load(f, q, a.q, a.q_ld, h, at, a.q_rows);
    clear(f, o);
    for (int64_t key = seen.from / TILE * TILE; key < seen.end; key += TILE) {
        float x[8], most = max, keep;

        __syncthreads();
        load(f, k, a.k, a.kv_ld, shared, key, a.kv_rows, by);
        load(f, v, a.v, a.kv_ld, shared, key, a.kv_rows, by);
        __syncthreads();
        scores(f, s, q, k);
        __syncthreads();
        for (int j = 0; j < 8; j++) {
            int64_t at_key = key + col + j;
            x[j] = at_key >= from && at_key < to ? a.scale * s[row * LDS + col + j] : -INFINITY;
            most = fmaxf(most, x[j]);
        }
        most = four_max(most);
        keep = most == -INFINITY ? 1.0f : __expf(max - most);
        sum *= keep;
        for (int j = 0; j < 8; j++) {
            float w = x[j] == -INFINITY ? 0.0f : __expf(x[j] - most);
            sum += w;
            p[row * LDP + col + j] = narrow(w);
        }
        if (keep != 1.0f)
            for (int j = threadIdx.x % 4; j < f.dp; j += 4)
                o[row * f.ldo + j] *= keep;
        max = most;
        __syncthreads();
        gather(f, o, p, v);
    }
    sum = four_sum(sum);
    if (threadIdx.x % 4 == 0) {
        total[row] = sum > 0 ? sum : 1.0f;
        if (t < a.q_rows)
            a.lse[h * a.q_rows + t] = max + logf(sum);
    }
    __syncthreads();
    put(f, a.o, a.q_ld, h, at, a.q_rows, o, total);
}

/* scratch[h][t] = sum over a head's channels of do * o: a warp a row. */
static __global__ void dots(const struct flash f)
{
    const struct op_attention &a = f.b.fwd;
    int64_t n = a.q_rows * a.heads, warps = (int64_t)gridDim.x * (THREADS / 32);

    for (int64_t i = (int64_t)blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5); i < n; i += warps) {
        int64_t t = i / a.heads, h = i - t * a.heads, at = t * a.q_ld + h * f.dim;
        const bf16 *x = (const bf16 *)f.b.d_o + at, *y = (const bf16 *)a.o + at;
        float s = 0;
        for (int j = threadIdx.x & 31; j < f.dim; j += 32)
            s += wide(x[j]) * wide(y[j]);
        for (int o = 16; o; o >>= 1)
            s += __shfl_xor_sync(0xffffffffu, s, o);
        if ((threadIdx.x & 31) == 0)
            f.b.scratch[h * a.q_rows + t] = s;
    }
}

/* Of one score: the weight p and its gradient ds, zero where the key is not seen. */
static __device__ __forceinline__ void soften(const struct flash &f, bool seen, float s, float dp,
                                              float lse, float dot, float *p, float *ds)
{
    *p = seen ? __expf(f.b.fwd.scale * s - lse) : 0.0f;
    *ds = seen ? *p * (dp - dot) * f.b.fwd.scale : 0.0f;
}

static __global__ void __launch_bounds__(THREADS) back_keys(const struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *k = (bf16 *)room, *v = k + TILE * f.ld, *q = v + TILE * f.ld, *g = q + TILE * f.ld;
    bf16 *p = g + TILE * f.ld, *ds = p + TILE * LDP;
    float *s = (float *)(ds + TILE * LDP), *w = s + TILE * LDS, *dk = w + TILE * LDS;
    float *dv = dk + TILE * f.ldo;
    int64_t at = (int64_t)blockIdx.x * TILE, shared = blockIdx.y, group = a.heads / a.kv_heads;
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;

    load(f, k, a.k, a.kv_ld, shared, at, a.kv_rows);
    load(f, v, a.v, a.kv_ld, shared, at, a.kv_rows);
    clear(f, dk);
    clear(f, dv);
    for (int64_t h = shared * group; h < (shared + 1) * group; h++) {
        const int32_t *first = f.query_first[half_of(f, h)], *end = f.query_end[half_of(f, h)];
        struct reach who = reach_of(first, end, at, a.kv_rows);
        int64_t t = at + row, from = t < a.kv_rows ? first[t] : 0, stop = t < a.kv_rows ? end[t] : 0;

        for (int64_t query = who.from / TILE * TILE; query < who.end; query += TILE) {
            __syncthreads();
            load(f, q, a.q, a.q_ld, h, query, a.q_rows);
            load(f, g, f.b.d_o, a.q_ld, h, query, a.q_rows);
            __syncthreads();
            scores(f, s, k, q);
            scores(f, w, v, g);
            __syncthreads();
            for (int j = 0; j < 8; j++) {
                int64_t to = query + col + j;
                bool seen = to >= from && to < stop;
                float x, y;
                soften(f, seen, s[row * LDS + col + j], w[row * LDS + col + j],
                       seen ? a.lse[h * a.q_rows + to] : 0.0f,
                       seen ? f.b.scratch[h * a.q_rows + to] : 0.0f, &x, &y);
                p[row * LDP + col + j] = narrow(x);
                ds[row * LDP + col + j] = narrow(y);
            }
            __syncthreads();
            gather(f, dv, p, g);
            gather(f, dk, ds, q);
        }
    }
    __syncthreads();
    put(f, f.b.dk, a.kv_ld, shared, at, a.kv_rows, dk, NULL);
    put(f, f.b.dv, a.kv_ld, shared, at, a.kv_rows, dv, NULL);
}

static __global__ void __launch_bounds__(THREADS) back_queries(const struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *q = (bf16 *)room, *g = q + TILE * f.ld, *k = g + TILE * f.ld, *v = k + TILE * f.ld;
    bf16 *ds = v + TILE * f.ld;
    float *s = (float *)(ds + TILE * LDP), *w = s + TILE * LDS, *dq = w + TILE * LDS;
    int64_t tiles = (a.q_rows + TILE - 1) / TILE;
    int64_t at = (tiles - 1 - blockIdx.x) * TILE, h = blockIdx.y;
    int64_t shared = h / (a.heads / a.kv_heads);
    const int32_t *first = f.key_first[half_of(f, h)], *end = f.key_end[half_of(f, h)];
    struct reach seen = reach_of(first, end, at, a.q_rows);
    struct seers by = { f.query_first[half_of(f, h)], f.query_end[half_of(f, h)] };
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;
    int64_t t = at + row, from = t < a.q_rows ? first[t] : 0, to = t < a.q_rows ? end[t] : 0;
    float lse = t < a.q_rows ? a.lse[h * a.q_rows + t] : 0.0f;
    float dot = t < a.q_rows ? f.b.scratch[h * a.q_rows + t] : 0.0f;

    load(f, q, a.q, a.q_ld, h, at, a.q_rows);
    load(f, g, f.b.d_o, a.q_ld, h, at, a.q_rows);
    clear(f, dq);
    for (int64_t key = seen.from / TILE * TILE; key < seen.end; key += TILE) {
        __syncthreads();
        load(f, k, a.k, a.kv_ld, shared, key, a.kv_rows, by);
        load(f, v, a.v, a.kv_ld, shared, key, a.kv_rows, by);
        __syncthreads();
        scores(f, s, q, k);
        scores(f, w, g, v);
        __syncthreads();
        for (int j = 0; j < 8; j++) {
            int64_t at_key = key + col + j;
            float x, y;
            soften(f, at_key >= from && at_key < to, s[row * LDS + col + j],
                   w[row * LDS + col + j], lse, dot, &x, &y);
            ds[row * LDP + col + j] = narrow(y);
        }
        __syncthreads();
        gather(f, dq, ds, k);
    }
    __syncthreads();
    put(f, f.b.dq, a.q_ld, h, at, a.q_rows, dq, NULL);
}

/* Shared memory of a kernel: tiles of inputs, of weights, of scores, of results, and a row. */
static size_t room_of(const struct flash *f, int inputs, int weights, int scores_, int results)
{
    return (size_t)TILE * ((size_t)inputs * (size_t)f->ld * 2 + (size_t)weights * LDP * 2 +
                           (size_t)scores_ * LDS * 4 + (size_t)results * (size_t)f->ldo * 4 + 4);
}

static int launch(struct cuda *c, void (*kernel)(const struct flash), int64_t rows, int64_t heads,
                  size_t bytes, const struct flash *f)
{
    struct flash arg = *f;
    void *args[] = { &arg };
    dim3 grid((unsigned)ceil_div(rows, TILE), (unsigned)heads);
    int rc;

    if (f->dim > MOST_DIM || (int64_t)bytes > c->smem_bytes || heads > 65535)
        return cuda_fault(c, "attention on this GPU does not take a head dimension of %d", f->dim);
    if (rows == 0)
        return 0;
    if ((rc = flash_shared_memory(c, (const void *)kernel, bytes)))
        return rc;
    return cuda_check(c, cudaLaunchKernel((const void *)kernel, grid, dim3(THREADS), args, bytes,
                                          c->stream), "attention");
}

int flash_forward_any(struct cuda *c, const struct flash *f)
{
    const struct op_attention *a = &f->b.fwd;

    return launch(c, forward, a->q_rows, a->heads, room_of(f, 3, 1, 1, 1), f);
}

int flash_backward_any(struct cuda *c, const struct flash *f)
{
    const struct op_attention *a = &f->b.fwd;
    size_t keys = room_of(f, 4, 2, 2, 2), queries = room_of(f, 4, 1, 2, 1);
    int64_t blocks = cuda_blocks(c, a->q_rows * a->heads, THREADS / 32);
    int rc = blocks ? flash_launch(c, dots, blocks, THREADS, 0, f) : 0;

    if (rc == 0)
        rc = launch(c, back_keys, a->kv_rows, a->kv_heads, keys, f);
    return rc ? rc : launch(c, back_queries, a->q_rows, a->heads, queries, f);
}
