/* kernels/attention.h - which rows see each other in op_attention: the geometry of its segments,
 * which every device works by. */
#ifndef KERNELS_ATTENTION_H
#define KERNELS_ATTENTION_H
#include "kernels/kernels.h"
C_BEGIN

/*
 * In a segment, what a query sees is a run of keys, and what sees a key a run of queries; both runs
 * move on from row to row. So what a tile of queries sees is a run too, and so for a tile of keys.
 * All rows are numbers in the op's arrays.
 */
struct rows {
    int64_t first, end; /* [first, end) */
};
static inline int64_t rows_n(struct rows r) { return r.end - r.first; }

/* One segment. The query in row t is at position t - offset of its keys, the key in row j at
 * j - k.first. */
struct band {
    struct rows q, k;
    int64_t offset, window; /* more than there are keys: none */
};

static inline int64_t attention_half(const struct op_attention *a, int64_t head)
{
    return head < a->heads / 2 ? 0 : 1;
}
static inline const int64_t *segments_keys(const struct op_segments *s)
{
    return s->kv ? s->kv : s->cu;
}
/* The segment that has row, by one of a list's arrays. */
int64_t segment_at(const int64_t *cu, int64_t n, int64_t row);
struct band band_of(const struct op_attention *a, const struct op_segments *s, int64_t segment);

static inline int64_t row_within(int64_t row, struct rows r)
{
    return row < r.first ? r.first : row > r.end ? r.end : row;
}
/* Keys that any of the queries q sees, which are some of the segment's. */
static inline struct rows band_seen(const struct band *b, struct rows q)
{
    int64_t by = b->k.first - b->offset; /* a query's own key is in row t + by */

    return (struct rows){ row_within(q.first + by - b->window + 1, b->k),
                          row_within(q.end + by, b->k) };
}
/* Queries that see any of the keys k, which are some of the segment's. */
static inline struct rows band_seers(const struct band *b, struct rows k)
{
    int64_t by = b->k.first - b->offset;

    return (struct rows){ row_within(k.first - by, b->q),
                          row_within(k.end - by + b->window - 1, b->q) };
}

/* Shapes and segment lists that can be worked on; else E_BUG. */
int attention_check(const struct op_attention *a);
/* Pairs (query, key) that are scored, over all heads. */
double attention_pairs(const struct op_attention *a);
/* Some query sees nothing. */
bool attention_blind(const struct op_attention *a);
/* Queries and keys are the same rows, from position 0 on: training. */
bool attention_square(const struct op_attention *a);
/* The window, or 0 where no query stands so far on that it hides a key. */
int64_t attention_window(const struct op_attention *a);

/* The same row by row, for kernels; rows below 2^31. Each ascends.
 *   by row of queries  the keys [key_first, key_end) that it sees
 *   by row of keys     the queries [query_first, query_end) that see it */
struct attention_bounds {
    int32_t *key_first, *key_end, *query_first, *query_end;
};
void attention_bounds_fill(const struct op_attention *a, int half,
                           const struct attention_bounds *b);

C_END
#endif
