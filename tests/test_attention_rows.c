/* tests/test_attention_rows.c - attention whose queries and keys are rows apart, and windows. */
#include "tests/attentiontest.h"

/* (Where a query sees one key alone, dq and dk are 0 by a difference of two equal numbers, which
 * leaves some 1e-6: no case of a row's window is held to the formula.) */

/* A case's results on the device of two threads. */
static struct results compute(const struct attention_case *c)
{
    int64_t n = case_numbers(c);
    float *out = malloc((size_t)(n + 1) * sizeof *out);

    for (int64_t i = 0; i < n; i++)
        out[i] = 7;
    run_attention(&dev[1], c, out);
    return results_in(c, out);
}

/* Segments of random lengths, some empty, of either side; queries before, among and behind the
 * keys. */
static struct attention_case anywhere(uint64_t seed, int64_t window)
{
    static const int64_t kv[] = { 1, 2, 3, 6 };
    struct attention_case c = { .heads = 6, .kv_heads = kv[seed % 4], .dim = 12, .apart = true,
                                .window = window, .q_pad = (int64_t)seed % 3,
                                .kv_pad = (int64_t)seed % 2 };
    uint64_t x = mix64(seed);

    for (int half = 0; half < 2; half++) {
        int64_t q = 0, k = 0, n = 0, most = 1 + (int64_t)(mix64(seed ^ 77) % 300);
        for (; n < 2 + (int64_t)(seed % 7); n++) {
            int64_t nq = (int64_t)((x = mix64(x)) % (uint64_t)most);
            int64_t nk = (int64_t)((x = mix64(x)) % (uint64_t)most), at;
            nq = x >> 32 & 1 || x >> 33 & 1 ? nq : 0;
            nk = x >> 34 & 1 || x >> 35 & 1 ? nk : 0;
            x = mix64(x);
            at = x % 4 == 0 ? 0 : x % 4 == 1 ? nk - nq : (int64_t)(x >> 8) % (nk + 20) - 10;
            c.cu[half][n] = q, c.kv[half][n] = k, c.first[half][n] = at;
            q += nq, k += nk;
        }
        c.n[half] = n;
        c.cu[half][n] = q, c.kv[half][n] = k;
        c.q_rows = q > c.q_rows ? q : c.q_rows;
        c.kv_rows = k > c.kv_rows ? k : c.kv_rows;
    }
    for (int half = 0; half < 2; half++) { /* the shorter list ends with a last segment's rest */
        c.cu[half][c.n[half]] = c.q_rows;
        c.kv[half][c.n[half]] = c.kv_rows;
    }
    return c;
}

static void test_anywhere(void **state)
{
    static const int64_t windows[] = { 0, 2, 7, 128, 0, 200 };

    (void)state;
    for (uint64_t seed = 0; seed < 36; seed++) {
        struct attention_case c = anywhere(seed, windows[seed % 6]);
        check("anywhere", &c, seed);
    }
}

/* Windows over whole rows, groups and documents: each ends where its segment begins. */
static void test_window(void **state)
{
    static const int64_t v[][4] = { /* rows, window, group, kv heads */
        { 300, 2, 0, 4 }, { 300, 64, 0, 2 }, { 700, 128, 0, 1 }, { 700, 129, 0, 4 },
        { 300, 20, 75, 4 }, { 530, 100, 131, 2 }, { 530, 131, 131, 1 }, { 1100, 600, 0, 2 } };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct attention_case c = dense(v[i][0], 4, v[i][3], 8);
        c.window = v[i][1];
        if (v[i][2])
            cut_s2(&c, v[i][2]);
        check("window", &c, i);
        c = dense(v[i][0], 4, v[i][3], 8);
        c.window = v[i][1];
        cut_every(&c, 0, 17, 97); /* documents */
        cut_every(&c, 1, 17, 97);
        check("window over documents", &c, i);
    }
}

/* A window that no row is too far on for changes no bit; one of a row sees itself alone. */
static void test_wide_and_narrow_window(void **state)
{
    struct attention_case c = dense(300, 4, 2, 8);
    struct results none, wide_, one;

    (void)state;
    case_fill(&c, 3);
    none = compute(&c);
    for (int i = 0; i < 3; i++) {
        static const int64_t windows[] = { 300, 301, (int64_t)1 << 40 };
        c.window = windows[i];
        wide_ = compute(&c);
        assert_same_bits("wide", none.o, wide_.o, case_numbers(&c));
        free(wide_.o);
    }
    c.window = 1;
    one = compute(&c);
    for (int64_t r = 0; r < 300; r++)
        for (int64_t h = 0; h < 4; h++)
            assert_same_bits("itself", one.o + r * 32 + h * 8, c.v + r * 16 + h / 2 * 8, 8);
    free(none.o), free(one.o);
    case_free(&c);
}

/* Queries [from, to) of a case, against all of its keys. */
static struct attention_case piece(const struct attention_case *c, int64_t from, int64_t to)
{
    struct attention_case p = *c;

    p.apart = true;
    p.q_rows = to - from;
    p.q += from * q_ld(c);
    p.d_o += from * q_ld(c);
    for (int half = 0; half < 2; half++)
        for (int64_t i = 0; i <= c->n[half]; i++) {
            int64_t at = c->cu[half][i], in = at < from ? from : at > to ? to : at;
            p.kv[half][i] = at;
            p.cu[half][i] = in - from;
            p.first[half][i] = in - at; /* rows of the segment that are before the piece */
        }
    return p;
}

static void add_to(float *sum, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        sum[i] += x[i];
}

static void near_floats(const char *what, const float *a, const float *b, int64_t n, double tol)
{
    double *want = wide(b, n);

    assert_near(what, a, want, n, tol);
    free(want);
}

/* Pieces that end at cuts[..]: their rows are the whole's, to the bit where a tile of queries is
 * in one piece; dk and dv are their sums. */
static void pieces(struct attention_case *c, const int64_t *cuts, bool bits)
{
    int64_t nq = c->q_rows * q_ld(c), nk = c->kv_rows * kv_ld(c), nl = c->q_rows * c->heads;
    struct results whole = compute(c);
    struct results sum = results_in(c, calloc((size_t)case_numbers(c), sizeof(float)));

    for (int64_t from = 0; from < c->q_rows; from = *cuts++) {
        struct attention_case p = piece(c, from, *cuts);
        struct results r = compute(&p);
        memcpy(sum.o + from * q_ld(c), r.o, (size_t)(p.q_rows * q_ld(c)) * sizeof(float));
        memcpy(sum.dq + from * q_ld(c), r.dq, (size_t)(p.q_rows * q_ld(c)) * sizeof(float));
        for (int64_t h = 0; h < c->heads; h++)
            memcpy(sum.lse + h * c->q_rows + from, r.lse + h * p.q_rows,
                   (size_t)p.q_rows * sizeof(float));
        add_to(sum.dk, r.dk, nk), add_to(sum.dv, r.dv, nk);
        free(r.o);
    }
    if (bits) {
        assert_same_bits("o", sum.o, whole.o, nq);
        assert_same_bits("lse", sum.lse, whole.lse, nl);
        assert_same_bits("dq", sum.dq, whole.dq, nq);
    }
    near_floats("o", sum.o, whole.o, nq, 2e-6);
    near_floats("lse", sum.lse, whole.lse, nl, 2e-6);
    near_floats("dq", sum.dq, whole.dq, nq, 4e-6);
    near_floats("dk", sum.dk, whole.dk, nk, 4e-6);
    near_floats("dv", sum.dv, whole.dv, nk, 4e-6);
    free(sum.o), free(whole.o);
}

static void test_pieces(void **state)
{
    static const int64_t tiles[] = { 128, 384, 512, 700 }, odd[] = { 1, 2, 130, 131, 350, 700 };

    (void)state;
    for (int i = 0; i < 6; i++) {
        struct attention_case c = dense(700, 4, 2, 16);
        c.window = i / 3 ? 150 : 0;
        if (i % 3)
            cut_s2(&c, 200);
        if (i % 3 == 2)
            cut_every(&c, 0, 33, 57);
        case_fill(&c, (uint64_t)i);
        pieces(&c, tiles, true);
        pieces(&c, odd, false);
        case_free(&c);
    }
}

/* One new row behind a cache: the row that the whole ends with, for several sequences whose caches
 * are not full. */
static void test_one_query(void **state)
{
    enum { SEQS = 3, ROOM = 200 };
    static const int64_t have[SEQS] = { 1, 137, 200 };

    (void)state;
    for (int64_t k = 0; k < 4; k++) {
        int64_t window = k % 2 * 60;
        struct attention_case c = { .cap = (float)(k / 2), .q_rows = SEQS, .kv_rows = SEQS * ROOM, .heads = 4,
                                    .kv_heads = 2, .dim = 16, .apart = true, .window = window,
                                    .n = { SEQS, SEQS } };
        for (int half = 0; half < 2; half++)
            for (int64_t s = 0; s < SEQS; s++) {
                c.cu[half][s + 1] = s + 1;
                c.kv[half][s + 1] = (s + 1) * ROOM;
                c.first[half][s] = have[s] - 1;
            }
        check("one query", &c, 9);
    }
}

/* A sequence's rows on two ranks, in groups: the second rank has the keys of the shifted group
 * that crosses, before its own. Its rows are the whole's, and so are the sums of dk and dv. */
static void test_halo(void **state)
{
    enum { ROWS = 512, GROUP = 128, HALF = ROWS / 2, HALO = GROUP / 2 };
    struct attention_case c = dense(ROWS, 4, 2, 16), one, two;
    struct results all, a, b;
    int64_t ld, nk;

    (void)state;
    cut_s2(&c, GROUP);
    case_fill(&c, 4);
    ld = q_ld(&c), nk = kv_ld(&c);
    all = compute(&c);
    one = c, one.q_rows = one.kv_rows = HALF;
    cut_s2(&one, GROUP);
    two = c, two.apart = true, two.q_rows = HALF, two.kv_rows = HALO + HALF;
    two.q += HALF * ld, two.d_o += HALF * ld;
    two.k += (HALF - HALO) * nk, two.v += (HALF - HALO) * nk;
    two.n[0] = 3, two.n[1] = 3;
    memcpy(two.cu[0], (int64_t[]){ 0, 0, 128, 256 }, 32);
    memcpy(two.kv[0], (int64_t[]){ 0, 64, 192, 320 }, 32);
    memcpy(two.cu[1], (int64_t[]){ 0, 64, 192, 256 }, 32);
    memcpy(two.kv[1], (int64_t[]){ 0, 128, 256, 320 }, 32);
    two.first[1][0] = HALO;
    a = compute(&one), b = compute(&two);
    near_floats("o", a.o, all.o, HALF * ld, 2e-6);
    near_floats("o", b.o, all.o + HALF * ld, HALF * ld, 2e-6);
    near_floats("dq", a.dq, all.dq, HALF * ld, 4e-6);
    near_floats("dq", b.dq, all.dq + HALF * ld, HALF * ld, 4e-6);
    add_to(a.dk + (HALF - HALO) * nk, b.dk, HALO * nk); /* the halo's go back to its rank */
    add_to(a.dv + (HALF - HALO) * nk, b.dv, HALO * nk);
    near_floats("dk", a.dk, all.dk, HALF * nk, 4e-6);
    near_floats("dv", a.dv, all.dv, HALF * nk, 4e-6);
    near_floats("dk", b.dk + HALO * nk, all.dk + HALF * nk, HALF * nk, 4e-6);
    near_floats("dv", b.dv + HALO * nk, all.dv + HALF * nk, HALF * nk, 4e-6);
    free(all.o), free(a.o), free(b.o);
    case_free(&c);
}

/* Keys in pieces, one on each of several ranks: lse puts the pieces' rows together. */
static void test_keys_in_pieces(void **state)
{
    enum { ROWS = 300, CUT = 110, DIM = 16 };
    struct attention_case c = dense(ROWS, 2, 2, DIM), p;
    struct results whole, r[2];
    float *o = calloc(ROWS * 2 * DIM, sizeof *o);

    (void)state;
    case_fill(&c, 8);
    whole = compute(&c);
    for (int i = 0; i < 2; i++) {
        p = c, p.apart = true;
        p.kv_rows = i ? ROWS - CUT : CUT;
        p.k += i ? CUT * kv_ld(&c) : 0, p.v += i ? CUT * kv_ld(&c) : 0;
        for (int half = 0; half < 2; half++) {
            p.kv[half][1] = p.kv_rows;
            p.first[half][0] = i ? -CUT : 0;
        }
        r[i] = compute(&p);
    }
    for (int64_t t = 0; t < ROWS; t++)
        for (int64_t h = 0; h < 2; h++)
            for (int i = 0; i < 2; i++) {
                float w = expf(r[i].lse[h * ROWS + t] - whole.lse[h * ROWS + t]);
                assert_true(i == 0 || t >= CUT || w == 0);
                for (int64_t j = t * 2 * DIM + h * DIM, n = 0; n < DIM; n++, j++)
                    o[j] += w * r[i].o[j];
            }
    near_floats("o", o, whole.o, ROWS * 2 * DIM, 5e-6);
    free(o), free(whole.o), free(r[0].o), free(r[1].o);
    case_free(&c);
}

static void test_no_queries_or_no_keys(void **state)
{
    struct attention_case c = { .q_rows = 0, .kv_rows = 9, .heads = 4, .kv_heads = 2, .dim = 8,
                                .apart = true, .n = { 1, 2 } };

    (void)state;
    c.kv[0][1] = c.kv[1][2] = 9, c.kv[1][1] = 4;
    check("no queries", &c, 1);
    c = (struct attention_case){ .q_rows = 9, .kv_rows = 0, .heads = 4, .kv_heads = 2, .dim = 8,
                                 .apart = true, .n = { 1, 2 } };
    c.cu[0][1] = c.cu[1][2] = 9, c.cu[1][1] = 4;
    check("no keys", &c, 2);
    c.q_rows = 0;
    memset(c.cu, 0, sizeof c.cu);
    check("nothing", &c, 3);
}

static void test_refuses(void **state)
{
    struct attention_case c = anywhere(5, 0);
    struct op_attention good, a;
    struct results r;

    (void)state;
    case_fill(&c, 1);
    r = compute(&c);
    good = op_of(&c);
    good.o = r.o, good.lse = r.lse;
    assert_int_equal(dev[0].attention(&dev[0], &good), 0);
    a = good, a.window = -1;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    a = good, a.kv_rows++;
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    a = good, a.seg[1].kv = NULL; /* as many keys as queries? */
    assert_int_equal(dev[0].attention(&dev[0], &a), E_BUG);
    c.kv[0][0] = 1;
    assert_int_equal(dev[0].attention(&dev[0], &good), E_BUG);
    c.kv[0][0] = 0, c.first[0][0] = (int64_t)1 << 60;
    assert_int_equal(dev[0].attention(&dev[0], &good), E_BUG);
    free(r.o);
    case_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anywhere),       cmocka_unit_test(test_window),
        cmocka_unit_test(test_pieces),         cmocka_unit_test(test_one_query),
        cmocka_unit_test(test_halo),           cmocka_unit_test(test_keys_in_pieces),
        cmocka_unit_test(test_refuses),        cmocka_unit_test(test_no_queries_or_no_keys),
        cmocka_unit_test(test_wide_and_narrow_window),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
