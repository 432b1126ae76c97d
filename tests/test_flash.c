/* tests/test_flash.c - attention's CUDA kernels, run on the CPU by tests/emulate: which element is
 * where, what is masked and left out, what waits for what. Speed and the instructions' own truth
 * are for tests/gpu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/perm.h"
#include "tests/emulate/emulate.h"

#include <math.h>

enum { MOST_CUTS = 64, PAD = 8 };
struct list_case {
    int64_t rows, heads, kv_heads, dim;
    double sharp, cap; /* sharp multiplies the scores */
    int64_t cu[2][MOST_CUTS];
    int64_t window;
    int64_t n[2], kv_rows, kv[2][MOST_CUTS], first[2][MOST_CUTS]; /* n 0: keys are the queries' */
};

static uint16_t to_bf16(double x)
{
    float f = (float)x;
    uint32_t u;

    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static double from_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;

    memcpy(&x, &u, 4);
    return (double)x;
}

/* n numbers, normal, or all the same NaN: to be overwritten. */
static uint16_t *numbers(int64_t n, uint64_t seed)
{
    uint16_t *x = malloc((size_t)n * sizeof *x);

    for (int64_t i = 0; i < n; i++)
        x[i] = seed ? to_bf16(normal_at(seed, (uint64_t)i)) : 0x7fff;
    return x;
}

/* What ought to come, in float64. Rows of heads * dim. */
struct truth {
    double *o, *lse, *dq, *dk, *dv;
};

static double dot(const uint16_t *x, const uint16_t *y, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += from_bf16(x[i]) * from_bf16(y[i]);
    return s;
}

/* The segment of row t, by the definition. */
static bool sees(const struct list_case *c, int64_t h, int64_t t, int64_t j)
{
    int half = h < c->heads / 2 ? 0 : 1;
    const int64_t *cu = c->cu[half], *kv = c->n[half] ? c->kv[half] : cu;

    for (int64_t s = 0; c->n[half] ? s < c->n[half] : cu[s] < c->rows; s++)
        if (t >= cu[s] && t < cu[s + 1] && j >= kv[s] && j < kv[s + 1]) {
            int64_t p = c->first[half][s] + t - cu[s], at = j - kv[s];
            return at <= p && (c->window == 0 || at > p - c->window);
        }
    return false;
}

/* A score, as a cap bends it. */
static double capped(const struct list_case *c, double s) { return c->cap > 0 ? c->cap * tanh(s / c->cap) : s; }

/* Of one row of one head. */
static void truth_row(struct truth *w, const struct list_case *c, const struct op_attention_back *b,
                      int64_t h, int64_t t)
{
    const struct op_attention *a = &b->fwd;
    int64_t n = a->dim, kh = h / (a->heads / a->kv_heads), at = t * a->q_ld + h * n;
    const uint16_t *q = (const uint16_t *)a->q + at, *g = (const uint16_t *)b->d_o + at;
    const uint16_t *k = (const uint16_t *)a->k + kh * n, *v = (const uint16_t *)a->v + kh * n;
    double *p = calloc((size_t)(a->kv_rows + 1), sizeof *p), most = -INFINITY, sum = 0, mean = 0;

    for (int64_t j = 0; j < a->kv_rows; j++)
        if (sees(c, h, t, j))
            p[j] = capped(c, (double)a->scale * dot(q, k + j * a->kv_ld, n)), most = fmax(most, p[j]);
    for (int64_t j = 0; j < a->kv_rows; j++)
        sum += sees(c, h, t, j) ? exp(p[j] - most) : 0;
    w->lse[h * a->q_rows + t] = most + log(sum);
    for (int64_t j = 0; j < a->kv_rows; j++) {
        if (!sees(c, h, t, j))
            continue;
        p[j] = exp(p[j] - most) / sum;
        for (int64_t i = 0; i < n; i++)
            w->o[at + i] += p[j] * from_bf16(v[j * a->kv_ld + i]);
    }
    for (int64_t i = 0; i < n; i++)
        mean += w->o[at + i] * from_bf16(g[i]);
    for (int64_t j = 0; j < a->kv_rows; j++) {
        double ds, x = capped(c, (double)a->scale * dot(q, k + j * a->kv_ld, n));
        int64_t to = j * a->kv_ld + kh * n;
        if (!sees(c, h, t, j))
            continue;
        ds = p[j] * (dot(g, v + j * a->kv_ld, n) - mean) * (double)a->scale;
        ds *= c->cap > 0 ? 1 - x / c->cap * (x / c->cap) : 1;
        for (int64_t i = 0; i < n; i++) {
            w->dv[to + i] += p[j] * from_bf16(g[i]);
            w->dk[to + i] += ds * from_bf16(q[i]);
            w->dq[at + i] += ds * from_bf16(k[j * a->kv_ld + i]);
        }
    }
    free(p);
}

/* ||got - want|| / ||want||, with a little beside it where nothing should be; what lies between
 * the rows, ld apart, must not have been touched. */
static double apart(const uint16_t *got, const double *want, int64_t rows, int64_t ld, int64_t wide)
{
    double off = 0, norm = 1e-4 * (double)(rows * wide);

    for (int64_t i = 0; i < rows * ld; i++) {
        double x = from_bf16(got[i]) - want[i];
        if (i % ld >= wide) {
            assert_int_equal(got[i], 0x7fff);
            continue;
        }
        off += isnan(x) ? 1e30 : x * x;
        norm += want[i] * want[i];
    }
    return rows > 0 ? sqrt(off / norm) : 0;
}

static struct attention_bounds bounds_of(const struct op_attention *a, int half)
{
    int32_t *x = malloc((size_t)(2 * (a->q_rows + a->kv_rows) + 1) * sizeof *x);
    struct attention_bounds b = { x, x + a->q_rows, x + 2 * a->q_rows,
                                  x + 2 * a->q_rows + a->kv_rows };

    attention_bounds_fill(a, half, &b);
    return b;
}

static struct op_segments list_of(const struct list_case *c, int half)
{
    struct op_segments s = { .n = c->n[half], .cu = c->cu[half] };

    if (s.n) {
        s.kv = c->kv[half];
        s.first = c->first[half];
    }
    while (!c->n[half] && s.cu[s.n] < c->rows)
        s.n++;
    return s;
}

/* Keys that no query sees may hold anything: NaN. */
static void poison(const struct list_case *c, const struct op_attention *a)
{
    int64_t group = c->heads / c->kv_heads;

    for (int64_t j = 0; j < a->kv_rows; j++)
        for (int64_t g = 0; g < c->kv_heads; g++) {
            bool seen = false;
            for (int64_t i = 0; i < c->rows * group && !seen; i++)
                seen = sees(c, g * group + i % group, i / group, j);
            for (int64_t i = 0; i < c->dim && !seen; i++)
                ((uint16_t *)(uintptr_t)a->k)[j * a->kv_ld + g * c->dim + i] =
                    ((uint16_t *)(uintptr_t)a->v)[j * a->kv_ld + g * c->dim + i] = 0x7fff;
        }
}

static bool forwards; /* no backward */

static void check_by(const struct list_case *c, int64_t any, bool backwards)
{
    int64_t q_ld = c->heads * c->dim + PAD, kv_ld = c->kv_heads * c->dim + 2 * PAD;
    int64_t kv_rows = c->n[0] ? c->kv_rows : c->rows;
    int64_t nq = c->rows * q_ld, nk = kv_rows * kv_ld, nl = c->rows * c->heads;
    struct op_attention_back b = {
        .fwd = { .q_rows = c->rows, .kv_rows = kv_rows, .heads = c->heads,
                 .kv_heads = c->kv_heads, .dim = c->dim, .q_ld = q_ld, .kv_ld = kv_ld,
                 .window = c->window, .cap = (float)c->cap,
                 .scale = (float)((c->sharp > 0 ? c->sharp : 1) / sqrt((double)c->dim)),
                 .seg = { list_of(c, 0), list_of(c, 1) }, .q = numbers(nq, 1),
                 .k = numbers(nk, 2), .v = numbers(nk, 3), .o = numbers(nq, 0),
                 .lse = calloc((size_t)nl + 1, sizeof(float)) },
        .d_o = numbers(nq, 4), .dq = numbers(nq, 0), .dk = numbers(nk, 0), .dv = numbers(nk, 0),
        .scratch = calloc((size_t)nl + 1, sizeof(float)) };
    struct truth w = { calloc((size_t)nq + 1, 8), calloc((size_t)nl + 1, 8),
                       calloc((size_t)nq + 1, 8), calloc((size_t)nk + 1, 8),
                       calloc((size_t)nk + 1, 8) };
    struct attention_bounds bounds[2] = { bounds_of(&b.fwd, 0), bounds_of(&b.fwd, 1) };
    const char *fault;
    double off[4];

    poison(c, &b.fwd);
    const void *d_o = b.d_o;
    b.d_o = forwards ? NULL : d_o;
    if ((fault = emulate_attention(&b, bounds, any, backwards)))
        fail_msg("%s", fault);
    b.d_o = d_o;
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t t = 0; t < c->rows; t++)
            truth_row(&w, c, &b, h, t);
    off[0] = apart(b.fwd.o, w.o, c->rows, q_ld, c->heads * c->dim);
    off[1] = apart(b.dq, w.dq, c->rows, q_ld, c->heads * c->dim);
    off[2] = apart(b.dk, w.dk, kv_rows, kv_ld, c->kv_heads * c->dim);
    off[3] = apart(b.dv, w.dv, kv_rows, kv_ld, c->kv_heads * c->dim);
    for (int i = 0; i < (forwards ? 1 : 4); i++)
        if (!(off[i] <= (i % 3 ? 1e-2 : 5e-3)))
            fail_msg("%lld rows, %lld/%lld heads of %lld%s: o, dq, dk, dv are off by %.2g %.2g "
                     "%.2g %.2g", (long long)c->rows, (long long)c->heads, (long long)c->kv_heads,
                     (long long)c->dim, any ? " by any" : "", off[0], off[1], off[2], off[3]);
    for (int64_t i = 0; i < nl; i++)
        if (!((double)b.fwd.lse[i] == w.lse[i] ||
              fabs((double)b.fwd.lse[i] - w.lse[i]) <= 1e-4))
            fail_msg("lse %lld is %.9g, should be %.9g", (long long)i, (double)b.fwd.lse[i],
                     w.lse[i]);
    void *all[] = { (void *)(uintptr_t)b.fwd.q, (void *)(uintptr_t)b.fwd.k,
                    (void *)(uintptr_t)b.fwd.v, b.fwd.o, b.fwd.lse, (void *)(uintptr_t)b.d_o, b.dq,
                    b.dk, b.dv, b.scratch, w.o, w.lse, w.dq, w.dk, w.dv, bounds[0].key_first,
                    bounds[1].key_first };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* By the kernels for queries that are their own keys, and by those that take all. */
static void check(const struct list_case *c, bool backwards)
{
    check_by(c, 0, backwards);
    check_by(c, CUDA_LEAST_SHARED, backwards);
}

static void test_one_segment(void **state)
{
    (void)state;
    check(&(struct list_case){ .rows = 1, .heads = 1, .kv_heads = 1, .dim = 128,
                               .cu = { { 0, 1 }, { 0, 1 } } }, false);
    check(&(struct list_case){ .rows = 65, .heads = 2, .kv_heads = 1, .dim = 128,
                               .cu = { { 0, 65 }, { 0, 65 } } }, false);
    check(&(struct list_case){ .rows = 193, .heads = 1, .kv_heads = 1, .dim = 64,
                               .cu = { { 0, 193 }, { 0, 193 } } }, true);
}

/* Halves of a group apart, as S2-Attn cuts them; four queries' heads to a key's. */
static void test_s2(void **state)
{
    (void)state;
    check(&(struct list_case){ .rows = 192, .heads = 2, .kv_heads = 2, .dim = 64,
                               .cu = { { 0, 96, 192 }, { 0, 48, 144, 192 } } }, false);
    check(&(struct list_case){ .rows = 160, .heads = 4, .kv_heads = 1, .dim = 128,
                               .cu = { { 0, 80, 160 }, { 0, 40, 120, 160 } } }, true);
}

/* Segments of one row, empty ones, cuts at the edges of tiles; lists with nothing in common. */
static void test_cuts_anywhere(void **state)
{
    (void)state;
    check(&(struct list_case){ .rows = 170, .heads = 2, .kv_heads = 1, .dim = 128,
                               .cu = { { 0, 1, 2, 2, 3, 64, 65, 129, 170 },
                                                    { 0, 31, 32, 33, 128, 169, 170 } } }, false);
    check(&(struct list_case){ .rows = 200, .heads = 3, .kv_heads = 3, .dim = 64,
                               .cu = { { 0, 128, 192, 200 }, { 0, 7, 150, 200 } } },
          true);
}

/* One key outweighs the rest, later a heavier one: what is summed so far has to be scaled. */
static void test_sharp_scores(void **state)
{
    (void)state;
    check(&(struct list_case){ .rows = 200, .heads = 2, .kv_heads = 2, .dim = 64, .sharp = 14,
                               .cu = { { 0, 200 }, { 0, 90, 200 } } }, false);
    check(&(struct list_case){ .rows = 140, .heads = 1, .kv_heads = 1, .dim = 128, .sharp = 14,
                               .cu = { { 0, 140 }, { 0, 140 } } }, true);
}

/* Windows over whole rows, groups, and cuts anywhere. */
static void test_window(void **state)
{
    (void)state;
    check(&(struct list_case){ .rows = 300, .heads = 2, .kv_heads = 1, .dim = 64,
                               .cu = { { 0, 300 }, { 0, 300 } }, .window = 70 }, false);
    check(&(struct list_case){ .rows = 260, .heads = 2, .kv_heads = 2, .dim = 128,
                               .cu = { { 0, 260 }, { 0, 260 } }, .window = 1 }, true);
    check(&(struct list_case){ .rows = 320, .heads = 4, .kv_heads = 1, .dim = 64, .window = 128,
                               .cu = { { 0, 160, 320 }, { 0, 80, 240, 320 } } }, true);
    check(&(struct list_case){ .rows = 400, .heads = 2, .kv_heads = 2, .dim = 64, .window = 129,
                               .cu = { { 0, 5, 390, 400 }, { 0, 128, 400 } } }, false);
}

/* Queries and keys apart, as one new row behind a cache, a group's keys from another rank, queries
 * before and behind all keys, none of either; and head dimensions that the other kernels lack. */
static void test_rows_apart(void **state)
{
    (void)state;
    check_by(&(struct list_case){ .rows = 3, .heads = 4, .kv_heads = 2, .dim = 64, .n = { 3, 3 },
                 .cu = { { 0, 1, 2, 3 }, { 0, 1, 2, 3 } }, .kv_rows = 150,
                 .kv = { { 0, 50, 100, 150 }, { 0, 50, 100, 150 } },
                 .first = { { 0, 37, 49 }, { 0, 37, 49 } } }, CUDA_LEAST_SHARED, false);
    check_by(&(struct list_case){ .rows = 128, .heads = 4, .kv_heads = 4, .dim = 32,
                 .n = { 3, 3 }, .cu = { { 0, 0, 64, 128 }, { 0, 32, 96, 128 } }, .kv_rows = 160,
                 .kv = { { 0, 32, 96, 160 }, { 0, 64, 128, 160 } },
                 .first = { { 0, 0, 0 }, { 32, 0, 0 } } }, CUDA_LEAST_SHARED, true);
    check_by(&(struct list_case){ .rows = 90, .heads = 2, .kv_heads = 1, .dim = 80, .window = 25,
                 .n = { 4, 2 }, .cu = { { 0, 40, 40, 75, 90 }, { 0, 33, 90 } }, .kv_rows = 77,
                 .kv = { { 0, 30, 41, 41, 77 }, { 0, 40, 77 } },
                 .first = { { -6, 0, 0, 20 }, { 12, -1 } } }, CUDA_LEAST_SHARED, false);
    check_by(&(struct list_case){ .rows = 0, .heads = 2, .kv_heads = 1, .dim = 64, .n = { 1, 1 },
                 .kv_rows = 40, .kv = { { 0, 40 }, { 0, 40 } } }, CUDA_LEAST_SHARED, false);
    check_by(&(struct list_case){ .rows = 40, .heads = 2, .kv_heads = 1, .dim = 64,
                 .n = { 1, 1 }, .cu = { { 0, 40 }, { 0, 40 } } }, CUDA_LEAST_SHARED, true);
}

/* One text's new rows behind a cache, forwards alone, by the kernels with tiles. */
static void behind(int64_t cached, int64_t rows, int64_t heads, int64_t kv_heads, int64_t dim, bool backwards)
{
    struct list_case c = { .rows = rows, .heads = heads, .kv_heads = kv_heads, .dim = dim, .n = { 1, 1 },
                           .cu = { { 0, rows }, { 0, rows } }, .kv_rows = cached + rows,
                           .kv = { { 0, cached + rows }, { 0, cached + rows } },
                           .first = { { cached }, { cached } } };

    forwards = true;
    check_by(&c, 0, backwards);
    forwards = false;
}

static void test_behind_a_cache(void **state)
{
    (void)state;
    behind(1, 1, 1, 1, 64, false);
    behind(100, 50, 2, 1, 128, false);
    behind(63, 130, 2, 2, 64, true);
    behind(64, 128, 1, 1, 64, false);
    behind(200, 5, 4, 2, 128, true);
    behind(131, 200, 1, 1, 128, false);
}

/* Wide heads: in tiles of 32 rows where a block may have the memory, of 16 on the other cards, and
 * the forward too where it may have still less. */
static void test_wide_heads(void **state)
{
    static const int64_t dims[] = { 192, 256, 160, 250 };
    static const int64_t memory[] = { 227 << 10, CUDA_LEAST_SHARED, 84 << 10 };

    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (size_t k = 0; k < sizeof memory / sizeof *memory; k++)
            check_by(&(struct list_case){ .rows = 75, .heads = 2, .kv_heads = 1, .dim = dims[i],
                         .cu = { { 0, 17, 75 }, { 0, 75 } } }, memory[k], i % 2);
    check_by(&(struct list_case){ .rows = 60, .heads = 2, .kv_heads = 2, .dim = 256, .window = 21,
                 .n = { 3, 2 }, .cu = { { 0, 30, 30, 60 }, { 0, 33, 60 } }, .kv_rows = 50,
                 .kv = { { 0, 20, 31, 50 }, { 0, 30, 50 } },
                 .first = { { -6, 0, 3 }, { 9, -1 } } }, CUDA_LEAST_SHARED, true);
}

/* Capped scores: the kernels that take all have them to themselves. */
static void test_cap(void **state)
{
    (void)state;
    check_by(&(struct list_case){ .rows = 130, .heads = 2, .kv_heads = 1, .dim = 128, .sharp = 4, .cap = 3,
                 .cu = { { 0, 60, 130 }, { 0, 30, 90, 130 } }, .window = 40 }, CUDA_LEAST_SHARED, false);
    check_by(&(struct list_case){ .rows = 75, .heads = 2, .kv_heads = 2, .dim = 256, .sharp = 20, .cap = 5,
                 .cu = { { 0, 75 }, { 0, 75 } } }, CUDA_LEAST_SHARED, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_segment), cmocka_unit_test(test_s2),
        cmocka_unit_test(test_cuts_anywhere), cmocka_unit_test(test_sharp_scores),
        cmocka_unit_test(test_window), cmocka_unit_test(test_rows_apart),
        cmocka_unit_test(test_wide_heads), cmocka_unit_test(test_behind_a_cache), cmocka_unit_test(test_cap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
