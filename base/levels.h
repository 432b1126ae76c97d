/* base/levels.h - loops compiled for several processors at once. */
#ifndef BASE_LEVELS_H
#define BASE_LEVELS_H
#include "base/processor.h"
#include <stdint.h>
#include <string.h>

/*
 * SIMD_FN(type, name, (parameters), (their names)) { body } defines a static function that is
 * compiled for each level up to AVX-512, and takes simd_level()'s when called. Loops are written
 * so that the compiler vectorises them; functions called inside must be SIMD_INLINE to be part
 * of it. All levels give the same bits where products and sums are not fused, as they are in
 * kernels/cpu/ alone (see the Makefile).
 *
 * SIMD_LEVELS defines name of a name_base, a name_v3 and a name_v4 that are written by hand.
 */
#define SIMD_INLINE static inline __attribute__((always_inline))
#if defined __x86_64__ && defined __GNUC__ && (defined __clang__ || __GNUC__ >= 12)
#define SIMD_WIDE 1
#define SIMD_V3 __attribute__((target("arch=x86-64-v3")))
#define SIMD_V4 __attribute__((target("arch=x86-64-v4")))
#define SIMD_LEVELS(type, name, params, args)                                                  \
    static type name params                                                                    \
    {                                                                                          \
        enum simd level = simd_level();                                                        \
        return level >= SIMD_AVX512 ? name##_v4 args                                           \
               : level == SIMD_AVX2 ? name##_v3 args                                           \
                                    : name##_base args;                                        \
    }
#define SIMD_FN(type, name, params, args)                                                      \
    SIMD_INLINE type name##_body params;                                                       \
    SIMD_V4 static type name##_v4 params { return name##_body args; }                          \
    SIMD_V3 static type name##_v3 params { return name##_body args; }                          \
    static type name##_base params { return name##_body args; }                                \
    SIMD_LEVELS(type, name, params, args)                                                      \
    SIMD_INLINE type name##_body params
#else
#define SIMD_FN(type, name, params, args) static type name params
#endif

/* The bits of a float32, and the float32 of bits. */
SIMD_INLINE uint32_t bits_of(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof u);
    return u;
}

SIMD_INLINE float float_of(uint32_t u)
{
    float v;

    memcpy(&v, &u, sizeof v);
    return v;
}

#endif
