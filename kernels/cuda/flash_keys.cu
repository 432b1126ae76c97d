/* kernels/cuda/flash_keys.cu - our own segmented causal attention, backward: keys and values. */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/mma.cuh"

/*
 * The half of the backward that makes dk and dv (the formulas stand in flash_back.cu). A block
 * owns 128 keys of one key head and reads the queries that see them, 64 at a time, of all query
 * heads that share the key head. With 8 query heads, 2 key heads and segments of 1000 rows, the
 * block of keys 128..255 of key head 1 reads queries 128..999 of heads 4, 5, 6 and 7.
 *
 * The matrix instruction wants its left factor in rows of the result. dk = ds^T q has keys as
 * rows, so scores are computed transposed, s^T = k q^T: a warp's p^T and ds^T are then left
 * factors as they lie in its registers. A warp also keeps k, v and the sums dk and dv of its
 * keys there, and works on 16 queries at a time. (Two warps that share 32 keys, one for dv and
 * one for dk, read shared memory half as much and were 1 to 15% slower on an H200.)
 */
enum { OWNED = 128, QUERIES = 64, AT_ONCE = 16 };

template <int D> struct keys_memory {
    enum { TILES = 128 / D, MINE = 16 * TILES, WARPS = OWNED / MINE, THREADS = 32 * WARPS,
           Q = QUERIES * D * 2, ROWS = 2 * Q, STAGE = ROWS + 1024, V = 2 * STAGE,
           BYTES = V + OWNED * D * 2 };
};

/* A score s and its w = do v^T become p and ds. */
static __device__ __forceinline__ void weigh(float *s, float *w, float scale, float lse, float dot,
                                             bool seen)
{
    float p = exp2_fast(*s * scale - lse);

    *s = seen ? p : 0.0f;
    *w = *s * (*w - dot);
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
    int rows = (int)a.q_rows, i = threadIdx.x & (QUERIES - 1), at = w.query + i;

    tile_copy<D, QUERIES, THREADS>(to, (const bf16 *)a.q + of_head, a.q_ld, w.query, rows);
    tile_copy<D, QUERIES, THREADS>(to + QUERIES * D * 2, (const bf16 *)f.b.d_o + of_head,
                                   a.q_ld, w.query, rows);
    if (threadIdx.x < 2 * QUERIES) {
        const float *x = threadIdx.x < QUERIES ? a.lse : f.b.scratch;
        copy4(to + 2 * QUERIES * D * 2 + threadIdx.x * 4,
              x + w.h * a.q_rows + (at < rows ? at : 0), at < rows);
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

/* The warp's rows of k and v to registers, from where back_keys copied them; both sums 0. */
template <int D>
static __device__ __forceinline__ void keys_load(struct keys_owned<D> &m, uint32_t base)
{
    typedef keys_memory<D> mem_of;
    int lane = threadIdx.x & 31, warp = warp_index();

#pragma unroll
    for (int i = 0; i < mem_of::TILES; i++)
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++) {
            uint32_t x = base + left_lane<D>(lane) + (warp * mem_of::MINE + 16 * i) * D * 2;
            ldmatrix(m.k[i][kk], (x + mem_of::STAGE) ^ (32 * kk));
            ldmatrix(m.v[i][kk], (x + mem_of::V) ^ (32 * kk));
        }
#pragma unroll
    for (int i = 0; i < mem_of::TILES; i++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                m.dk[i][n][e] = m.dv[i][n][e] = 0.0f;
}

/* The sums to dk and dv: of key head 'shared', the warp's rows from key on. They pass through shared
 * memory that nothing else uses any more. */
template <int D>
static __device__ __forceinline__ void keys_store(const struct keys_owned<D> &m,
                                                  const struct flash &f, unsigned char *room,
                                                  int shared, int key, int rows)
{
    typedef keys_memory<D> mem_of;
    const struct op_attention &a = f.b.fwd;
    int warp = warp_index();

#pragma unroll
    for (int i = 0; i < mem_of::TILES; i++) {
        unsigned char *own = room + (warp * mem_of::MINE + 16 * i) * D * 2;
        sums_put<D>(own, m.dk[i], a.scale, a.scale, (bf16 *)f.b.dk + shared * D, a.kv_ld,
                    key + 16 * i, rows);
        sums_put<D>(own, m.dv[i], 1.0f, 1.0f, (bf16 *)f.b.dv + shared * D, a.kv_ld,
                    key + 16 * i, rows);
    }
}

template <int D>
static __global__ void __launch_bounds__(keys_memory<D>::THREADS, 8 / keys_memory<D>::WARPS)
back_keys(const struct flash f)
{
    typedef keys_memory<D> mem_of;
    extern __shared__ __align__(1024) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.q_rows, warp = warp_index();
    struct flash_place p = flash_place_of(f, (int)a.kv_heads);
    int at = p.tile * OWNED, key = at + warp * mem_of::MINE, shared = p.head; /* early: seen most */
    int group = (int)(a.heads / a.kv_heads), heads_end = (shared + 1) * group;
    int last = min(key + mem_of::MINE, rows) - 1, tail = min(at + OWNED, rows) - 1;
    struct walk w = { shared * group, at, at, f.query_end[0][tail], f.query_end[1][tail] };
    struct walk next = w;
    uint32_t base = shared_address(room);
    float scale = a.scale * 1.44269504f;
    struct keys_owned<D> m;
    bool more = true;

    static_assert(OWNED * D * 2 <= mem_of::STAGE, "keys fit where a stage will be");
    tile_copy<D, OWNED, mem_of::THREADS>(
        base + mem_of::STAGE, (const bf16 *)a.k + shared * D, a.kv_ld, at, rows);
    tile_copy<D, OWNED, mem_of::THREADS>(
        base + mem_of::V, (const bf16 *)a.v + shared * D, a.kv_ld, at, rows);
    walk_copy<D, mem_of::THREADS>(f, w, base);
    copies_wait();
    __syncthreads();
    keys_load(m, base);
    for (uint32_t odd = 0; more; odd ^= 1, w = next) {
        uint32_t now = odd * mem_of::STAGE;
        const float *rows_of = (const float *)(room + now + mem_of::ROWS);
        const int32_t *end = half_of(f, w.h) ? f.query_end[1] : f.query_end[0];
        int to = key < rows ? end[last] : 0, all = key < rows ? end[key] : 0;

        more = walk_on(&next, f, heads_end);
        copies_wait();
        __syncthreads(); /* all have this tile, and are done with the one before */
        if (more)
            walk_copy<D, mem_of::THREADS>(f, next, base + (odd ^ 1) * mem_of::STAGE);
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
    keys_store(m, f, room, shared, key, rows);
}

template <int D> static int launch(struct cuda *c, const struct flash *f)
{
    typedef keys_memory<D> keys;

    return flash_launch(c, back_keys<D>, ceil_div(f->b.fwd.q_rows, OWNED) * f->b.fwd.kv_heads,
                        keys::THREADS, keys::BYTES, f);
}

int flash_backward_keys(struct cuda *c, const struct flash *f)
{
    return f->dim == 128 ? launch<128>(c, f) : launch<64>(c, f);
}
