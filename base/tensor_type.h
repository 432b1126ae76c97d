/* base/tensor_type.h - how the values of a tensor are stored, in files and on devices. */
#ifndef BASE_TENSOR_TYPE_H
#define BASE_TENSOR_TYPE_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* Floats that stand one after another. DT_OTHER: integers, or values packed in blocks. */
enum dtype { DT_F32, DT_F16, DT_BF16, DT_OTHER };

/*
 * One way to store values. Those of a matrix are rows, one after another, of whole blocks; beside
 * them there may be scales. So int8 with a float32 scale a row is { "I8_ROW", block 1, of 1
 * byte, scale_bytes 4 * rows }, and GGUF's Q8_0, whose scale stands inside, { block 32, of 34 }.
 */
struct tensor_type {
    const char *name;   /* as files and messages say it: "BF16" */
    enum dtype plain;   /* of each value, where it is a float */
    int64_t block;      /* values that are stored together */
    size_t block_bytes;
    /* Bytes of the scales of a matrix. NULL: it has none. */
    size_t (*scale_bytes)(int64_t rows, int64_t cols);
    /* Values [first, first + n) of a matrix with cols values a row, as float32; first and n are
     * multiples of block. NULL: plain floats (tensor_to_f32 reads those), or nothing that a model
     * computes with. */
    void (*to_f32)(const void *data, const void *scale, int64_t cols, int64_t first, int64_t n,
                   float *out);
};

extern const struct tensor_type type_f32, type_f16, type_bf16;
const struct tensor_type *dtype_type(enum dtype t); /* not of DT_OTHER */
size_t dtype_bytes(enum dtype t);                   /* of one value; not of DT_OTHER */

/* Values that a model can compute with: plain floats, or with a to_f32. */
bool type_real(const struct tensor_type *t);
/* Bytes of the values of a matrix, without its scales; SIZE_MAX on overflow. */
size_t type_bytes(const struct tensor_type *t, int64_t rows, int64_t cols);

/* base/floats.c: n plain floats to float32, and back, rounded to nearest even. src and dst need not
 * be aligned. NaN stays NaN. */
void floats_widen(enum dtype t, const void *src, int64_t n, float *dst);
void floats_narrow(enum dtype t, const float *src, int64_t n, void *dst);
float bf16_to_f32(uint16_t v);
uint16_t f32_to_bf16(float v);
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float v);

C_END
#endif
