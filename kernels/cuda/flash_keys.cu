/* kernels/cuda/flash_keys.cu - our own segmented causal attention, backward: keys and values. */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/mma.cuh"

/*
 * A block owns 128 rows of keys and goes through the queries that see them, 48 at a time. Products
 * are turned, s^T = k q^T, so that a warp's weights p^T, packed, are a left factor as they are. Two
 * warps share their rows: the first keeps k, weighs, and sums dv = p^T do; the second keeps v, takes
 * the weights from the first by way of shared memory, one tile later, and sums dk = ds^T q, with
 * ds = p (do v^T - dot). So each holds one factor and one sum of many rows in registers, and reads
 * from shared memory half of what one warp that did it all for half the rows would.
 */
enum { OWNED = 128, QUERIES = 48, AT_ONCE = 16, CHUNKS = QUERIES / AT_ONCE };

template <int D> struct keys_room {
    enum { TILES = 256 / D, MINE = 16 * TILES, PAIRS = OWNED / MINE, THREADS = 64 * PAIRS,
           Q = QUERIES * D * 2, ROWS = 2 * Q, STAGE = ROWS + 1024, P_STAGE = OWNED * QUERIES * 2,
           P = 3 * STAGE, BYTES = P + 2 * P_STAGE, V = BYTES - OWNED * D * 2,
           K = V - OWNED * D * 2 };
};

/* A tile: queries of a head, and where it lies in shared memory, behind its rows: lse, dot, which
 * queries these are. */
struct tile_rows {
    float lse[QUERIES], dot[QUERIES];
    int h, query;
};

/* Goes on to the tile after one: query heads of one key head, each from row from to the end of the
 * segment of the block's last key, stop or stop2 by the half. */
static __device__ __forceinline__ void walk_on(int *h, int *query, int half, int from, int stop,
                                               int stop2)
{
    *query += QUERIES;
    if (*query >= (*h < half ? stop : stop2)) {
        ++*h;
        *query = from;
    }
}

template <int D>
static __device__ __forceinline__ void walk_copy(const struct flash &f, int h, int query,
                                                 unsigned char *tile)
{
    typedef keys_room<D> room_of;
    const struct op_attention &a = f.b.fwd;
    struct tile_rows *r = (struct tile_rows *)(tile + room_of::ROWS);
    uint32_t to = shared_address(tile);
    int rows = (int)a.rows, t = threadIdx.x, at = query + (t < QUERIES ? t : t - QUERIES);

    tile_copy<D, QUERIES, room_of::THREADS>(to, (const bf16 *)a.q + h * D, a.q_ld, query, rows);
    tile_copy<D, QUERIES, room_of::THREADS>(to + room_of::Q, (const bf16 *)f.b.d_o + h * D, a.q_ld,
                                            query, rows);
    if (t < 2 * QUERIES)
        copy4(to + room_of::ROWS + t * 4,
              (t < QUERIES ? a.lse : f.b.scratch) + h * a.rows + (at < rows ? at : 0), at < rows);
    if (t == 0) {
        r->h = h;
        r->query = query;
    }
}

/* What a warp keeps: k and the sum of dv, or v and that of dk. */
template <int D> struct keys_owned {
    enum { TILES = keys_room<D>::TILES };
    uint32_t x[TILES][D / 16][4];
    float d[TILES][D / 8][4];
};

/* s = x y^T, 16 rows of y. */
template <int D, int TILES>
static __device__ __forceinline__ void score(float s[TILES][2][4], const struct keys_owned<D> &m,
                                             uint32_t y)
{
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[i][0][e] = s[i][1][e] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        uint32_t b[4];
        ldmatrix(b, y ^ (32 * kk));
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            mma(s[i][0], m.x[i][kk], b[0], b[1]);
            mma(s[i][1], m.x[i][kk], b[2], b[3]);
        }
    }
}

/* d += a y, 16 rows of y. */
template <int D, int TILES>
static __device__ __forceinline__ void gather(struct keys_owned<D> &m, const uint32_t a[TILES][4],
                                              uint32_t y)
{
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        uint32_t b[4];
        ldmatrix_turned(b, y ^ (32 * n));
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            mma(m.d[i][2 * n], a[i], b[0], b[1]);
            mma(m.d[i][2 * n + 1], a[i], b[2], b[3]);
        }
    }
}

/* The first warp's part of 16 queries from row query, its weights left at p. MASKED: not all keys
 * are seen by all of them. q, g: where these queries and their do are. */
template <int D, bool MASKED>
static __device__ __forceinline__ void weigh(struct keys_owned<D> &m, uint32_t q, uint32_t g,
                                             const float *lse, uint4 *p, float scale, int query,
                                             int key, const int32_t *end, int rows)
{
    constexpr int TILES = keys_room<D>::TILES;
    int lane = threadIdx.x & 31, c = lane & 3;
    float s[TILES][2][4];
    uint32_t a[TILES][4];

    score<D, TILES>(s, m, q + right_lane<D>(lane));
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float2 l = *(const float2 *)(lse + 8 * j + 2 * c);
        int at = query + 8 * j + 2 * c;
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float less = (e % 2 ? l.y : l.x) * 1.44269504f;
                s[i][j][e] = exp2_fast(s[i][j][e] * scale - less);
                if (MASKED) {
                    int t = key + 16 * i + e / 2 * 8 + (lane >> 2), to = t < rows ? end[t] : 0;
                    if (at + e % 2 < t || at + e % 2 >= to)
                        s[i][j][e] = 0.0f;
                }
            }
    }
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        pack_left(a[i], s[i][0], s[i][1]);
        p[32 * i + lane] = make_uint4(a[i][0], a[i][1], a[i][2], a[i][3]);
    }
    gather<D, TILES>(m, a, g + left_lane<D>(lane));
}

/* The second warp's part: slopes of the scores from their weights. */
template <int D>
static __device__ __forceinline__ void slope(struct keys_owned<D> &m, uint32_t q, uint32_t g,
                                             const float *dot, const uint4 *p)
{
    constexpr int TILES = keys_room<D>::TILES;
    int lane = threadIdx.x & 31, c = lane & 3;
    float2 d[2] = { *(const float2 *)(dot + 2 * c), *(const float2 *)(dot + 8 + 2 * c) };
    float w[TILES][2][4];
    uint32_t a[TILES][4];

    score<D, TILES>(w, m, g + right_lane<D>(lane));
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        uint4 packed = p[32 * i + lane];
        uint32_t pairs[4] = { packed.x, packed.y, packed.z, packed.w };
#pragma unroll
        for (int k = 0; k < 4; k++) { /* rows g, g + 8 of the first eight queries, of the others */
            float *x = &w[i][k / 2][k % 2 * 2];
            x[0] = pair_low(pairs[k]) * (x[0] - d[k / 2].x);
            x[1] = pair_high(pairs[k]) * (x[1] - d[k / 2].y);
        }
        pack_left(a[i], w[i][0], w[i][1]);
    }
    gather<D, TILES>(m, a, q + left_lane<D>(lane));
}

/* A warp's rows of keys, and of which queries they are seen. */
struct keys_of {
    int key, last, rows;
    bool second;
};

/* A warp's part of a tile, its pair's weights at p. */
template <int D>
static __device__ __forceinline__ void keys_add(const struct flash &f, struct keys_owned<D> &m,
                                                const struct keys_of &k, const unsigned char *tile,
                                                uint4 *p)
{
    typedef keys_room<D> room_of;
    const struct tile_rows *r = (const struct tile_rows *)(tile + room_of::ROWS);
    const int32_t *end = half_of(f, r->h) ? f.end[1] : f.end[0];
    int to = k.key < k.rows ? end[k.last] : 0, all = k.key < k.rows ? end[k.key] : 0;
    bool plain = r->query >= k.last && r->query + QUERIES <= all;
    uint32_t q = shared_address(tile), g = q + room_of::Q, step = AT_ONCE * D * 2;
    float scale = f.b.fwd.scale * 1.44269504f;

    if (plain && k.second) {
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
            slope<D>(m, q + n * step, g + n * step, r->dot + n * AT_ONCE,
                     p + n * room_of::TILES * 32);
    } else if (plain) {
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
            weigh<D, false>(m, q + n * step, g + n * step, r->lse + n * AT_ONCE,
                            p + n * room_of::TILES * 32, scale, 0, 0, NULL, 0);
    } else {
#pragma unroll 1
        for (int n = 0; n < CHUNKS; n++) {
            int query = r->query + n * AT_ONCE;
            if (query + AT_ONCE <= k.key || query >= to)
                continue;
            if (k.second)
                slope<D>(m, q + n * step, g + n * step, r->dot + n * AT_ONCE,
                         p + n * room_of::TILES * 32);
            else
                weigh<D, true>(m, q + n * step, g + n * step, r->lse + n * AT_ONCE,
                               p + n * room_of::TILES * 32, scale, query, k.key, end, k.rows);
        }
    }
}

template <int D>
static __device__ __forceinline__ void keys_begin(struct keys_owned<D> &m, uint32_t kept)
{
#pragma unroll
    for (int i = 0; i < keys_owned<D>::TILES; i++) {
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++)
            ldmatrix(m.x[i][kk], (kept + i * 16 * D * 2) ^ (32 * kk));
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            m.d[i][n][0] = m.d[i][n][1] = m.d[i][n][2] = m.d[i][n][3] = 0.0f;
    }
}

template <int D>
static __global__ void __launch_bounds__(keys_room<D>::THREADS, 256 / keys_room<D>::THREADS)
back_keys(const struct flash f)
{
    typedef keys_room<D> room_of;
    extern __shared__ __align__(1024) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.rows, warp = warp_index(), pair = warp % room_of::PAIRS;
    struct flash_place place = flash_place_of(f, (int)a.kv_heads);
    int at = place.tile * OWNED, tail = min(at + OWNED, rows) - 1;
    int stop = f.end[0][tail], stop2 = f.end[1][tail], half = (int)a.heads / 2;
    int group = (int)a.heads / (int)a.kv_heads, h = place.head * group, query = at;
    int under = max(0, min(half - h, group)); /* heads in the first half */
    int tiles = under * ((stop - at + QUERIES - 1) / QUERIES) +
                (group - under) * ((stop2 - at + QUERIES - 1) / QUERIES);
    struct keys_of k = { at + pair * room_of::MINE, 0, rows, warp >= room_of::PAIRS };
    struct keys_owned<D> m;
    int now = 0; /* the stage of tile i */

    static_assert(room_of::K >= room_of::STAGE, "the first tile has its place beside k and v");
    k.last = min(k.key + room_of::MINE, rows) - 1;
    tile_copy<D, OWNED, room_of::THREADS>(shared_address(room + room_of::K),
                                          (const bf16 *)a.k + place.head * D, a.kv_ld, at, rows);
    tile_copy<D, OWNED, room_of::THREADS>(shared_address(room + room_of::V),
                                          (const bf16 *)a.v + place.head * D, a.kv_ld, at, rows);
    walk_copy<D>(f, h, query, room);
    copies_wait();
    __syncthreads();
    keys_begin<D>(m, shared_address(room + (k.second ? room_of::V : room_of::K)) +
                         pair * room_of::MINE * D * 2 + left_lane<D>(threadIdx.x & 31));
    for (int i = 0; i <= tiles; i++) { /* the first warps are at tile i, the second at i - 1 */
        int then = now == 2 ? 0 : now + 1, was = now == 0 ? 2 : now - 1;

        copies_wait();
        __syncthreads();
        if (i + 1 < tiles) {
            walk_on(&h, &query, half, at, stop, stop2);
            walk_copy<D>(f, h, query, room + then * room_of::STAGE);
        }
        if (k.second ? i > 0 : i < tiles)
            keys_add<D>(f, m, k, room + (k.second ? was : now) * room_of::STAGE,
                        (uint4 *)(room + room_of::P + ((i ^ k.second) & 1) * room_of::P_STAGE) +
                            pair * CHUNKS * room_of::TILES * 32);
        now = then;
    }
    __syncthreads(); /* the tiles are no longer read */
#pragma unroll
    for (int i = 0; i < room_of::TILES; i++)
        sums_put<D>(room + (warp * room_of::MINE + 16 * i) * D * 2, m.d[i],
                    k.second ? a.scale : 1.0f, k.second ? a.scale : 1.0f,
                    (bf16 *)(k.second ? f.b.dk : f.b.dv) + place.head * D, a.kv_ld,
                    k.key + 16 * i, rows);
}

template <int D> static int launch(struct cuda *c, const struct flash *f)
{
    typedef keys_room<D> keys;

    return flash_launch(c, back_keys<D>, ceil_div(f->b.fwd.rows, OWNED) * f->b.fwd.kv_heads,
                        keys::THREADS, keys::BYTES, f);
}

int flash_backward_keys(struct cuda *c, const struct flash *f)
{
    return f->dim == 128 ? launch<128>(c, f) : launch<64>(c, f);
}
