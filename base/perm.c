/* base/perm.c - see perm.h. */
#include "base/perm.h"

#include <math.h>

uint64_t perm_at(uint64_t i, uint64_t n, uint64_t seed, uint64_t round)
{
    int half = 1;
    uint64_t mask, key = mix64(seed ^ mix64(round));

    if (n < 2)
        return 0;
    /* Two halves of half bits each: the smallest even power of two that holds n - 1. */
    while (2 * half < 64 && (n - 1) >> (2 * half))
        half++;
    mask = ((uint64_t)1 << half) - 1;
    /* A Feistel round can be undone whatever f is, so the whole is a permutation of its power
     * of two. What lands at n or beyond goes through again, and so back into [0, n): on average
     * less than four times. */
    do {
        uint64_t l = i >> half, r = i & mask;
        for (uint64_t k = 0; k < 4; k++) {
            uint64_t f = mix64(r ^ mix64(key + k)) & mask;
            uint64_t t = l ^ f;
            l = r;
            r = t;
        }
        i = l << half | r;
    } while (i >= n);
    return i;
}

double normal_at(uint64_t seed, uint64_t k)
{
    uint64_t a = mix64(mix64(seed) ^ (2 * k)), b = mix64(mix64(seed) ^ (2 * k + 1));
    /* 53 random bits each; u is above 0, as its logarithm is taken. */
    double u = ((double)(a >> 11) + 1.0) * 0x1p-53, v = (double)(b >> 11) * 0x1p-53;

    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}
