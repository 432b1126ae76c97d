/* kernels/attention.c - see attention.h. */
#include "kernels/attention.h"

#include <limits.h>
#include <string.h>

/* so large that no run meets it, so small that sums of rows and windows stay within int64 */
#define MOST_ROWS ((int64_t)1 << 40)

/* The segment of cu[0..n] that has the row, by halving. A row at which empty segments begin
 * belongs to the last that begins there. */
int64_t segment_at(const int64_t *cu, int64_t n, int64_t row)
{
    int64_t lo = 0, hi = n; /* cu[lo] <= row < cu[hi] */

    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (cu[mid] <= row)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* A segment as rows of queries and of keys. The query in row t stands at t - offset among
 * the segment's keys. No window is one that is wider than anything. */
struct band band_of(const struct op_attention *a, const struct op_segments *s, int64_t segment)
{
    const int64_t *kv = segments_keys(s);

    return (struct band){ { s->cu[segment], s->cu[segment + 1] },
                          { kv[segment], kv[segment + 1] },
                          s->cu[segment] - (s->first ? s->first[segment] : 0),
                          a->window ? a->window : 4 * MOST_ROWS };
}

/* Ends that begin with 0, never fall, and cover all rows. */
static bool list_ok(const int64_t *cu, int64_t n, int64_t rows)
{
    if (cu[0] != 0 || cu[n] != rows)
        return false;
    for (int64_t i = 0; i < n; i++)
        if (cu[i] > cu[i + 1])
            return false;
    return true;
}

/* Without a list of their own, keys are cut as the queries are, so there are as many of
 * them. */
static bool segments_ok(const struct op_attention *a, const struct op_segments *s)
{
    if (s->n < 1 || !list_ok(s->cu, s->n, a->q_rows) ||
        !(s->kv ? list_ok(s->kv, s->n, a->kv_rows) : a->kv_rows == a->q_rows))
        return false;
    for (int64_t i = 0; s->first && i < s->n; i++)
        if (s->first[i] < -MOST_ROWS || s->first[i] > MOST_ROWS)
            return false;
    return true;
}

int attention_check(const struct op_attention *a)
{
    if (a->q_rows < 0 || a->q_rows > MOST_ROWS || a->kv_rows < 0 || a->kv_rows > MOST_ROWS ||
        a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads || a->dim < 1 ||
        a->dim > 1024 || a->q_ld > INT_MAX || a->kv_ld > INT_MAX || a->window < 0 ||
        a->window > 4 * MOST_ROWS || !(a->cap >= 0) || a->q_ld < a->heads * a->dim ||
        a->kv_ld < a->kv_heads * a->dim)
        return E_BUG;
    return segments_ok(a, &a->seg[0]) && segments_ok(a, &a->seg[1]) ? 0 : E_BUG;
}

/* The sum over t < x of t held to 0..most. */
static double held_sum(double x, double most)
{
    if (x <= 0)
        return 0;
    return x <= most + 1 ? x * (x - 1) / 2 : most * (most + 1) / 2 + (x - most - 1) * most;
}

/* A query at p sees min(p + 1, keys) less min(p + 1 - window, keys), both at least 0. */
static double band_pairs(const struct band *b)
{
    double keys = (double)rows_n(b->k), p = (double)(b->q.first - b->offset) + 1;
    double n = (double)rows_n(b->q), w = (double)b->window;

    return held_sum(p + n, keys) - held_sum(p, keys) - held_sum(p - w + n, keys) +
           held_sum(p - w, keys);
}

/* The pairs of query and key, summed over the heads. Of an odd number of heads the second
 * half has one more. */
double attention_pairs(const struct op_attention *a)
{
    double pairs[2] = { 0, 0 };

    for (int half = 0; half < 2; half++)
        for (int64_t i = 0; i < a->seg[half].n; i++) {
            struct band b = band_of(a, &a->seg[half], i);
            pairs[half] += band_pairs(&b);
        }
    return pairs[0] * (double)(a->heads / 2) + pairs[1] * (double)(a->heads - a->heads / 2);
}

/* The first queries of a segment see nothing where they stand before its keys, the last where
 * their windows begin behind them. */
bool attention_blind(const struct op_attention *a)
{
    for (int half = 0; half < 2; half++)
        for (int64_t i = 0; i < a->seg[half].n; i++) {
            struct band b = band_of(a, &a->seg[half], i);
            struct rows head = { b.q.first, b.q.first + 1 }, tail = { b.q.end - 1, b.q.end };
            if (rows_n(b.q) > 0 &&
                (rows_n(band_seen(&b, head)) <= 0 || rows_n(band_seen(&b, tail)) <= 0))
                return true;
        }
    return false;
}

/* Whether every query is its own key: both lists are cut alike and begin at the same place. */
bool attention_square(const struct op_attention *a)
{
    for (int half = 0; half < 2; half++) {
        const struct op_segments *s = &a->seg[half];
        if (s->kv && memcmp(s->kv, s->cu, (size_t)(s->n + 1) * sizeof *s->kv) != 0)
            return false;
        for (int64_t i = 0; s->first && i < s->n; i++)
            if (s->first[i] != 0)
                return false;
    }
    return true;
}

/* The window, or 0 where it cuts nothing off because all segments are shorter. */
int64_t attention_window(const struct op_attention *a)
{
    for (int half = 0; half < 2 && a->window; half++)
        for (int64_t i = 0; i < a->seg[half].n; i++) {
            struct band b = band_of(a, &a->seg[half], i);
            if (b.q.end - b.offset > b.window)
                return a->window;
        }
    return 0;
}

/* For each query the keys it sees, for each key the queries that see it, as the GPU reads
 * them. */
void attention_bounds_fill(const struct op_attention *a, int half,
                           const struct attention_bounds *to)
{
    const struct op_segments *s = &a->seg[half];

    for (int64_t i = 0; i < s->n; i++) {
        struct band b = band_of(a, s, i);
        for (int64_t t = b.q.first; t < b.q.end; t++) {
            struct rows r = band_seen(&b, (struct rows){ t, t + 1 });
            to->key_first[t] = (int32_t)r.first;
            to->key_end[t] = (int32_t)r.end;
        }
        for (int64_t j = b.k.first; j < b.k.end; j++) {
            struct rows r = band_seers(&b, (struct rows){ j, j + 1 });
            to->query_first[j] = (int32_t)r.first;
            to->query_end[j] = (int32_t)r.end;
        }
    }
}
