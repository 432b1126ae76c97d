/* tests/test_ops.c - the CPU device's ops against float64, and gradients by differences. */
#include "tests/optest.h"

static const int64_t shapes[][2] = { { 1, 1 }, { 1, 16 }, { 3, 5 }, { 7, 33 }, { 70, 64 },
                                     { 129, 250 }, { 1000, 48 } };
#define N_SHAPES (sizeof shapes / sizeof *shapes)

struct gemm_case {
    bool ta, tb;
    int64_t m, n, k, lda, ldb, ldc;
    float alpha, beta, *a, *b, *c;
    bool apart; /* c is what is added, and the result goes elsewhere */
};

static void run_gemm(struct device *d, const void *ctx, float *out)
{
    const struct gemm_case *g = ctx;
    struct op_gemm op = { g->ta, g->tb, g->m, g->n, g->k, g->alpha, g->beta, g->a,
                          mat_plain(DT_F32, g->b), out, g->lda, g->ldb, g->ldc, DT_F32, g->apart ? g->c : NULL,
                          false, NULL };

    memcpy(out, g->c, (size_t)(g->m * g->ldc) * sizeof *out);
    for (int64_t i = 0; (g->beta == 0 || g->apart) && i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++)
            out[i * g->ldc + j] = NAN; /* must not be read */
    assert_int_equal(d->gemm(d, &op), 0);
}

static void one_gemm(int64_t m, int64_t n, int64_t k, int form)
{
    struct gemm_case g = { form & 1, form & 2, m, n, k, 0, 0, n + 3, form & 4 ? -0.5f : 1,
                           form & 8 ? 0.25f : 0, NULL, NULL, NULL, form & 16 };
    int64_t rows_a = g.ta ? k : m, rows_b = g.tb ? n : k;
    float *got;
    double *a, *b, *want;

    g.lda = (g.ta ? m : k) + 2;
    g.ldb = (g.tb ? k : n) + 1;
    g.a = normal(rows_a * g.lda, 1);
    g.b = normal(rows_b * g.ldb, 2);
    g.c = normal(m * g.ldc, 3);
    a = wide(g.a, rows_a * g.lda);
    b = wide(g.b, rows_b * g.ldb);
    want = wide(g.c, m * g.ldc);
    got = on_all_devices("gemm", run_gemm, &g, m * g.ldc);
    ref_gemm(g.ta, g.tb, m, n, k, (double)g.alpha, a, g.lda, b, g.ldb, (double)g.beta, want,
             g.ldc); /* what lies between the rows must still be c's */
    assert_near("gemm", got, want, m * g.ldc, 2e-6 * sqrt((double)k + 10));
    free(g.a), free(g.b), free(g.c), free(a), free(b), free(want), free(got);
}

static void test_gemm(void **state)
{
    static const int64_t mnk[][3] = { { 1, 1, 1 }, { 5, 3, 7 }, { 17, 31, 64 }, { 300, 8, 40 },
                                      { 8, 300, 513 }, { 130, 70, 1 }, { 270, 530, 33 },
                                      { 1030, 40, 9 }, { 40, 2100, 9 } };
    (void)state;
    for (size_t s = 0; s < sizeof mnk / sizeof *mnk; s++)
        for (int form = 0; form < 32; form++)
            one_gemm(mnk[s][0], mnk[s][1], mnk[s][2], form);
    one_gemm(64, 48, 3000, 1);
}

static void test_gemm_refuses(void **state)
{
    float x[4] = { 0 };
    struct op_gemm g = { false, false, 2, 2, 2, 1, 0, x, mat_plain(DT_F32, x), x, 2, 2, 2,
                         DT_F32, NULL, false, NULL }, bad = g;

    (void)state;
    bad.c_type = DT_BF16;
    assert_int_equal(dev[0].gemm(&dev[0], &bad), E_BUG);
    bad = g, bad.lda = (int64_t)1 << 31;
    assert_int_equal(dev[0].gemm(&dev[0], &bad), E_BUG);
    bad = g, bad.ldc = 1;
    assert_int_equal(dev[0].gemm(&dev[0], &bad), E_BUG);
    g.m = 0;
    assert_int_equal(dev[0].gemm(&dev[0], &g), 0);
}

/* k == 0: an empty sum. */
static void test_gemm_empty_sum(void **state)
{
    (void)state;
    for (int i = 0; i < DEVICES; i++) {
        float c[4] = { 1, 2, 3, 4 }, x[4] = { 0 };
        struct op_gemm g = { false, false, 2, 2, 0, 1, 0.5f, x, mat_plain(DT_F32, x), c, 2, 2, 2,
                             DT_F32, NULL, false, NULL };
        assert_int_equal(dev[i].gemm(&dev[i], &g), 0);
        assert_true(c[0] == 0.5f && c[3] == 2.0f);
    }
}

struct norm_case {
    int64_t rows, dim;
    const float *x, *w, *dy, *dx, *dw;
};
static const float norm_eps = 1e-5f;

/* out: y, rstd, dx, dw */
static void run_norm(struct device *d, const void *ctx, float *out)
{
    const struct norm_case *c = ctx;
    int64_t n = c->rows * c->dim;
    float *rstd = out + n, *dx = rstd + c->rows, *dw = dx + n;
    struct op_rmsnorm f = { c->rows, c->dim, norm_eps, c->x, c->w, out, rstd, NULL, 0 };
    struct op_rmsnorm_back b = { c->rows, c->dim, c->x, c->dy, c->w, rstd, dx, dw, false, 0 };

    memcpy(dx, c->dx, (size_t)n * sizeof *dx);
    memcpy(dw, c->dw, (size_t)c->dim * sizeof *dw);
    assert_int_equal(d->rmsnorm(d, &f), 0);
    assert_int_equal(d->rmsnorm_back(d, &b), 0);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++) {
        int64_t rows = shapes[s][0], dim = shapes[s][1], n = rows * dim;
        float *x = normal(n, 1), *w = normal(dim, 2), *dy = normal(n, 3), *dx = normal(n, 4);
        float *dw = normal(dim, 5), *got;
        struct norm_case c = { rows, dim, x, w, dy, dx, dw };
        double *rx = wide(x, n), *rw = wide(w, dim), *rdy = wide(dy, n), *rdx = wide(dx, n);
        double *rdw = wide(dw, dim), *ry = zeros(n), *rstd = zeros(rows);

        got = on_all_devices("rmsnorm", run_norm, &c, 2 * n + rows + dim);
        ref_rmsnorm(rows, dim, (double)norm_eps, rx, rw, ry, rstd);
        ref_rmsnorm_back(rows, dim, rx, rdy, rw, rstd, rdx, rdw);
        assert_near("y", got, ry, n, 2e-6);
        assert_near("rstd", got + n, rstd, rows, 2e-6);
        assert_near("dx", got + n + rows, rdx, n, 1e-5);
        assert_near("dw", got + 2 * n + rows, rdw, dim, 1e-5);
        free(x), free(w), free(dy), free(dx), free(dw), free(got);
        free(rx), free(rw), free(rdy), free(rdx), free(rdw), free(ry), free(rstd);
    }
}

/* y may be x, rstd and dw may be NULL; what dx held counts or does not. */
static void test_rmsnorm_options(void **state)
{
    int64_t rows = 70, dim = 33, n = rows * dim;
    float *x = normal(n, 1), *w = normal(dim, 2), *y = copy_of(x, n), *rstd = normal(rows, 3);
    float *z = copy_of(x, n), *dx = normal(n, 4), *dx2 = copy_of(dx, n), *dw = normal(dim, 5);
    struct op_rmsnorm f = { rows, dim, norm_eps, x, w, z, rstd, NULL, 0 };
    struct op_rmsnorm_back b = { rows, dim, x, z, w, rstd, dx, dw, false, 0 };

    (void)state;
    assert_int_equal(dev[1].rmsnorm(&dev[1], &f), 0);
    f.x = f.y = y;
    f.rstd = NULL;
    assert_int_equal(dev[1].rmsnorm(&dev[1], &f), 0);
    assert_same_bits("in place", y, z, n);
    assert_int_equal(dev[1].rmsnorm_back(&dev[1], &b), 0);
    b.dx = dx2;
    b.dw = NULL;
    assert_int_equal(dev[1].rmsnorm_back(&dev[1], &b), 0);
    assert_same_bits("without dw", dx, dx2, n);
    b.dx = dx;
    memset(dx, 0, (size_t)n * sizeof *dx);
    assert_int_equal(dev[1].rmsnorm_back(&dev[1], &b), 0);
    b.dx = dx2, b.overwrite = true;
    memset(dx2, 0xff, (size_t)n * sizeof *dx2);
    assert_int_equal(dev[1].rmsnorm_back(&dev[1], &b), 0);
    for (int64_t i = 0; i < n; i++)
        assert_true(dx[i] == dx2[i]);
    free(x), free(w), free(y), free(rstd), free(z), free(dx), free(dx2), free(dw);
}

/* out: y in the place of what is added, rstd, dx alone, dw */
static void run_norm_added(struct device *d, const void *ctx, float *out)
{
    const struct norm_case *c = ctx;
    int64_t n = c->rows * c->dim;
    float *rstd = out + n, *dx = rstd + c->rows, *dw = dx + n;
    struct op_rmsnorm f = { c->rows, c->dim, norm_eps, c->x, c->w, out, rstd, out, 1 };
    struct op_rmsnorm_back b = { c->rows, c->dim, c->x, c->dy, c->w, rstd, dx, dw, true, 1 };

    memcpy(out, c->dx, (size_t)n * sizeof *out);
    memset(dx, 0xff, (size_t)n * sizeof *dx);
    memcpy(dw, c->dw, (size_t)c->dim * sizeof *dw);
    assert_int_equal(d->rmsnorm(d, &f), 0);
    assert_int_equal(d->rmsnorm_back(d, &b), 0);
}

/* Weights that are shifted by 1, and an array that is added. */
static void test_rmsnorm_added(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++) {
        int64_t rows = shapes[s][0], dim = shapes[s][1], n = rows * dim;
        float *x = normal(n, 1), *w = normal(dim, 2), *dy = normal(n, 3), *add = normal(n, 4);
        float *dw = normal(dim, 5), *got;
        struct norm_case c = { rows, dim, x, w, dy, add, dw };
        double *rx = wide(x, n), *rw = wide(w, dim), *rdy = wide(dy, n), *rdx = zeros(n);
        double *rdw = wide(dw, dim), *ry = zeros(n), *rstd = zeros(rows);

        for (int64_t i = 0; i < dim; i++)
            rw[i] += 1;
        got = on_all_devices("rmsnorm", run_norm_added, &c, 2 * n + rows + dim);
        ref_rmsnorm(rows, dim, (double)norm_eps, rx, rw, ry, rstd);
        ref_rmsnorm_back(rows, dim, rx, rdy, rw, rstd, rdx, rdw);
        for (int64_t i = 0; i < n; i++)
            ry[i] += (double)add[i];
        assert_near("y", got, ry, n, 2e-6);
        assert_near("dx", got + n + rows, rdx, n, 1e-5);
        assert_near("dw", got + 2 * n + rows, rdw, dim, 1e-5);
        free(x), free(w), free(dy), free(add), free(dw), free(got);
        free(rx), free(rw), free(rdy), free(rdx), free(rdw), free(ry), free(rstd);
    }
}

struct rope_case {
    struct op_rope op;
    const float *x;
};

/* out: turned, then turned back */
static void run_rope(struct device *d, const void *ctx, float *out)
{
    const struct rope_case *c = ctx;
    struct op_rope op = c->op;
    size_t bytes = (size_t)(op.rows * op.ld) * sizeof *out;

    memcpy(out, c->x, bytes);
    op.x = out;
    assert_int_equal(d->rope(d, &op), 0);
    memcpy(out + op.rows * op.ld, out, bytes);
    op.x = out + op.rows * op.ld;
    op.inverse = true;
    op.scale = 1 / op.scale;
    assert_int_equal(d->rope(d, &op), 0);
}

static void test_rope(void **state)
{
    static const int64_t v[][6] = { /* rows, heads, dim, extra, first, period */
        { 1, 1, 2, 0, 0, 1 }, { 200, 3, 10, 5, 0, 200 }, { 200, 3, 10, 5, 0, 67 },
        { 130, 2, 64, 0, 100000, 130 }, { 5, 1, 16, 1, 1000000, 1000 },
        { 300, 2, 64, 0, 7, 300 },
    };
    (void)state;
    for (size_t s = 0; s < sizeof v / sizeof *v; s++) {
        int64_t rows = v[s][0], heads = v[s][1], dim = v[s][2], ld = heads * dim + v[s][3];
        int64_t n = rows * ld;
        float *x = normal(n, s), inv_freq[32], *got;
        struct rope_case c = { { rows, ld, heads, dim, v[s][4], v[s][5], false, 1.25f, inv_freq,
                                 NULL, 0, 0, NULL, 0, NULL }, x };
        double *want = wide(x, n), *freq, *back = wide(x, n);

        for (int64_t i = 0; i < dim / 2; i++)
            inv_freq[i] = (float)pow(10000, -2.0 * (double)i / (double)dim);
        freq = wide(inv_freq, dim / 2);
        got = on_all_devices("rope", run_rope, &c, 2 * n);
        ref_rope(rows, ld, heads, dim, v[s][4], v[s][5], false, 1.25, freq, want);
        assert_near("rope", got, want, n, 1e-6);
        assert_near("rope back", got + n, back, n, 1e-6);
        free(x), free(got), free(want), free(freq), free(back);
    }
}

/* Two arrays at once are turned as each alone. */
static void test_rope_both(void **state)
{
    enum { ROWS = 90, LD = 50, LD2 = 18 };
    float inv_freq[8] = { 1, 0.5f, 0.25f, 0.1f, 0.01f, 1e-3f, 1e-4f, 1e-5f };
    float *x = normal(ROWS * LD, 1), *x2 = normal(ROWS * LD2, 2);
    float *y = copy_of(x, ROWS * LD), *y2 = copy_of(x2, ROWS * LD2);
    struct op_rope a = { ROWS, LD, 3, 16, 5, 40, true, 0.5f, inv_freq, x, 0, 0, NULL, 0, NULL },
                   b = a;

    (void)state;
    assert_int_equal(dev[1].rope(&dev[1], &a), 0);
    a.x = x2, a.ld = LD2, a.heads = 1;
    assert_int_equal(dev[1].rope(&dev[1], &a), 0);
    b.x = y, b.x2 = y2, b.ld2 = LD2, b.heads2 = 1;
    assert_int_equal(dev[1].rope(&dev[1], &b), 0);
    assert_same_bits("first", y, x, ROWS * LD);
    assert_same_bits("second", y2, x2, ROWS * LD2);
    free(x), free(x2), free(y), free(y2);
}

/* A part of each head is turned as if it stood alone; the rest of it stays. */
static void test_rope_part(void **state)
{
    enum { ROWS = 70, HEADS = 3, DIM = 10, PART = 6, LD = HEADS * DIM + 1 };
    float inv_freq[3] = { 1, 0.3f, 0.02f };
    float *x = normal(ROWS * LD, 1), *y = copy_of(x, ROWS * LD), *x2 = copy_of(x, ROWS * LD);

    (void)state;
    for (int h = 0; h < HEADS; h++)
        assert_int_equal(dev[1].rope(&dev[1], &(struct op_rope){ .rows = ROWS, .ld = LD,
            .heads = 1, .dim = PART, .first = 4, .period = 40, .scale = 1, .inv_freq = inv_freq,
            .x = x + h * DIM }), 0);
    assert_int_equal(dev[1].rope(&dev[1], &(struct op_rope){ .rows = ROWS, .ld = LD,
        .heads = HEADS, .dim = PART, .first = 4, .period = 40, .scale = 1, .inv_freq = inv_freq,
        .x = y, .ld2 = LD, .heads2 = HEADS, .x2 = x2, .stride = DIM }), 0);
    assert_same_bits("first", y, x, ROWS * LD);
    assert_same_bits("second", x2, x, ROWS * LD);
    free(x), free(x2), free(y);
}

/* The table that the device keeps is made anew when a position or a frequency changes. */
static void test_rope_again(void **state)
{
    static const int64_t v[][2] = { { 0, 40 }, { 9, 40 }, { 9, 300 }, { 9, 20 }, { 0, 300 } };
    float inv_freq[2][2] = { { 1, 0.01f }, { 1, 0.02f } };

    (void)state;
    for (size_t i = 0; i < 10; i++) {
        int64_t first = v[i % 5][0], rows = v[i % 5][1];
        float *x = normal(rows * 4, i), *got = copy_of(x, rows * 4);
        struct op_rope op = { rows, 4, 1, 4, first, rows, false, 1, inv_freq[i / 5], got,
                              0, 0, NULL, 0, NULL };
        double *want = wide(x, rows * 4), *freq = wide(inv_freq[i / 5], 2);

        assert_int_equal(dev[1].rope(&dev[1], &op), 0);
        ref_rope(rows, 4, 1, 4, first, rows, false, 1, freq, want);
        assert_near("rope again", got, want, rows * 4, 1e-6);
        free(x), free(got), free(want), free(freq);
    }
}

struct swiglu_case {
    int64_t n;
    const float *gate, *up, *dy;
};

/* out: y, d_gate, d_up */
static void run_swiglu(struct device *d, const void *ctx, float *out)
{
    const struct swiglu_case *c = ctx;
    struct op_swiglu f = { c->n, c->gate, c->up, out, GATE_SILU };
    struct op_swiglu_back b = { c->n, c->gate, c->up, c->dy, out + c->n, out + 2 * c->n, NULL,
                                GATE_SILU };

    assert_int_equal(d->swiglu(d, &f), 0);
    assert_int_equal(d->swiglu_back(d, &b), 0);
}

static void test_swiglu(void **state)
{
    static const int64_t sizes[] = { 1, 17, 100000 };
    (void)state;
    for (size_t s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        float *gate = normal(n, 1), *up = normal(n, 2), *dy = normal(n, 3), *got, *again, *y;
        struct swiglu_case c = { n, gate, up, dy };
        double *want = zeros(3 * n);

        for (int64_t i = 0; i < n; i++)
            gate[i] *= i % 5 == 0 ? 40 : 3;
        got = on_all_devices("swiglu", run_swiglu, &c, 3 * n);
        for (int64_t i = 0; i < n; i++) {
            want[i] = ref_silu((double)gate[i]) * (double)up[i];
            ref_swiglu_back((double)gate[i], (double)up[i], (double)dy[i], want + n + i,
                            want + 2 * n + i);
        }
        for (int k = 0; k < 3; k++)
            assert_near("swiglu", got + k * n, want + k * n, n, 1e-6);
        /* each result over one of the inputs */
        again = copy_of(dy, n);
        y = copy_of(dy, n);
        struct op_swiglu_back b = { n, gate, up, again, again, up, y, GATE_SILU };
        assert_int_equal(dev[1].swiglu_back(&dev[1], &b), 0);
        assert_same_bits("y again", y, got, n);
        assert_same_bits("d_gate is dy", again, got + n, n);
        assert_same_bits("d_up is up", up, got + 2 * n, n);
        free(gate), free(up), free(dy), free(got), free(again), free(want), free(y);
    }
}

static void test_swiglu_far_out(void **state)
{
    float gate[] = { 1000, -1000, 0, -90, 90, NAN, INFINITY }, up[] = { 1, 1, 1, 1, 1, 1, 1 };
    float y[7];
    struct op_swiglu f = { 7, gate, up, y, GATE_SILU };

    (void)state;
    assert_int_equal(dev[0].swiglu(&dev[0], &f), 0);
    assert_true(y[0] == 1000 && y[2] == 0 && fabsf(y[1]) < 1e-30f && fabsf(y[3]) < 1e-30f);
    assert_true(y[4] == 90 && isnan(y[5]) && isinf(y[6]));
}

struct embed_case {
    int64_t rows, dim, vocab;
    const int32_t *ids;
    const float *table, *dy, *d_table;
};

/* out: y, d_table */
static void run_embed(struct device *d, const void *ctx, float *out)
{
    const struct embed_case *c = ctx;
    float *d_table = out + c->rows * c->dim;
    struct op_embed f = { c->rows, c->dim, c->vocab, mat_plain(DT_F32, c->table), c->ids, out };
    struct op_embed_back b = { c->rows, c->dim, c->vocab, c->ids, c->dy, d_table };

    memcpy(d_table, c->d_table, (size_t)(c->vocab * c->dim) * sizeof *out);
    assert_int_equal(d->embed(d, &f), 0);
    assert_int_equal(d->embed_back(d, &b), 0);
}

static void test_embed(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++) {
        int64_t rows = shapes[s][0], dim = shapes[s][1], vocab = 11, n = rows * dim;
        float *table = normal(vocab * dim, 1), *dy = normal(n, 2), *dt = normal(vocab * dim, 3);
        int32_t *ids = malloc((size_t)rows * sizeof *ids);
        struct embed_case c = { rows, dim, vocab, ids, table, dy, dt };
        double *want = zeros(n), *grad = wide(dt, vocab * dim);
        float *got;

        for (int64_t r = 0; r < rows; r++) {
            ids[r] = (int32_t)(mix64((uint64_t)r) % (uint64_t)vocab);
            for (int64_t i = 0; i < dim; i++) {
                want[r * dim + i] = (double)table[ids[r] * dim + i];
                grad[ids[r] * dim + i] += (double)dy[r * dim + i];
            }
        }
        got = on_all_devices("embed", run_embed, &c, n + vocab * dim);
        assert_near("y", got, want, n, 0);
        assert_near("d_table", got + n, grad, vocab * dim, 1e-6);
        ids[rows - 1] = (int32_t)vocab;
        struct op_embed f = { rows, dim, vocab, mat_plain(DT_F32, table), ids, got };
        assert_int_equal(dev[0].embed(&dev[0], &f), E_BUG);
        free(table), free(dy), free(dt), free(ids), free(want), free(grad), free(got);
    }
}

struct loss_case {
    int64_t rows, dim, vocab, chunk;
    const float *h, *w, *dw;
    const int32_t *targets;
    float scale;
};

/* out: nll, dh, dw */
static void run_loss(struct device *d, const void *ctx, float *out)
{
    const struct loss_case *c = ctx;
    size_t bytes = d->loss_scratch_bytes(d, c->chunk, c->vocab);
    float *dh = out + c->rows, *dw = dh + c->rows * c->dim, *nll = normal(c->rows, 9);
    struct op_loss op = { c->rows, c->dim, c->vocab, c->chunk, c->h, mat_plain(DT_F32, c->w),
                          c->targets, out, c->scale, dh, dw, malloc(bytes), false };

    memset(op.scratch, 0xff, bytes);
    memcpy(dw, c->dw, (size_t)(c->vocab * c->dim) * sizeof *dw);
    assert_int_equal(d->loss(d, &op), 0);
    op.nll = nll;
    op.dh = op.dw = NULL;
    assert_int_equal(d->loss(d, &op), 0);
    assert_same_bits("forward only", nll, out, c->rows);
    free(nll), free(op.scratch);
}

static void test_loss(void **state)
{
    static const int64_t v[][4] = { /* rows, dim, vocab, chunk */
        { 1, 1, 2, 1 }, { 9, 5, 7, 4 }, { 100, 16, 301, 33 }, { 64, 32, 5000, 64 } };
    (void)state;
    for (size_t s = 0; s < 4; s++) {
        int64_t rows = v[s][0], dim = v[s][1], vocab = v[s][2], n = rows * dim, m = vocab * dim;
        float *h = normal(n, 1), *w = normal(m, 2), *dw = normal(m, 3), *got;
        int32_t *targets = malloc((size_t)rows * sizeof *targets);
        struct loss_case c = { rows, dim, vocab, v[s][3], h, w, dw, targets, 0.37f };
        double *rh = wide(h, n), *rw = wide(w, m), *rdw = wide(dw, m), *rdh = zeros(n);
        double *nll = zeros(rows);

        for (int64_t r = 0; r < rows; r++) /* some not scored, a whole chunk of them too */
            targets[r] = r % 7 == 3 || (s == 2 && r >= 33 && r < 66)
                             ? -1 : (int32_t)(mix64((uint64_t)r) % (uint64_t)vocab);
        got = on_all_devices("loss", run_loss, &c, rows + n + m);
        ref_loss(rows, dim, vocab, rh, rw, targets, nll, (double)c.scale, rdh, rdw);
        assert_near("nll", got, nll, rows, 2e-6);
        assert_near("dh", got + rows, rdh, n, 1e-5);
        assert_near("dw", got + rows + n, rdw, m, 1e-5);
        for (int64_t r = 0; r < rows; r++)
            assert_true(targets[r] >= 0 || got[r] == 0);
        free(h), free(w), free(dw), free(got), free(targets);
        free(rh), free(rw), free(rdw), free(rdh), free(nll);
    }
}

static void run_adamw(struct device *d, const void *ctx, float *out)
{
    int64_t n = *(const int64_t *)ctx;
    float *w = normal(n, 1), *grad = normal(n, 2), *m = normal(n, 3), *v = normal(n, 4);
    struct op_adamw a = { n, 3, 0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, w, m, v, grad };

    for (int64_t i = 0; i < n; i++)
        v[i] *= v[i];
    assert_int_equal(d->adamw(d, &a), 0);
    memcpy(out, w, (size_t)n * sizeof *w);
    memcpy(out + n, m, (size_t)n * sizeof *w);
    memcpy(out + 2 * n, v, (size_t)n * sizeof *w);
    free(w), free(grad), free(m), free(v);
}

static void test_adamw(void **state)
{
    static const int64_t sizes[] = { 1, 31, 100001 };
    (void)state;
    for (size_t s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        float *got = on_all_devices("adamw", run_adamw, &n, 3 * n);
        double *want = zeros(3 * n);
        for (int64_t i = 0; i < n; i++) {
            double w = (double)(float)normal_at(1, (uint64_t)i);
            double g = 0.5 * (double)(float)normal_at(2, (uint64_t)i);
            double m = (double)(float)normal_at(3, (uint64_t)i) * 0.9 + 0.1 * g;
            double v = pow(normal_at(4, (uint64_t)i), 2) * 0.95 + 0.05 * g * g;
            want[n + i] = m;
            want[2 * n + i] = v;
            m /= 1 - pow(0.9, 3);
            v /= 1 - pow(0.95, 3);
            want[i] = w - 0.01 * (m / (sqrt(v) + 1e-8) + 0.1 * w);
        }
        for (int k = 0; k < 3; k++)
            assert_near("adamw", got + k * n, want + k * n, n, 1e-6);
        free(got), free(want);
    }
}

/* out: y, then the sum of squares as a pair of floats' worth of bits */
static void run_vec(struct device *d, const void *ctx, float *out)
{
    int64_t n = *(const int64_t *)ctx;
    float *x = normal(n, 1), *y = normal(n, 2);
    double sum;

    memcpy(out, y, (size_t)n * sizeof *y);
    assert_int_equal(d->add(d, &(struct op_add){ n, x, out }), 0);
    assert_int_equal(d->sum_squares(d, &(struct op_sum_squares){ n, x, &sum }), 0);
    assert_int_equal(d->scale(d, &(struct op_scale){ n, -0.5f, out }), 0);
    out[n] = (float)sum;
    out[n + 1] = (float)(sum - (double)out[n]);
    free(x), free(y);
}

static void test_vec(void **state)
{
    static const int64_t sizes[] = { 1, 100, 300007 };
    (void)state;
    for (size_t s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        float *got = on_all_devices("add", run_vec, &n, n + 2);
        double *want = zeros(n + 1), exact = 0;
        for (int64_t i = 0; i < n; i++) {
            double x = (double)(float)normal_at(1, (uint64_t)i);
            want[i] = -0.5 * (x + (double)(float)normal_at(2, (uint64_t)i));
            exact += x * x;
        }
        assert_near("add", got, want, n, 1e-7);
        assert_true(fabs((double)got[n] + (double)got[n + 1] - exact) < 1e-12 * exact);
        free(got), free(want);
    }
}

/* Columns of rows, set or added to; those beside them stay. */
static void run_strip(struct device *d, const void *ctx, float *out)
{
    const int64_t *n = ctx; /* rows, cols, x_ld, y_ld, add */
    float *x = normal(n[0] * n[2] + 1, 1), *y = normal(n[0] * n[3] + 1, 2);

    memcpy(out, y, (size_t)(n[0] * n[3]) * sizeof *y);
    assert_int_equal(d->strip(d, &(struct op_strip){ n[0], n[1], n[2], n[3], n[4], x, out }), 0);
    free(x), free(y);
}

static void test_strip(void **state)
{
    static const int64_t sizes[][5] = { { 1, 1, 1, 1, 0 }, { 7, 5, 9, 6, 1 }, { 300, 64, 64, 192, 0 },
                                        { 1000, 33, 70, 33, 1 }, { 3, 0, 4, 4, 1 } };
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t *n = sizes[s];
        float *got = on_all_devices("strip", run_strip, n, n[0] * n[3]);
        double *want = zeros(n[0] * n[3] + 1);

        for (int64_t i = 0; i < n[0] * n[3]; i++) {
            int64_t r = i / n[3], c = i % n[3];
            double y = (double)(float)normal_at(2, (uint64_t)i);

            want[i] = c >= n[1] ? y : (double)(float)normal_at(1, (uint64_t)(r * n[2] + c)) +
                                          (n[4] ? y : 0);
        }
        assert_near("strip", got, want, n[0] * n[3], 1e-7);
        free(got), free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),           cmocka_unit_test(test_gemm_refuses),
        cmocka_unit_test(test_gemm_empty_sum), cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rmsnorm_options), cmocka_unit_test(test_rmsnorm_added), cmocka_unit_test(test_rope),
        cmocka_unit_test(test_rope_part), cmocka_unit_test(test_rope_both),
        cmocka_unit_test(test_rope_again),
        cmocka_unit_test(test_swiglu),         cmocka_unit_test(test_swiglu_far_out),
        cmocka_unit_test(test_embed),          cmocka_unit_test(test_loss),
        cmocka_unit_test(test_adamw),          cmocka_unit_test(test_vec),
        cmocka_unit_test(test_strip),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
