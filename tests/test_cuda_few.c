/* tests/test_cuda_few.c - the CUDA kernels of a text's next token, run on the CPU by tests/emulate: products of a few
 * rows, several in one launch, attention of a few queries over caches of bfloat16 and of 8 bits, and what is between
 * them. All of them begin before the kernel in front has ended, whose arrays they may not touch until it has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/perm.h"
#include "base/tensor_type.h"
#include "tests/emulate/emulate.h"

#include <math.h>

static double wide(uint16_t h) { return (double)bf16_to_f32(h); }

/* n numbers, in memory that ends where they do and begins at a multiple of 16. */
static uint16_t *numbers(int64_t n, uint64_t seed)
{
    size_t bytes = ((size_t)n * 2 + 15) / 16 * 16;
    uint16_t *x = aligned_alloc(16, bytes ? bytes : 16);

    for (int64_t i = 0; i < n; i++)
        x[i] = f32_to_bf16((float)normal_at(seed, (uint64_t)i));
    return x;
}

/* --- products */

enum { PRODUCTS = 4 };
struct product {
    int64_t n;
    bool f32, adds, apart; /* the addend is a matrix of its own */
};

static double value_of(const struct op_gemm *g, const void *x, int64_t at)
{
    return g->c_type == DT_F32 ? (double)((const float *)x)[at] : wide(((const uint16_t *)x)[at]);
}

/* want: of C before, what it ought to become. */
static void expect(const struct op_gemm *g, double *want)
{
    const uint16_t *a = g->a, *b = g->b.data;

    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double s = 0, before = value_of(g, g->addend ? g->addend : g->c, i * g->ldc + j);

            for (int64_t p = 0; p < g->k; p++)
                s += wide(a[i * g->lda + p]) * wide(b[j * g->ldb + p]);
            want[i * g->n + j] = (double)g->alpha * s + (g->beta != 0 ? (double)g->beta * before : 0);
        }
}

static void *result_of(const struct product *p, int64_t m, int64_t ldc, uint64_t seed)
{
    uint16_t *x = numbers(2 * m * ldc, seed);

    for (int64_t i = 0; p->f32 && i < m * ldc; i++)
        ((float *)(void *)x)[i] = (float)normal_at(seed, (uint64_t)i);
    return x;
}

/* C, and nothing beside it: a row has 3 values more, which stay. */
static void compare(const struct op_gemm *g, const double *want, const void *before)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->ldc; j++) {
            double got = value_of(g, g->c, i * g->ldc + j);
            double is = j < g->n ? want[i * g->n + j] : value_of(g, before, i * g->ldc + j);
            double bound = j < g->n ? (g->c_type == DT_F32 ? 1e-4 : 4e-3) * (fabs(is) + sqrt((double)g->k)) : 0;

            if (!(fabs(got - is) <= bound))
                fail_msg("%d x %d x %d: row %d, column %d is %g, not %g", (int)g->m, (int)g->n, (int)g->k, (int)i,
                         (int)j, got, is);
        }
}

static void multiply(int64_t m, int64_t k, const struct product *p, int count, bool backwards)
{
    int64_t lda = k + 8, ldb = k + 16;
    uint16_t *a = numbers(m * lda, 1);
    struct op_gemm g[PRODUCTS];
    double *want[PRODUCTS];
    void *before[PRODUCTS], *add[PRODUCTS];
    const char *fault;

    for (int i = 0; i < count; i++) {
        int64_t ldc = p[i].n + 3;

        add[i] = p[i].apart ? result_of(&p[i], m, ldc, 30 + (uint64_t)i) : NULL;
        g[i] = (struct op_gemm){ .trans_b = true, .m = m, .n = p[i].n, .k = k, .alpha = 0.5f + (float)i,
            .beta = p[i].adds ? 0.75f : 0, .a = a, .lda = lda, .ldb = ldb, .ldc = ldc,
            .b = mat_plain(DT_BF16, numbers(p[i].n * ldb, 10 + (uint64_t)i)),
            .c = result_of(&p[i], m, ldc, 20 + (uint64_t)i), .c_type = p[i].f32 ? DT_F32 : DT_BF16,
            .addend = add[i], .also = i + 1 < count ? &g[i + 1] : NULL };
        before[i] = result_of(&p[i], m, ldc, 20 + (uint64_t)i);
        want[i] = malloc((size_t)(m * p[i].n) * sizeof *want[i]);
        expect(&g[i], want[i]);
    }
    if ((fault = emulate_gemm(g, backwards)))
        fail_msg("%s", fault);
    assert_int_equal(emulate_launches(), (count + 2) / 3);
    for (int i = 0; i < count; i++) {
        compare(&g[i], want[i], before[i]);
        free(want[i]), free(before[i]), free(add[i]), free(g[i].c), free((void *)(uintptr_t)g[i].b.data);
    }
    free(a);
}

static void test_products_of_few_rows(void **state)
{
    static const struct product one[] = { { 16, false, false, false }, { 37, true, false, false },
                                          { 41, false, true, false }, { 33, true, true, true } };

    (void)state;
    for (int64_t m = 1; m <= 4; m++)
        for (int i = 0; i < 4; i++)
            multiply(m, i % 2 ? 72 : 1304, &one[i], 1, i > 1);
}

static void test_products_of_one_input_in_one_launch(void **state)
{
    static const struct product all[PRODUCTS] = { { 48, false, false, false }, { 17, false, true, false },
                                                  { 23, true, false, false }, { 31, false, true, true } };

    (void)state;
    for (int64_t m = 1; m <= 4; m++)
        for (int count = 2; count <= PRODUCTS; count++)
            multiply(m, 264, all, count, count == 3);
}

/* By tensor cores: of 8 rows and of 16, blocks of 16 columns and, from some 65 on (four multiprocessors), of 32; k
 * less than what the warps have at once, and more than is under way at a time. */
static void test_products_of_more_rows(void **state)
{
    static const struct product one[] = { { 16, true, false, false }, { 37, false, true, true },
                                          { 109, true, true, false }, { 131, false, false, false } };
    static const int64_t ks[] = { 64, 72, 264, 1304, 3080 };

    (void)state;
    for (int64_t m = 5; m <= 16; m++)
        for (int i = 0; i < 4; i++)
            multiply(m, ks[(m + i) % 5], &one[i], 1, i > 1);
}

static void test_products_of_more_rows_in_one_launch(void **state)
{
    static const struct product all[PRODUCTS] = { { 48, false, false, false }, { 17, false, true, false },
                                                  { 23, true, false, false }, { 31, false, true, true } };
    static const struct product wide_ones[] = { { 65, true, true, true }, { 33, false, false, false },
                                                { 16, true, false, false } };

    (void)state;
    for (int64_t m = 5; m <= 16; m += 3)
        for (int count = 2; count <= PRODUCTS; count++)
            multiply(m, 136, all, count, count == 3);
    multiply(8, 584, wide_ones, 3, false);
    multiply(13, 296, wide_ones, 3, true);
}

/* Cards with more shared memory have more copies under way. */
static void test_products_of_large_cards(void **state)
{
    static const struct product v[] = { { 100, true, false, false }, { 17, false, true, false } };
    static const int64_t ks[] = { 64, 296, 1544, 3080 };

    (void)state;
    emulate_shared(227 << 10);
    for (int64_t m = 2; m <= 16; m += 2)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            multiply(m, ks[i], v, 2, m % 4);
    emulate_shared(CUDA_LEAST_SHARED);
}

static void test_products_that_others_compute(void **state)
{
    uint16_t x[256];
    struct op_gemm g = { .trans_b = true, .m = 1, .n = 16, .k = 64, .a = x, .lda = 64, .ldb = 64, .ldc = 16,
                         .b = mat_plain(DT_BF16, x), .c = x };

    (void)state;
    g.m = 17;
    assert_string_equal(emulate_gemm(&g, false), "refused");
    g.m = 1, g.k = 68, g.lda = g.ldb = 68;
    assert_string_equal(emulate_gemm(&g, false), "refused");
}

/* --- attention */

struct texts {
    int64_t heads, kv_heads, dim, window;
    int64_t n, rows;          /* texts, with so many rows of the cache each */
    int64_t news[4], has[4];  /* of each: queries, and keys before their own */
    double sharp;
};

struct kept { /* keys or values */
    uint16_t *x;
    int8_t *packed;
    float *scale;
};

static struct kept kept_of(int64_t rows, const struct texts *t, bool int8, double sharp, uint64_t seed)
{
    int64_t ld = t->kv_heads * t->dim;
    struct kept k = { .x = numbers(rows * ld, seed) };

    for (int64_t i = 0; i < rows * ld; i++)
        k.x[i] = f32_to_bf16((float)(sharp * wide(k.x[i])));
    if (!int8)
        return k;
    k.packed = aligned_alloc(16, (size_t)(rows * ld));
    k.scale = malloc((size_t)(rows * t->kv_heads) * sizeof *k.scale);
    for (int64_t h = 0; h < rows * t->kv_heads; h++) {
        k.scale[h] = 0.02f + 0.03f * (float)(h % 7);
        for (int64_t i = 0; i < t->dim; i++)
            k.packed[h * t->dim + i] = (int8_t)(mix64((uint64_t)(h * t->dim + i) ^ seed) % 255 - 127);
    }
    return k;
}

static double kept_at(const struct kept *k, const struct texts *t, int64_t row, int64_t head, int64_t i)
{
    int64_t at = (row * t->kv_heads + head) * t->dim + i;

    return k->packed ? (double)k->packed[at] * (double)k->scale[row * t->kv_heads + head] : wide(k->x[at]);
}

static void row_truth(const struct op_attention *a, const struct texts *t, const struct kept kv[2], int64_t row,
                      int64_t head, int64_t from, int64_t end)
{
    const uint16_t *q = (const uint16_t *)a->q + row * a->q_ld + head * t->dim;
    const uint16_t *o = (const uint16_t *)a->o + row * a->q_ld + head * t->dim;
    int64_t kh = head / (t->heads / t->kv_heads);
    double *s = malloc((size_t)(end - from + 1) * sizeof *s), most = -INFINITY, sum = 0, lse;

    for (int64_t j = from; j < end; j++) {
        s[j - from] = 0;
        for (int64_t i = 0; i < t->dim; i++)
            s[j - from] += (double)a->scale * wide(q[i]) * kept_at(&kv[0], t, j, kh, i);
        most = fmax(most, s[j - from]);
    }
    for (int64_t j = from; j < end; j++)
        sum += exp(s[j - from] - most);
    for (int64_t i = 0; i < t->dim; i++) {
        double x = 0, top = 0;

        for (int64_t j = from; j < end; j++) {
            double v = kept_at(&kv[1], t, j, kh, i);
            x += exp(s[j - from] - most) / sum * v;
            top = fmax(top, fabs(v));
        }
        if (!(fabs(wide(o[i]) - x) <= 5e-3 * (fabs(x) + 0.05 * top)))
            fail_msg("%d/%d heads of %d, row %d, head %d, channel %d: %g, not %g", (int)t->heads,
                     (int)t->kv_heads, (int)t->dim, (int)row, (int)head, (int)i, wide(o[i]), x);
    }
    lse = end > from ? most + log(sum) : -INFINITY;
    if (!(lse == (double)a->lse[head * a->q_rows + row] || fabs(lse - (double)a->lse[head * a->q_rows + row]) < 1e-3))
        fail_msg("lse is %g, not %g", (double)a->lse[head * a->q_rows + row], lse);
    free(s);
}

/* Two segments a text, as extend.c makes them: what no query sees, and what its queries do. */
static int64_t lists(const struct texts *t, int64_t *cu, int64_t *kv, int64_t *first)
{
    int64_t row = 0;

    for (int64_t i = 0; i < t->n; i++) {
        cu[2 * i] = cu[2 * i + 1] = row;
        kv[2 * i] = i * t->rows, kv[2 * i + 1] = i * t->rows + 3;
        first[2 * i] = 0, first[2 * i + 1] = t->has[i];
        row += t->news[i];
    }
    cu[2 * t->n] = row;
    kv[2 * t->n] = t->n * t->rows;
    return row;
}

static void attend(const struct texts *t, bool int8, bool backwards)
{
    int64_t cu[9], kv[9], first[8], rows = lists(t, cu, kv, first), all = t->n * t->rows, q_ld = t->heads * t->dim;
    struct kept k[2] = { kept_of(all, t, int8, t->sharp ? t->sharp : 1, 3), kept_of(all, t, int8, 1, 4) };
    uint16_t *q = numbers(rows * q_ld, 5), *o = numbers(rows * q_ld, 6);
    float *lse = malloc((size_t)(rows * t->heads) * sizeof *lse);
    struct op_segments s = { 2 * t->n, cu, kv, first };
    struct op_attention a = { .q_rows = rows, .kv_rows = all, .heads = t->heads, .kv_heads = t->kv_heads,
        .dim = t->dim, .q_ld = q_ld, .kv_ld = t->kv_heads * t->dim, .scale = 1 / sqrtf((float)t->dim),
        .seg = { s, s }, .q = q, .k = int8 ? (void *)k[0].packed : k[0].x, .v = int8 ? (void *)k[1].packed : k[1].x,
        .k_scale = k[0].scale, .v_scale = k[1].scale, .kv_type = int8 ? KV_INT8 : KV_BF16, .cached = true,
        .o = o, .lse = lse, .window = t->window };
    const char *fault = emulate_few(&a, backwards);

    if (fault)
        fail_msg("%s", fault);
    for (int64_t i = 0; i < t->n; i++)
        for (int64_t r = 0; r < t->news[i]; r++)
            for (int64_t h = 0; h < t->heads; h++) {
                int64_t from = i * t->rows + 3, last = from + t->has[i] + r;

                if (t->window && last - t->window + 1 > from)
                    from = last - t->window + 1;
                row_truth(&a, t, k, cu[2 * i] + r, h, from, last + 1);
            }
    for (int i = 0; i < 2; i++)
        free(k[i].x), free(k[i].packed), free(k[i].scale);
    free(q), free(o), free(lse);
}

static void test_attention_of_few_queries(void **state)
{
    static const int64_t dims[] = { 16, 32, 64, 80, 96, 128, 256 };

    (void)state;
    for (int int8 = 0; int8 < 2; int8++) {
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) /* heads that share a key head: 1, 2, 3 */
            attend(&(struct texts){ .heads = 2 * (1 + (int64_t)i % 3), .kv_heads = 2, .dim = dims[i], .n = 1,
                                    .rows = 150, .news = { 1 }, .has = { 140 } }, int8, i % 2);
        /* several texts, several queries; eight heads to a key head */
        attend(&(struct texts){ .heads = 8, .kv_heads = 1, .dim = 64, .n = 3, .rows = 90, .news = { 1, 4, 2 },
                                .has = { 0, 77, 5 } }, int8, false);
        attend(&(struct texts){ .heads = 4, .kv_heads = 2, .dim = 128, .n = 2, .rows = 200, .news = { 2, 1 },
                                .has = { 190, 33 }, .window = 40 }, int8, true);
        /* keys over several blocks, and one that outweighs the rest */
        attend(&(struct texts){ .heads = 2, .kv_heads = 1, .dim = 128, .n = 1, .rows = 1400, .news = { 1 },
                                .has = { 1390 }, .sharp = 9 }, int8, false);
        attend(&(struct texts){ .heads = 1, .kv_heads = 1, .dim = 80, .n = 1, .rows = 700, .news = { 1 },
                                .has = { 690 } }, int8, false);
        attend(&(struct texts){ .heads = 1, .kv_heads = 1, .dim = 64, .n = 2, .rows = 1100, .news = { 1, 1 },
                                .has = { 1090, 300 } }, int8, true);
    }
}

/* Of 8 bits 16 channels are read at once: heads of another width are unpacked. */
static void test_heads_that_others_compute(void **state)
{
    uint16_t x[64] = { 0 };
    int64_t cu[2] = { 0, 1 }, kv[2] = { 0, 1 }, first = 0;
    struct op_segments s = { 1, cu, kv, &first };
    struct op_attention a = { .q_rows = 1, .kv_rows = 1, .heads = 1, .kv_heads = 1, .dim = 24, .q_ld = 24, .kv_ld = 24,
                              .seg = { s, s }, .kv_type = KV_INT8 };

    (void)state;
    a.q = a.k = a.v = (const void *)(((uintptr_t)x + 15) & ~(uintptr_t)15);
    assert_string_equal(emulate_few(&a, false), "refused");
}

/* --- between them */

static void is_near(const char *what, int64_t i, double got, double want, double bound)
{
    if (!(fabs(got - want) <= bound))
        fail_msg("%s: number %d is %g, not %g", what, (int)i, got, want);
}

static void fine(const char *what, const char *fault)
{
    if (fault)
        fail_msg("%s: %s", what, fault);
}

static void normalise(int64_t rows, int64_t dim, int64_t skip, bool adds, bool backwards)
{
    uint16_t *all = numbers(rows * dim + skip, 1), *x = all + skip, *y = numbers(rows * dim, 2);
    uint16_t *add = adds ? numbers(rows * dim, 3) : NULL;
    float *w = aligned_alloc(16, (size_t)(dim * 4 + 15) / 16 * 16), *rstd = malloc((size_t)rows * 4);
    struct op_rmsnorm a = { .rows = rows, .dim = dim, .eps = 1e-3f, .x = x, .w = w, .y = y, .rstd = rstd, .add = add,
                            .shift = 0.5f };

    for (int64_t i = 0; i < dim; i++)
        w[i] = (float)normal_at(4, (uint64_t)i);
    fine("rmsnorm", emulate_rmsnorm(&a, backwards));
    for (int64_t r = 0; r < rows; r++) {
        double s = 0, want;

        for (int64_t i = 0; i < dim; i++)
            s += wide(x[r * dim + i]) * wide(x[r * dim + i]);
        s = 1 / sqrt(s / (double)dim + (double)a.eps);
        is_near("rstd", r, (double)rstd[r], s, 1e-5 * s);
        for (int64_t i = r * dim; i < (r + 1) * dim; i++) {
            want = ((double)w[i % dim] + 0.5) * wide(x[i]) * s + (add ? wide(add[i]) : 0);
            is_near("rmsnorm", i, wide(y[i]), want, 4e-3 * (fabs(want) + 0.1));
        }
    }
    free(all), free(y), free(add), free(w), free(rstd);
}

static void test_norms(void **state)
{
    static const int64_t dims[] = { 8, 128, 1024, 2056, 4096, 8192 };

    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (int64_t rows = 1; rows <= 3; rows += 2)
            normalise(rows, dims[i], 0, i % 2, rows > 1);
    for (int64_t dim = 16; dim <= 256; dim += 16) /* heads: some in a warp, the last warp and block not full */
        normalise(dim % 48 ? 63 : 3, dim, 0, dim % 32, dim % 64);
    normalise(67, 128, 0, false, false); /* heads of several texts */
    normalise(16 * 32, 128, 0, false, true);
    normalise(16 * 8 + 1, 256, 0, false, false);
    normalise(2, 100, 0, true, false); /* no eights; no address that is one's */
    normalise(1, 64, 1, false, true);
}

/* What takes longer than an event is not. */
static void test_norms_that_are_not_of_the_chain(void **state)
{
    static const int64_t rows[] = { 65, 129 }, dims[] = { 16384, 8192 };

    (void)state;
    for (int i = 0; i < 2; i++) {
        uint16_t *x = numbers(rows[i] * dims[i], 1);
        float *w = calloc((size_t)dims[i], sizeof *w);
        const char *fault = emulate_rmsnorm(&(struct op_rmsnorm){ .rows = rows[i], .dim = dims[i], .eps = 1, .x = x, .w = w,
            .y = x }, false);

        if (!fault || !strstr(fault, "not of the chain"))
            fail_msg("%d rows: '%s'", (int)rows[i], fault ? fault : "");
        free(x), free(w);
    }
}

/* Positions of their own, two rows each; heads that turn in part. */
static void turn(int64_t rows, int64_t heads, int64_t heads2, int64_t dim, int64_t stride, bool backwards)
{
    int64_t lds[2] = { heads * stride + (dim % 16 ? 1 : 8), heads2 * stride }, n[2] = { heads, heads2 };
    int64_t firsts[8];
    float inv_freq[128];
    uint16_t *x[2], *was[2];
    struct op_rope a = { .rows = rows, .ld = lds[0], .heads = heads, .dim = dim, .period = 2, .scale = 1.25f,
                         .inv_freq = inv_freq, .ld2 = lds[1], .heads2 = heads2, .stride = stride, .firsts = firsts };

    for (int64_t i = 0; i < 8; i++)
        firsts[i] = (int64_t)(mix64((uint64_t)i) % 100000);
    for (int64_t i = 0; i < dim / 2; i++)
        inv_freq[i] = (float)pow(10000, -2.0 * (double)i / (double)dim);
    for (int i = 0; i < 2; i++)
        x[i] = numbers(rows * lds[i], 5 + (uint64_t)i), was[i] = numbers(rows * lds[i], 5 + (uint64_t)i);
    a.x = x[0], a.x2 = x[1];
    fine("rope", emulate_rope(&a, backwards));
    for (int which = 0; which < 2; which++)
        for (int64_t at = 0; at < rows * lds[which]; at++) {
            int64_t r = at / lds[which], h = at % lds[which] / stride, i = at % lds[which] % stride, k = i % (dim / 2);
            double p = (double)(firsts[r / 2] + r % 2) * (double)inv_freq[k], u, v, want = wide(was[which][at]);

            if (h < n[which] && i < dim) {
                u = wide(was[which][at - i + k]), v = wide(was[which][at - i + k + dim / 2]);
                want = 1.25 * (i < dim / 2 ? u * cos(p) - v * sin(p) : v * cos(p) + u * sin(p));
            }
            is_near("rope", at, wide(x[which][at]), want, h < n[which] && i < dim ? 6e-3 * (fabs(want) + 0.5) : 0);
        }
    for (int i = 0; i < 2; i++)
        free(x[i]), free(was[i]);
}

static void test_rope(void **state)
{
    (void)state;
    turn(1, 32, 8, 128, 128, false);
    turn(5, 3, 1, 64, 96, true);
    turn(7, 2, 2, 6, 10, false);
}

/* Of each head one number is half of the largest: between two integers, or just beside. */
static void halve_the_largest(uint16_t *x, int64_t dim)
{
    int64_t most = 0;

    for (int64_t i = 1; i < dim; i++)
        most = (float)fabs(wide(x[i])) > (float)fabs(wide(x[most])) ? i : most;
    x[(most + 1) % dim] = (uint16_t)(x[most] - (1 << 7)); /* the exponent, one less */
}

/* What a number becomes in a cache of 8 bits: the product is rounded first. */
static int packed_of(const uint16_t *x, int64_t dim, int64_t i)
{
    float most = 0;
    volatile float by, product;

    for (int64_t k = 0; k < dim; k++)
        most = (float)fabs(wide(x[k])) > most ? (float)fabs(wide(x[k])) : most;
    by = 127 / most;
    product = wide(x[i]) * by;
    return (int)rintf(product);
}

/* The CPU's store makes the same integers. */
static void packs_alike(const uint16_t *x, int64_t heads, int64_t dim)
{
    int64_t n = heads * dim, cu[] = { 0, 1 }, to = 0;
    float *wide_x = malloc((size_t)n * sizeof *wide_x), *scale = calloc((size_t)heads, sizeof *scale);
    int8_t *y = calloc((size_t)n, 1);
    struct device cpu;
    struct err e = { 0 };

    assert_int_equal(device_open(&cpu, &(struct device_options){ .name = "cpu" }, &e), 0);
    for (int64_t i = 0; i < n; i++)
        wide_x[i] = wide(x[i]);
    assert_int_equal(cpu.store(&cpu, &(struct op_store){ .rows = 1, .heads = heads, .dim = dim, .ld = n, .k = wide_x,
        .k_to = y, .k_scale = scale, .type = KV_INT8, .n = 1, .cu = cu, .to = &to }), 0);
    for (int64_t i = 0; i < n; i++)
        is_near("8 bits of the CPU", i, y[i], packed_of(x + i / dim * dim, dim, i % dim), 0);
    cpu.close(&cpu);
    free(wide_x), free(scale), free(y);
}

/* Pieces that change places, into rows of a cache between which others stay. */
static void keep(int64_t heads, int64_t dim, bool int8, bool backwards)
{
    enum { ROWS = 4, CACHE = 12 };
    static const int64_t cu[] = { 0, 1, 3, 4 }, to[] = { 9, 2, 0 };
    static const int64_t row[CACHE] = { 3, -1, 1, 2, -1, -1, -1, -1, -1, 0, -1, -1 }; /* that is there afterwards */
    int64_t n = heads * dim, ld = n + 8;
    uint16_t *x[2] = { numbers(ROWS * ld, 7), numbers(ROWS * ld, 8) }, *was = numbers(CACHE * n, 9);
    uint16_t *y[2] = { numbers(CACHE * n, 9), numbers(CACHE * n, 9) };
    float *scale[2] = { calloc((size_t)(CACHE * heads), 4), calloc((size_t)(CACHE * heads), 4) };
    struct op_store s = { .rows = ROWS, .heads = heads, .dim = dim, .ld = ld, .k = x[0], .v = x[1], .k_to = y[0],
        .v_to = y[1], .type = int8 ? KV_INT8 : KV_BF16, .k_scale = int8 ? scale[0] : NULL,
        .v_scale = int8 ? scale[1] : NULL, .n = 3, .cu = cu, .to = to };

    for (int64_t i = 0; i < 2 * ROWS * heads; i++)
        halve_the_largest(x[i % 2] + i / 2 / heads * ld + i / 2 % heads * dim, dim);
    packs_alike(x[0], heads, dim);
    fine("store", emulate_store(&s, CACHE, backwards));
    for (int64_t at = 0; at < 2 * CACHE * n; at++) {
        int64_t part = at / (CACHE * n), r = at / n % CACHE, i = at % n;
        const int8_t *packed = (const int8_t *)y[part], *before = (const int8_t *)was;
        double want = row[r] < 0 ? 0 : wide(x[part][row[r] * ld + i]);
        double by = (double)scale[part][r * heads + i / dim];

        if (row[r] < 0 && int8)
            is_near("beside", at, packed[r * n + i], before[r * n + i], 0);
        else if (row[r] < 0)
            is_near("beside", at, wide(y[part][r * n + i]), wide(was[r * n + i]), 0);
        else if (int8)
            is_near("8 bits", at, packed[r * n + i], packed_of(x[part] + row[r] * ld + i / dim * dim, dim, i % dim), 0),
            is_near("8 bits, times their scale", at, by * packed[r * n + i], want, 0.51 * by);
        else
            is_near("stored", at, wide(y[part][r * n + i]), want, 0);
    }
    for (int i = 0; i < 2; i++)
        free(x[i]), free(y[i]), free(scale[i]);
    free(was);
}

static void test_stores(void **state)
{
    (void)state;
    for (int int8 = 0; int8 < 2; int8++) {
        keep(6, 128, int8, false);
        keep(3, 20, int8, true);
    }
}

static double gated(enum gate f, double z)
{
    if (f == GATE_GELU)
        return z / 2 * (1 + erf(z / sqrt(2)));
    if (f == GATE_GELU_TANH)
        return z / 2 * (1 + tanh(0.79788456080286536 * (z + 0.044715 * z * z * z)));
    return z / (1 + exp(-z));
}

static void test_gates(void **state)
{
    static const int64_t n[] = { 8, 101, 11008 };

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int f = 0; f < 6; f++) {
            uint16_t *g = numbers(n[i], 1), *u = numbers(n[i], 2), *y = numbers(n[i], 3);
            struct op_swiglu a = { .n = n[i], .gate = g, .up = f < 3 ? u : NULL, .y = y, .f = (enum gate)(f % 3) };

            fine("gate", emulate_swiglu(&a, f % 2));
            for (int64_t k = 0; k < n[i]; k++) {
                double want = gated(a.f, wide(g[k])) * (a.up ? wide(u[k]) : 1);
                is_near("gate", k, wide(y[k]), want, 4e-3 * (fabs(want) + 0.01));
            }
            free(g), free(u), free(y);
        }
}

/* A kernel that does not keep the chain's rules is noticed. */
static void test_rules(void **state)
{
    static const char *const says[UNRULY] = {
        [UNRULY_NO_WAIT] = "does not wait", [UNRULY_SOME_WAIT] = "20 threads of 32 wait for the kernel in front",
        [UNRULY_NO_NEXT] = "let the kernel behind begin", [UNRULY_WRITES] = "is written before" };

    (void)state;
    for (int how = 0; how < UNRULY; how++) {
        float *x = aligned_alloc(16, 48 * 4);
        const char *fault;

        for (int i = 0; i < 48; i++)
            x[i] = (float)i;
        fault = emulate_unruly(how, x);
        if (says[how] && (!fault || !strstr(fault, says[how])))
            fail_msg("rule %d: '%s', not '%s'", how, fault ? fault : "", says[how]);
        if (!says[how] && fault)
            fail_msg("rule %d: %s", how, fault);
        for (int i = 0; i < 32 && how == UNRULY_NOT; i++)
            assert_true(x[i] == (float)i + 1);
        for (int i = 0; i < 32 && how == UNRULY_READS; i++)
            assert_true(isnan(x[i])); /* it read what is not there yet */
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_few_rows),
        cmocka_unit_test(test_products_of_one_input_in_one_launch),
        cmocka_unit_test(test_products_of_more_rows),
        cmocka_unit_test(test_products_of_more_rows_in_one_launch),
        cmocka_unit_test(test_products_of_large_cards),
        cmocka_unit_test(test_products_that_others_compute),
        cmocka_unit_test(test_attention_of_few_queries),
        cmocka_unit_test(test_heads_that_others_compute),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_norms_that_are_not_of_the_chain),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_stores),
        cmocka_unit_test(test_gates),
        cmocka_unit_test(test_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
