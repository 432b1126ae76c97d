/* base/arena.h - bump allocation from one block: measure first, then place. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* base == NULL only measures: used_bytes grows and nothing is returned to write to. Works on
 * host and on device addresses alike; base must be aligned to the largest align asked for. */
struct arena {
    unsigned char *base;
    size_t cap_bytes, used_bytes;
    bool failed;
};

/* n elements of elem_bytes at a multiple of align (a power of two). NULL when measuring, or
 * with failed set when the size overflows or does not fit: check failed once, at the end. */
void *arena_alloc(struct arena *a, int64_t n, size_t elem_bytes, size_t align);

C_END
#endif
