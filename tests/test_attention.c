/* tests/test_attention.c - segmented causal attention against a dense mask in float64. */
#include "tests/optest.h"

enum { MAX_CUTS = 400 };
struct attention_case {
    int64_t rows, heads, kv_heads, dim, q_pad, kv_pad, n[2];
    int64_t cu[2][MAX_CUTS];
    float scale, *q, *k, *v, *d_o;
};

static int64_t q_ld(const struct attention_case *c) { return c->heads * c->dim + c->q_pad; }
static int64_t kv_ld(const struct attention_case *c)
{
    return c->kv_heads * c->dim + c->kv_pad;
}

static void case_fill(struct attention_case *c, uint64_t seed)
{
    c->q = normal(c->rows * q_ld(c), 4 * seed);
    c->k = normal(c->rows * kv_ld(c), 4 * seed + 1);
    c->v = normal(c->rows * kv_ld(c), 4 * seed + 2);
    c->d_o = normal(c->rows * q_ld(c), 4 * seed + 3);
    c->scale = 1 / sqrtf((float)c->dim);
}

static void case_free(struct attention_case *c)
{
    free(c->q), free(c->k), free(c->v), free(c->d_o);
}

static struct op_attention op_of(const struct attention_case *c)
{
    struct op_attention a = { c->rows, c->heads, c->kv_heads, c->dim, q_ld(c), kv_ld(c),
                              c->scale, { { c->n[0], c->cu[0] }, { c->n[1], c->cu[1] } },
                              c->q, c->k, c->v, NULL, NULL };
    return a;
}

/* out: o, lse, dq, dk, dv; what lies between rows is zeroed, being nobody's. */
static int64_t case_numbers(const struct attention_case *c)
{
    return c->rows * (2 * q_ld(c) + c->heads + 2 * kv_ld(c));
}

static void clear_padding(float *x, int64_t rows, int64_t ld, int64_t used)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = used; i < ld; i++) {
            assert_true(x[r * ld + i] == 7); /* untouched */
            x[r * ld + i] = 0;
        }
}

static void run_attention(struct device *d, const void *ctx, float *out)
{
    const struct attention_case *c = ctx;
    struct op_attention_back b = { op_of(c), c->d_o, NULL, NULL, NULL, NULL };
    int64_t nq = c->rows * q_ld(c), nk = c->rows * kv_ld(c);
    float *dq;

    b.fwd.o = out;
    b.fwd.lse = out + nq;
    dq = b.fwd.lse + c->heads * c->rows;
    b.dq = dq;
    b.dk = dq + nq;
    b.dv = dq + nq + nk;
    b.scratch = malloc(d->attention_scratch_bytes(d, c->rows, c->heads, c->dim));
    assert_int_equal(d->attention(d, &b.fwd), 0);
    assert_int_equal(d->attention_back(d, &b), 0);
    clear_padding(out, c->rows, q_ld(c), c->heads * c->dim);
    clear_padding(dq, c->rows, q_ld(c), c->heads * c->dim);
    clear_padding(dq + nq, c->rows, kv_ld(c), c->kv_heads * c->dim);
    clear_padding(dq + nq + nk, c->rows, kv_ld(c), c->kv_heads * c->dim);
    free(b.scratch);
}

static void check(const char *what, struct attention_case *c, uint64_t seed)
{
    int64_t nq = c->rows * q_ld(c), nk = c->rows * kv_ld(c), nl = c->rows * c->heads;
    float *got;
    double *o = zeros(nq), *lse = zeros(nl), *dq = zeros(nq), *dk = zeros(nk), *dv = zeros(nk);

    case_fill(c, seed);
    got = on_all_devices(what, run_attention, c, case_numbers(c));
    double *q = wide(c->q, nq), *k = wide(c->k, nk), *v = wide(c->v, nk);
    double *d_o = wide(c->d_o, nq);
    struct ref_attention ref = { c->rows, c->heads, c->kv_heads, c->dim, q_ld(c), kv_ld(c),
                                 { c->n[0], c->n[1] }, (double)c->scale,
                                 { c->cu[0], c->cu[1] }, q, k, v, o, lse };
    ref_attention(&ref);
    ref_attention_back(&ref, d_o, dq, dk, dv);
    assert_near(what, got, o, nq, 5e-6);
    assert_near("lse", got + nq, lse, nl, 5e-6);
    assert_near("dq", got + nq + nl, dq, nq, 2e-5);
    assert_near("dk", got + 2 * nq + nl, dk, nk, 2e-5);
    assert_near("dv", got + 2 * nq + nl + nk, dv, nk, 2e-5);
    free(o), free(lse), free(dq), free(dk), free(dv), free(q), free(k), free(v), free(d_o);
    free(got);
    case_free(c);
}

static void cut_every(struct attention_case *c, int half, int64_t first, int64_t step)
{
    int64_t *cu = c->cu[half], n = 0;

    cu[n++] = 0;
    for (int64_t at = first; at < c->rows; at += step)
        if (at > 0)
            cu[n++] = at;
    cu[n] = c->rows;
    c->n[half] = n;
}

static struct attention_case dense(int64_t rows, int64_t heads, int64_t kv_heads, int64_t dim)
{
    struct attention_case c = { rows, heads, kv_heads, dim, 0, 0, { 1, 1 }, { { 0 } }, 1,
                                NULL, NULL, NULL, NULL };
    c.cu[0][1] = c.cu[1][1] = rows;
    return c;
}

static void test_dense(void **state)
{
    static const int64_t v[][4] = { { 1, 1, 1, 1 }, { 2, 2, 2, 4 }, { 37, 2, 2, 8 },
                                    { 128, 2, 1, 16 }, { 129, 4, 2, 5 }, { 300, 3, 1, 16 },
                                    { 515, 2, 2, 32 }, { 1100, 2, 1, 4 }, { 260, 6, 1, 8 },
                                    { 100, 1, 1, 64 } };
    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct attention_case c = dense(v[i][0], v[i][1], v[i][2], v[i][3]);
        c.q_pad = (int64_t)i % 3;
        c.kv_pad = (int64_t)i % 4;
        check("dense", &c, i);
    }
}

/* Groups of G, and groups shifted by half of one, over heads that share keys in every way: the
 * two halves apart (4, 2), or both in one key head's group (1). */
static void test_s2(void **state)
{
    static const int64_t v[][2] = { /* rows, group */
        { 64, 16 }, { 60, 15 }, { 100, 16 }, { 101, 7 }, { 300, 128 }, { 530, 131 }, { 9, 2 } };
    static const int64_t heads[][2] = { { 4, 4 }, { 4, 2 }, { 4, 1 }, { 6, 1 }, { 6, 3 } };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        for (size_t j = 0; j < sizeof heads / sizeof *heads; j++) {
            struct attention_case c = dense(v[i][0], heads[j][0], heads[j][1], 8);
            cut_every(&c, 0, v[i][1], v[i][1]);
            cut_every(&c, 1, v[i][1] / 2, v[i][1]);
            check("s2", &c, 10 * i + j);
        }
}

/* Cuts anywhere: documents of one row, lists with nothing in common, empty segments. */
static void test_cuts_anywhere(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        static const int64_t kv[] = { 1, 2, 3, 6 };
        struct attention_case c = dense(40 + (int64_t)(mix64(seed) % 300), 6, kv[seed % 4], 12);
        for (int half = 0; half < 2; half++) {
            int64_t at = 0, n = 0;
            while (at < c.rows && n < MAX_CUTS - 2) {
                c.cu[half][n++] = at;
                at += (int64_t)(mix64(seed * 999 + (uint64_t)(2 * n + half)) %
                                (seed % 3 == 0 ? 3 : 90));
            }
            c.cu[half][n] = c.rows;
            c.n[half] = n;
        }
        check("cuts", &c, seed);
    }
}

static void test_one_row_segments(void **state)
{
    struct attention_case c = dense(130, 2, 2, 4);

    (void)state;
    cut_every(&c, 0, 1, 1);
    cut_every(&c, 1, 1, 1);
    check("rows alone", &c, 1);
}

/* Changing row t changes no output before t, to the bit, and only those in its segment. */
static void causality(struct attention_case *c, int64_t t)
{
    int64_t n = case_numbers(c);
    float *before = malloc((size_t)n * sizeof *before);
    float *after = malloc((size_t)n * sizeof *after);
    float *lse_b, *lse_a;
    bool changed = false;

    for (int64_t i = 0; i < n; i++)
        before[i] = after[i] = 7;
    run_attention(&dev[1], c, before);
    for (int64_t i = 0; i < q_ld(c); i++)
        c->q[t * q_ld(c) + i] += 1;
    for (int64_t i = 0; i < kv_ld(c); i++) {
        c->k[t * kv_ld(c) + i] -= 1;
        c->v[t * kv_ld(c) + i] += 2;
    }
    run_attention(&dev[1], c, after);
    assert_same_bits("before t", before, after, t * q_ld(c));
    lse_b = before + c->rows * q_ld(c), lse_a = after + c->rows * q_ld(c);
    for (int64_t h = 0; h < c->heads; h++) {
        int half = h < c->heads / 2 ? 0 : 1;
        int64_t end = c->rows, at = t * q_ld(c) + h * c->dim;
        assert_same_bits("lse before t", lse_b + h * c->rows, lse_a + h * c->rows, t);
        for (int64_t i = c->n[half]; i > 0 && c->cu[half][i] > t; i--)
            end = c->cu[half][i];
        for (int64_t r = end; r < c->rows; r++)
            assert_same_bits("later segment", before + r * q_ld(c) + h * c->dim,
                             after + r * q_ld(c) + h * c->dim, c->dim);
        for (int64_t i = 0; i < c->dim; i++)
            changed |= before[at + i] != after[at + i];
    }
    assert_true(changed);
    free(before), free(after);
}

static void test_causality(void **state)
{
    static const int64_t at[] = { 0, 1, 49, 50, 127, 128, 200, 255, 256, 299 };
    (void)state;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        for (int s2 = 0; s2 < 2; s2++) {
            struct attention_case c = dense(300, 4, 2, 8);
            if (s2) {
                cut_every(&c, 0, 75, 75);
                cut_every(&c, 1, 37, 75);
            }
            case_fill(&c, i);
            causality(&c, at[i]);
            case_free(&c);
        }
}

/* Large scores neither overflow nor lose the sum. */
static void test_large_scores(void **state)
{
    struct attention_case c = dense(300, 2, 2, 8);
    int64_t n = case_numbers(&c);
    float *out = malloc((size_t)n * sizeof *out);

    (void)state;
    case_fill(&c, 5);
    for (int64_t i = 0; i < c.rows * q_ld(&c); i++)
        c.q[i] *= 1000;
    for (int64_t i = 0; i < n; i++)
        out[i] = 7;
    run_attention(&dev[0], &c, out);
    for (int64_t i = 0; i < n; i++)
        assert_true(isfinite(out[i]));
    free(out);
    case_free(&c);
}

static void test_refuses(void **state)
{
    struct attention_case c = dense(8, 2, 2, 4);
    struct op_attention a, good;
    float o[64], lse[16];

    (void)state;
    case_fill(&c, 1);
    good = op_of(&c);
    good.o = o;
    good.lse = lse;
    assert_int_equal(dev[0].attention(&dev[0], &good), 0);
    a = good, a.kv_heads = 3;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    a = good, a.q_ld = 7;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    a = good, a.rows = 9;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    c.cu[0][1] = 5;
    assert_int_equal(dev[0].attention(&dev[0], &good), E_BUG);
    case_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),           cmocka_unit_test(test_s2),
        cmocka_unit_test(test_cuts_anywhere),   cmocka_unit_test(test_one_row_segments),
        cmocka_unit_test(test_causality),       cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
