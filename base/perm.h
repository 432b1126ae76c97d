/* base/perm.h - a keyed permutation of [0, n) in O(1) memory, and seeded random numbers. */
#ifndef BASE_PERM_H
#define BASE_PERM_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/* Where index i (0 <= i < n) goes under the permutation that seed and round name. A pure
 * function: any process, thread or day gives the same answer. A four-round Feistel network on
 * the next even power of two, walked until it lands inside [0, n) (Black and Rogaway 2002). */
uint64_t perm_at(uint64_t i, uint64_t n, uint64_t seed, uint64_t round);

/* SplitMix64 (Steele, Lea and Flood 2014): mixes a counter to 64 random bits. */
static inline uint64_t mix64(uint64_t z)
{
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
/* Standard normal number k of the stream that seed names; a pure function (Box-Muller). */
double normal_at(uint64_t seed, uint64_t k);

C_END
#endif
