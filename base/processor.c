/* base/processor.c - see processor.h. */
#include "base/processor.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* The words that LONGLORA_SIMD may have, in the order of enum simd. SIMD_VBMI has none: it is
 * the highest level, taken where nothing is set. */
static const char *const words[] = { "none", "avx2", "avx512" };
enum { WORDS = sizeof words / sizeof *words };

static enum simd best;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The best level of this processor. All parts of a level must be there: code for
 * it may use any of them. */
static enum simd processors(void)
{
#if defined __x86_64__ && defined __GNUC__
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("popcnt"))
        return SIMD_NONE;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return SIMD_AVX2;
    return __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2")
               ? SIMD_VBMI
               : SIMD_AVX512;
#else
    return SIMD_NONE;
#endif
}

/* The place of LONGLORA_SIMD among the words; WORDS where it is none of them, -1 unset. */
static int wanted(void)
{
    const char *v = getenv("LONGLORA_SIMD");
    int i = 0;

    if (!v || !*v)
        return -1;
    while (i < WORDS && strcmp(v, words[i]) != 0)
        i++;
    return i;
}

/* The variable can only lower the level; the last word stands for AVX-512 without VBMI. */
static void look(void)
{
    int want = wanted();

    best = processors();
    if (want >= 0 && want < (int)best && want < WORDS - 1)
        best = (enum simd)want;
    else if (want == WORDS - 1 && best > SIMD_AVX512)
        best = SIMD_AVX512;
}

/* Does the variable ask for less than this level? The processor itself is not asked. */
bool simd_hidden(enum simd level)
{
    int want = wanted();

    return want >= 0 && want < (int)level;
}

enum simd simd_level(void)
{
    pthread_once(&once, look);
    return best;
}

int simd_check(struct err *e)
{
    if (wanted() != WORDS)
        return 0;
    return err_set(e, E_USAGE, "LONGLORA_SIMD is '%.40s', not none, avx2 or avx512",
                   getenv("LONGLORA_SIMD"));
}
