/* kernels/cuda/mma.cuh - products of bfloat16 tiles by the tensor cores, from swizzled tiles in
 * shared memory (PTX ISA: mma.m16n8k16, ldmatrix, cp.async; sm_80 and later). */
#ifndef KERNELS_CUDA_MMA_CUH
#define KERNELS_CUDA_MMA_CUH
#include "kernels/cuda/bf16.cuh"

/*
 * A warp's lane is 4 g + c. Of a 16x8 sum it holds (g, 2c), (g, 2c+1), (g+8, 2c), (g+8, 2c+1).
 * Of the left factor, 16x16: pairs from (g, 2c), (g+8, 2c), (g, 2c+8), (g+8, 2c+8): two
 * neighbouring sums, packed, are one. Of the right factor, 16x8: pairs down from (2c, g), (2c+8, g).
 */
static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8x8 matrices; lane l names the row l % 8 of matrix l / 8. Lane 4 g + c gets of each the
 * pair from (g, 2c); turned, the pair down from (2c, g). */
static __device__ __forceinline__ void ldmatrix(uint32_t x[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}
static __device__ __forceinline__ void ldmatrix_turned(uint32_t x[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}

/* Copies to shared memory behind the program's back; zeros where there is nothing to copy. */
static __device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
                 :: "r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
static __device__ __forceinline__ void copy4(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n"
                 :: "r"(to), "l"(from), "r"(there ? 4 : 0) : "memory");
}
static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_all;\n" ::: "memory");
}

/* The same in all lanes, and the compiler knows it. */
static __device__ __forceinline__ int warp_index(void)
{
    return __shfl_sync(0xffffffffu, (int)(threadIdx.x >> 5), 0);
}

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 2^x to two units in the last place; 0 of -infinity. */
static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
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
