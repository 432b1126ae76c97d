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

/* The ops of a text's next token, of arrays in the host's memory, whose rows are few: all begin while the kernel
 * in front still runs (kernels/cuda/chain.cuh). NULL, or what went wrong; "refused" where flash_few and gemm_few do not
 * take it. */
const char *emulate_few(const struct op_attention *a, bool backwards);
const char *emulate_gemm(const struct op_gemm *a, bool backwards);
const char *emulate_rmsnorm(const struct op_rmsnorm *a, bool backwards);
const char *emulate_rope(const struct op_rope *a, bool backwards);
const char *emulate_store(const struct op_store *a, int64_t cache_rows, bool backwards);
const char *emulate_swiglu(const struct op_swiglu *a, bool backwards);

void emulate_shared(int64_t bytes); /* of memory that a block may have; CUDA_LEAST_SHARED before */
int emulate_launches(void);    /* kernels that the last op launched */

/* Kernels that break the chain's rules, to see that it is noticed: 0 does not. */
enum { UNRULY_NOT, UNRULY_NO_WAIT, UNRULY_SOME_WAIT, UNRULY_NO_NEXT, UNRULY_WRITES, UNRULY_READS, UNRULY };
const char *emulate_unruly(int how, float *x); /* x[0..32) += 1 */

C_END
#endif
