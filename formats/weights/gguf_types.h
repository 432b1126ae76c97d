/* formats/weights/gguf_types.h - how GGUF stores values: ggml's types, there and back. */
#ifndef FORMATS_WEIGHTS_GGUF_TYPES_H
#define FORMATS_WEIGHTS_GGUF_TYPES_H
#include "base/tensor_type.h"
#include <stdbool.h>
C_BEGIN

/* In blocks of 32 values: a float16 scale and 32 int8 (Q8_0), or 4-bit values less 8 (Q4_0), or with
 * a float16 minimum (Q4_1). As ggml computes them: gguf's dequantize gives the same bits. */
extern const struct tensor_type type_q8_0, type_q4_0, type_q4_1;

/* Values of a block, and its bytes. */
enum { GGUF_BLOCK = 32, GGUF_Q8_BYTES = 2 + 32, GGUF_Q4_BYTES = 2 + 16, GGUF_Q41_BYTES = 2 + 2 + 16 };

/* The type of ggml's number, NULL where nothing is computed with it; and the number, -1 for none. */
const struct tensor_type *gguf_type(uint32_t ggml_type);
int gguf_type_number(const struct tensor_type *t);

/* n float32 values as t: a float, Q8_0 or Q4_0; n whole blocks. Rounded as by ggml's reference, to the
 * same bits on every processor. Of blocks: false where a value is not finite, and its block is of no use. */
bool gguf_narrow(const struct tensor_type *t, const float *f, int64_t n, void *out);

C_END
#endif
