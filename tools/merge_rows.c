/* tools/merge_rows.c - the arithmetic of a merge, a block of rows at a time; see merge.h. */
#include "tools/merge.h"

#include "base/levels.h"

#include <string.h>

/* Each value is computed by the same operations in the same order on every processor, so the bytes
 * are the same. */

/* Strips of columns, so that the sums stay in the nearest cache; four of the pair's ranks at a
 * time, added one after the other. The largest |delta| is found in its bits, which order like it. */
SIMD_FN(float, add_rows, (float *w, const float *b, const float *a, int64_t rows, int64_t cols,
                          int64_t stride, int64_t rank, float scale),
        (w, b, a, rows, cols, stride, rank, scale))
{
    enum { STRIP = 512 };
    float sum[STRIP];
    uint32_t max = 0;

    for (int64_t i = 0; i < rows; i++)
        for (int64_t j0 = 0; j0 < cols; j0 += STRIP) {
            int64_t n = cols - j0 < STRIP ? cols - j0 : STRIP, k = 0;
            float *row = w + i * cols + j0;
            /* sum becomes one strip of a row of B A, before the scale. */
            memset(sum, 0, sizeof sum);
            for (; k + 4 <= rank; k += 4) {
                const float *bk = b + i * rank + k, *a0 = a + k * stride + j0, *a1 = a0 + stride;
                const float *a2 = a1 + stride, *a3 = a2 + stride;
                const float b0 = bk[0], b1 = bk[1], b2 = bk[2], b3 = bk[3];
                for (int64_t j = 0; j < n; j++) {
                    /* One after the other, as the loop over single ranks below does it: four
                     * ranks at once only save loads and stores of sum. */
                    float s = sum[j] + b0 * a0[j];
                    s += b1 * a1[j];
                    s += b2 * a2[j];
                    sum[j] = s + b3 * a3[j];
                }
            }
            for (; k < rank; k++) {
                const float bk = b[i * rank + k], *ak = a + k * stride + j0;
                for (int64_t j = 0; j < n; j++)
                    sum[j] += bk * ak[j];
            }
            for (int64_t j = 0; j < n; j++) {
                /* The sign bit is cleared to leave |d|; patterns of sizes order as
                 * integers do, NaN above all. */
                float d = scale * sum[j];
                uint32_t bits = bits_of(d) & 0x7FFFFFFF;

                max = bits > max ? bits : max;
                row[j] += d;
            }
        }
    return float_of(max);
}

/* Bits of a value's exponent, which are all ones where it is not finite. */
#define EXPONENT(t) ((t) == DT_F32 ? 0x7F800000u : (t) == DT_BF16 ? 0x7F80u : 0x7C00u)
enum { SHORT = 1 << 15 }; /* values whose counts are kept in 32 bits, for wide sums */

/* What is counted: values that are not finite (NaN and infinity have an exponent of ones), b unused;
 * or pairs that are equal as numbers: the same bits, but that both zeros are one. NaN is not looked
 * for. e: the exponent's bits; size: all bits but the sign. */
enum what { NOT_FINITE, SAME };
SIMD_INLINE uint32_t counts(enum what what, uint32_t a, uint32_t b, uint32_t e, uint32_t size)
{
    /* a | b without its sign is 0 only where both are +0 or -0. */
    return what == NOT_FINITE ? (a & e) == e : (a == b) | (((a | b) & size) == 0);
}

/* memcpy, as a file's bytes need not be aligned; the compiler makes a plain load of it. */
SIMD_INLINE uint32_t bits32(const void *p, int64_t i)
{
    uint32_t v;

    memcpy(&v, (const char *)p + 4 * i, 4);
    return v;
}
SIMD_INLINE uint16_t bits16(const void *p, int64_t i)
{
    uint16_t v;

    memcpy(&v, (const char *)p + 2 * i, 2);
    return v;
}

/* Of 16-bit types the counter has 16 bits too, so that vectors hold as many counters as values. */
SIMD_INLINE int64_t count(enum what what, enum dtype t, const void *a, const void *b, int64_t n)
{
    const uint32_t e = EXPONENT(t);
    int64_t all = 0;

    for (int64_t i = 0; i < n; i += SHORT) {
        int64_t end = n - i < SHORT ? n : i + SHORT;
        uint32_t some = 0;
        uint16_t few = 0;
        if (t == DT_F32)
            for (int64_t j = i; j < end; j++)
                some += counts(what, bits32(a, j), bits32(b, j), e, 0x7FFFFFFF);
        else
            for (int64_t j = i; j < end; j++)
                few = (uint16_t)(few + counts(what, bits16(a, j), bits16(b, j), e, 0x7FFF));
        all += some + few;
    }
    return all;
}

SIMD_FN(int64_t, count_not_finite, (enum dtype t, const void *v, int64_t n), (t, v, n))
{
    return count(NOT_FINITE, t, v, v, n);
}
SIMD_FN(int64_t, count_same, (enum dtype t, const void *a, const void *b, int64_t n), (t, a, b, n))
{
    return count(SAME, t, a, b, n);
}

float merge_rows(float *w, const float *b, const float *a, int64_t rows, int64_t cols,
                 int64_t stride, int64_t rank, float scale)
{
    return add_rows(w, b, a, rows, cols, stride, rank, scale);
}

int64_t merge_not_finite(enum dtype t, const void *values, int64_t n)
{
    return count_not_finite(t, values, n);
}

int64_t merge_same(enum dtype t, const void *a, const void *b, int64_t n)
{
    return count_same(t, a, b, n);
}
