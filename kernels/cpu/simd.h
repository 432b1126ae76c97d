/* kernels/cpu/simd.h - loops of the ops, compiled for several processors at once, and a fast exp. */
#ifndef KERNELS_CPU_SIMD_H
#define KERNELS_CPU_SIMD_H
#include "base/levels.h"
#include <stdint.h>
#include <string.h>

/* Sums run in so many explicit lanes, because the compiler may not reorder them itself. */
#define SIMD_LANES 16

/* The iterations of the next loop do not depend on one another, even where its arrays are the
 * same array. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* it may not be able to, as under ASan */
#define SIMD_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define SIMD_LOOP _Pragma("GCC ivdep")
#endif

/*
 * e^x to 2 units in the last place for x in [-87.3, 88.3]; 0 below, 2.2e38 above, NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite), and a polynomial of
 * degree 6 with the coefficients of Cephes' expf (Moshier).
 */
SIMD_INLINE float simd_exp(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float c, n, r, p;
    uint32_t bits;

    c = x > 88.3f ? 88.3f : x;
    n = c * 1.44269504f + magic;
    bits = bits_of(n);
    n -= magic;
    r = c - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return x < -87.3f ? 0.0f : p * float_of((bits << 23) + 0x3f800000u);
}

/*
 * tanh x to 3 units in the last place, NaN for NaN: below 0.625 a polynomial in x^2 with the coefficients
 * of Cephes' tanhf (Moshier), from there on by exp.
 */
SIMD_INLINE float simd_tanh(float x)
{
    float z = x * x, p, far = 1.0f - 2.0f / (simd_exp(2.0f * x) + 1.0f);

    p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return z < 0.390625f ? p * z * x + x : far;
}

/* Sums in a fixed order: lanes, then halves of lanes. */
SIMD_INLINE float simd_fold(float *lane)
{
    for (int w = SIMD_LANES / 2; w > 0; w /= 2)
        for (int l = 0; l < w; l++)
            lane[l] += lane[l + w];
    return lane[0];
}

SIMD_INLINE float simd_dot(const float *a, const float *b, int64_t n)
{
    float lane[SIMD_LANES] = { 0 };
    int64_t i = 0;

    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++)
            lane[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += a[i] * b[i];
    return simd_fold(lane);
}
#endif
