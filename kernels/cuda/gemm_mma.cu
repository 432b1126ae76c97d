/* kernels/cuda/gemm_mma.cu - matrix products with 2 to 16 rows by the tensor cores, which reading the matrix bounds. */
#include "kernels/cuda/gemm_few.cuh"
#include "kernels/cuda/ptx.cuh"

/*
 * C [m][n] of 16 rows at most: A is the left factor whole, 8 HALVES rows of it; a block has 8 G rows of B, and its
 * warps share out k, 32 values each in turn. What a product adds up may come in any order, so long as both factors
 * keep to it: lane 4 g + c takes the 8 neighbours from 8 c on of row g of either, 16 bytes, as two right factors
 * and two left ones. So nothing changes lanes, and shared memory is but the place where copies arrive:
 *
 *     stage   slot 0 .. G - 1: rows of B; G ..: rows of A      16 bytes a thread, which it alone writes and reads
 *
 * STAGES of them are under way at a time: with G = 4 and 6 stages 96 KiB of B a block and multiprocessor. (Two blocks of 4 stages
 * have more, and were slower on an H200: of o and down, 128 blocks, 2.1 and 2.4 TB/s against 2.8 and 3.3.) Cards whose
 * blocks have less shared memory take 4 stages. In the end the warps' sums are added in their order: the bits do not
 * depend on G, STAGES or m.
 *
 * A is read once a block, by way of L1: with G = 4 half as much as is read of B. G = 2 where fewer blocks would leave
 * multiprocessors without any.
 */
enum { WARPS = 8, THREADS = 32 * WARPS, DEEP = 32, STEP = WARPS * DEEP };
template <int HALVES, int G, int STAGES> struct mma_shape {
    static constexpr int SLOTS = G + HALVES, ROWS = 8 * HALVES, N = 8 * G;
    static constexpr int SLOT = THREADS * 16, STAGE = SLOTS * SLOT, BYTES = STAGES * STAGE;
    static constexpr int RESIDENT = BYTES > 113 << 10 ? 1 : 2; /* blocks of a multiprocessor */
    static constexpr int LD = N + 8; /* of sums, so that eight rows lie in all banks */
    static_assert(WARPS * ROWS * LD * 4 <= BYTES, "sums lie where the copies did");
};

/* A thread's rows of both factors, eight apart, from its 8 values of the first stage on. */
struct mma_rows {
    const bf16 *a, *b;
    int64_t lda, ldb; /* of eight rows */
    int a_left, b_left; /* rows, and those past the last: of them the copies are 0, and k's end ends too */
};

template <int HALVES, int G, int STAGES>
static __device__ __forceinline__ void stage_copy(uint32_t to, const mma_rows &r, int64_t from, bool there)
{
    constexpr int SLOT = mma_shape<HALVES, G, STAGES>::SLOT;

#pragma unroll
    for (int i = 0; i < G; i++)
        copy16(to + i * SLOT, r.b + from + i * r.ldb, there && 8 * i < r.b_left);
#pragma unroll
    for (int i = 0; i < HALVES; i++)
        copy16_near(to + (G + i) * SLOT, r.a + from + i * r.lda, there && 8 * i < r.a_left);
    copies_commit();
}

template <int HALVES, int G, int STAGES>
static __device__ __forceinline__ void stage_add(float sum[G][4], const unsigned char *from)
{
    constexpr int SLOT = mma_shape<HALVES, G, STAGES>::SLOT;
    uint4 a[2], b;

    a[0] = *(const uint4 *)(from + G * SLOT);
    a[1] = HALVES > 1 ? *(const uint4 *)(from + (G + HALVES - 1) * SLOT) : make_uint4(0, 0, 0, 0);
    uint32_t first[4] = { a[0].x, a[1].x, a[0].y, a[1].y }, second[4] = { a[0].z, a[1].z, a[0].w, a[1].w };
#pragma unroll
    for (int i = 0; i < G; i++) {
        b = *(const uint4 *)(from + i * SLOT);
        mma(sum[i], first, b.x, b.y);
        mma(sum[i], second, b.z, b.w);
    }
}

/* The sums of all warps, in their order, to C. */
template <int HALVES, int G, int STAGES>
static __device__ __forceinline__ void sums_end(unsigned char *room, const float sum[G][4], const struct few_parts &f,
                                                const struct few_part &part, int64_t col)
{
    using shape = mma_shape<HALVES, G, STAGES>;
    constexpr int ALL = shape::ROWS * shape::LD;
    int lane = threadIdx.x & 31, at = (lane >> 2) * shape::LD + 2 * (lane & 3);
    float *all = (float *)room, *own = all + (threadIdx.x >> 5) * ALL + at;

#pragma unroll
    for (int i = 0; i < G; i++)
#pragma unroll
        for (int j = 0; j < 2 * HALVES; j++)
            own[8 * i + j % 2 + j / 2 * 8 * shape::LD] = sum[i][j];
    __syncthreads();
    for (int o = threadIdx.x; o < shape::ROWS * shape::N; o += THREADS) {
        int row = o / shape::N, j = o % shape::N;
        float s = 0.0f;

#pragma unroll
        for (int w = 0; w < WARPS; w++)
            s += all[w * ALL + row * shape::LD + j];
        if (row < f.m && col + j < part.n)
            put_product(part.end, row * part.ldc + col + j, s);
    }
}

template <int HALVES, int G, int STAGES>
static __global__ void __launch_bounds__(THREADS, mma_shape<HALVES, G, STAGES>::RESIDENT)
    few_mma(struct few_parts f)
{
    using shape = mma_shape<HALVES, G, STAGES>;
    extern __shared__ __align__(128) unsigned char room[];
    const struct few_part &part = few_part_of(f);
    int g = (threadIdx.x & 31) >> 2, stage = 0;
    int64_t col = (int64_t)(blockIdx.x - part.first) * shape::N, at = threadIdx.x / 32 * DEEP + (threadIdx.x & 3) * 8;
    uint32_t own = shared_address(room) + threadIdx.x * 16;
    mma_rows r = { f.a + g * f.lda + at, part.b + (col + g) * part.ldb + at, 8 * f.lda, 8 * part.ldb, f.m - g,
                   (int)(part.n - col) - g };
    float sum[G][4] = {};

    chain_next();
    chain_wait();
#pragma unroll
    for (int s = 0; s < STAGES; s++)
        stage_copy<HALVES, G, STAGES>(own + s * shape::STAGE, r, s * STEP, at + s * STEP < f.k);
#pragma unroll 1 /* more would take registers that the kernel behind begins with */
    for (int64_t i = threadIdx.x / 32 * DEEP; i < f.k; i += STEP) { /* the warp's */
        copies_wait_but<STAGES - 1>();
        stage_add<HALVES, G, STAGES>(sum, room + stage + threadIdx.x * 16);
        /* what was there has been read: a thread's reads come before the copies that it begins after them */
        r.a += STEP, r.b += STEP, at += STEP;
        stage_copy<HALVES, G, STAGES>(own + stage, r, (STAGES - 1) * STEP, at + (STAGES - 1) * STEP < f.k);
        stage = stage + shape::STAGE < shape::BYTES ? stage + shape::STAGE : 0;
    }
    copies_wait();
    __syncthreads(); /* of all: sums are put where copies arrived */
    sums_end<HALVES, G, STAGES>(room, sum, f, part, col);
}

template <int HALVES, int G, int STAGES> static const struct op_gemm *launch(struct cuda *c, const struct op_gemm *a)
{
    constexpr int BYTES = mma_shape<HALVES, G, STAGES>::BYTES;
    struct few_parts f;
    unsigned blocks = few_gather(a, mma_shape<HALVES, G, STAGES>::N, &f, &a);

    (void)cudaFuncSetAttribute((const void *)few_mma<HALVES, G, STAGES>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    chain_launch_with(c, few_mma<HALVES, G, STAGES>, blocks, THREADS, BYTES, f);
    return a;
}

/* Whether blocks of 32 columns give (nearly) all multiprocessors one. */
static bool is_wide(const struct cuda *c, const struct op_gemm *a)
{
    struct few_parts f;

    return 4 * (int64_t)few_gather(a, mma_shape<1, 4, 4>::N, &f, &a) >= 3 * (int64_t)c->sms;
}

/* The first of a and those that go along; returns the next. */
template <int HALVES> static const struct op_gemm *launch_some(struct cuda *c, const struct op_gemm *a)
{
    if (!is_wide(c, a))
        return launch<HALVES, 2, 6>(c, a);
    if (mma_shape<HALVES, 4, 6>::BYTES <= c->smem_bytes)
        return launch<HALVES, 4, 6>(c, a);
    return launch<HALVES, 4, 4>(c, a);
}

extern "C" int gemm_mma(struct cuda *c, const struct op_gemm *a)
{
    bool half = a->m <= 8;

    while (a)
        a = half ? launch_some<1>(c, a) : launch_some<2>(c, a);
    return 0;
}
