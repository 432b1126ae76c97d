/* kernels/cuda/flash_back.cu - our own segmented causal attention, backward. */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/mma.cuh"

/*
 * From do, the gradient of the output, the backward makes dq, dk and dv. The forward did not
 * store the weights p; they are computed again from its lse, the logarithm of the sum:
 *
 *     p  = exp(scale q k^T - lse)
 *     dp = do v^T               ds = p (dp - dot)      dot = sum(do * o) of a query
 *     dq = scale ds k           dk = scale ds^T q      dv = p^T do
 *
 * dq adds over keys, dk and dv over queries. A kernel that made all three would have blocks
 * adding to the same rows, in an order that changes from run to run. So there are two kernels,
 * and each row is added up by one block: flash_keys.cu owns keys and reads the queries that see
 * them; this one owns queries and reads the keys that they see, as the forward does, with do
 * beside q and v beside k. The price is that p is computed twice.
 */
enum { OWNED = 128 };

template <int D> struct queries_memory {
    enum { WARPS = 4, MINE = OWNED / WARPS, THREADS = 32 * WARPS, KEYS = 4096 / D,
           Q = OWNED * D * 2, KV = KEYS * D * 2, STAGE = 2 * KV, BYTES = 2 * Q + 2 * STAGE };
};

/* scratch[h][t] = sum over a head's channels of do * o: D / 8 lanes a row. */
template <int D> static __global__ void dots(const struct flash f)
{
    constexpr int LANES = D / 8;
    const struct op_attention &a = f.b.fwd;
    int64_t n = a.q_rows * a.heads, step = (int64_t)gridDim.x * blockDim.x / LANES;
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
            f.b.scratch[h * a.q_rows + t] = s;
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
    typedef queries_memory<D> mem_of;
    constexpr int KEYS = mem_of::KEYS;
    int lane = threadIdx.x & 31;
    float s[2][KEYS / 8][4], w[2][KEYS / 8][4];

    product<D, KEYS>(s, q, tile + right_lane<D>(lane));
    product<D, KEYS>(w, q + mem_of::Q, tile + mem_of::KV + right_lane<D>(lane));
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
                    float p = exp2_fast(s[i][n][2 * e + j] * scale - r.lse[i][e]);
                    p = !MASKED || (at >= from && at <= t) ? p : 0.0f;
                    w[i][n][2 * e + j] = p * (w[i][n][2 * e + j] - r.dot[i][e]);
                }
        }
    product_add<D, KEYS>(dq, w, tile + left_lane<D>(lane));
}

template <int D>
static __global__ void __launch_bounds__(queries_memory<D>::THREADS, 2)
back_queries(const struct flash f)
{
    typedef queries_memory<D> mem_of;
    extern __shared__ __align__(1024) unsigned char room[];
    const struct op_attention &a = f.b.fwd;
    int rows = (int)a.q_rows, lane = threadIdx.x & 31, warp = warp_index();
    struct flash_place p = flash_place_of(f, (int)a.heads);
    int h = p.head, shared = h / ((int)a.heads / (int)a.kv_heads);
    int at = (((rows + OWNED - 1) / OWNED) - 1 - p.tile) * OWNED; /* late rows see most */
    int row = at + warp * mem_of::MINE, last = min(row + mem_of::MINE, rows) - 1;
    int stop = min(at + OWNED, rows);
    const bf16 *k = (const bf16 *)a.k + shared * D, *v = (const bf16 *)a.v + shared * D;
    const int32_t *first = half_of(f, h) ? f.key_first[1] : f.key_first[0];
    int key = first[at] / mem_of::KEYS * mem_of::KEYS, sees = row < rows ? first[row] : rows;
    int all = row < rows ? first[last] : rows; /* every row sees from here */
    uint32_t q_at = shared_address(room), stage = q_at + 2 * mem_of::Q;
    uint32_t q_lane = q_at + warp * mem_of::MINE * D * 2 + left_lane<D>(lane);
    float dq[2][D / 8][4] = {}, scale = a.scale * 1.44269504f;
    struct of_rows r;

    tile_copy<D, OWNED, mem_of::THREADS>(q_at, (const bf16 *)a.q + h * D, a.q_ld, at, rows);
    tile_copy<D, OWNED, mem_of::THREADS>(q_at + mem_of::Q, (const bf16 *)f.b.d_o + h * D, a.q_ld,
                                          at, rows);
    tile_copy<D, mem_of::KEYS, mem_of::THREADS>(stage, k, a.kv_ld, key, rows);
    tile_copy<D, mem_of::KEYS, mem_of::THREADS>(stage + mem_of::KV, v, a.kv_ld, key, rows);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int t = row + 8 * i + (lane >> 2);
        r.lse[i / 2][i % 2] = t < rows ? a.lse[h * a.q_rows + t] * 1.44269504f : 0.0f;
        r.dot[i / 2][i % 2] = t < rows ? f.b.scratch[h * a.q_rows + t] : 0.0f;
    }
    for (uint32_t odd = 0; key < stop; key += mem_of::KEYS, odd ^= 1) {
        uint32_t now = stage + odd * mem_of::STAGE, next = stage + (odd ^ 1) * mem_of::STAGE;

        copies_wait();
        __syncthreads(); /* all have this tile, and are done with the one before */
        if (key + mem_of::KEYS < stop) {
            tile_copy<D, mem_of::KEYS, mem_of::THREADS>(next, k, a.kv_ld, key + mem_of::KEYS,
                                                          rows);
            tile_copy<D, mem_of::KEYS, mem_of::THREADS>(next + mem_of::KV, v, a.kv_ld,
                                                          key + mem_of::KEYS, rows);
        }
        if (key > last || key + mem_of::KEYS <= sees)
            continue;
        if (key + mem_of::KEYS - 1 > row || key < all)
            queries_add<D, true>(dq, r, q_lane, now, scale, row, key, first, rows);
        else
            queries_add<D, false>(dq, r, q_lane, now, scale, row, key, first, rows);
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
        sums_put<D>(room + (warp * mem_of::MINE + 16 * i) * D * 2, dq[i], a.scale, a.scale,
                    (bf16 *)f.b.dq + h * D, a.q_ld, row + 16 * i, rows);
}

template <int D> static int launch(struct cuda *c, const struct flash *f)
{
    typedef queries_memory<D> mem_of;
    const struct op_attention *a = &f->b.fwd;
    int64_t blocks = ceil_div(a->q_rows, OWNED) * a->heads;
    int rc = flash_launch(c, dots<D>, cuda_blocks(c, a->q_rows * a->heads * (D / 8), 256), 256, 0, f);

    if (rc == 0)
        rc = flash_backward_keys(c, f);
    if (rc == 0)
        rc = flash_launch(c, back_queries<D>, blocks, mem_of::THREADS, mem_of::BYTES, f);
    return rc;
}

int flash_backward_tiles(struct cuda *c, const struct flash *f)
{
    return f->dim == 128 ? launch<128>(c, f) : launch<64>(c, f);
}
