/* kernels/cuda/flash_back.cu - our own segmented causal attention, backward. */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/mma.cuh"

#include <stdlib.h>

/*
 * Two kernels, one that owns keys and goes through the queries that see them, one that owns
 * queries and goes through the keys that they see: nothing is added atomically, so that the bits
 * do not depend on the run. Both weigh again, p = 2^(scale s - lse); the gradient of a score is
 * ds = p (dp - dot), dp = do v^T, dot = sum(do * o), all but scale, which the sums take at last.
 *
 * Keys: the products are turned, s^T = k q^T, so that a warp's p^T and ds^T, packed, are left
 * factors as they are. A warp keeps k, v and both sums of its rows in registers and works on 16
 * queries at a time. Queries: as the forward, with do beside q and v beside k.
 */
enum { OWNED = 128, QUERIES = 64, AT_ONCE = 16 };

template <int D> struct keys_room {
    enum { TILES = 128 / D, MINE = 16 * TILES, WARPS = OWNED / MINE, THREADS = 32 * WARPS,
           Q = QUERIES * D * 2, ROWS = 2 * Q, STAGE = ROWS + 1024, V = 2 * STAGE,
           BYTES = V + OWNED * D * 2 };
};
template <int D> struct queries_room {
    enum { WARPS = 4, MINE = OWNED / WARPS, THREADS = 32 * WARPS, KEYS = 4096 / D,
           Q = OWNED * D * 2, KV = KEYS * D * 2, STAGE = 2 * KV, BYTES = 2 * Q + 2 * STAGE };
};

/* A pair of scores, neighbours or not: p, and ds in w's place. */
static __device__ __forceinline__ void weigh(float *s, float *w, float scale, float lse, float dot,
                                             bool seen)
{
    float p = exp2_fast(*s * scale - lse);

    *s = seen ? p : 0.0f;
    *w = *s * (*w - dot);
}

/* scratch[h][t] = sum over a head's channels of do * o: D / 8 lanes a row. */
template <int D> static __global__ void dots(const struct flash f)
{
    constexpr int LANES = D / 8;
    const struct op_attention &a = f.b.fwd;
    int64_t n = a.rows * a.heads, step = (int64_t)gridDim.x * blockDim.x / LANES;
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    int j = threadIdx.x % LANES * 8;

    for (int64_t whole = (n + 31) / 32 * 32; i < whole; i += step) { /* warps stay together */
        int64_t t = i / a.heads, h = i - t * a.heads, at = t * a.q_ld + h * D + j;
        float x[8], y[8], s = 0;
        if (i < n) {
            load8((const bf16 *)f.b.d_o + at, x);
            load8((const bf16 *)a.o + at, y);
#pragma unroll
            for (int m = 0; m < 8; m++)
                s += x[m] * y[m];
        }
#pragma unroll
        for (int o = LANES / 2; o; o >>= 1)
            s += __shfl_xor_sync(0xffffffffu, s, o);
        if (i < n && j == 0)
            f.b.scratch[h * a.rows + t] = s;
    }
}

/* Where the kernel that owns keys is: the query heads of one key head, each from row from to the
 * end of the segment of the last key. */
struct walk {
    int h, query, from, stop, stop2; /* of the halves */
};

static __device__ __forceinline__ bool walk_on(struct walk *w, const struct flash &f, int end)
{
    w->query += QUERIES;
    if (w->query >= (half_of(f, w->h) ? w->stop2 : w->stop)) {
        w->h++;
        w->query = w->from;
    }
    return w->h < end;
}

/* Queries and do of a tile, their lse and dots behind them. */
template <int D, int THREADS>
static __device__ __forceinline__ void walk_copy(const struct flash &f, const struct walk &w,
                                                 uint32_t to)
{
    const struct op_attention &a = f.b.fwd;
    int64_t of_head = (int64_t)w.h * D;
    int rows = (int)a.rows, i = threadIdx.x & (QUERIES - 1), at = w.query + i;

    tile_copy<D, QUERIES, THREADS>(to, (const bf16 *)a.q + of_head, a.q_ld, w.query, rows);
    tile_copy<D, QUERIES, THREADS>(to + QUERIES * D * 2, (const bf16 *)f.b.d_o + of_head,
                                            a.q_ld, w.query, rows);
    if (threadIdx.x < 2 * QUERIES) {
        const float *x = threadIdx.x < QUERIES ? a.lse : f.b.scratch;
        copy4(to + 2 * QUERIES * D * 2 + threadIdx.x * 4, x + w.h * a.rows + (at < rows ? at : 0),
              at < rows);
    }
}

/* A warp's keys and values, and the sums of their gradients. */
template <int D> struct keys_owned {
    enum { TILES = 128 / D };
    uint32_t k[TILES][D / 16][4], v[TILES][D / 16][4];
    float dk[TILES][D / 8][4], dv[TILES][D / 8][4];
};

/* d += x^T y: 16 queries, y's rows of them stored as they are. */
template <int D, int TILES>
static __device__ __forceinline__ void keys_gather(float d[TILES][D / 8][4],
                                                   const float x[TILES][2][4], uint32_t y)
{
    uint32_t a[TILES][4], b[4];

#pragma unroll
    for (int i = 0; i < TILES; i++)
        pack_left(a[i], x[i][0], x[i][1]);
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        ldmatrix_turned(b, y ^ (32 * n));
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            mma(d[i][2 * n], a[i], b[0], b[1]);
            mma(d[i][2 * n + 1], a[i], b[2], b[3]);
        }
    }
}

/* s = k q^T and w = v do^T: the warp's rows, 16 queries. Side by side, so that no product waits
 * for the one before. */
template <int D, int TILES>
static __device__ __forceinline__ void keys_score(float s[TILES][2][4], float w[TILES][2][4],
                                                  const struct keys_owned<D> &m, uint32_t q)
{
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[i][0][e] = s[i][1][e] = w[i][0][e] = w[i][1][e] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        uint32_t b[4], g[4];
        ldmatrix(b, q ^ (32 * kk));
        ldmatrix(g, (q ^ (32 * kk)) + QUERIES * D * 2);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            mma(s[i][0], m.k[i][kk], b[0], b[1]);
            mma(s[i][1], m.k[i][kk], b[2], b[3]);
            mma(w[i][0], m.v[i][kk], g[0], g[1]);
            mma(w[i][1], m.v[i][kk], g[2], g[3]);
        }
    }
}

/* 16 queries from row query, n-th of those in the tile. MASKED: not all keys are seen by all. */
template <int D, bool MASKED>
static __device__ __forceinline__ void keys_add(struct keys_owned<D> &m, uint32_t tile,
                                                const float *rows_of, int n, float scale, int query,
                                                int key, const int32_t *end, int rows)
{
    constexpr int TILES = keys_owned<D>::TILES;
    int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
    uint32_t by_row = tile + n * AT_ONCE * D * 2, other = QUERIES * D * 2;
    float s[TILES][2][4], w[TILES][2][4];

    keys_score<D, TILES>(s, w, m, by_row + right_lane<D>(lane));
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int col = n * AT_ONCE + 8 * j + 2 * c;
        float2 lse = *(const float2 *)(rows_of + col);
        float2 dot = *(const float2 *)(rows_of + QUERIES + col);
        lse.x *= 1.44269504f;
        lse.y *= 1.44269504f;
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int t = key + 16 * i + 8 * e + g, at = query + 8 * j + 2 * c;
                int to = MASKED ? t < rows ? end[t] : 0 : 0;
                weigh(&s[i][j][2 * e], &w[i][j][2 * e], scale, lse.x, dot.x,
                      !MASKED || (at >= t && at < to));
                weigh(&s[i][j][2 * e + 1], &w[i][j][2 * e + 1], scale, lse.y, dot.y,
                      !MASKED || (at + 1 >= t && at + 1 < to));
            }
    }
    keys_gather<D, TILES>(m.dv, s, by_row + other + left_lane<D>(lane));
    keys_gather<D, TILES>(m.dk, w, by_row + left_lane<D>(lane));
}

template <int D>
static __global__ void __launch_bounds__(keys_room<D>::THREADS, 8 / keys_room<D>::WARPS)
back_keys(const struct flash f)
{
    typedef keys_room<D> room_of;
    extern __shared__ __align__(1024) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.rows, lane = threadIdx.x & 31, warp = warp_index();
    struct flash_place p = flash_place_of(f, (int)a.kv_heads);
    int at = p.tile * OWNED, key = at + warp * room_of::MINE, shared = p.head; /* early: seen most */
    int group = (int)(a.heads / a.kv_heads), heads_end = (shared + 1) * group;
    int last = min(key + room_of::MINE, rows) - 1, tail = min(at + OWNED, rows) - 1;
    struct walk w = { shared * group, at, at, f.end[0][tail], f.end[1][tail] }, next = w;
    uint32_t base = shared_address(room);
    float scale = a.scale * 1.44269504f;
    struct keys_owned<D> m;
    bool more = true;

    static_assert(OWNED * D * 2 <= room_of::STAGE, "keys fit where a stage will be");
    tile_copy<D, OWNED, room_of::THREADS>(
        base + room_of::STAGE, (const bf16 *)a.k + shared * D, a.kv_ld, at, rows);
    tile_copy<D, OWNED, room_of::THREADS>(
        base + room_of::V, (const bf16 *)a.v + shared * D, a.kv_ld, at, rows);
    walk_copy<D, room_of::THREADS>(f, w, base);
    copies_wait();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < room_of::TILES; i++)
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++) {
            uint32_t x = base + left_lane<D>(lane) + (warp * room_of::MINE + 16 * i) * D * 2;
            ldmatrix(m.k[i][kk], (x + room_of::STAGE) ^ (32 * kk));
            ldmatrix(m.v[i][kk], (x + room_of::V) ^ (32 * kk));
        }
#pragma unroll
    for (int i = 0; i < room_of::TILES; i++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                m.dk[i][n][e] = m.dv[i][n][e] = 0.0f;
    for (uint32_t odd = 0; more; odd ^= 1, w = next) {
        uint32_t now = odd * room_of::STAGE;
        const float *rows_of = (const float *)(room + now + room_of::ROWS);
        const int32_t *end = half_of(f, w.h) ? f.end[1] : f.end[0];
        int to = key < rows ? end[last] : 0, all = key < rows ? end[key] : 0;

        more = walk_on(&next, f, heads_end);
        copies_wait();
        __syncthreads(); /* all have this tile, and are done with the one before */
        if (more)
            walk_copy<D, room_of::THREADS>(f, next, base + (odd ^ 1) * room_of::STAGE);
        if (w.query >= last && w.query + QUERIES <= all) {
#pragma unroll
            for (int n = 0; n < QUERIES / AT_ONCE; n++)
                keys_add<D, false>(m, base + now, rows_of, n, scale, 0, 0, NULL, 0);
            continue;
        }
#pragma unroll 1
        for (int n = 0; n < QUERIES / AT_ONCE; n++) {
            int query = w.query + n * AT_ONCE;
            if (query + AT_ONCE > key && query < to)
                keys_add<D, true>(m, base + now, rows_of, n, scale, query, key, end, rows);
        }
    }
    __syncthreads(); /* the tiles are no longer read */
#pragma unroll
    for (int i = 0; i < room_of::TILES; i++) {
        unsigned char *own = room + (warp * room_of::MINE + 16 * i) * D * 2;
        sums_put<D>(own, m.dk[i], a.scale, a.scale, (bf16 *)f.b.dk + shared * D, a.kv_ld,
                    key + 16 * i, rows);
        sums_put<D>(own, m.dv[i], 1.0f, 1.0f, (bf16 *)f.b.dv + shared * D, a.kv_ld,
                    key + 16 * i, rows);
    }
}

/* s = x y^T: the warp's 32 queries, a tile of keys. */
template <int D, int KEYS>
static __device__ __forceinline__ void queries_score(float s[2][KEYS / 8][4], uint32_t x, uint32_t y)
{
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[i][n][e] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        uint32_t a[2][4], b[4];
        ldmatrix(a[0], x ^ (32 * kk));
        ldmatrix(a[1], (x ^ (32 * kk)) + 16 * D * 2);
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            ldmatrix(b, (y ^ (32 * kk)) + n * 16 * D * 2);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma(s[i][2 * n], a[i], b[0], b[1]);
                mma(s[i][2 * n + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* Of a lane's four rows, index i, e: row 16 i + 8 e + g. */
struct of_rows {
    float lse[2][2], dot[2][2];
};

template <int D, bool MASKED>
static __device__ __forceinline__ void queries_add(float dq[2][D / 8][4], const struct of_rows &r,
                                                   uint32_t q, uint32_t tile, float scale, int row,
                                                   int key, const int32_t *first, int rows)
{
    typedef queries_room<D> room_of;
    constexpr int KEYS = room_of::KEYS;
    int lane = threadIdx.x & 31;
    float s[2][KEYS / 8][4], w[2][KEYS / 8][4];

    queries_score<D, KEYS>(s, q, tile + right_lane<D>(lane));
    queries_score<D, KEYS>(w, q + room_of::Q, tile + room_of::KV + right_lane<D>(lane));
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int t = row + 16 * i + 8 * e + (lane >> 2);
            int from = MASKED ? t < rows ? first[t] : rows : 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int at = key + 8 * n + 2 * (lane & 3) + j;
                    weigh(&s[i][n][2 * e + j], &w[i][n][2 * e + j], scale, r.lse[i][e],
                          r.dot[i][e], !MASKED || (at >= from && at <= t));
                }
        }
#pragma unroll
    for (int kk = 0; kk < KEYS / 16; kk++) {
        uint32_t x[2][4], b[4];
        pack_left(x[0], w[0][2 * kk], w[0][2 * kk + 1]);
        pack_left(x[1], w[1][2 * kk], w[1][2 * kk + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            ldmatrix_turned(b, ((tile + left_lane<D>(lane)) ^ (32 * n)) + kk * 16 * D * 2);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma(dq[i][2 * n], x[i], b[0], b[1]);
                mma(dq[i][2 * n + 1], x[i], b[2], b[3]);
            }
        }
    }
}

template <int D>
static __global__ void __launch_bounds__(queries_room<D>::THREADS, 2)
back_queries(const struct flash f)
{
    typedef queries_room<D> room_of;
    extern __shared__ __align__(1024) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.rows, lane = threadIdx.x & 31, warp = warp_index();
    struct flash_place p = flash_place_of(f, (int)a.heads);
    int h = p.head, shared = h / ((int)a.heads / (int)a.kv_heads);
    int at = (((rows + OWNED - 1) / OWNED) - 1 - p.tile) * OWNED; /* late rows see most */
    int row = at + warp * room_of::MINE, last = min(row + room_of::MINE, rows) - 1, stop = min(at + OWNED, rows);
    const bf16 *k = (const bf16 *)a.k + shared * D, *v = (const bf16 *)a.v + shared * D;
    const int32_t *first = half_of(f, h) ? f.first[1] : f.first[0];
    int key = first[at] / room_of::KEYS * room_of::KEYS, sees = row < rows ? first[row] : rows;
    int all = row < rows ? first[last] : rows; /* every row sees from here */
    uint32_t q_at = shared_address(room), stage = q_at + 2 * room_of::Q;
    uint32_t q_lane = q_at + warp * room_of::MINE * D * 2 + left_lane<D>(lane);
    float dq[2][D / 8][4] = {}, scale = a.scale * 1.44269504f;
    struct of_rows r;

    tile_copy<D, OWNED, room_of::THREADS>(q_at, (const bf16 *)a.q + h * D, a.q_ld, at, rows);
    tile_copy<D, OWNED, room_of::THREADS>(q_at + room_of::Q, (const bf16 *)f.b.d_o + h * D, a.q_ld,
                                          at, rows);
    tile_copy<D, room_of::KEYS, room_of::THREADS>(stage, k, a.kv_ld, key, rows);
    tile_copy<D, room_of::KEYS, room_of::THREADS>(stage + room_of::KV, v, a.kv_ld, key, rows);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int t = row + 8 * i + (lane >> 2);
        r.lse[i / 2][i % 2] = t < rows ? a.lse[h * a.rows + t] * 1.44269504f : 0.0f;
        r.dot[i / 2][i % 2] = t < rows ? f.b.scratch[h * a.rows + t] : 0.0f;
    }
    for (uint32_t odd = 0; key < stop; key += room_of::KEYS, odd ^= 1) {
        uint32_t now = stage + odd * room_of::STAGE, next = stage + (odd ^ 1) * room_of::STAGE;

        copies_wait();
        __syncthreads(); /* all have this tile, and are done with the one before */
        if (key + room_of::KEYS < stop) {
            tile_copy<D, room_of::KEYS, room_of::THREADS>(next, k, a.kv_ld, key + room_of::KEYS,
                                                          rows);
            tile_copy<D, room_of::KEYS, room_of::THREADS>(next + room_of::KV, v, a.kv_ld,
                                                          key + room_of::KEYS, rows);
        }
        if (key > last || key + room_of::KEYS <= sees)
            continue;
        if (key + room_of::KEYS - 1 > row || key < all)
            queries_add<D, true>(dq, r, q_lane, now, scale, row, key, first, rows);
        else
            queries_add<D, false>(dq, r, q_lane, now, scale, row, key, first, rows);
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
        sums_put<D>(room + (warp * room_of::MINE + 16 * i) * D * 2, dq[i], a.scale, a.scale,
                    (bf16 *)f.b.dq + h * D, a.q_ld, row + 16 * i, rows);
}

template <int D> static int launch(struct cuda *c, const struct flash *f)
{
    typedef keys_room<D> keys;
    typedef queries_room<D> queries;
    const struct op_attention *a = &f->b.fwd;
    int64_t tiles = ceil_div(a->rows, OWNED);
    int rc = flash_launch(c, dots<D>, cuda_blocks(c, a->rows * a->heads * (D / 8), 256), 256, 0, f);

    const char *s = getenv("LONGLORA_FLASH");
    if (rc == 0 && !(s && *s == 's'))
        rc = flash_backward_keys(c, f);
    else if (rc == 0)
        rc = flash_launch(c, back_keys<D>, tiles * a->kv_heads, keys::THREADS, keys::BYTES, f);
    if (rc == 0)
        rc = flash_launch(c, back_queries<D>, tiles * a->heads, queries::THREADS, queries::BYTES,
                          f);
    return rc;
}

int flash_backward_tiles(struct cuda *c, const struct flash *f)
{
    return f->dim == 128 ? launch<128>(c, f) : launch<64>(c, f);
}
