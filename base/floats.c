/* base/floats.c - float32 to and from float16 and bfloat16, bit-exact; see tensor_type.h. */
#include "base/tensor_type.h"

#include "base/levels.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tensor files are little-endian and are read in place");

/* The four below choose by masks and have no branches, so that the loops over them become
 * vector code: a float sum or product under a condition would keep gcc from it. */
SIMD_INLINE uint32_t choose(bool first, uint32_t a, uint32_t b)
{
    /* All ones or all zeros, without a branch. */
    uint32_t m = -(uint32_t)first;

    return (a & m) | (b & ~m);
}

/* bfloat16 is the upper half of a float32, so widening it is exact. */
SIMD_INLINE float widen_bf16(uint16_t h) { return float_of((uint32_t)h << 16); }

SIMD_INLINE uint16_t narrow_bf16(float v)
{
    uint32_t u = bits_of(v);
    /* Adding 0x7FFF rounds up what is more than half of the last place; the last bit that stays
     * decides at exactly half, which makes ties go to even. */
    uint32_t rounded = (u + 0x7FFF + ((u >> 16) & 1)) >> 16;
    uint32_t quiet = (u >> 16) | 0x40; /* rounding could carry a NaN into infinity */

    return (uint16_t)choose((u & 0x7FFFFFFF) > 0x7F800000, quiet, rounded);
}

/* Exponent and mantissa shifted into place read as a float 2^112 times too small, subnormals
 * included, and the product is exact. Infinities and NaN take exponent 255 instead. */
SIMD_INLINE float widen_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = (uint32_t)(h & 0x7FFF) << 13;
    uint32_t finite = bits_of(float_of(mag) * 0x1p112f);
    uint32_t special = mag | 0x7F800000;

    return float_of(sign | choose(mag >= 0x0F800000, special, finite));
}

/* Normal results: rebias the exponent by -112 and round the 13 bits that go by adding; a carry
 * goes into the exponent, and past 65504 into infinity. Subnormal results: adding 0.5 lets the
 * float adder round at 2^-24, the place of the last bit. */
SIMD_INLINE uint16_t narrow_f16(float v)
{
    uint32_t u = bits_of(v), mag = u & 0x7FFFFFFF, sign = (u >> 16) & 0x8000;
    uint32_t normal = (mag - 0x38000000u + 0xFFF + ((mag >> 13) & 1)) >> 13;
    uint32_t small = bits_of(float_of(mag) + 0.5f) - 0x3F000000u;
    /* A NaN keeps the upper bits of its payload and becomes quiet. */
    uint32_t nan = 0x7E00 | ((mag >> 13) & 0x3FF);
    uint32_t r = choose(mag < 0x38800000, small, normal);

    /* Rounded, these would be 2^16, which float16 does not have. */
    r = choose(mag >= 0x477FF000, 0x7C00, r); /* 65520 and above */
    r = choose(mag > 0x7F800000, nan, r);
    return (uint16_t)(sign | r);
}

float bf16_to_f32(uint16_t v) { return widen_bf16(v); }
uint16_t f32_to_bf16(float v) { return narrow_bf16(v); }
float f16_to_f32(uint16_t v) { return widen_f16(v); }
uint16_t f32_to_f16(float v) { return narrow_f16(v); }

SIMD_INLINE uint16_t load16(const unsigned char *p)
{
    uint16_t h;

    memcpy(&h, p, 2);
    return h;
}

SIMD_FN(void, widen, (enum dtype t, const unsigned char *p, int64_t n, float *dst), (t, p, n, dst))
{
    if (t == DT_F16)
        for (int64_t i = 0; i < n; i++)
            dst[i] = widen_f16(load16(p + 2 * i));
    else
        for (int64_t i = 0; i < n; i++)
            dst[i] = widen_bf16(load16(p + 2 * i));
}

SIMD_FN(void, narrow, (enum dtype t, const float *src, int64_t n, unsigned char *p), (t, src, n, p))
{
    uint16_t h;

    if (t == DT_F16)
        for (int64_t i = 0; i < n; i++) {
            h = narrow_f16(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
    else
        for (int64_t i = 0; i < n; i++) {
            h = narrow_bf16(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
}

void floats_widen(enum dtype t, const void *src, int64_t n, float *dst)
{
    if (t != DT_F32)
        widen(t, src, n, dst);
    else if (n > 0)
        memcpy(dst, src, (size_t)n * 4);
}

void floats_narrow(enum dtype t, const float *src, int64_t n, void *dst)
{
    if (t != DT_F32)
        narrow(t, src, n, dst);
    else if (n > 0)
        memcpy(dst, src, (size_t)n * 4);
}
