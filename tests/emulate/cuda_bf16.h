/* tests/emulate/cuda_bf16.h - bfloat16 as CUDA names it, on the CPU. */
#ifndef TESTS_EMULATE_CUDA_BF16_H
#define TESTS_EMULATE_CUDA_BF16_H
#include <cuda_runtime.h>

struct __nv_bfloat16 { uint16_t bits; };
struct __nv_bfloat162 { __nv_bfloat16 x, y; };

static inline float __bfloat162float(__nv_bfloat16 h)
{
    uint32_t u = (uint32_t)h.bits << 16;
    float x;

    memcpy(&x, &u, 4);
    return x;
}
static inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    uint32_t u;

    memcpy(&u, &x, 4);
    u = x != x ? u | 0x400000 : u + 0x7fff + (u >> 16 & 1);
    return __nv_bfloat16{ (uint16_t)(u >> 16) };
}
static inline float2 __bfloat1622float2(__nv_bfloat162 h)
{
    return float2{ __bfloat162float(h.x), __bfloat162float(h.y) };
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{ __float2bfloat16_rn(x), __float2bfloat16_rn(y) };
}
#endif
