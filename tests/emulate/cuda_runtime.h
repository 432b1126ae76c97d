/* tests/emulate/cuda_runtime.h - what attention's kernels need of CUDA, on the CPU: a thread is a
 * fiber, a block runs whole before the next, a warp's collectives wait for all its 32 lanes. */
#ifndef TESTS_EMULATE_CUDA_RUNTIME_H
#define TESTS_EMULATE_CUDA_RUNTIME_H
#ifdef IMITATED /* streams that are asynchronous */
#include "tests/imitate/streams.h"
#elif !defined(__cplusplus) /* a file of the host's side */
#include "tests/emulate/cuda_host.h"
#else
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint4 { uint32_t x, y, z, w; };
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return uint4{ x, y, z, w };
}
static inline float __uint_as_float(uint32_t u)
{
    float x;

    memcpy(&x, &u, 4);
    return x;
}
/* Four of the bytes of x (0 to 3) and y (4 to 7), which the nibbles of how name. */
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t how)
{
    uint64_t both = x | (uint64_t)y << 32;
    uint32_t u = 0;

    for (int i = 0; i < 4; i++)
        u |= (uint32_t)(both >> 8 * (how >> 4 * i & 7) & 0xff) << 8 * i;
    return u;
}
static inline void sincospif(float x, float *s, float *c)
{
    *s = (float)sin(M_PI * (double)x);
    *c = (float)cos(M_PI * (double)x);
}
static inline float exp_fast(float x) { return expf(x); }
#define __expf exp_fast
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
static inline long long min(long long a, long long b) { return a < b ? a : b; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
static inline int min(int a, int b) { return a < b ? a : b; }

typedef int cudaError_t;
typedef void *cudaStream_t, *cudaEvent_t;
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
static inline cudaError_t cudaFuncSetAttribute(const void *, int, int) { return 0; }
enum { cudaSuccess = 0 };
struct cudaFuncAttributes { int ptxVersion; };
template <typename K> static inline cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *, K *) { return 1; }
template <typename K> static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, K *, int, size_t)
{
    *n = 4;
    return 0;
}
static inline cudaError_t cudaGetLastError(void) { return 0; }
cudaError_t cudaLaunchKernel(const void *kernel, dim3 blocks, dim3 threads, void **args,
                             size_t bytes, cudaStream_t stream);

/* kernel<<<blocks, threads, 0, stream>>>(args), as the Makefile writes it. */
void emulate_grid(dim3 blocks, dim3 threads, const std::function<void()> &body);
template <typename K, typename... A>
static inline void emulate_launch(cudaStream_t, dim3 blocks, dim3 threads, K *kernel, const A &...args)
{
    emulate_grid(blocks, threads, [&] { kernel(args...); });
}

/* A kernel of the chain (kernels/cuda/chain.cuh). Until all threads of a block wait for the kernel in front, the
 * arrays (emulate.cc) hold NaN and have to stay so; a thread that ends without is a fault, and one that does not let the
 * kernel behind begin. */
void emulate_chain(dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()> &body);
void chain_next(void);
void chain_wait(void);
template <typename C, typename... P, typename... A>
static inline void chain_launch_with(C *c, void (*kernel)(P...), dim3 blocks, unsigned threads, size_t shared_bytes,
                                     const A &...args)
{
    (void)chain_link(c);
    emulate_chain(blocks, threads, shared_bytes, [&] { kernel(P(args)...); });
}
template <typename C, typename... P, typename... A>
static inline void chain_launch(C *c, void (*kernel)(P...), dim3 blocks, unsigned threads, const A &...args)
{
    chain_launch_with(c, kernel, blocks, threads, 0, args...);
}

/* The engine. What a lane brings to a collective, and takes from it. */
enum emulate_kind { EMULATE_WARP, EMULATE_SHUFFLE, EMULATE_LDMATRIX, EMULATE_TURNED, EMULATE_MMA };
struct emulate_call {
    enum emulate_kind kind;
    int lane;                /* shuffle: whose */
    float value, *sum;       /* shuffle; mma */
    uint32_t at, *out;       /* ldmatrix */
    const uint32_t *left;    /* mma */
    uint32_t right[2];
};
void emulate(struct emulate_call *c);
void emulate_copy(uint32_t to, const void *from, unsigned bytes, bool there);
void emulate_copies_commit(void);
void emulate_copies_wait(unsigned but); /* the last so many groups, the one that is open among them */
void __syncthreads(void);
extern unsigned char room[]; /* shared memory */

static inline void __syncwarp(void)
{
    struct emulate_call c = {};

    emulate(&c);
}
static inline float __shfl_sync(unsigned, float x, int lane)
{
    struct emulate_call c = {};

    c.kind = EMULATE_SHUFFLE;
    c.lane = lane;
    c.value = x;
    emulate(&c);
    return c.value;
}
static inline float __shfl_xor_sync(unsigned all, float x, int mask)
{
    return __shfl_sync(all, x, ((int)threadIdx.x & 31) ^ mask);
}
static inline bool __any_sync(unsigned all, bool x)
{
    float any = x;

    for (int o = 16; o; o >>= 1)
        any += __shfl_xor_sync(all, any, o);
    return any > 0;
}

#include "tests/emulate/instructions.h"
#endif
#endif
