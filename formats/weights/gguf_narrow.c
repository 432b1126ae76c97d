/* formats/weights/gguf_narrow.c - float32 to ggml's blocks; see gguf_types.h. */
#include "formats/weights/gguf_types.h"

#include "base/levels.h"

#include <string.h>
#ifdef SIMD_WIDE
#include <immintrin.h>
#endif

enum { BLOCK = GGUF_BLOCK, SOME = 64 }; /* blocks whose scales are computed at a time */

/* Sizes order as their bits do, so that whole numbers find the largest: compilers do not reorder
 * the maxima of floats. */
enum { SIGN = 1u << 31, INF = 0x7F800000 };

/* Of k blocks: what values are divided by (d, of which the file has float16: half), and multiplied. */
struct scales {
    float d[SOME], by[SOME];
    uint16_t half[SOME];
};

SIMD_INLINE void set_scales(struct scales *s, int64_t k, float divisor)
{
    for (int64_t b = 0; b < k; b++)
        s->d[b] /= divisor;
    for (int64_t b = 0; b < k; b++) /* 0 of 0 */
        s->by[b] = float_of(bits_of(1 / s->d[b]) & -(uint32_t)(s->d[b] != 0));
    floats_narrow(DT_F16, s->d, k, s->half);
}

/* ---- Q8_0 ---- */

SIMD_INLINE float largest_size(const float *f)
{
    int32_t most = 0;

    for (int i = 0; i < BLOCK; i++) {
        int32_t size = (int32_t)(bits_of(f[i]) & ~(uint32_t)SIGN);
        most = size > most ? size : most;
    }
    return float_of((uint32_t)most);
}

/* To the nearest, halves away from 0: of sizes to 2^23 those are the whole part of x and the float
 * before a half. */
SIMD_INLINE unsigned char nearest(float x)
{
    /* Of infinities, where the scale is 0 in the file, and of NaN 0: below 256 all else is. */
    x = float_of(bits_of(x) & -(uint32_t)((bits_of(x) & ~(uint32_t)SIGN) < 0x43800000));
    x += float_of((bits_of(x) & SIGN) | 0x3EFFFFFF);
    return (unsigned char)(int8_t)(int)x;
}

SIMD_FN(bool, narrow_q8_0, (const float *f, int64_t n, unsigned char *p), (f, n, p))
{
    struct scales s;
    uint32_t most = 0;

    for (int64_t k; n > 0; n -= k * BLOCK) {
        k = n / BLOCK < SOME ? n / BLOCK : SOME;
        for (int64_t b = 0; b < k; b++)
            s.d[b] = largest_size(f + b * BLOCK);
        for (int64_t b = 0; b < k; b++)
            most = bits_of(s.d[b]) > most ? bits_of(s.d[b]) : most;
        set_scales(&s, k, 127);
        for (int64_t b = 0; b < k; b++, p += GGUF_Q8_BYTES, f += BLOCK) {
            memcpy(p, &s.half[b], 2);
            for (int i = 0; i < BLOCK; i++)
                p[2 + i] = nearest(f[i] * s.by[b]);
        }
    }
    return most < INF;
}

/* ---- Q4_0 ---- */

/* The value of the largest size, the first of several; 0 of zeros of either sign. */
SIMD_INLINE float largest(const float *f)
{
    uint32_t most = bits_of(largest_size(f));

    for (int i = 0; most && i < BLOCK; i++)
        if ((bits_of(f[i]) & ~(uint32_t)SIGN) == most)
            return f[i];
    return 0;
}

/* A value, 8 added, in 4 bits. ggml's result is the whole part of f by + 8.5 computed
 * with one rounding at most, which float64 has room for. */
SIMD_INLINE unsigned nibble(float f, float by)
{
    double v = (double)f * (double)by + 8.5;
    int q = v > -1 && v < 32 ? (int)v : 0;

    return (unsigned)(q > 15 ? 15 : q);
}

SIMD_INLINE void nibbles(const float *f, float by, unsigned char *p)
{
    for (int i = 0; i < BLOCK / 2; i++)
        p[i] = (unsigned char)(nibble(f[i], by) | nibble(f[i + BLOCK / 2], by) << 4);
}

SIMD_INLINE bool narrow_q4_0_by(const float *f, int64_t n, unsigned char *p, float (*most_of)(const float *f),
                                void (*fill)(const float *f, float by, unsigned char *p))
{
    struct scales s;
    uint32_t most = 0;

    for (int64_t k; n > 0; n -= k * BLOCK) {
        k = n / BLOCK < SOME ? n / BLOCK : SOME;
        for (int64_t b = 0; b < k; b++)
            s.d[b] = most_of(f + b * BLOCK);
        for (int64_t b = 0; b < k; b++) {
            uint32_t size = bits_of(s.d[b]) & ~(uint32_t)SIGN;
            most = size > most ? size : most;
        }
        set_scales(&s, k, -8);
        for (int64_t b = 0; b < k; b++, p += GGUF_Q4_BYTES, f += BLOCK) {
            memcpy(p, &s.half[b], 2);
            fill(f, s.by[b], p + 2);
        }
    }
    return most < INF;
}

static bool narrow_q4_0_base(const float *f, int64_t n, unsigned char *p)
{
    return narrow_q4_0_by(f, n, p, largest, nibbles);
}

#ifdef SIMD_WIDE
/* f at the first bit that is set, but 0 where the largest size is. */
SIMD_INLINE float first_of(const float *f, uint32_t mask, uint32_t most)
{
    return float_of(bits_of(f[__builtin_ctz(mask)]) & -(uint32_t)(most != 0));
}

SIMD_V3 static inline float largest_wide(const float *f)
{
    const __m256i sizes = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i v[4], all;
    __m128i x;
    uint32_t mask = 0;

    for (int i = 0; i < 4; i++)
        v[i] = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(f + 8 * i)), sizes);
    all = _mm256_max_epi32(_mm256_max_epi32(v[0], v[1]), _mm256_max_epi32(v[2], v[3]));
    x = _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    x = _mm_max_epi32(x, _mm_shuffle_epi32(x, 0x4E)); /* of 4 the halves change places, */
    x = _mm_max_epi32(x, _mm_shuffle_epi32(x, 0xB1)); /* then neighbours */
    all = _mm256_broadcastd_epi32(x);
    for (int i = 0; i < 4; i++)
        mask |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(v[i], all))) << 8 * i;
    return first_of(f, mask, (uint32_t)_mm_cvtsi128_si32(x));
}

SIMD_V4 static inline float largest_widest(const float *f)
{
    const __m512i sizes = _mm512_set1_epi32(0x7FFFFFFF);
    const __m512i a = _mm512_and_si512(_mm512_loadu_si512(f), sizes);
    const __m512i b = _mm512_and_si512(_mm512_loadu_si512(f + 16), sizes);
    const uint32_t most = _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
    const __m512i all = _mm512_set1_epi32((int)most);

    return first_of(f, (uint32_t)_mm512_cmpeq_epi32_mask(a, all) |
                       (uint32_t)_mm512_cmpeq_epi32_mask(b, all) << 16, most);
}

/* Eight values as 32 bits each. In float32, f by + 8.5 may have been rounded up to a whole number:
 * what is left of it when that is taken away, again with one rounding, has the right sign. */
SIMD_V3 static inline __m256i eight(const float *f, __m256 by)
{
    const __m256 half = _mm256_set1_ps(8.5F), x = _mm256_loadu_ps(f);
    const __m256i n = _mm256_cvttps_epi32(_mm256_fmadd_ps(x, by, half));
    const __m256 left = _mm256_fmadd_ps(x, by, _mm256_sub_ps(half, _mm256_cvtepi32_ps(n)));
    __m256i less = _mm256_castps_si256(_mm256_cmp_ps(left, _mm256_setzero_ps(), _CMP_LT_OQ));

    less = _mm256_and_si256(less, _mm256_cmpgt_epi32(n, _mm256_setzero_si256()));
    return _mm256_min_epi32(_mm256_add_epi32(n, less), _mm256_set1_epi32(15));
}

SIMD_V3 static inline void nibbles_wide(const float *f, float by, unsigned char *p)
{
    const __m256 all = _mm256_set1_ps(by);
    __m256i low = _mm256_packs_epi32(eight(f, all), eight(f + 8, all));
    __m256i high = _mm256_packs_epi32(eight(f + 16, all), eight(f + 24, all)), v;

    v = _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
    v = _mm256_and_si256(v, _mm256_set1_epi16(255));
    v = _mm256_packus_epi16(v, v);
    /* Packing works in halves: fours of values in order 0, 2, then 1, 3. */
    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(v));
}

/* Rounded towards 0, no sum reaches the next whole number. */
SIMD_V4 static inline __m512i sixteen(const float *f, __m512 by)
{
    const __m512 sum = _mm512_fmadd_round_ps(_mm512_loadu_ps(f), by, _mm512_set1_ps(8.5F),
                                             _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);

    return _mm512_min_epi32(_mm512_cvttps_epi32(sum), _mm512_set1_epi32(15));
}

SIMD_V4 static inline void nibbles_widest(const float *f, float by, unsigned char *p)
{
    const __m512 all = _mm512_set1_ps(by);
    const __m512i high = _mm512_slli_epi32(sixteen(f + 16, all), 4);

    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_or_si512(sixteen(f, all), high)));
}

SIMD_V3 static bool narrow_q4_0_v3(const float *f, int64_t n, unsigned char *p)
{
    return narrow_q4_0_by(f, n, p, largest_wide, nibbles_wide);
}
SIMD_V4 static bool narrow_q4_0_v4(const float *f, int64_t n, unsigned char *p)
{
    return narrow_q4_0_by(f, n, p, largest_widest, nibbles_widest);
}
SIMD_LEVELS(bool, narrow_q4_0, (const float *f, int64_t n, unsigned char *p), (f, n, p))
#else
#define narrow_q4_0 narrow_q4_0_base
#endif

bool gguf_narrow(const struct tensor_type *t, const float *f, int64_t n, void *out)
{
    if (t == &type_q8_0)
        return narrow_q8_0(f, n, out);
    if (t == &type_q4_0)
        return narrow_q4_0(f, n, out);
    floats_narrow(t->plain, f, n, out);
    return true;
}
