/* tests/test_ops_more.c - ops that some families need: LayerNorm, other gates, copies of heads. */
#include "tests/optest.h"

static const int64_t shapes[][2] = { { 1, 1 }, { 1, 16 }, { 3, 5 }, { 7, 33 }, { 70, 64 },
                                     { 129, 250 }, { 1000, 48 } };
#define N_SHAPES (sizeof shapes / sizeof *shapes)

struct norm_case {
    int64_t rows, dim;
    const float *x, *w, *b, *dy, *dx, *dw, *db;
};
static const float eps = 1e-5f;

/* out: y, rstd, dx, dw, db */
static void run_layernorm(struct device *d, const void *ctx, float *out)
{
    const struct norm_case *c = ctx;
    int64_t n = c->rows * c->dim;
    float *rstd = out + n, *dx = rstd + c->rows, *dw = dx + n, *db = dw + c->dim;
    struct op_layernorm f = { c->rows, c->dim, eps, c->x, c->w, c->b, out, rstd };
    struct op_layernorm_back b = { c->rows, c->dim, c->x, c->dy, c->w, rstd, dx, dw, db, false };

    memcpy(dx, c->dx, (size_t)n * sizeof *dx);
    memcpy(dw, c->dw, (size_t)c->dim * sizeof *dw);
    memcpy(db, c->db, (size_t)c->dim * sizeof *db);
    assert_int_equal(d->layernorm(d, &f), 0);
    assert_int_equal(d->layernorm_back(d, &b), 0);
}

static void test_layernorm(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++) {
        int64_t rows = shapes[s][0], dim = shapes[s][1], n = rows * dim;
        float *x = normal(n, 1), *w = normal(dim, 2), *b = normal(dim, 6), *dy = normal(n, 3);
        float *dx = normal(n, 4), *dw = normal(dim, 5), *db = normal(dim, 7), *got;
        struct norm_case c = { rows, dim, x, w, b, dy, dx, dw, db };
        double *rx = wide(x, n), *rw = wide(w, dim), *rb = wide(b, dim), *rdy = wide(dy, n);
        double *rdx = wide(dx, n), *rdw = wide(dw, dim), *rdb = wide(db, dim), *ry = zeros(n);
        double *rstd = zeros(rows);

        for (int64_t i = 0; i < n; i++)
            x[i] += 2, rx[i] = (double)x[i]; /* a mean that matters */
        got = on_all_devices("layernorm", run_layernorm, &c, 2 * n + rows + 2 * dim);
        ref_layernorm(rows, dim, (double)eps, rx, rw, rb, ry, rstd);
        ref_layernorm_back(rows, dim, rx, rdy, rw, rstd, rdx, rdw, rdb);
        assert_near("y", got, ry, n, 5e-6);
        assert_near("rstd", got + n, rstd, rows, 5e-6);
        assert_near("dx", got + n + rows, rdx, n, 1e-5);
        assert_near("dw", got + 2 * n + rows, rdw, dim, 1e-5);
        assert_near("db", got + 2 * n + rows + dim, rdb, dim, 1e-5);
        free(x), free(w), free(b), free(dy), free(dx), free(dw), free(db), free(got);
        free(rx), free(rw), free(rb), free(rdy), free(rdx), free(rdw), free(rdb), free(ry), free(rstd);
    }
}

/* y may be x, dx may be dy; b, rstd, dw and db may be NULL; what dx held may not count. */
static void test_layernorm_options(void **state)
{
    int64_t rows = 70, dim = 33, n = rows * dim;
    float *x = normal(n, 1), *w = normal(dim, 2), *b = calloc((size_t)dim, sizeof *b), *y = copy_of(x, n), *z = copy_of(x, n);
    float *rstd = normal(rows, 3), *dy = normal(n, 4), *dx = copy_of(dy, n), *dw = normal(dim, 5);
    float *was = copy_of(dw, dim), *db = normal(dim, 6), *none = copy_of(db, dim);
    struct op_layernorm f = { rows, dim, eps, x, w, b, z, rstd };
    struct op_layernorm_back g = { rows, dim, x, dy, w, rstd, NULL, dw, db, true };

    (void)state;
    assert_int_equal(dev[1].layernorm(&dev[1], &f), 0);
    f.x = f.y = y, f.b = NULL, f.rstd = NULL;
    assert_int_equal(dev[1].layernorm(&dev[1], &f), 0);
    assert_same_bits("in place, without b", y, z, n);
    g.dx = z;
    assert_int_equal(dev[1].layernorm_back(&dev[1], &g), 0);
    g.dy = g.dx = dx, g.dw = NULL, g.db = none;
    assert_int_equal(dev[1].layernorm_back(&dev[1], &g), 0);
    assert_same_bits("in place", dx, z, n);
    assert_same_bits("db alone", none, db, dim);
    g.dy = dy, g.dx = z, g.dw = was, g.db = NULL;
    assert_int_equal(dev[1].layernorm_back(&dev[1], &g), 0);
    assert_same_bits("dw alone", was, dw, dim);
    free(x), free(w), free(b), free(y), free(z), free(rstd), free(dy), free(dx), free(dw), free(was);
    free(db), free(none);
}

struct gate_case {
    int64_t n;
    const float *gate, *up, *dy;
    enum gate f;
};

/* out: y, d_gate, d_up, y again */
static void run_gate(struct device *d, const void *ctx, float *out)
{
    const struct gate_case *c = ctx;
    struct op_swiglu f = { c->n, c->gate, c->up, out, c->f };
    struct op_swiglu_back b = { c->n, c->gate, c->up, c->dy, out + c->n, out + 2 * c->n, out + 3 * c->n,
                                c->f };

    memset(out + 2 * c->n, 0, (size_t)c->n * sizeof *out);
    assert_int_equal(d->swiglu(d, &f), 0);
    assert_int_equal(d->swiglu_back(d, &b), 0);
}

/* Every f, gated and not. */
static void test_gates(void **state)
{
    static const int64_t sizes[] = { 1, 17, 50000 };

    (void)state;
    for (int k = 0; k < 18; k++) {
        int64_t n = sizes[k / 6];
        bool gated = k % 2;
        float *gate = normal(n, 1), *up = normal(n, 2), *dy = normal(n, 3), *got;
        struct gate_case c = { n, gate, gated ? up : NULL, dy, (enum gate)(k / 2 % 3) };
        double *want = zeros(4 * n);

        for (int64_t i = 0; i < n; i++)
            gate[i] *= i % 5 == 0 ? 40 : 3;
        got = on_all_devices("gate", run_gate, &c, 4 * n);
        for (int64_t i = 0; i < n; i++) {
            double slope, v = ref_gate((int)c.f, (double)gate[i], &slope), u = gated ? (double)up[i] : 1;
            want[i] = want[3 * n + i] = v * u;
            want[n + i] = (double)dy[i] * u * slope;
            want[2 * n + i] = gated ? (double)dy[i] * v : 0;
        }
        for (int j = 0; j < 4; j++)
            assert_near("gate", got + j * n, want + j * n, n, 2e-6);
        free(gate), free(up), free(dy), free(got), free(want);
    }
}

/* Heads of three arrays that lie in turns, taken apart and put together again. */
static void test_heads(void **state)
{
    enum { ROWS = 37, HEADS = 3, DIM = 5, ALL = 3 * HEADS * DIM };

    (void)state;
    for (int i = 0; i < DEVICES; i++) {
        float *x = normal(ROWS * ALL, 1), *y = normal(ROWS * HEADS * DIM, 2), *z = normal(ROWS * ALL, 3);

        for (int part = 0; part < 3; part++) {
            struct op_heads a = { ROWS, HEADS, DIM, x + part * DIM, ALL, 3 * DIM, y, HEADS * DIM, DIM };
            struct op_heads b = { ROWS, HEADS, DIM, y, HEADS * DIM, DIM, z + part * DIM, ALL, 3 * DIM };

            assert_int_equal(dev[i].heads(&dev[i], &a), 0);
            for (int r = 0; r < ROWS; r++)
                for (int k = 0; k < HEADS * DIM; k++)
                    assert_true(y[r * HEADS * DIM + k] == x[r * ALL + k / DIM * 3 * DIM + part * DIM + k % DIM]);
            assert_int_equal(dev[i].heads(&dev[i], &b), 0);
        }
        assert_same_bits("heads", z, x, ROWS * ALL);
        free(x), free(y), free(z);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layernorm), cmocka_unit_test(test_layernorm_options),
        cmocka_unit_test(test_gates), cmocka_unit_test(test_heads),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
