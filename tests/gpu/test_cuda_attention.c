/* tests/gpu/test_cuda_attention.c - segmented attention, by cuDNN and by our own kernels. */
#include "tests/gpu/gputest.h"

enum { MAX_CUTS = 600 };
struct attention_case {
    const char *name;
    int64_t rows, heads, kv_heads, dim, q_pad, kv_pad, n[2];
    int64_t cu[2][MAX_CUTS];
    float sharp, cap; /* sharp multiplies the scores; 0: 1 */
    int64_t window;
    int64_t kv_rows, kv[2][MAX_CUTS], first[2][MAX_CUTS]; /* kv_rows 0: keys are the queries' */
};

/* o, lse, dq, dk, dv of a device, as float32; what lies between the rows is zero. */
struct results {
    float *o, *lse, *dq, *dk, *dv;
};

static int64_t q_ld(const struct attention_case *c) { return c->heads * c->dim + c->q_pad; }
static int64_t kv_ld(const struct attention_case *c)
{
    return c->kv_heads * c->dim + c->kv_pad;
}

static int64_t kv_rows(const struct attention_case *c) { return c->kv_rows ? c->kv_rows : c->rows; }

static struct results compute(struct device *d, const struct attention_case *c)
{
    int64_t nq = c->rows * q_ld(c), nk = kv_rows(c) * kv_ld(c), nl = c->rows * c->heads;
    float *q = normal(nq, 1, 1), *k = normal(nk, 2, 1), *v = normal(nk, 3, 1);
    float *d_o = normal(nq, 4, 1), *zq = calloc((size_t)nq, 4), *zk = calloc((size_t)nk, 4);
    float *junk = malloc((size_t)nl * 4);
    enum dtype t = d->act;
    struct results r;
    struct op_attention_back b = { .fwd = {
        .q_rows = c->rows, .kv_rows = kv_rows(c), .heads = c->heads, .kv_heads = c->kv_heads,
        .dim = c->dim, .q_ld = q_ld(c), .kv_ld = kv_ld(c), .window = c->window, .cap = c->cap,
        .scale = (c->sharp > 0 ? c->sharp : 1) / sqrtf((float)c->dim) } };

    for (int h = 0; h < 2; h++)
        b.fwd.seg[h] = (struct op_segments){ c->n[h], c->cu[h], c->kv_rows ? c->kv[h] : NULL,
                                             c->kv_rows ? c->first[h] : NULL };
    memset(junk, 0xff, (size_t)nl * 4);
    b.fwd.q = up(d, q, nq, t), b.fwd.k = up(d, k, nk, t), b.fwd.v = up(d, v, nk, t);
    b.fwd.o = up(d, zq, nq, t), b.fwd.lse = up(d, junk, nl, DT_F32);
    b.d_o = up(d, d_o, nq, t), b.scratch = NULL;
    d->alloc(d, d->attention_scratch_bytes(d, c->rows, c->heads, c->kv_heads, c->dim),
             (void **)&b.scratch, NULL);
    d->to_device(d, b.scratch, junk, (size_t)nl * 4);
    b.dq = up(d, zq, nq, t), b.dk = up(d, zk, nk, t), b.dv = up(d, zk, nk, t);
    if (d->attention(d, &b.fwd) < 0 || d->attention_back(d, &b) < 0) {
        struct err e = { 0 };
        d->sync(d, &e);
        fail_msg("%s: %s", c->name, e.msg);
    }
    r = (struct results){ down(d, b.fwd.o, nq, t), down(d, b.fwd.lse, nl, DT_F32),
                          down(d, b.dq, nq, t), down(d, b.dk, nk, t), down(d, b.dv, nk, t) };
    d->release(d, (void *)(uintptr_t)b.fwd.q), d->release(d, (void *)(uintptr_t)b.fwd.k);
    d->release(d, (void *)(uintptr_t)b.fwd.v), d->release(d, (void *)(uintptr_t)b.d_o);
    d->release(d, b.scratch);
    free(q), free(k), free(v), free(d_o), free(zq), free(zk), free(junk);
    return r;
}

static void results_free(struct results *r)
{
    free(r->o), free(r->lse), free(r->dq), free(r->dk), free(r->dv);
}

static void check(const struct attention_case *c)
{
    static const char *const names[] = { "default", "own", "deterministic" };
    int64_t nq = c->rows * q_ld(c), nk = kv_rows(c) * kv_ld(c), nl = c->rows * c->heads;
    struct results want = compute(&cpu, c);

    for (int i = 0; i < GPUS; i++) {
        struct results r = compute(&gpu[i], c);
        char what[200];
        snprintf(what, sizeof what, "%s (%lld rows, %lld/%lld heads of %lld) on %s", c->name,
                 (long long)c->rows, (long long)c->heads, (long long)c->kv_heads,
                 (long long)c->dim, names[i]);
        char *end = what + strlen(what);
        strcpy(end, ": o"), near(what, r.o, want.o, nq, 8e-3);
        strcpy(end, ": lse"), near(what, r.lse, want.lse, nl, 1e-4);
        strcpy(end, ": dv"), near(what, r.dv, want.dv, nk, 1e-2);
        strcpy(end, ": dq"), near(what, r.dq, want.dq, nq, 1.5e-2);
        strcpy(end, ": dk"), near(what, r.dk, want.dk, nk, 1.5e-2);
        if (i != DEFAULT) { /* equal bits again */
            struct results s = compute(&gpu[i], c);
            *end = '\0';
            same_bits(what, r.o, s.o, nq), same_bits(what, r.lse, s.lse, nl);
            same_bits(what, r.dq, s.dq, nq), same_bits(what, r.dk, s.dk, nk);
            same_bits(what, r.dv, s.dv, nk);
            results_free(&s);
        }
        results_free(&r);
    }
    results_free(&want);
}

/* Sequences of len rows, cut every group, the second half's shifted by half a group. */
static struct attention_case make(const char *name, int64_t seqs, int64_t len, int64_t heads,
                                  int64_t kv_heads, int64_t dim, int64_t group)
{
    struct attention_case c = { .name = name, .rows = seqs * len, .heads = heads,
                                .kv_heads = kv_heads, .dim = dim };

    for (int half = 0; half < 2; half++) {
        int64_t n = 0;
        for (int64_t s = 0; s < seqs; s++)
            for (int64_t at = 0; at < len; at += at == 0 && half && group < len ? group / 2 : group)
                c.cu[half][n++] = s * len + at;
        c.cu[half][n] = c.rows;
        c.n[half] = n;
    }
    return c;
}

static void test_dense(void **state)
{
    static const int64_t v[][5] = { /* seqs, len, heads, kv heads, dim */
        { 1, 1, 1, 1, 64 },    { 1, 2, 2, 2, 128 },  { 1, 300, 4, 4, 128 }, { 3, 129, 4, 2, 64 },
        { 1, 1000, 3, 1, 64 }, { 2, 256, 8, 2, 128 }, { 1, 515, 2, 2, 32 }, { 1, 100, 1, 1, 256 },
        { 1, 200, 2, 1, 5 },   { 4, 33, 6, 3, 80 },  { 1, 1537, 2, 1, 128 },
        { 1, 1100, 4, 4, 64 }, { 7, 128, 2, 2, 64 }, { 1, 63, 3, 3, 128 },  { 1, 77, 4, 2, 64 },
        { 1, 250, 4, 2, 192 }, { 2, 90, 2, 1, 256 }, { 1, 130, 2, 2, 250 } };
    NEED_GPU();
    for (size_t i = 0; i < (small() ? 10 : sizeof v / sizeof *v); i++) {
        struct attention_case c = make("dense", v[i][0], v[i][1], v[i][2], v[i][3], v[i][4],
                                       v[i][1]);
        if (i == 6)
            c.q_pad = 24, c.kv_pad = 8;
        if (i == 8)
            c.q_pad = 1, c.kv_pad = 3;
        if (i == 13)
            c.q_pad = 40, c.kv_pad = 8;
        if (i == 14) /* rows that do not begin at 16 bytes */
            c.q_pad = 2, c.kv_pad = 4;
        check(&c);
    }
}

static void test_s2(void **state)
{
    static const int64_t v[][6] = { /* seqs, len, group, heads, kv heads, dim */
        { 1, 1024, 256, 4, 4, 128 }, { 1, 1024, 256, 8, 2, 64 }, { 1, 1000, 250, 4, 4, 64 },
        { 2, 600, 150, 4, 2, 128 },  { 5, 512, 128, 2, 2, 64 },  { 1, 530, 131, 4, 1, 64 },
        { 1, 700, 200, 6, 3, 64 },   { 1, 101, 7, 4, 2, 32 } };
    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct attention_case c = make("s2", v[i][0], v[i][1], v[i][3], v[i][4], v[i][5], v[i][2]);
        check(&c);
    }
}

/* Cuts anywhere: documents of one row, lists with nothing in common, empty segments, cuts at
 * the edges of tiles. most: longest segment; step: of what its length is a multiple. */
static void test_cuts_anywhere(void **state)
{
    static const struct { int64_t rows, kv, most, step; } v[] = {
        { 0, 1, 2, 1 },    { 0, 2, 149, 1 },   { 0, 3, 149, 1 }, { 0, 6, 2, 1 },
        { 0, 6, 149, 1 },  { 1000, 2, 700, 1 }, { 1281, 6, 300, 1 }, { 1024, 3, 320, 64 },
        { 896, 1, 256, 32 }, { 1150, 2, 40, 1 } };
    NEED_GPU();
    for (uint64_t seed = 0; seed < (small() ? 5 : sizeof v / sizeof *v); seed++) {
        int64_t rows = v[seed].rows ? v[seed].rows : 100 + (int64_t)(mix64(seed) % 400);
        struct attention_case c = { .name = "cuts", .rows = rows, .heads = 6,
                                    .kv_heads = v[seed].kv, .dim = seed % 2 ? 64 : 128,
                                    .sharp = seed >= 8 ? 14 : 0 };
        for (int half = 0; half < 2; half++) {
            uint64_t lengths = (uint64_t)(v[seed].most / v[seed].step + 1);
            int64_t at = 0, n = 0;
            while (at < c.rows && n < MAX_CUTS - 2) {
                c.cu[half][n++] = at;
                at += v[seed].step *
                      (int64_t)(mix64(seed * 999 + (uint64_t)(2 * n + half)) % lengths);
            }
            c.cu[half][n] = c.rows;
            c.n[half] = n;
        }
        check(&c);
    }
}

/* Sliding windows: whole rows, groups, head dimensions of both kinds of kernels. */
static void test_window(void **state)
{
    static const int64_t v[][7] = { /* seqs, len, group, heads, kv heads, dim, window */
        { 1, 700, 700, 4, 2, 128, 200 }, { 2, 515, 515, 4, 4, 64, 128 },
        { 1, 1024, 256, 4, 2, 128, 100 }, { 1, 300, 300, 2, 1, 80, 33 },
        { 1, 512, 512, 2, 2, 64, 512 } /* hides nothing: cuDNN */ };
    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct attention_case c = make("window", v[i][0], v[i][1], v[i][3], v[i][4], v[i][5],
                                       v[i][2]);
        c.window = v[i][6];
        check(&c);
    }
}

/* Capped scores: head dimensions of both kinds of kernels, of which one takes them; with windows, in groups. */
static void test_cap(void **state)
{
    static const int64_t v[][7] = { /* seqs, len, group, heads, kv heads, dim, window */
        { 1, 700, 700, 4, 2, 256, 200 }, { 2, 515, 515, 4, 4, 128, 0 }, { 1, 1024, 256, 4, 2, 256, 0 },
        { 1, 300, 300, 2, 1, 64, 33 } };
    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct attention_case c = make("cap", v[i][0], v[i][1], v[i][3], v[i][4], v[i][5], v[i][2]);
        c.window = v[i][6], c.sharp = 6, c.cap = 5;
        check(&c);
    }
}

/* One new row behind each of three caches; a group's keys before its queries; queries that see
 * nothing. */
static void test_rows_apart(void **state)
{
    static const struct attention_case cases[] = {
        { .name = "one query", .rows = 3, .heads = 8, .kv_heads = 2, .dim = 128, .n = { 3, 3 },
          .cu = { { 0, 1, 2, 3 }, { 0, 1, 2, 3 } }, .kv_rows = 900,
          .kv = { { 0, 300, 600, 900 }, { 0, 300, 600, 900 } },
          .first = { { 0, 137, 299 }, { 0, 137, 299 } } },
        { .name = "halo", .rows = 512, .heads = 4, .kv_heads = 4, .dim = 64, .n = { 3, 3 },
          .cu = { { 0, 0, 256, 512 }, { 0, 128, 384, 512 } }, .kv_rows = 640,
          .kv = { { 0, 128, 384, 640 }, { 0, 256, 512, 640 } },
          .first = { { 0, 0, 0 }, { 128, 0, 0 } } },
        { .name = "blind", .rows = 90, .heads = 2, .kv_heads = 1, .dim = 80, .window = 25,
          .n = { 4, 2 }, .cu = { { 0, 40, 40, 75, 90 }, { 0, 33, 90 } }, .kv_rows = 77,
          .kv = { { 0, 30, 41, 41, 77 }, { 0, 40, 77 } },
          .first = { { 0, 0, 0, 20 }, { 12, 3 } } },
    };
    NEED_GPU();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i]);
}

/* All arrays side by side in rows ld apart: q, k, v, o, do, dq, dk, dv. Their values, row by row,
 * after a forward and a backward. */
enum { SIDE = 8 };
static uint16_t *side_by_side(struct device *d, int64_t rows, int64_t dim, int64_t ld)
{
    int64_t cu[] = { 0, rows / 3, rows }, each = SIDE * dim;
    uint16_t *x = calloc((size_t)(rows * each), 2), *base;
    struct err e = { 0 };
    float *lse, *scratch;

    for (int64_t i = 0; i < rows * each; i++)
        if (i / dim % SIDE < 3 || i / dim % SIDE == 4)
            x[i] = (uint16_t)(0x3f00 + (mix64((uint64_t)i) & 0x80ff)); /* 0.5 to 1.99, a sign */
    RUN(d->alloc(d, (size_t)(rows * ld) * 2, (void **)&base, &e));
    RUN(d->alloc(d, (size_t)rows * 4, (void **)&lse, &e));
    RUN(d->alloc(d, d->attention_scratch_bytes(d, rows, 1, 1, dim), (void **)&scratch, &e));
    for (int64_t t = 0; t < rows; t++)
        RUN(d->to_device(d, base + t * ld, x + t * each, (size_t)each * 2));
    struct op_attention_back b = {
        .fwd = { .q_rows = rows, .kv_rows = rows, .heads = 1, .kv_heads = 1, .dim = dim,
                 .q_ld = ld, .kv_ld = ld, .scale = 0.125f,
                 .seg = { { .n = 2, .cu = cu }, { .n = 2, .cu = cu } }, .q = base,
                 .k = base + dim, .v = base + 2 * dim, .o = base + 3 * dim, .lse = lse },
        .d_o = base + 4 * dim, .dq = base + 5 * dim, .dk = base + 6 * dim, .dv = base + 7 * dim,
        .scratch = scratch };
    RUN(d->attention(d, &b.fwd));
    RUN(d->attention_back(d, &b));
    for (int64_t t = 0; t < rows; t++)
        RUN(d->to_host(d, x + t * each, base + t * ld, (size_t)each * 2));
    if (d->sync(d, &e) < 0)
        fail_msg("%s", e.msg);
    d->release(d, base), d->release(d, lse), d->release(d, scratch);
    return x;
}

/* Rows so far apart that elements are counted past 2^31: the same bits as close together. */
static void test_far_rows(void **state)
{
    enum { FAR = 1 << 22 };
    NEED_GPU();
    if (small() || gpu[OWN].free_bytes(&gpu[OWN]) < (size_t)8 << 30)
        skip();
    for (int64_t dim = 64; dim <= 128; dim += 64) {
        int64_t rows = 600, n = rows * SIDE * dim;
        uint16_t *near_by = side_by_side(&gpu[OWN], rows, dim, SIDE * dim);
        uint16_t *far = side_by_side(&gpu[OWN], rows, dim, FAR);
        for (int64_t i = 0; i < n; i++)
            if (near_by[i] != far[i])
                fail_msg("head dimension %lld, row %lld, array %lld: %#x and %#x", (long long)dim,
                         (long long)(i / dim / SIDE), (long long)(i / dim % SIDE), near_by[i],
                         far[i]);
        free(near_by), free(far);
    }
}

static void test_refuses(void **state)
{
    struct device *d = &gpu[0];
    struct attention_case c = make("refused", 1, 64, 2, 2, 64, 64);
    struct op_attention a = { .q_rows = 64, .kv_rows = 64, .heads = 2, .kv_heads = 2, .dim = 64,
                              .q_ld = 128, .kv_ld = 128, .scale = 1,
                              .seg = { { .n = 1, .cu = c.cu[0] }, { .n = 1, .cu = c.cu[1] } } };
    struct op_attention bad = a;

    NEED_GPU();
    bad.kv_heads = 3;
    assert_int_equal(d->attention(d, &bad), E_BUG);
    bad = a, bad.q_ld = 7;
    assert_int_equal(d->attention(d, &bad), E_BUG);
    c.cu[0][1] = 5;
    assert_int_equal(d->attention(d, &a), E_BUG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense), cmocka_unit_test(test_s2),
        cmocka_unit_test(test_cuts_anywhere), cmocka_unit_test(test_far_rows),
        cmocka_unit_test(test_window), cmocka_unit_test(test_cap), cmocka_unit_test(test_rows_apart),
        cmocka_unit_test(test_refuses),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
