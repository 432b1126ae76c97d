/* base/processor.h - how wide this processor computes, and a variable that hides the wider sets. */
#ifndef BASE_PROCESSOR_H
#define BASE_PROCESSOR_H
#include "base/err.h"
#include <stdbool.h>
C_BEGIN

/* Each level has all that those below it have. SIMD_AVX2 is what the ABI calls x86-64-v3 (AVX2,
 * BMI, FMA, F16C), SIMD_AVX512 is x86-64-v4 (F, BW, CD, DQ, VL), SIMD_VBMI has VBMI and VBMI2
 * too. SIMD_NONE on other processors. */
enum simd { SIMD_NONE, SIMD_AVX2, SIMD_AVX512, SIMD_VBMI };

/* The level that loops are to use: the processor's, or that of the variable LONGLORA_SIMD
 * (none, avx2, avx512) where it is lower. Read once; any thread may ask. */
enum simd simd_level(void);
/* Whether that variable hides 'level'; for what has steps of its own below it. */
bool simd_hidden(enum simd level);
/* E_USAGE when LONGLORA_SIMD is another word. */
int simd_check(struct err *e);

C_END
#endif
