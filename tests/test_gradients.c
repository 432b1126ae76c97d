/* tests/test_gradients.c - the float64 gradients that the ops are held to, by differences. */
#include "tests/optest.h"

/* Each forward is made a scalar by fixed random weights c on its outputs, so that dy = c. */
struct point {
    double *x[4], *c;
    int64_t n[4];
};

static struct point point_of(int64_t n0, int64_t n1, int64_t n2, int64_t n3, int64_t outputs)
{
    struct point p = { { NULL }, NULL, { n0, n1, n2, n3 } };

    for (int i = 0; i < 5; i++) {
        int64_t n = i < 4 ? p.n[i] : outputs;
        float *f = normal(n + 1, (uint64_t)i + 50);
        double *d = wide(f, n + 1);
        if (i < 4)
            p.x[i] = d;
        else
            p.c = d;
        free(f);
    }
    return p;
}

static void point_free(struct point *p)
{
    for (int i = 0; i < 4; i++)
        free(p->x[i]);
    free(p->c);
}

enum { ROWS = 6, DIM = 5, VOCAB = 9 };

static double norm_value(void *ctx)
{
    struct point *p = ctx;
    double y[ROWS * DIM], rstd[ROWS];

    ref_rmsnorm(ROWS, DIM, 1e-3, p->x[0], p->x[1], y, rstd);
    return ref_dot(y, p->c, ROWS * DIM);
}

static void test_rmsnorm_gradient(void **state)
{
    struct point p = point_of(ROWS * DIM, DIM, 0, 0, ROWS * DIM);
    double y[ROWS * DIM], rstd[ROWS], dx[ROWS * DIM] = { 0 }, dw[DIM] = { 0 };

    (void)state;
    ref_rmsnorm(ROWS, DIM, 1e-3, p.x[0], p.x[1], y, rstd);
    ref_rmsnorm_back(ROWS, DIM, p.x[0], p.c, p.x[1], rstd, dx, dw);
    assert_gradient("dx", norm_value, &p, p.x[0], dx, ROWS * DIM);
    assert_gradient("dw", norm_value, &p, p.x[1], dw, DIM);
    point_free(&p);
}

static double layernorm_value(void *ctx)
{
    struct point *p = ctx;
    double y[ROWS * DIM], rstd[ROWS], s = 0;

    ref_layernorm(ROWS, DIM, 1e-3, p->x[0], p->x[1], p->x[2], y, rstd);
    for (int i = 0; i < ROWS * DIM; i++)
        s += p->c[i] * y[i];
    return s;
}

static void test_layernorm_gradient(void **state)
{
    struct point p = point_of(ROWS * DIM, DIM, DIM, 0, ROWS * DIM);
    double y[ROWS * DIM], rstd[ROWS], dx[ROWS * DIM] = { 0 }, dw[DIM] = { 0 }, db[DIM] = { 0 };

    (void)state;
    ref_layernorm(ROWS, DIM, 1e-3, p.x[0], p.x[1], p.x[2], y, rstd);
    ref_layernorm_back(ROWS, DIM, p.x[0], p.c, p.x[1], rstd, dx, dw, db);
    assert_gradient("dx", layernorm_value, &p, p.x[0], dx, ROWS * DIM);
    assert_gradient("dw", layernorm_value, &p, p.x[1], dw, DIM);
    assert_gradient("db", layernorm_value, &p, p.x[2], db, DIM);
    point_free(&p);
}

static int gate_kind;
static double gate_value(void *ctx)
{
    struct point *p = ctx;
    double s = 0, unused;

    for (int i = 0; i < 20; i++)
        s += p->c[i] * ref_gate(gate_kind, p->x[0][i], &unused);
    return s;
}

static void test_gate_gradients(void **state)
{
    struct point p = point_of(20, 0, 0, 0, 20);
    double dg[20];

    (void)state;
    for (gate_kind = 0; gate_kind < 3; gate_kind++) {
        for (int i = 0; i < 20; i++) {
            ref_gate(gate_kind, p.x[0][i], dg + i);
            dg[i] *= p.c[i];
        }
        assert_gradient("gate", gate_value, &p, p.x[0], dg, 20);
    }
    point_free(&p);
}

static double swiglu_value(void *ctx)
{
    struct point *p = ctx;
    double s = 0;

    for (int i = 0; i < 20; i++)
        s += p->c[i] * ref_silu(p->x[0][i]) * p->x[1][i];
    return s;
}

static void test_swiglu_gradient(void **state)
{
    struct point p = point_of(20, 20, 0, 0, 20);
    double dg[20], du[20];

    (void)state;
    for (int i = 0; i < 20; i++)
        ref_swiglu_back(p.x[0][i], p.x[1][i], p.c[i], dg + i, du + i);
    assert_gradient("d_gate", swiglu_value, &p, p.x[0], dg, 20);
    assert_gradient("d_up", swiglu_value, &p, p.x[1], du, 20);
    point_free(&p);
}

static const int32_t targets[ROWS] = { 3, 0, -1, 8, 3, 1 };

static double loss_cap;
static double loss_value(void *ctx)
{
    struct point *p = ctx;
    double nll[ROWS];

    return ref_loss(ROWS, DIM, VOCAB, p->x[0], p->x[1], targets, nll, 0.7, loss_cap, NULL, NULL);
}

static void test_loss_gradient(void **state)
{
    struct point p = point_of(ROWS * DIM, VOCAB * DIM, 0, 0, 0);

    (void)state;
    for (loss_cap = 0; loss_cap < 3; loss_cap += 1.5) {
        double nll[ROWS], dh[ROWS * DIM] = { 0 }, dw[VOCAB * DIM] = { 0 };

        ref_loss(ROWS, DIM, VOCAB, p.x[0], p.x[1], targets, nll, 0.7, loss_cap, dh, dw);
        assert_gradient("dh", loss_value, &p, p.x[0], dh, ROWS * DIM);
        assert_gradient("dw", loss_value, &p, p.x[1], dw, VOCAB * DIM);
    }
    point_free(&p);
}

static const double freq[3] = { 1, 0.1, 0.01 };
enum { ROPE_N = ROWS * 14 };

static double rope_value(void *ctx)
{
    struct point *p = ctx;
    double x[ROPE_N];

    memcpy(x, p->x[0], sizeof x);
    ref_rope(ROWS, 14, 2, 6, 5, 4, false, 1.5, freq, x);
    return ref_dot(x, p->c, ROPE_N);
}

/* The backward of a rotation is the inverse one, at the same scale. */
static void test_rope_gradient(void **state)
{
    struct point p = point_of(ROPE_N, 0, 0, 0, ROPE_N);
    double dx[ROPE_N];

    (void)state;
    memcpy(dx, p.c, sizeof dx);
    ref_rope(ROWS, 14, 2, 6, 5, 4, true, 1.5, freq, dx);
    assert_gradient("rope", rope_value, &p, p.x[0], dx, ROPE_N);
    point_free(&p);
}

enum { T = 13, HEADS = 4, HEAD_DIM = 3, Q_LD = HEADS * HEAD_DIM };
struct attention_point {
    struct point p;
    int64_t kv_heads, kv_rows;
    double o[T * Q_LD], lse[HEADS * T];
    int64_t window;
    struct ref_list list[2];
    double cap;
};

static struct ref_attention ref_of(struct attention_point *a)
{
    return (struct ref_attention){ T, a->kv_rows, HEADS, a->kv_heads, HEAD_DIM, Q_LD,
                                   a->kv_heads * HEAD_DIM, a->window, 0.6, a->cap,
                                   { a->list[0], a->list[1] }, a->p.x[0], a->p.x[1], a->p.x[2],
                                   a->o, a->lse };
}

static double attention_value(void *ctx)
{
    struct attention_point *a = ctx;
    struct ref_attention r = ref_of(a);

    ref_attention(&r);
    return ref_dot(a->o, a->p.c, T * Q_LD);
}

static void test_attention_gradient(void **state)
{
    static const int64_t whole[] = { 0, T }, groups[] = { 0, 4, 8, 12, T };
    static const int64_t shifted[] = { 0, 2, 6, 10, T }, documents[] = { 0, 1, 2, 9, T };
    /* Queries and keys apart: keys before, keys that nobody sees, queries that see nothing. */
    static const int64_t keys[] = { 0, 3, 12, 20 }, cut[] = { 0, 2, 9, T }, at[] = { 1, 2, -2 };
    static const struct { int64_t kv_rows, window; struct ref_list list[2]; } lists[] = {
        { T, 0, { { 1, whole, NULL, NULL }, { 1, whole, NULL, NULL } } },
        { T, 0, { { 4, groups, NULL, NULL }, { 4, shifted, NULL, NULL } } },
        { T, 0, { { 4, documents, NULL, NULL }, { 4, groups, NULL, NULL } } },
        { T, 3, { { 1, whole, NULL, NULL }, { 4, shifted, NULL, NULL } } },
        { 20, 0, { { 3, cut, keys, at }, { 3, cut, keys, NULL } } },
        { 20, 2, { { 3, cut, keys, NULL }, { 3, cut, keys, at } } },
    };
    (void)state;
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
        for (int64_t kv = 1; kv <= 4; kv *= 2) {
            int64_t nq = T * Q_LD, nk = lists[l].kv_rows * kv * HEAD_DIM;
            struct attention_point a = { point_of(nq, nk, nk, 0, nq), kv, lists[l].kv_rows,
                                         { 0 }, { 0 }, lists[l].window,
                                         { lists[l].list[0], lists[l].list[1] },
                                         l % 2 ? 0.8 : 0 };
            double *dq = zeros(nq), *dk = zeros(nk), *dv = zeros(nk);
            struct ref_attention r = ref_of(&a);
            ref_attention(&r);
            ref_attention_back(&r, a.p.c, dq, dk, dv);
            assert_gradient("dq", attention_value, &a, a.p.x[0], dq, nq);
            assert_gradient("dk", attention_value, &a, a.p.x[1], dk, nk);
            assert_gradient("dv", attention_value, &a, a.p.x[2], dv, nk);
            free(dq), free(dk), free(dv);
            point_free(&a.p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_gradient), cmocka_unit_test(test_layernorm_gradient),
        cmocka_unit_test(test_gate_gradients), cmocka_unit_test(test_swiglu_gradient),
        cmocka_unit_test(test_loss_gradient),    cmocka_unit_test(test_rope_gradient),
        cmocka_unit_test(test_attention_gradient),
    };
    (void)open_devices, (void)close_devices, (void)assert_near, (void)on_all_devices;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
