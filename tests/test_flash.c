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
    double sharp; /* multiplies the scores */
    int64_t cu[2][MOST_CUTS];
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

/* Of one row of one head. */
static void truth_row(struct truth *w, const struct op_attention_back *b, int64_t h, int64_t t,
                      int64_t first)
{
    const struct op_attention *a = &b->fwd;
    int64_t n = a->dim, kh = h / (a->heads / a->kv_heads), at = t * a->q_ld + h * n;
    const uint16_t *q = (const uint16_t *)a->q + at, *g = (const uint16_t *)b->d_o + at;
    const uint16_t *k = (const uint16_t *)a->k + kh * n, *v = (const uint16_t *)a->v + kh * n;
    double *p = calloc((size_t)(t + 1), sizeof *p), most = -INFINITY, sum = 0, mean = 0;

    for (int64_t j = first; j <= t; j++)
        p[j] = (double)a->scale * dot(q, k + j * a->kv_ld, n), most = fmax(most, p[j]);
    for (int64_t j = first; j <= t; j++)
        sum += exp(p[j] - most);
    w->lse[h * a->rows + t] = most + log(sum);
    for (int64_t j = first; j <= t; j++) {
        p[j] = exp(p[j] - most) / sum;
        for (int64_t i = 0; i < n; i++)
            w->o[at + i] += p[j] * from_bf16(v[j * a->kv_ld + i]);
    }
    for (int64_t i = 0; i < n; i++)
        mean += w->o[at + i] * from_bf16(g[i]);
    for (int64_t j = first; j <= t; j++) {
        double ds = p[j] * (dot(g, v + j * a->kv_ld, n) - mean) * (double)a->scale;
        int64_t to = j * a->kv_ld + kh * n;
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
    return sqrt(off / norm);
}

static int32_t *bounds_of(const struct list_case *c)
{
    int32_t *x = malloc((size_t)c->rows * 4 * sizeof *x);

    for (int half = 0; half < 2; half++)
        for (int64_t s = 0, t = 0; t < c->rows; t++) {
            while (c->cu[half][s + 1] <= t)
                s++;
            x[2 * half * c->rows + t] = (int32_t)c->cu[half][s];
            x[(2 * half + 1) * c->rows + t] = (int32_t)c->cu[half][s + 1];
        }
    return x;
}

static void check(const struct list_case *c, bool backwards)
{
    int64_t q_ld = c->heads * c->dim + PAD, kv_ld = c->kv_heads * c->dim + 2 * PAD;
    int64_t nq = c->rows * q_ld, nk = c->rows * kv_ld, nl = c->rows * c->heads;
    struct op_attention_back b = {
        { c->rows, c->heads, c->kv_heads, c->dim, q_ld, kv_ld,
          (float)((c->sharp > 0 ? c->sharp : 1) / sqrt((double)c->dim)),
          { { 0, NULL }, { 0, NULL } }, numbers(nq, 1), numbers(nk, 2), numbers(nk, 3), numbers(nq, 0),
          calloc((size_t)nl, sizeof(float)) },
        numbers(nq, 4), numbers(nq, 0), numbers(nk, 0), numbers(nk, 0),
        calloc((size_t)nl, sizeof(float)) };
    struct truth w = { calloc((size_t)nq, 8), calloc((size_t)nl, 8), calloc((size_t)nq, 8),
                       calloc((size_t)nk, 8), calloc((size_t)nk, 8) };
    int32_t *bounds = bounds_of(c);
    const char *fault = emulate_attention(&b, bounds, backwards);
    double off[4];

    if (fault)
        fail_msg("%s", fault);
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t t = 0; t < c->rows; t++)
            truth_row(&w, &b, h, t, bounds[(h < c->heads / 2 ? 0 : 2) * c->rows + t]);
    off[0] = apart(b.fwd.o, w.o, c->rows, q_ld, c->heads * c->dim);
    off[1] = apart(b.dq, w.dq, c->rows, q_ld, c->heads * c->dim);
    off[2] = apart(b.dk, w.dk, c->rows, kv_ld, c->kv_heads * c->dim);
    off[3] = apart(b.dv, w.dv, c->rows, kv_ld, c->kv_heads * c->dim);
    for (int i = 0; i < 4; i++)
        if (!(off[i] <= (i % 3 ? 1e-2 : 5e-3)))
            fail_msg("%lld rows, %lld/%lld heads of %lld: o, dq, dk, dv are off by %.2g %.2g %.2g "
                     "%.2g", (long long)c->rows, (long long)c->heads, (long long)c->kv_heads,
                     (long long)c->dim, off[0], off[1], off[2], off[3]);
    for (int64_t i = 0; i < nl; i++)
        if (!(fabs((double)b.fwd.lse[i] - w.lse[i]) <= 1e-4))
            fail_msg("lse %lld is %.9g, should be %.9g", (long long)i, (double)b.fwd.lse[i],
                     w.lse[i]);
    void *all[] = { (void *)(uintptr_t)b.fwd.q, (void *)(uintptr_t)b.fwd.k,
                    (void *)(uintptr_t)b.fwd.v, b.fwd.o, b.fwd.lse, (void *)(uintptr_t)b.d_o, b.dq,
                    b.dk, b.dv, b.scratch, w.o, w.lse, w.dq, w.dk, w.dv, bounds };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void test_one_segment(void **state)
{
    (void)state;
    check(&(struct list_case){ 1, 1, 1, 128, 0, { { 0, 1 }, { 0, 1 } } }, false);
    check(&(struct list_case){ 65, 2, 1, 128, 0, { { 0, 65 }, { 0, 65 } } }, false);
    check(&(struct list_case){ 193, 1, 1, 64, 0, { { 0, 193 }, { 0, 193 } } }, true);
}

/* Halves of a group apart, as S2-Attn cuts them; four queries' heads to a key's. */
static void test_s2(void **state)
{
    (void)state;
    check(&(struct list_case){ 192, 2, 2, 64, 0, { { 0, 96, 192 }, { 0, 48, 144, 192 } } }, false);
    check(&(struct list_case){ 160, 4, 1, 128, 0, { { 0, 80, 160 }, { 0, 40, 120, 160 } } }, true);
}

/* Segments of one row, empty ones, cuts at the edges of tiles; lists with nothing in common. */
static void test_cuts_anywhere(void **state)
{
    (void)state;
    check(&(struct list_case){ 170, 2, 1, 128, 0, { { 0, 1, 2, 2, 3, 64, 65, 129, 170 },
                                                    { 0, 31, 32, 33, 128, 169, 170 } } }, false);
    check(&(struct list_case){ 200, 3, 3, 64, 0, { { 0, 128, 192, 200 }, { 0, 7, 150, 200 } } },
          true);
}

/* One key outweighs the rest, later a heavier one: what is summed so far has to be scaled. */
static void test_sharp_scores(void **state)
{
    (void)state;
    check(&(struct list_case){ 200, 2, 2, 64, 14, { { 0, 200 }, { 0, 90, 200 } } }, false);
    check(&(struct list_case){ 140, 1, 1, 128, 14, { { 0, 140 }, { 0, 140 } } }, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_segment), cmocka_unit_test(test_s2),
        cmocka_unit_test(test_cuts_anywhere), cmocka_unit_test(test_sharp_scores),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
