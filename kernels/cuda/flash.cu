/* kernels/cuda/flash.cu - our own segmented causal attention, for what cuDNN does not take: head
 * dimension 64 and 128 by flash_forward.cu and flash_back.cu, all others here. */
#include "kernels/cuda/flash.cuh"

#include <mma.h>

/*
 * Tiles of 32 rows against tiles of 32, products by the tensor cores through wmma (sm_80 and
 * later), sums float32 in shared memory, softmax online (Milakov and Gimelshein 2018,
 * arXiv:1805.02867; tiled as in Dao 2022, arXiv:2205.14135). Any head dimension to 256 (padded
 * with zeros to a multiple of 16), any alignment, any segments: row t sees first[t]..t. The
 * backward is two kernels, one that owns rows of keys and one that owns rows of queries, so that
 * nothing is added atomically and the bits do not depend on the run.
 */
enum { TILE = 32, THREADS = 128, LDS = TILE + 4, LDP = TILE + 8, MOST_DIM = 256 };
#define L2_BYTES ((int64_t)32 << 20) /* of two arrays' rows that many blocks read */

using namespace nvcuda;

/* 32 rows from row at of a [rows][ld] array, zeros past its end and its dimension. */
static __device__ void load(const struct flash &f, bf16 *to, const void *from, int64_t ld,
                            int64_t head, int64_t at)
{
    const bf16 *x = (const bf16 *)from + head * f.dim;
    int64_t rows = f.b.fwd.rows;

    if (f.dim % 8 == 0 && ld % 8 == 0 && ((uintptr_t)x & 15) == 0) {
        int eights = f.dp / 8;
        for (int i = threadIdx.x; i < TILE * eights; i += THREADS) {
            int r = i / eights, j = (i - r * eights) * 8;
            uint4 v = make_uint4(0, 0, 0, 0);
            if (at + r < rows && j < f.dim)
                v = *(const uint4 *)(x + (at + r) * ld + j);
            *(uint4 *)(to + r * f.ld + j) = v;
        }
        return;
    }
    for (int i = threadIdx.x; i < TILE * f.dp; i += THREADS) {
        int r = i / f.dp, j = i - r * f.dp;
        to[r * f.ld + j] = at + r < rows && j < f.dim ? x[(at + r) * ld + j] : narrow(0.0f);
    }
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
                           const float *o, const float *over)
{
    bf16 *x = (bf16 *)to + head * f.dim;

    for (int i = threadIdx.x; i < TILE * f.dim; i += THREADS) {
        int r = i / f.dim, j = i - r * f.dim;
        if (at + r < f.b.fwd.rows)
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

static __global__ void __launch_bounds__(THREADS) forward(struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    __shared__ float total[TILE];
    const struct op_attention &a = f.b.fwd;
    bf16 *q = (bf16 *)room, *k = q + TILE * f.ld, *v = k + TILE * f.ld, *p = v + TILE * f.ld;
    float *s = (float *)(p + TILE * LDP), *o = s + TILE * LDS;
    int64_t tiles = (a.rows + TILE - 1) / TILE;
    int64_t at = (tiles - 1 - blockIdx.x) * TILE, h = blockIdx.y; /* late tiles see most */
    int64_t shared = h / (a.heads / a.kv_heads);
    const int32_t *first = f.first[half_of(f, h)];
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;
    int64_t t = at + row, from = t < a.rows ? first[t] : a.rows;
    float max = -INFINITY, sum = 0;

    load(f, q, a.q, a.q_ld, h, at);
    clear(f, o);
    for (int64_t key = first[at] / TILE * TILE; key < at + TILE; key += TILE) {
        float x[8], most = max, keep;

        __syncthreads();
        load(f, k, a.k, a.kv_ld, shared, key);
        load(f, v, a.v, a.kv_ld, shared, key);
        __syncthreads();
        scores(f, s, q, k);
        __syncthreads();
        for (int j = 0; j < 8; j++) {
            int64_t at_key = key + col + j;
            x[j] = at_key >= from && at_key <= t ? a.scale * s[row * LDS + col + j] : -INFINITY;
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
        if (t < a.rows)
            a.lse[h * a.rows + t] = max + logf(sum);
    }
    __syncthreads();
    put(f, a.o, a.q_ld, h, at, o, total);
}

/* scratch[h][t] = sum over a head's channels of do * o: a warp a row. */
static __global__ void dots(struct flash f)
{
    const struct op_attention &a = f.b.fwd;
    int64_t n = a.rows * a.heads, warps = (int64_t)gridDim.x * (THREADS / 32);

    for (int64_t i = (int64_t)blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5); i < n; i += warps) {
        int64_t t = i / a.heads, h = i - t * a.heads, at = t * a.q_ld + h * f.dim;
        const bf16 *x = (const bf16 *)f.b.d_o + at, *y = (const bf16 *)a.o + at;
        float s = 0;
        for (int j = threadIdx.x & 31; j < f.dim; j += 32)
            s += wide(x[j]) * wide(y[j]);
        for (int o = 16; o; o >>= 1)
            s += __shfl_xor_sync(0xffffffffu, s, o);
        if ((threadIdx.x & 31) == 0)
            f.b.scratch[h * a.rows + t] = s;
    }
}

/* Of one score: the weight p and its gradient ds, zero where the key is not seen. */
static __device__ __forceinline__ void soften(const struct flash &f, bool seen, float s, float dp,
                                              float lse, float dot, float *p, float *ds)
{
    *p = seen ? __expf(f.b.fwd.scale * s - lse) : 0.0f;
    *ds = seen ? *p * (dp - dot) * f.b.fwd.scale : 0.0f;
}

static __global__ void __launch_bounds__(THREADS) back_keys(struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *k = (bf16 *)room, *v = k + TILE * f.ld, *q = v + TILE * f.ld, *g = q + TILE * f.ld;
    bf16 *p = g + TILE * f.ld, *ds = p + TILE * LDP;
    float *s = (float *)(ds + TILE * LDP), *w = s + TILE * LDS, *dk = w + TILE * LDS;
    float *dv = dk + TILE * f.ldo;
    int64_t at = (int64_t)blockIdx.x * TILE, shared = blockIdx.y, group = a.heads / a.kv_heads;
    int64_t last = at + TILE < a.rows ? at + TILE - 1 : a.rows - 1;
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;

    load(f, k, a.k, a.kv_ld, shared, at);
    load(f, v, a.v, a.kv_ld, shared, at);
    clear(f, dk);
    clear(f, dv);
    for (int64_t h = shared * group; h < (shared + 1) * group; h++) {
        const int32_t *end = f.end[half_of(f, h)];
        int64_t t = at + row, stop = t < a.rows ? end[t] : 0;

        for (int64_t query = at; query < end[last]; query += TILE) {
            __syncthreads();
            load(f, q, a.q, a.q_ld, h, query);
            load(f, g, f.b.d_o, a.q_ld, h, query);
            __syncthreads();
            scores(f, s, k, q);
            scores(f, w, v, g);
            __syncthreads();
            for (int j = 0; j < 8; j++) {
                int64_t to = query + col + j;
                bool seen = to >= t && to < stop;
                float x, y;
                soften(f, seen, s[row * LDS + col + j], w[row * LDS + col + j],
                       seen ? a.lse[h * a.rows + to] : 0.0f,
                       seen ? f.b.scratch[h * a.rows + to] : 0.0f, &x, &y);
                p[row * LDP + col + j] = narrow(x);
                ds[row * LDP + col + j] = narrow(y);
            }
            __syncthreads();
            gather(f, dv, p, g);
            gather(f, dk, ds, q);
        }
    }
    __syncthreads();
    put(f, f.b.dk, a.kv_ld, shared, at, dk, NULL);
    put(f, f.b.dv, a.kv_ld, shared, at, dv, NULL);
}

static __global__ void __launch_bounds__(THREADS) back_queries(struct flash f)
{
    extern __shared__ __align__(128) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    bf16 *q = (bf16 *)room, *g = q + TILE * f.ld, *k = g + TILE * f.ld, *v = k + TILE * f.ld;
    bf16 *ds = v + TILE * f.ld;
    float *s = (float *)(ds + TILE * LDP), *w = s + TILE * LDS, *dq = w + TILE * LDS;
    int64_t tiles = (a.rows + TILE - 1) / TILE;
    int64_t at = (tiles - 1 - blockIdx.x) * TILE, h = blockIdx.y;
    int64_t shared = h / (a.heads / a.kv_heads);
    const int32_t *first = f.first[half_of(f, h)];
    int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;
    int64_t t = at + row, from = t < a.rows ? first[t] : a.rows;
    float lse = t < a.rows ? a.lse[h * a.rows + t] : 0.0f;
    float dot = t < a.rows ? f.b.scratch[h * a.rows + t] : 0.0f;

    load(f, q, a.q, a.q_ld, h, at);
    load(f, g, f.b.d_o, a.q_ld, h, at);
    clear(f, dq);
    for (int64_t key = first[at] / TILE * TILE; key < at + TILE; key += TILE) {
        __syncthreads();
        load(f, k, a.k, a.kv_ld, shared, key);
        load(f, v, a.v, a.kv_ld, shared, key);
        __syncthreads();
        scores(f, s, q, k);
        scores(f, w, g, v);
        __syncthreads();
        for (int j = 0; j < 8; j++) {
            int64_t at_key = key + col + j;
            float x, y;
            soften(f, t < a.rows && at_key >= from && at_key <= t, s[row * LDS + col + j],
                   w[row * LDS + col + j], lse, dot, &x, &y);
            ds[row * LDP + col + j] = narrow(y);
        }
        __syncthreads();
        gather(f, dq, ds, k);
    }
    __syncthreads();
    put(f, f.b.dq, a.q_ld, h, at, dq, NULL);
}

static __global__ void fill_bounds(const int64_t *cu, int64_t n, int64_t rows, int32_t *first,
                                   int32_t *end)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t t = (int64_t)blockIdx.x * THREADS + threadIdx.x; t < rows; t += step) {
        int64_t lo = 0, hi = n; /* cu[lo] <= t < cu[hi] */
        while (hi - lo > 1) {
            int64_t mid = (lo + hi) / 2;
            if (cu[mid] <= t)
                lo = mid;
            else
                hi = mid;
        }
        first[t] = (int32_t)cu[lo];
        end[t] = (int32_t)cu[hi];
    }
}

/* cu is a host array: it goes up in the same scratch, before the bounds. */
extern "C" int flash_bounds(struct cuda *c, const int64_t *cu, int64_t n, int64_t rows,
                            int32_t *first, int32_t *end)
{
    int64_t *up = (int64_t *)cuda_scratch(c, SCRATCH_PARTIAL, (size_t)(n + 1) * sizeof *up);

    if (!up)
        return E_DEVICE;
    if (cuda_check(c, cudaMemcpyAsync(up, cu, (size_t)(n + 1) * sizeof *up, cudaMemcpyHostToDevice,
                                      c->stream), "a copy") ||
        cuda_check(c, cudaStreamSynchronize(c->stream), "queued work"))
        return E_DEVICE;
    fill_bounds<<<cuda_blocks(c, rows, THREADS), THREADS, 0, c->stream>>>(up, n, rows, first, end);
    return 0;
}

static struct flash flash_of(const struct op_attention_back *b, const int32_t *bounds)
{
    struct flash f;
    int64_t rows = b->fwd.rows;

    f.b = *b;
    f.first[0] = bounds;
    f.end[0] = bounds + rows;
    f.first[1] = bounds + 2 * rows;
    f.end[1] = bounds + 3 * rows;
    f.dim = (int32_t)b->fwd.dim;
    f.dp = (f.dim + 15) / 16 * 16;
    f.ld = f.dp + 8;
    f.ldo = f.dp + 4;
    f.together = (int32_t)lesser(L2_BYTES / (rows * b->fwd.dim * 4), b->fwd.heads);
    if (f.together < 4) /* long enough that a head's last blocks do not count */
        f.together = 1;
    return f;
}

/* Shared memory of a kernel: tiles of inputs, of weights, of scores, of results. */
static size_t room_of(const struct flash *f, int inputs, int weights, int scores_, int results)
{
    return (size_t)TILE * ((size_t)inputs * (size_t)f->ld * 2 + (size_t)weights * LDP * 2 +
                           (size_t)scores_ * LDS * 4 + (size_t)results * (size_t)f->ldo * 4);
}

static int give_room(struct cuda *c, const void *kernel, const struct flash *f, size_t bytes)
{
    if (f->dim > MOST_DIM || (int64_t)bytes > c->smem_bytes || f->b.fwd.heads > 65535)
        return cuda_fault(c, "attention on this GPU does not take a head dimension of %d", f->dim);
    return flash_room(c, kernel, bytes);
}

/* What the tiles of flash_forward.cu and flash_back.cu take: whole 16-byte pieces, numbers of rows
 * and of blocks that do not wrap, also a tile past the end. */
static bool tiles_take(const struct flash *f)
{
    const struct op_attention_back *b = &f->b;
    const struct op_attention *a = &b->fwd;

    return (a->dim == 64 || a->dim == 128) && a->q_ld % 8 == 0 && a->kv_ld % 8 == 0 &&
           a->rows < INT32_MAX - 1024 && (a->rows / 128 + 1) * a->heads < INT32_MAX / 2 &&
           a->scale > 0 && aligned16(a->q) && aligned16(a->k) && aligned16(a->v) &&
           aligned16(a->o) && aligned16(b->d_o) && aligned16(b->dq) && aligned16(b->dk) &&
           aligned16(b->dv);
}

extern "C" int flash_forward(struct cuda *c, const struct op_attention *a, const int32_t *bounds)
{
    struct op_attention_back b = { *a, NULL, NULL, NULL, NULL, NULL };
    struct flash f = flash_of(&b, bounds);
    size_t bytes = room_of(&f, 3, 1, 1, 1);
    dim3 grid((unsigned)ceil_div(a->rows, TILE), (unsigned)a->heads);
    int rc;

    if (tiles_take(&f))
        return flash_forward_tiles(c, &f);
    rc = give_room(c, (const void *)forward, &f, bytes);
    if (rc == 0)
        forward<<<grid, THREADS, bytes, c->stream>>>(f);
    return rc;
}

extern "C" int flash_backward(struct cuda *c, const struct op_attention_back *b,
                              const int32_t *bounds)
{
    struct flash f = flash_of(b, bounds);
    size_t keys = room_of(&f, 4, 2, 2, 2), queries = room_of(&f, 4, 1, 2, 1);
    unsigned tiles = (unsigned)ceil_div(b->fwd.rows, TILE);
    int rc;

    if (tiles_take(&f))
        return flash_backward_tiles(c, &f);
    rc = give_room(c, (const void *)back_keys, &f, keys);
    if (rc == 0)
        rc = give_room(c, (const void *)back_queries, &f, queries);
    if (rc)
        return rc;
    dots<<<cuda_blocks(c, b->fwd.rows * b->fwd.heads, THREADS / 32), THREADS, 0, c->stream>>>(f);
    back_keys<<<dim3(tiles, (unsigned)b->fwd.kv_heads), THREADS, keys, c->stream>>>(f);
    back_queries<<<dim3(tiles, (unsigned)b->fwd.heads), THREADS, queries, c->stream>>>(f);
    return 0;
}
