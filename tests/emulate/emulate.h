/* tests/emulate/emulate.h - attention's CUDA kernels, run on the CPU. */
#ifndef TESTS_EMULATE_EMULATE_H
#define TESTS_EMULATE_EMULATE_H
#include "kernels/kernels.h"
C_BEGIN

/* Forward and backward of bfloat16 arrays in the host's memory, head dimension 64 or 128; bounds
 * as for flash_forward. backwards: a block's warps take turns from the last. Returns NULL, or what
 * went wrong: copies not waited for, threads that wait for ever, shared memory out of bounds. */
const char *emulate_attention(const struct op_attention_back *b, const int32_t *bounds,
                              bool backwards);

C_END
#endif
