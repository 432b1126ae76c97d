/* formats/weights/gguf_types.c - see gguf_types.h. Little-endian, as the files are. */
#include "formats/weights/gguf_types.h"

#include "base/bytes.h"
#include "base/gguf.h"
#include "base/processor.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, Q8_BYTES = 2 + 32, Q4_BYTES = 2 + 16, Q41_BYTES = 2 + 2 + 16 };

/* The bodies are compiled twice, for any processor and with AVX2; both give the same bits. */
#define EACH static inline __attribute__((always_inline))

/* ---- to float32 ---- */

EACH void widen_q8_0(const unsigned char *p, int64_t n, float *out)
{
    for (; n > 0; n -= BLOCK, p += Q8_BYTES, out += BLOCK) {
        float d = f16_to_f32((uint16_t)get_le(p, 2));

        for (int i = 0; i < BLOCK; i++)
            out[i] = (float)(int8_t)p[2 + i] * d;
    }
}

EACH void widen_q4_0(const unsigned char *p, int64_t n, float *out)
{
    for (; n > 0; n -= BLOCK, p += Q4_BYTES, out += BLOCK) {
        float d = f16_to_f32((uint16_t)get_le(p, 2));

        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)((p[2 + i] & 15) - 8) * d;
            out[i + BLOCK / 2] = (float)((p[2 + i] >> 4) - 8) * d;
        }
    }
}

EACH void widen_q4_1(const unsigned char *p, int64_t n, float *out)
{
    for (; n > 0; n -= BLOCK, p += Q41_BYTES, out += BLOCK) {
        float d = f16_to_f32((uint16_t)get_le(p, 2)), m = f16_to_f32((uint16_t)get_le(p + 2, 2));

        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)(p[4 + i] & 15) * d + m;
            out[i + BLOCK / 2] = (float)(p[4 + i] >> 4) * d + m;
        }
    }
}

/* ---- from float32 ---- */

EACH void narrow_q8_0(const float *f, int64_t n, unsigned char *p)
{
    for (; n > 0; n -= BLOCK, p += Q8_BYTES, f += BLOCK) {
        float most = 0, d, by;

        for (int i = 0; i < BLOCK; i++)
            most = fabsf(f[i]) > most ? fabsf(f[i]) : most;
        d = most / 127;
        by = d != 0 ? 1 / d : 0;
        put_le(p, f32_to_f16(d), 2);
        for (int i = 0; i < BLOCK; i++) {
            float x = f[i] * by, rest;
            int whole = (int)x;
            /* to the nearest, halves away from 0 */
            rest = x - (float)whole;
            p[2 + i] = (unsigned char)(int8_t)(whole + (rest >= 0.5F) - (rest <= -0.5F));
        }
    }
}

/* The value of the largest size becomes -8. In float64, as ggml's result is that of one rounding. */
EACH void narrow_q4_0(const float *f, int64_t n, unsigned char *p)
{
    for (; n > 0; n -= BLOCK, p += Q4_BYTES, f += BLOCK) {
        float most = 0, at = 0, d, by;
        int q[BLOCK];

        for (int i = 0; i < BLOCK; i++)
            if (fabsf(f[i]) > most) {
                most = fabsf(f[i]);
                at = f[i];
            }
        d = at / -8;
        by = d != 0 ? 1 / d : 0;
        put_le(p, f32_to_f16(d), 2);
        for (int i = 0; i < BLOCK; i++) {
            int v = (int)((double)f[i] * (double)by + 8.5);
            q[i] = v > 15 ? 15 : v;
        }
        for (int i = 0; i < BLOCK / 2; i++)
            p[2 + i] = (unsigned char)(q[i] | q[i + BLOCK / 2] << 4);
    }
}

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2")))
#define BOTH(name, from, to) \
    AVX2 static void name##_avx2(const from *a, int64_t n, to *b) { name(a, n, b); } \
    static void name##_any(const from *a, int64_t n, to *b) \
    { \
        (simd_level() >= SIMD_AVX2 ? name##_avx2 : name)(a, n, b); \
    }
#else
#define BOTH(name, from, to) \
    static void name##_any(const from *a, int64_t n, to *b) { name(a, n, b); }
#endif
BOTH(widen_q8_0, unsigned char, float)
BOTH(widen_q4_0, unsigned char, float)
BOTH(widen_q4_1, unsigned char, float)
BOTH(narrow_q8_0, float, unsigned char)
BOTH(narrow_q4_0, float, unsigned char)

/* ---- the types ---- */

#define TO_F32(name, block_bytes) \
    static void name##_to_f32(const void *data, const void *scale, int64_t cols, int64_t first, \
                              int64_t n, float *out) \
    { \
        (void)scale, (void)cols; \
        widen_##name##_any((const unsigned char *)data + (size_t)(first / BLOCK) * (block_bytes), n, \
                           out); \
    }
TO_F32(q8_0, Q8_BYTES)
TO_F32(q4_0, Q4_BYTES)
TO_F32(q4_1, Q41_BYTES)

const struct tensor_type type_q8_0 = { .name = "Q8_0", .plain = DT_OTHER, .block = BLOCK,
                                       .block_bytes = Q8_BYTES, .to_f32 = q8_0_to_f32 };
const struct tensor_type type_q4_0 = { .name = "Q4_0", .plain = DT_OTHER, .block = BLOCK,
                                       .block_bytes = Q4_BYTES, .to_f32 = q4_0_to_f32 };
const struct tensor_type type_q4_1 = { .name = "Q4_1", .plain = DT_OTHER, .block = BLOCK,
                                       .block_bytes = Q41_BYTES, .to_f32 = q4_1_to_f32 };

static const struct {
    int number;
    const struct tensor_type *type;
} types[] = {
    { GGML_F32, &type_f32 },   { GGML_F16, &type_f16 },   { GGML_BF16, &type_bf16 },
    { GGML_Q8_0, &type_q8_0 }, { GGML_Q4_0, &type_q4_0 }, { GGML_Q4_1, &type_q4_1 },
};

const struct tensor_type *gguf_type(uint32_t ggml_type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((uint32_t)types[i].number == ggml_type)
            return types[i].type;
    return NULL;
}

int gguf_type_number(const struct tensor_type *t)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].type->name, t->name) == 0) /* of a turned view too */
            return types[i].number;
    return -1;
}

void gguf_narrow(const struct tensor_type *t, const float *f, int64_t n, void *out)
{
    if (t == &type_q8_0)
        narrow_q8_0_any(f, n, out);
    else if (t == &type_q4_0)
        narrow_q4_0_any(f, n, out);
    else
        floats_narrow(t->plain, f, n, out);
}
