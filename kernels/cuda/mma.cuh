/* kernels/cuda/mma.cuh - products of bfloat16 tiles by the tensor cores: how the factors lie in
 * registers and in shared memory. */
#ifndef KERNELS_CUDA_MMA_CUH
#define KERNELS_CUDA_MMA_CUH
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/ptx.cuh"

/* The same in all lanes, and the compiler knows it. */
static __device__ __forceinline__ int warp_index(void)
{
    return __shfl_sync(0xffffffffu, (int)(threadIdx.x >> 5), 0);
}

/* low is the pair's first. */
static __device__ __forceinline__ uint32_t pack2(float low, float high)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&h;
}

/* The left factor that two neighbouring 16x8 sums make. */
static __device__ __forceinline__ void pack_left(uint32_t a[4], const float x[4], const float y[4])
{
    a[0] = pack2(x[0], x[1]);
    a[1] = pack2(x[2], x[3]);
    a[2] = pack2(y[0], y[1]);
    a[3] = pack2(y[2], y[3]);
}

/*
 * A tile is [rows][D] bfloat16 from a multiple of 1024 bytes; of row r the 16-byte chunk j lies
 * where chunk j ^ (r % 8) would, so that eight rows' chunk j lie in all 32 banks. An address of
 * column 0 becomes that of column 16 k by ^ (32 * k), that of row r that of r + 8 i by adding.
 */
template <int D> static __device__ __forceinline__ uint32_t chunk_at(int r, int j)
{
    return (uint32_t)(r * D * 2 + ((j ^ (r & 7)) << 4));
}

/* The lane's part of an address for ldmatrix. Left: 16 rows by 16 columns of a left factor, or
 * turned, of two right factors stored [16][8 and 8]. Right: of two right factors stored turned,
 * 8 and 8 rows by 16 columns. */
template <int D> static __device__ __forceinline__ uint32_t left_lane(int lane)
{
    return chunk_at<D>(lane & 15, lane >> 4);
}
template <int D> static __device__ __forceinline__ uint32_t right_lane(int lane)
{
    return chunk_at<D>((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
}

/* ROWS rows from row at of an array of rows rows, ld apart; zeros past its end. */
template <int D, int ROWS, int THREADS>
static __device__ __forceinline__ void tile_copy(uint32_t to, const bf16 *x, int64_t ld, int at,
                                                 int rows)
{
    constexpr int STEP = THREADS / (D / 8);
    int r = threadIdx.x / (D / 8), j = threadIdx.x % (D / 8);
    const bf16 *p = x + (at + r) * ld + j * 8;

    static_assert(STEP % 8 == 0 && ROWS % STEP == 0, "a thread's rows are alike modulo 8");
    to += chunk_at<D>(r, j);
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP)
        copy16(to + (uint32_t)(i * D * 2), p + i * ld, at + r + i < rows);
}

/* s = x y^T: 32 rows of x from address x, N rows of y; left_lane and right_lane are in them. */
template <int D, int N>
static __device__ __forceinline__ void product(float s[2][N / 8][4], uint32_t x, uint32_t y)
{
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
            s[i][n][0] = s[i][n][1] = s[i][n][2] = s[i][n][3] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        uint32_t a[2][4], b[4];
        ldmatrix(a[0], x ^ (32 * kk));
        ldmatrix(a[1], (x ^ (32 * kk)) + 16 * D * 2);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            ldmatrix(b, (y ^ (32 * kk)) + n * 16 * D * 2);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma(s[i][2 * n], a[i], b[0], b[1]);
                mma(s[i][2 * n + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* o += s y: 32 rows of s in registers, N rows of y from address y, left_lane in it. */
template <int D, int N>
static __device__ __forceinline__ void product_add(float o[2][D / 8][4], const float s[2][N / 8][4],
                                                   uint32_t y)
{
#pragma unroll
    for (int kk = 0; kk < N / 16; kk++) {
        uint32_t a[2][4], b[4];
        pack_left(a[0], s[0][2 * kk], s[0][2 * kk + 1]);
        pack_left(a[1], s[1][2 * kk], s[1][2 * kk + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            ldmatrix_turned(b, (y ^ (32 * n)) + kk * 16 * D * 2);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma(o[i][2 * n], a[i], b[0], b[1]);
                mma(o[i][2 * n + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* A warp's sums, 16 rows by D, times by and by2 (row g, row g + 8), go through its own 16 rows of
 * a tile to rows at.. of x. */
template <int D>
static __device__ __forceinline__ void sums_put(unsigned char *tile, const float o[][4], float by,
                                                float by2, bf16 *x, int64_t ld, int at, int rows)
{
    constexpr int CHUNKS = D / 8, STEP = 32 / CHUNKS;
    int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;

    __syncwarp();
#pragma unroll
    for (int n = 0; n < CHUNKS; n++) {
        *(uint32_t *)(tile + chunk_at<D>(g, n) + 4 * c) = pack2(o[n][0] * by, o[n][1] * by);
        *(uint32_t *)(tile + chunk_at<D>(g + 8, n) + 4 * c) = pack2(o[n][2] * by2, o[n][3] * by2);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16; i += STEP) {
        int r = i + lane / CHUNKS, j = lane % CHUNKS;
        if (at + r < rows)
            *(uint4 *)(x + (at + r) * ld + j * 8) = *(const uint4 *)(tile + chunk_at<D>(r, j));
    }
}
#endif
