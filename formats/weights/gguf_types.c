/* formats/weights/gguf_types.c - see gguf_types.h. Little-endian, as the files are. */
#include "formats/weights/gguf_types.h"

#include "base/bytes.h"
#include "base/gguf.h"
#include "base/levels.h"

#include <string.h>

/* ---- to float32 ---- */

SIMD_FN(void, widen_q8_0, (const unsigned char *p, int64_t n, float *out), (p, n, out))
{
    for (; n > 0; n -= GGUF_BLOCK, p += GGUF_Q8_BYTES, out += GGUF_BLOCK) {
        float d = f16_to_f32((uint16_t)get_le(p, 2));

        for (int i = 0; i < GGUF_BLOCK; i++)
            out[i] = (float)(int8_t)p[2 + i] * d;
    }
}

SIMD_FN(void, widen_q4_0, (const unsigned char *p, int64_t n, float *out), (p, n, out))
{
    for (; n > 0; n -= GGUF_BLOCK, p += GGUF_Q4_BYTES, out += GGUF_BLOCK) {
        float d = f16_to_f32((uint16_t)get_le(p, 2));

        for (int i = 0; i < GGUF_BLOCK / 2; i++) {
            out[i] = (float)((p[2 + i] & 15) - 8) * d;
            out[i + GGUF_BLOCK / 2] = (float)((p[2 + i] >> 4) - 8) * d;
        }
    }
}

SIMD_FN(void, widen_q4_1, (const unsigned char *p, int64_t n, float *out), (p, n, out))
{
    for (; n > 0; n -= GGUF_BLOCK, p += GGUF_Q41_BYTES, out += GGUF_BLOCK) {
        float d = f16_to_f32((uint16_t)get_le(p, 2)), m = f16_to_f32((uint16_t)get_le(p + 2, 2));

        for (int i = 0; i < GGUF_BLOCK / 2; i++) {
            out[i] = (float)(p[4 + i] & 15) * d + m;
            out[i + GGUF_BLOCK / 2] = (float)(p[4 + i] >> 4) * d + m;
        }
    }
}

/* ---- the types ---- */

#define TO_F32(name, block_bytes) \
    static void name##_to_f32(const void *data, const void *scale, int64_t cols, int64_t first, \
                              int64_t n, float *out) \
    { \
        (void)scale, (void)cols; \
        widen_##name((const unsigned char *)data + (size_t)(first / GGUF_BLOCK) * (block_bytes), n, \
                           out); \
    }
TO_F32(q8_0, GGUF_Q8_BYTES)
TO_F32(q4_0, GGUF_Q4_BYTES)
TO_F32(q4_1, GGUF_Q41_BYTES)

const struct tensor_type type_q8_0 = { .name = "Q8_0", .plain = DT_OTHER, .block = GGUF_BLOCK,
                                       .block_bytes = GGUF_Q8_BYTES, .to_f32 = q8_0_to_f32 };
const struct tensor_type type_q4_0 = { .name = "Q4_0", .plain = DT_OTHER, .block = GGUF_BLOCK,
                                       .block_bytes = GGUF_Q4_BYTES, .to_f32 = q4_0_to_f32 };
const struct tensor_type type_q4_1 = { .name = "Q4_1", .plain = DT_OTHER, .block = GGUF_BLOCK,
                                       .block_bytes = GGUF_Q41_BYTES, .to_f32 = q4_1_to_f32 };

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
