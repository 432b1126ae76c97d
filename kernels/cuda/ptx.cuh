/* kernels/cuda/ptx.cuh - the instructions of tensor cores and asynchronous copies (PTX ISA:
 * mma.m16n8k16, ldmatrix, cp.async; sm_80 and later). */
#ifndef KERNELS_CUDA_PTX_CUH
#define KERNELS_CUDA_PTX_CUH
#include <stdint.h>

#ifdef __CUDACC__ /* else: tests/emulate/instructions.h */
/*
 * A warp's lane is 4 g + c. Of a 16x8 sum it holds (g, 2c), (g, 2c+1), (g+8, 2c), (g+8, 2c+1).
 * Of the left factor, 16x16: pairs from (g, 2c), (g+8, 2c), (g, 2c+8), (g+8, 2c+8): two
 * neighbouring sums, packed, are one. Of the right factor, 16x8: pairs down from (2c, g) and
 * (2c+8, g).
 */
static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], uint32_t b0,
                                           uint32_t b1)
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
/* The same by way of L1, for what other warps read too. */
static __device__ __forceinline__ void copy16_near(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;\n"
                 :: "r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_all;\n" ::: "memory");
}
/* What was copied since the last is a group; all but the last N groups have landed. */
static __device__ __forceinline__ void copies_commit(void)
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
template <int N> static __device__ __forceinline__ void copies_wait_but(void)
{
    asm volatile("cp.async.wait_group %0;\n" :: "n"(N) : "memory");
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
#endif
#endif
