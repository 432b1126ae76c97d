/* kernels/cuda/flash_forward.cu - our own segmented causal attention, forward. */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/mma.cuh"

/*
 * FlashAttention-2 (Dao 2023, arXiv:2307.08691). Attention needs, of each query, the softmax
 * over all keys it sees, and the values summed with those weights. The scores would be a matrix
 * of rows x rows, too large to store. So keys are taken in tiles of 64, and a query keeps only
 * the largest score so far, the sum of the weights and the weighted sum of values; when a
 * larger score comes, what was summed is scaled down. With scores 1 | 3 in two tiles:
 *
 *     after tile 1   most 1   sum 1             o = v1
 *     after tile 2   most 3   sum e^-2 + 1      o = e^-2 v1 + v2      result: o / sum
 *
 * A block of threads owns 128 queries of one head, a warp 32 of them; the next tile is copied
 * to shared memory while this one is computed. Scores and weights stay in registers. A warp
 * skips tiles of which its queries see nothing, and masks only tiles of which some query sees a
 * part: with segments of 100 rows, queries 128..159 skip keys 0..63 and mask 64..127 (first is
 * 100).
 *
 * OWN: queries are their own keys, and see none behind themselves. Else the keys are a cache's with
 * new ones behind it, all of one text: query t sees those before end[t] = cached + t + 1.
 */
enum { ROWS = 128, KEYS = 64, WARPS = 4, THREADS = WARPS * 32, MINE = ROWS / WARPS };

template <int D> struct forward_memory {
    enum { Q = ROWS * D * 2, KV = KEYS * D * 2, STAGE = 2 * KV, BYTES = Q + 2 * STAGE };
};

/* Of a warp's 32 rows: sums of weights and of weighted values, and the largest score. Index i, e:
 * row 16 i + 8 e + g. */
template <int D> struct forward_sums {
    float o[2][D / 8][4], most[2][2], sum[2][2];
};

/* Rows from row, keys from key: -infinity where the row does not see the key; ahead: by how many keys a
 * row's last is before it. */
static __device__ __forceinline__ void mask(float s[2][KEYS / 8][4], const int32_t *first, int row,
                                            int key, int rows, int ahead)
{
    int lane = threadIdx.x & 31;

#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int t = row + 16 * i + 8 * e + (lane >> 2), from = t < rows ? first[t] : rows + ahead;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int at = key + 8 * n + 2 * (lane & 3) + j;
                    if (at < from || at > t + ahead)
                        s[i][n][2 * e + j] = -INFINITY;
                }
        }
}

/*
 * Scores become weights, 2^(scale (s - most)). most need not be the very largest: while no row of
 * the warp has found one more than 2^8 times as heavy, it stays and nothing is scaled anew.
 */
template <int D>
static __device__ __forceinline__ void soften(struct forward_sums<D> &r, float s[2][KEYS / 8][4],
                                              float scale)
{
    float most[2][2];
    bool grows = false;

#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x = r.most[i][e];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                x = fmaxf(x, fmaxf(s[i][n][2 * e], s[i][n][2 * e + 1]));
            x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
            x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
            grows |= (x - r.most[i][e]) * scale > 8.0f;
            most[i][e] = x;
        }
    if (__any_sync(0xffffffffu, grows))
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float less = most[i][e] == -INFINITY ? 0.0f : most[i][e];
                float keep = exp2_fast((r.most[i][e] - less) * scale);
                r.most[i][e] = most[i][e];
                r.sum[i][e] *= keep;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    r.o[i][n][2 * e] *= keep;
                    r.o[i][n][2 * e + 1] *= keep;
                }
            }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float less = r.most[i][e] == -INFINITY ? 0.0f : r.most[i][e] * scale;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    s[i][n][2 * e + j] = exp2_fast(s[i][n][2 * e + j] * scale - less);
                    r.sum[i][e] += s[i][n][2 * e + j];
                }
        }
}

template <int D>
static __device__ __forceinline__ void finish(const struct flash &f, struct forward_sums<D> &r,
                                              unsigned char *tile, int64_t h, int row)
{
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.q_rows, lane = threadIdx.x & 31;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        float by[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int t = row + 16 * i + 8 * e + (lane >> 2);
            float sum = r.sum[i][e];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            by[e] = sum > 0 ? 1 / sum : 1.0f;
            if ((lane & 3) == 0 && t < rows)
                a.lse[h * a.q_rows + t] = r.most[i][e] * a.scale + logf(sum);
        }
        sums_put<D>(tile + i * 16 * D * 2, r.o[i], by[0], by[1], (bf16 *)a.o + h * D, a.q_ld,
                    row + 16 * i, rows);
    }
}

template <int D, bool OWN>
static __global__ void __launch_bounds__(THREADS, 2) forward(const struct flash f)
{
    typedef forward_memory<D> mem_of;
    extern __shared__ __align__(1024) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.q_rows, lane = threadIdx.x & 31, warp = warp_index();
    struct flash_place p = flash_place_of(f, (int)a.heads);
    int h = p.head, shared = h / ((int)a.heads / (int)a.kv_heads);
    int at = (((rows + ROWS - 1) / ROWS) - 1 - p.tile) * ROWS; /* late rows see most */
    int ahead = OWN ? 0 : (int)(a.kv_rows - a.q_rows); /* keys before the first query's own */
    int row = at + warp * MINE, last = min(row + MINE, rows) - 1, stop = min(at + ROWS, rows) + ahead;
    int keys = OWN ? rows : stop;
    const bf16 *k = (const bf16 *)a.k + shared * D, *v = (const bf16 *)a.v + shared * D;
    const int32_t *first = half_of(f, h) ? f.key_first[1] : f.key_first[0];
    int key = first[at] / KEYS * KEYS, sees = row < rows ? first[row] : keys;
    int all = row < rows ? first[last] : keys; /* every row sees from here */
    uint32_t q_at = shared_address(room), stage = q_at + mem_of::Q;
    uint32_t q_lane = q_at + warp * MINE * D * 2 + left_lane<D>(lane);
    struct forward_sums<D> r = {};
    float s[2][KEYS / 8][4];

    r.most[0][0] = r.most[0][1] = r.most[1][0] = r.most[1][1] = -INFINITY;
    tile_copy<D, ROWS, THREADS>(q_at, (const bf16 *)a.q + h * D, a.q_ld, at, rows);
    tile_copy<D, KEYS, THREADS>(stage, k, a.kv_ld, key, keys);
    tile_copy<D, KEYS, THREADS>(stage + mem_of::KV, v, a.kv_ld, key, keys);
    for (uint32_t odd = 0; key < stop; key += KEYS, odd ^= 1) {
        uint32_t now = stage + odd * mem_of::STAGE, next = stage + (odd ^ 1) * mem_of::STAGE;

        copies_wait();
        __syncthreads(); /* all have this tile, and are done with the one before */
        if (key + KEYS < stop) {
            tile_copy<D, KEYS, THREADS>(next, k, a.kv_ld, key + KEYS, keys);
            tile_copy<D, KEYS, THREADS>(next + mem_of::KV, v, a.kv_ld, key + KEYS, keys);
        }
        if (key > last + ahead || key + KEYS <= sees)
            continue;
        product<D, KEYS>(s, q_lane, now + right_lane<D>(lane));
        if (key + KEYS - 1 > row + ahead || key < all)
            mask(s, first, row, key, rows, ahead);
        soften<D>(r, s, a.scale * 1.44269504f);
        product_add<D, KEYS>(r.o, s, now + mem_of::KV + left_lane<D>(lane));
    }
    finish<D>(f, r, room + warp * MINE * D * 2, h, row);
}

template <int D> static int launch(struct cuda *c, const struct flash *f)
{
    int64_t blocks = ceil_div(f->b.fwd.q_rows, ROWS) * f->b.fwd.heads;

    return flash_launch(c, attention_square(&f->b.fwd) ? forward<D, true> : forward<D, false>, blocks,
                        THREADS, forward_memory<D>::BYTES, f);
}

int flash_forward_tiles(struct cuda *c, const struct flash *f)
{
    return f->dim == 128 ? launch<128>(c, f) : launch<64>(c, f);
}
