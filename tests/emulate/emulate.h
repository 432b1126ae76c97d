/* tests/emulate/emulate.h - attention's CUDA kernels, run on the CPU. */
#ifndef TESTS_EMULATE_EMULATE_H
#define TESTS_EMULATE_EMULATE_H
#include "kernels/attention.h"
#include "kernels/cuda/sizes.h"
C_BEGIN

/* Forward and backward of bfloat16 arrays in the host's memory. any: by the kernels that take all,
 * where a block may have so many bytes of shared memory; 0: by those for queries that are their
 * own keys, head dimension 64 or 128, or behind a cache of one text where d_o is NULL, which leaves the
 * backward out. backwards: a block's warps take turns from the last. Returns NULL, or what went wrong: copies not waited for,
 * threads that wait for ever, shared memory out of bounds. */
const char *emulate_attention(const struct op_attention_back *b,
                              const struct attention_bounds bounds[2], int64_t any, bool backwards);

/* flash_few and gemm_few (cuda.h), of arrays in the host's memory. NULL, or what went wrong; "refused" where the
 * kernel does not take it. */
const char *emulate_few(const struct op_attention *a, bool backwards);
const char *emulate_gemm(const struct op_gemm *a, bool backwards);

C_END
#endif
