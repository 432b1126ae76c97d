/* kernels/cuda/bf16.cuh - device code that the kernels share: bfloat16 in eights, sums. */
#ifndef KERNELS_CUDA_BF16_CUH
#define KERNELS_CUDA_BF16_CUH
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ bf16 narrow(float x) { return __float2bfloat16_rn(x); }

/* Eight neighbours in one register of 16 bytes, as they lie in memory where that is aligned. */
static __device__ __forceinline__ void unpack(uint4 u, float x[8])
{
    const __nv_bfloat162 *h = (const __nv_bfloat162 *)&u;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __bfloat1622float2(h[i]);
        x[2 * i] = f.x;
        x[2 * i + 1] = f.y;
    }
}

static __device__ __forceinline__ uint4 pack(const float x[8])
{
    uint4 u;
    __nv_bfloat162 *h = (__nv_bfloat162 *)&u;
#pragma unroll
    for (int i = 0; i < 4; i++)
        h[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    return u;
}

/* The same for one alone, so that a template may take either. */
static __device__ __forceinline__ void unpack(bf16 u, float x[1]) { x[0] = wide(u); }
static __device__ __forceinline__ void pack_to(uint4 *p, const float x[8]) { *p = pack(x); }
static __device__ __forceinline__ void pack_to(bf16 *p, const float x[1]) { *p = narrow(x[0]); }

static __device__ __forceinline__ void load8(const bf16 *p, float x[8])
{
    unpack(*(const uint4 *)p, x);
}

static __device__ __forceinline__ void store8(bf16 *p, const float x[8])
{
    *(uint4 *)p = pack(x);
}

/* V values from p: 8 at once where the caller knows them aligned, else one. */
template <int V> static __device__ __forceinline__ void load_v(const bf16 *p, float *x)
{
    if (V == 8)
        load8(p, x);
    else
        x[0] = wide(*p);
}
template <int V> static __device__ __forceinline__ void store_v(bf16 *p, const float *x)
{
    if (V == 8)
        store8(p, x);
    else
        *p = narrow(x[0]);
}

/* Over the block, the same in every thread and in an order fixed by blockDim (a multiple of 32,
 * at most 1024). */
static __device__ __forceinline__ float block_sum(float x)
{
    __shared__ float part[33];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;

    for (int o = 16; o; o >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    __syncthreads();
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = lane < warps ? part[lane] : 0.0f;
        for (int o = 16; o; o >>= 1)
            x += __shfl_xor_sync(0xffffffffu, x, o);
        if (lane == 0)
            part[32] = x;
    }
    __syncthreads();
    return part[32];
}

/* What a matrix product's end does with a sum: C or its addend is c_type. */
struct product_end {
    float alpha, beta;
    void *c;
    const void *addend; /* NULL: C itself */
    int is_f32;
};
static __device__ __forceinline__ void put_product(const struct product_end &p, int64_t at, float s)
{
    const void *add = p.addend ? p.addend : p.c;

    s *= p.alpha;
    if (p.is_f32)
        ((float *)p.c)[at] = p.beta == 0 ? s : s + p.beta * ((const float *)add)[at];
    else
        ((bf16 *)p.c)[at] = narrow(p.beta == 0 ? s : s + p.beta * wide(((const bf16 *)add)[at]));
}

static inline int aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }
#endif
