/* kernels/cuda/flash_any.cu - our own segmented causal attention, for all that the kernels of
 * flash_forward.cu and flash_back.cu do not take. */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/sizes.h"

#include <mma.h>

/*
 * Tiles of T rows against tiles of T, products by the tensor cores through wmma (sm_80 and
 * later), sums float32 in shared memory, softmax online (Milakov and Gimelshein 2018,
 * arXiv:1805.02867; tiled as in Dao 2022, arXiv:2205.14135). Any head dimension to 256 (padded
 * with zeros to a multiple of 16), any alignment, any segments. Keys that no query sees count
 * as zeros: they may hold anything. The backward is two kernels, one that owns rows of keys and
 * one that owns rows of queries, so that nothing is added atomically and the bits do not depend
 * on the run.
 *
 * T is 32, or 16 where a block of the card may not have the shared memory for 32: of the
 * backward with 256 channels that is 145 KiB, and 99 KiB are all that sm_86, 89 and 120 have.
 * Four neighbouring threads work on a row, T / 4 columns of scores each.
 */
enum { DOTS_THREADS = 128 };
#define THREADS (4 * T)
#define LDS (T + 4) /* of a row of scores */
#define LDP (T + 8) /* of a row of weights */

using namespace nvcuda;

/* By row of an array, of those who see it: none where first is not below end. */
struct seers {
    const int32_t *first, *end;
};

/* T rows from row at of a [rows][ld] array, zeros past its end and its dimension, and for rows
 * that have no seers, where these are given. */
template <int T>
static __device__ void load(const struct flash &f, bf16 *to, const void *array, int64_t ld,
                            int64_t head, int64_t at, int64_t rows, struct seers by)
{
    const bf16 *x = (const bf16 *)array + head * f.dim;
    bool eight = f.dim % 8 == 0 && ld % 8 == 0 && ((uintptr_t)x & 15) == 0;
    int pieces = eight ? f.dp / 8 : f.dp;

    for (int i = threadIdx.x; i < T * pieces; i += THREADS) {
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
template <int T>
static __device__ __forceinline__ void load(const struct flash &f, bf16 *to, const void *array,
                                            int64_t ld, int64_t head, int64_t at, int64_t rows)
{
    struct seers all = { NULL, NULL };

    load<T>(f, to, array, ld, head, at, rows, all);
}

typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum_tile;
typedef wmma::fragment<wmma::matrix_a, 16, 16, 16, bf16, wmma::row_major> left_tile;
typedef wmma::fragment<wmma::matrix_b, 16, 16, 16, bf16, wmma::row_major> right_tile;
typedef wmma::fragment<wmma::matrix_b, 16, 16, 16, bf16, wmma::col_major> turned_tile;

/* s [T][T] = a b^T, both [T][dp]: a warp a quarter, or where T is 16 the first all. */
template <int T>
static __device__ void scores(const struct flash &f, float *s, const bf16 *a, const bf16 *b)
{
    int warp = threadIdx.x >> 5, i = warp / (T / 16) * 16, j = warp % (T / 16) * 16;
    sum_tile acc;
    left_tile l;
    turned_tile t;

    if (i >= T)
        return;
    wmma::fill_fragment(acc, 0.0f);
    for (int k = 0; k < f.dp; k += 16) {
        wmma::load_matrix_sync(l, a + i * f.ld + k, (unsigned)f.ld);
        wmma::load_matrix_sync(t, b + j * f.ld + k, (unsigned)f.ld);
        wmma::mma_sync(acc, l, t, acc);
    }
    wmma::store_matrix_sync(s + i * LDS + j, acc, LDS, wmma::mem_row_major);
}

/* o [T][dp] += p x, p [T][T], x [T][dp]. */
template <int T>
static __device__ void gather(const struct flash &f, float *o, const bf16 *p, const bf16 *x)
{
    int warp = threadIdx.x >> 5, across = f.dp / 16;
    sum_tile acc;
    left_tile l;
    right_tile r;

    for (int t = warp; t < T / 16 * across; t += THREADS / 32) {
        int i = t / across * 16, j = t % across * 16;
        wmma::load_matrix_sync(acc, o + i * f.ldo + j, (unsigned)f.ldo, wmma::mem_row_major);
        for (int k = 0; k < T; k += 16) {
            wmma::load_matrix_sync(l, p + i * LDP + k, LDP);
            wmma::load_matrix_sync(r, x + k * f.ld + j, (unsigned)f.ld);
            wmma::mma_sync(acc, l, r, acc);
        }
        wmma::store_matrix_sync(o + i * f.ldo + j, acc, (unsigned)f.ldo, wmma::mem_row_major);
    }
}

template <int T> static __device__ void clear(const struct flash &f, float *o)
{
    for (int i = threadIdx.x; i < T * f.ldo; i += THREADS)
        o[i] = 0.0f;
}

template <int T>
static __device__ void put(const struct flash &f, void *to, int64_t ld, int64_t head, int64_t at,
                           int64_t rows, const float *o, const float *over)
{
    bf16 *x = (bf16 *)to + head * f.dim;

    for (int i = threadIdx.x; i < T * f.dim; i += THREADS) {
        int r = i / f.dim, j = i - r * f.dim;
        if (at + r < rows)
            x[(at + r) * ld + j] = narrow(over ? o[r * f.ldo + j] / over[r] : o[r * f.ldo + j]);
    }
}

/* Over the four threads of a row. */
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
template <int T>
static __device__ __forceinline__ struct reach reach_of(const int32_t *first, const int32_t *end,
                                                      int64_t at, int64_t rows)
{
    int64_t last = (at + T < rows ? at + T : rows) - 1;
    struct reach s = { first[at], end[last] };

    return s;
}

/* Where a thread of a block that owns a tile of queries stands. */
struct owner {
    int64_t at, head, shared; /* the tile's first row; the heads of its queries and keys */
    struct reach seen;        /* by the tile */
    struct seers by;          /* of keys */
    int row, col;             /* this thread's, in the tile */
    int64_t t, from, to;      /* its row, and what that sees */
};
template <int T> static __device__ __forceinline__ struct owner owner_of(const struct flash &f)
{
    const struct op_attention &a = f.b.fwd;
    int64_t tiles = (a.q_rows + T - 1) / T, h = blockIdx.y;
    int half = half_of(f, h);
    struct owner w;

    w.at = (tiles - 1 - blockIdx.x) * T; /* late tiles see most: they come first */
    w.head = h;
    w.shared = h / (a.heads / a.kv_heads);
    w.seen = reach_of<T>(f.key_first[half], f.key_end[half], w.at, a.q_rows);
    w.by.first = f.query_first[half];
    w.by.end = f.query_end[half];
    w.row = threadIdx.x / 4;
    w.col = threadIdx.x % 4 * (T / 4);
    w.t = w.at + w.row;
    w.from = w.t < a.q_rows ? f.key_first[half][w.t] : 0;
    w.to = w.t < a.q_rows ? f.key_end[half][w.t] : 0;
    return w;
}

/* A product of q and k as a score. */
static __device__ __forceinline__ float score_of(const struct op_attention &a, float s)
{
    return a.cap > 0 ? a.cap * tanhf(a.scale * s / a.cap) : a.scale * s;
}

template <int T> static __global__ void __launch_bounds__(THREADS) forward(const struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *q = (bf16 *)room, *k = q + T * f.ld, *v = k + T * f.ld, *p = v + T * f.ld;
    float *s = (float *)(p + T * LDP), *o = s + T * LDS, *total = o + T * f.ldo;
    struct owner w = owner_of<T>(f);
    float max = -INFINITY, sum = 0;

    load<T>(f, q, a.q, a.q_ld, w.head, w.at, a.q_rows);
    clear<T>(f, o);
    for (int64_t key = w.seen.from / T * T; key < w.seen.end; key += T) {
        float x[T / 4], most = max, keep;

        __syncthreads();
        load<T>(f, k, a.k, a.kv_ld, w.shared, key, a.kv_rows, w.by);
        load<T>(f, v, a.v, a.kv_ld, w.shared, key, a.kv_rows, w.by);
        __syncthreads();
        scores<T>(f, s, q, k);
        __syncthreads();
        for (int j = 0; j < T / 4; j++) {
            int64_t at_key = key + w.col + j;
            x[j] = at_key >= w.from && at_key < w.to ? score_of(a, s[w.row * LDS + w.col + j])
                                                     : -INFINITY;
            most = fmaxf(most, x[j]);
        }
        most = four_max(most);
        keep = most == -INFINITY ? 1.0f : __expf(max - most);
        sum *= keep;
        for (int j = 0; j < T / 4; j++) {
            float y = x[j] == -INFINITY ? 0.0f : __expf(x[j] - most);
            sum += y;
            p[w.row * LDP + w.col + j] = narrow(y);
        }
        if (keep != 1.0f)
            for (int j = threadIdx.x % 4; j < f.dp; j += 4)
                o[w.row * f.ldo + j] *= keep;
        max = most;
        __syncthreads();
        gather<T>(f, o, p, v);
    }
    sum = four_sum(sum);
    if (threadIdx.x % 4 == 0) {
        total[w.row] = sum > 0 ? sum : 1.0f;
        if (w.t < a.q_rows)
            a.lse[w.head * a.q_rows + w.t] = max + logf(sum);
    }
    __syncthreads();
    put<T>(f, a.o, a.q_ld, w.head, w.at, a.q_rows, o, total);
}

/* scratch[h][t] = sum over a head's channels of do * o: a warp a row. */
static __global__ void dots(const struct flash f)
{
    const struct op_attention &a = f.b.fwd;
    int64_t n = a.q_rows * a.heads, warps = (int64_t)gridDim.x * (DOTS_THREADS / 32);

    for (int64_t i = (int64_t)blockIdx.x * (DOTS_THREADS / 32) + (threadIdx.x >> 5); i < n; i += warps) {
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
    const struct op_attention &a = f.b.fwd;
    float x = score_of(a, s), t = a.cap > 0 ? x / a.cap : 0.0f; /* the cap's slope is 1 - tanh^2 */

    *p = seen ? __expf(x - lse) : 0.0f;
    *ds = seen ? *p * (dp - dot) * a.scale * (1.0f - t * t) : 0.0f;
}

template <int T>
static __global__ void __launch_bounds__(THREADS) back_keys(const struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *k = (bf16 *)room, *v = k + T * f.ld, *q = v + T * f.ld, *g = q + T * f.ld;
    bf16 *p = g + T * f.ld, *ds = p + T * LDP;
    float *s = (float *)(ds + T * LDP), *w = s + T * LDS, *dk = w + T * LDS, *dv = dk + T * f.ldo;
    int64_t at = (int64_t)blockIdx.x * T, shared = blockIdx.y, group = a.heads / a.kv_heads;
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * (T / 4);

    load<T>(f, k, a.k, a.kv_ld, shared, at, a.kv_rows);
    load<T>(f, v, a.v, a.kv_ld, shared, at, a.kv_rows);
    clear<T>(f, dk);
    clear<T>(f, dv);
    for (int64_t h = shared * group; h < (shared + 1) * group; h++) {
        const int32_t *first = f.query_first[half_of(f, h)], *end = f.query_end[half_of(f, h)];
        struct reach who = reach_of<T>(first, end, at, a.kv_rows);
        int64_t t = at + row, from = t < a.kv_rows ? first[t] : 0;
        int64_t stop = t < a.kv_rows ? end[t] : 0;

        for (int64_t query = who.from / T * T; query < who.end; query += T) {
            __syncthreads();
            load<T>(f, q, a.q, a.q_ld, h, query, a.q_rows);
            load<T>(f, g, f.b.d_o, a.q_ld, h, query, a.q_rows);
            __syncthreads();
            scores<T>(f, s, k, q);
            scores<T>(f, w, v, g);
            __syncthreads();
            for (int j = 0; j < T / 4; j++) {
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
            gather<T>(f, dv, p, g);
            gather<T>(f, dk, ds, q);
        }
    }
    __syncthreads();
    put<T>(f, f.b.dk, a.kv_ld, shared, at, a.kv_rows, dk, NULL);
    put<T>(f, f.b.dv, a.kv_ld, shared, at, a.kv_rows, dv, NULL);
}

template <int T>
static __global__ void __launch_bounds__(THREADS) back_queries(const struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *q = (bf16 *)room, *g = q + T * f.ld, *k = g + T * f.ld, *v = k + T * f.ld;
    bf16 *ds = v + T * f.ld;
    float *s = (float *)(ds + T * LDP), *dp = s + T * LDS, *dq = dp + T * LDS;
    struct owner w = owner_of<T>(f);
    float lse = w.t < a.q_rows ? a.lse[w.head * a.q_rows + w.t] : 0.0f;
    float dot = w.t < a.q_rows ? f.b.scratch[w.head * a.q_rows + w.t] : 0.0f;

    load<T>(f, q, a.q, a.q_ld, w.head, w.at, a.q_rows);
    load<T>(f, g, f.b.d_o, a.q_ld, w.head, w.at, a.q_rows);
    clear<T>(f, dq);
    for (int64_t key = w.seen.from / T * T; key < w.seen.end; key += T) {
        __syncthreads();
        load<T>(f, k, a.k, a.kv_ld, w.shared, key, a.kv_rows, w.by);
        load<T>(f, v, a.v, a.kv_ld, w.shared, key, a.kv_rows, w.by);
        __syncthreads();
        scores<T>(f, s, q, k);
        scores<T>(f, dp, g, v);
        __syncthreads();
        for (int j = 0; j < T / 4; j++) {
            int64_t at_key = key + w.col + j;
            float x, y;
            soften(f, at_key >= w.from && at_key < w.to, s[w.row * LDS + w.col + j],
                   dp[w.row * LDS + w.col + j], lse, dot, &x, &y);
            ds[w.row * LDP + w.col + j] = narrow(y);
        }
        __syncthreads();
        gather<T>(f, dq, ds, k);
    }
    __syncthreads();
    put<T>(f, f.b.dq, a.q_ld, w.head, w.at, a.q_rows, dq, NULL);
}

/* A kernel at both sizes of tile, and what tiles it has: of inputs, of weights, of scores, of
 * results. */
struct tiled {
    void (*kernel[2])(const struct flash); /* T 32, 16 */
    int inputs, weights, scores, results;
};
#define TILED(kernel, ...) { { kernel<32>, kernel<16> }, __VA_ARGS__ }

/* The shared memory for them, and for a row. */
static int64_t room_of(const struct flash *f, const struct tiled *k, int T)
{
    int64_t row = k->inputs * f->ld * 2 + k->weights * LDP * 2 + k->scores * LDS * 4 +
                  k->results * f->ldo * 4 + 4;

    return T * row;
}

static int launch(struct cuda *c, const struct tiled *k, int64_t rows, int64_t heads,
                  const struct flash *f)
{
    int small = room_of(f, k, 32) > c->smem_bytes, T = small ? 16 : 32;
    const void *kernel = (const void *)k->kernel[small];
    size_t bytes = (size_t)room_of(f, k, T);
    struct flash arg = *f;
    void *args[] = { &arg };
    dim3 grid((unsigned)ceil_div(rows, T), (unsigned)heads);
    int rc;

    if (f->dim > CUDA_MOST_HEAD_DIM || (int64_t)bytes > c->smem_bytes || heads > 65535)
        return cuda_fault(c, "attention on this GPU does not take %lld heads of %d channels",
                          (long long)heads, f->dim);
    if (rows == 0)
        return 0;
    if ((rc = flash_shared_memory(c, kernel, bytes)))
        return rc;
    return cuda_check(c, cudaLaunchKernel(kernel, grid, dim3((unsigned)THREADS), args, bytes,
                                          c->stream), "attention");
}

int flash_forward_any(struct cuda *c, const struct flash *f)
{
    static const struct tiled tiles = TILED(forward, 3, 1, 1, 1);
    const struct op_attention *a = &f->b.fwd;

    return launch(c, &tiles, a->q_rows, a->heads, f);
}

int flash_backward_any(struct cuda *c, const struct flash *f)
{
    static const struct tiled keys = TILED(back_keys, 4, 2, 2, 2);
    static const struct tiled queries = TILED(back_queries, 4, 1, 2, 1);
    const struct op_attention *a = &f->b.fwd;
    int64_t blocks = cuda_blocks(c, a->q_rows * a->heads, DOTS_THREADS / 32);
    int rc = blocks ? flash_launch(c, dots, blocks, DOTS_THREADS, 0, f) : 0;

    if (rc == 0)
        rc = launch(c, &keys, a->kv_rows, a->kv_heads, f);
    return rc ? rc : launch(c, &queries, a->q_rows, a->heads, f);
}
