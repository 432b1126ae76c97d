/* kernels/cpu/cpu_attention.h - tiles, shared by attention's two directions. */
#ifndef KERNELS_CPU_CPU_ATTENTION_H
#define KERNELS_CPU_CPU_ATTENTION_H
#include "kernels/attention.h"
#include "kernels/cpu/cpu.h"
C_BEGIN

/*
 * Rows of queries and of keys are cut at fixed row numbers (multiples of the tile) and at the
 * ends of segments. The cuts depend on the op alone, so the sums do too.
 */
static inline struct rows rows_tile(int64_t at, int64_t tile, int64_t end)
{
    return (struct rows){ at, min_i64((at / tile + 1) * tile, end) };
}
/* Where the tiles begin that have rows r, in a segment that begins at first; r.end if r is empty. */
static inline int64_t rows_tile_first(struct rows r, int64_t tile, int64_t first)
{
    return r.first < r.end ? max_i64(r.first / tile * tile, first) : r.end;
}

C_END
#endif
