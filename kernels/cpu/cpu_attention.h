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

/* Of keys or values, rows [row, row + n) of one key head as float32 rows of dim; of a cache's they are
 * unpacked into room [n][dim]. *ld: the distance of rows. cpu_store.c */
const float *cpu_keys(const struct op_attention *a, int64_t row, int64_t n, int64_t head,
                      float *room, int64_t *ld);
const float *cpu_values(const struct op_attention *a, int64_t row, int64_t n, int64_t head,
                        float *room, int64_t *ld);

/* cpu_attention_few.c: segments of so few queries that reading the keys is what takes time, both
 * halves of the heads by one list; and the op for them. */
bool cpu_attention_is_few(const struct op_attention *a);
int cpu_attention_few(struct cpu *c, const struct op_attention *a);

C_END
#endif
