/* kernels/cpu/cpu_attention.h - tiles and segments, shared by attention's two directions. */
#ifndef KERNELS_CPU_CPU_ATTENTION_H
#define KERNELS_CPU_CPU_ATTENTION_H
#include "kernels/cpu/cpu.h"
C_BEGIN

/*
 * Rows of queries and of keys are cut at fixed row numbers (multiples of the tile) and at the
 * ends of segments. The cuts depend on the op alone, so the sums do too.
 */
struct rows {
    int64_t first, end; /* [first, end) */
};
static inline int64_t rows_n(struct rows r) { return r.end - r.first; }

/* Rows from 'at' to the next cut at a multiple of tile, or to end. */
static inline struct rows rows_tile(int64_t at, int64_t tile, int64_t end)
{
    return (struct rows){ at, min_i64((at / tile + 1) * tile, end) };
}

static inline int64_t attention_half(const struct op_attention *a, int64_t head)
{
    return head < a->heads / 2 ? 0 : 1;
}

/* The segment that row is in. */
static inline struct rows attention_segment(const struct op_segments *s, int64_t row)
{
    int64_t lo = 0, hi = s->n; /* cu[lo] <= row < cu[hi] */

    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (s->cu[mid] <= row)
            lo = mid;
        else
            hi = mid;
    }
    return (struct rows){ s->cu[lo], s->cu[hi] };
}

/* Shapes and segment lists that can be worked on; else E_BUG. */
int attention_check(const struct op_attention *a);
/* Pairs (query, key) that are scored, over all heads. */
double attention_pairs(const struct op_attention *a);

C_END
#endif
