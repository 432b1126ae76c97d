/* base/arena.c - see arena.h. */
#include "base/arena.h"

#include "base/bytes.h"

void *arena_alloc(struct arena *a, int64_t n, size_t elem_bytes, size_t align)
{
    size_t bytes, start, end;

    if (n < 0 || !mul_ok((size_t)n, elem_bytes, &bytes) ||
        !add_ok(a->used_bytes, align - 1, &start)) {
        a->failed = true;
        return NULL;
    }
    /* Rounded up to a multiple: align - 1 was added above, and the low bits go. */
    start &= ~(align - 1);
    if (!add_ok(start, bytes, &end) || (a->base && end > a->cap_bytes)) {
        a->failed = true;
        return NULL;
    }
    a->used_bytes = end;
    return a->base ? a->base + start : NULL;
}
