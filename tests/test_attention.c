/* tests/test_attention.c - segmented causal attention against a dense mask in float64. */
#include "tests/attentiontest.h"

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
            while (at < c.q_rows && n < MAX_CUTS - 2) {
                c.cu[half][n++] = at;
                at += (int64_t)(mix64(seed * 999 + (uint64_t)(2 * n + half)) %
                                (seed % 3 == 0 ? 3 : 90));
            }
            c.cu[half][n] = c.q_rows;
            c.n[half] = n;
        }
        check("cuts", &c, seed);
    }
}

/* Scores that a cap bends little, much, and to its ends. */
static void test_cap(void **state)
{
    static const float caps[] = { 50, 2, 0.3f };

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        struct attention_case c = dense(i < 6 ? 300 : 9, 4, 1 << i % 3, i < 6 ? 16 : 256);
        c.cap = caps[i % 3];
        c.window = i % 2 ? 70 : 0;
        if (i / 3 == 1)
            cut_s2(&c, 75);
        check("cap", &c, i);
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
    lse_b = before + c->q_rows * q_ld(c), lse_a = after + c->q_rows * q_ld(c);
    for (int64_t h = 0; h < c->heads; h++) {
        int half = h < c->heads / 2 ? 0 : 1;
        int64_t end = c->q_rows, at = t * q_ld(c) + h * c->dim;
        assert_same_bits("lse before t", lse_b + h * c->q_rows, lse_a + h * c->q_rows, t);
        for (int64_t i = c->n[half]; i > 0 && c->cu[half][i] > t; i--)
            end = c->cu[half][i];
        for (int64_t r = end; r < c->q_rows; r++)
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
    for (int64_t i = 0; i < c.q_rows * q_ld(&c); i++)
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
    a = good, a.cap = -1;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    a = good, a.q_ld = 7;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    a = good, a.q_rows = 9;
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
        cmocka_unit_test(test_refuses),         cmocka_unit_test(test_cap),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
