/* tests/gpu/test_cuda_ops.c - each op of the CUDA device against the CPU's, odd shapes. */
#include "tests/gpu/gputest.h"

static const double tol = 6e-3; /* one rounding to bfloat16 is 1.7e-3 of the norm */
static const int64_t shapes[][2] = { { 1, 1 },     { 1, 16 },    { 3, 5 },     { 7, 33 },
                                     { 70, 64 },   { 129, 250 }, { 1000, 48 }, { 301, 4096 },
                                     { 40, 768 },  { 33, 2048 }, { 37, 5120 }, { 5, 12296 },
                                     { 3, 12291 }, { 2, 16392 }, { 5003, 264 } };
#define N_SHAPES (sizeof shapes / sizeof *shapes)

static void one_gemm(struct device *d, int64_t m, int64_t n, int64_t k, int form, int pad)
{
    bool ta = form & 1, tb = form & 2;
    enum dtype t = form & 16 ? DT_F32 : DT_BF16;
    int64_t lda = (ta ? m : k) + pad, ldb = (tb ? k : n) + pad, ldc = n + pad;
    int64_t na = (ta ? k : m) * lda, nb = (tb ? n : k) * ldb, nc = m * ldc;
    float *a = normal(na, 1, 1), *b = normal(nb, 2, 1), *c = normal(nc, 3, 1), *got;
    struct op_gemm g = { ta, tb, m, n, k, form & 4 ? -0.5f : 1, form & 8 ? 0.25f : 0, a,
                         mat_plain(DT_F32, b), c, lda, ldb, ldc, DT_F32, NULL, form & 4, NULL }, h = g;
    bool apart = form & 32;

    h.a = up(d, a, na, DT_BF16), h.b = mat_plain(DT_BF16, up(d, b, nb, DT_BF16));
    h.c_type = t;
    if (g.beta == 0) /* what was there must not be read */
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                c[i * ldc + j] = NAN;
    h.c = up(d, c, nc, t);
    if (apart) { /* what is added stays as it is, the result goes elsewhere */
        h.addend = h.c, g.addend = c;
        g.c = copy_of(c, nc), h.c = up(d, c, nc, t);
    }
    RUN(cpu.gemm(&cpu, &g));
    RUN(d->gemm(d, &h));
    if (apart) {
        got = down(d, (void *)(uintptr_t)h.addend, nc, t);
        if (g.beta != 0)
            same_bits("addend", got, c, nc);
        free(got), free(c), c = g.c;
    }
    d->release(d, (void *)(uintptr_t)h.a), d->release(d, (void *)(uintptr_t)h.b.data);
    got = down(d, h.c, nc, t);
    near("gemm", got, c, nc, t == DT_F32 ? 1e-4 : tol);
    free(a), free(b), free(c), free(got);
}

static void test_gemm(void **state)
{
    static const int64_t v[][3] = { { 1, 1, 1 },     { 5, 3, 7 },       { 17, 31, 64 },
                                    { 300, 8, 40 },  { 8, 300, 513 },   { 130, 70, 1 },
                                    { 96, 1, 1000 }, /* a bias and its gradient */
                                    { 257, 96, 1000 }, { 64, 48, 3000 }, { 1000, 8, 512 },
                                    { 2048, 1024, 640 } };
    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i += small() ? 4 : 1)
        for (int form = 0; form < 64; form += small() ? 5 : 1)
            one_gemm(&gpu[form & 4 ? DET : DEFAULT], v[i][0], v[i][1], v[i][2], form,
                     form & 8 ? 3 : (form & 2) * 4);
}

static void test_gemm_edges(void **state)
{
    struct device *d = &gpu[0];
    float x[4] = { 1, 2, 3, 4 }, *got;
    struct op_gemm g = { false, false, 2, 2, 0, 1, 0.5f, NULL, { 0 }, NULL, 2, 2, 2, DT_F32, NULL,
                         false, NULL };

    NEED_GPU();
    g.a = up(d, x, 4, DT_BF16), g.b = mat_plain(DT_BF16, g.a);
    g.c = up(d, x, 4, DT_F32);
    RUN(d->gemm(d, &g)); /* an empty sum */
    got = down(d, g.c, 4, DT_F32);
    assert_true(got[0] == 0.5f && got[3] == 2);
    g.ldc = 1;
    assert_int_equal(d->gemm(d, &g), E_BUG);
    g.ldc = 2, g.c_type = DT_F16;
    assert_int_equal(d->gemm(d, &g), E_BUG);
    g.m = 0, g.c_type = DT_F32;
    RUN(d->gemm(d, &g));
    d->release(d, (void *)(uintptr_t)g.a);
    free(got);
}

static void one_rmsnorm(struct device *d, int64_t rows, int64_t dim)
{
    int64_t n = rows * dim;
    float *x = normal(n, 1, 1), *w = normal(dim, 2, 1), *dy = normal(n, 3, 1), *dx = normal(n, 4, 1);
    float *dw = normal(dim, 5, 1), *y = normal(n, 6, 1), *rstd = normal(rows, 7, 1), *got;
    float *other = normal(n, 8, 1), *dsum;
    void *sum;
    struct op_rmsnorm f = { rows, dim, 1e-5f, x, w, y, rstd, NULL, 0 }, g = f;
    struct op_rmsnorm_back b = { rows, dim, x, dy, w, rstd, dx, dw, false, 0 }, h = b;

    g.x = h.x = up(d, x, n, DT_BF16), g.w = h.w = up(d, w, dim, DT_F32);
    g.y = up(d, NULL, n, DT_BF16), g.rstd = up(d, NULL, rows, DT_F32), h.rstd = g.rstd;
    h.dy = up(d, dy, n, DT_BF16), h.dx = up(d, dx, n, DT_BF16), h.dw = up(d, dw, dim, DT_F32);
    sum = h.dx, dsum = h.dw;
    RUN(cpu.rmsnorm(&cpu, &f));
    RUN(cpu.rmsnorm_back(&cpu, &b));
    RUN(d->rmsnorm(d, &g));
    RUN(d->rmsnorm_back(d, &h));
    b.overwrite = h.overwrite = true, b.dw = h.dw = NULL;
    b.dx = other, h.dx = up(d, NULL, n, DT_BF16);
    RUN(cpu.rmsnorm_back(&cpu, &b));
    RUN(d->rmsnorm_back(d, &h));
    got = down(d, h.dx, n, DT_BF16), near("dx alone", got, other, n, tol), free(got);
    h.dx = sum, h.dw = dsum;
    got = down(d, h.dx, n, DT_BF16), near("dx", got, dx, n, tol), free(got);
    got = down(d, g.y, n, DT_BF16), near("y", got, y, n, tol), free(got);
    got = down(d, g.rstd, rows, DT_F32), near("rstd", got, rstd, rows, 1e-5), free(got);
    got = down(d, h.dw, dim, DT_F32), near("dw", got, dw, dim, 1e-4), free(got);
    d->release(d, (void *)(uintptr_t)h.x), d->release(d, (void *)(uintptr_t)h.w);
    d->release(d, (void *)(uintptr_t)h.dy);
    free(x), free(w), free(dy), free(dx), free(dw), free(y), free(rstd);
    free(other);
}

static void test_rmsnorm(void **state)
{
    static const int64_t heads[][2] = { { 4099, 128 }, { 65, 64 }, { 33, 256 }, { 1, 16 }, { 7, 40 }, { 301, 240 }, { 5, 8 } };

    NEED_GPU();
    for (size_t s = 0; s < sizeof heads / sizeof *heads; s++)
        one_rmsnorm(&gpu[0], heads[s][0], heads[s][1]);
    for (size_t s = 0; s < N_SHAPES; s++)
        if (!small() || shapes[s][0] < 300)
            one_rmsnorm(&gpu[0], shapes[s][0], shapes[s][1]);
}

static void test_rope(void **state)
{
    static const int64_t v[][6] = { /* rows, heads, dim, extra, first, period */
        { 1, 1, 2, 0, 0, 1 },         { 200, 3, 10, 5, 0, 67 },    { 130, 2, 64, 0, 100000, 130 },
        { 5, 1, 16, 1, 1000000, 1000 }, { 300, 32, 128, 0, 7, 300 }, { 9, 3, 6, 1, 0, 9 },
        { 33, 12, 64, 0, 0, 11 },     { 3, 2, 1024, 8, 5, 3 },   { 600, 5, 80, 0, 0, 600 } };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (size_t s = 0; s < sizeof v / sizeof *v; s++)
        for (int inverse = 0; inverse < 2; inverse++) {
            int64_t ld = v[s][1] * v[s][2] + v[s][3], n = v[s][0] * ld;
            float *x = normal(n, s, 1), inv_freq[512], *got;
            struct op_rope a = { v[s][0], ld, v[s][1], v[s][2], v[s][4], v[s][5], inverse, 1.25f,
                                 inv_freq, x, 0, 0, NULL, 0, NULL }, b;
            float *x2 = normal(v[s][0] * v[s][2] * 2, s + 9, 1);

            for (int64_t i = 0; i < v[s][2] / 2; i++)
                inv_freq[i] = (float)pow(10000, -2.0 * (double)i / (double)v[s][2]);
            if (s % 3 == 2 && v[s][2] % 4 == 0) /* half of each head */
                a.stride = a.dim, a.dim /= 2;
            b = a;
            b.x = up(d, x, n, DT_BF16);
            if (s % 2) { /* another array beside it, of two heads */
                a.x2 = x2, a.heads2 = b.heads2 = 2, a.ld2 = b.ld2 = 2 * v[s][2];
                b.x2 = up(d, x2, v[s][0] * a.ld2, DT_BF16);
            }
            RUN(cpu.rope(&cpu, &a));
            RUN(d->rope(d, &b));
            inv_freq[0] = 99; /* was read before the call returned */
            got = down(d, b.x, n, DT_BF16);
            near("rope", got, x, n, tol);
            free(x), free(got);
            if (b.x2) {
                got = down(d, b.x2, v[s][0] * a.ld2, DT_BF16);
                near("rope, second", got, x2, v[s][0] * a.ld2, tol), free(got);
            }
            free(x2);
        }
}

static void test_swiglu(void **state)
{
    static const int64_t sizes[] = { 1, 17, 100003, 4096 };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (size_t s = 0; s < 4; s++) {
        int64_t n = sizes[s];
        float *gate = normal(n, 1, 3), *up_ = normal(n, 2, 1), *dy = normal(n, 3, 1), *got;
        float *y = normal(n, 4, 1), *dg = normal(n, 5, 1), *du = normal(n, 6, 1);
        struct op_swiglu f = { n, gate, up_, y, GATE_SILU }, g = f;
        struct op_swiglu_back b = { n, gate, up_, dy, dg, du, NULL, GATE_SILU }, h;

        if (n > 20)
            gate[3] = 200, gate[5] = -200;
        g.gate = up(d, gate, n, DT_BF16), g.up = up(d, up_, n, DT_BF16);
        g.y = up(d, NULL, n, DT_BF16);
        h = (struct op_swiglu_back){ n, g.gate, g.up, up(d, dy, n, DT_BF16), NULL, NULL,
                                     up(d, NULL, n, DT_BF16), GATE_SILU };
        h.d_gate = (void *)(uintptr_t)g.gate, h.d_up = (void *)(uintptr_t)h.dy; /* in place */
        RUN(cpu.swiglu(&cpu, &f));
        RUN(cpu.swiglu_back(&cpu, &b));
        RUN(d->swiglu(d, &g));
        RUN(d->swiglu_back(d, &h));
        got = down(d, g.y, n, DT_BF16), near("swiglu", got, y, n, tol), free(got);
        got = down(d, h.y, n, DT_BF16), near("swiglu again", got, y, n, tol), free(got);
        got = down(d, h.d_gate, n, DT_BF16), near("d_gate", got, dg, n, tol), free(got);
        got = down(d, h.d_up, n, DT_BF16), near("d_up", got, du, n, tol), free(got);
        d->release(d, (void *)(uintptr_t)g.up);
        free(gate), free(up_), free(dy), free(y), free(dg), free(du);
    }
}

static void one_embed(struct device *d, int64_t rows, int64_t dim, int64_t vocab, int skew)
{
    int64_t n = rows * dim, m = vocab * dim;
    float *table = normal(m, 1, 1), *dy = normal(n, 2, 1), *dt = normal(m, 3, 1), *got, *again;
    float *y = normal(n, 4, 1), *start = copy_of(dt, m);
    int32_t *ids = malloc((size_t)rows * sizeof *ids);

    for (int64_t r = 0; r < rows; r++)
        ids[r] = skew && r % 3 ? 1 : (int32_t)(mix64((uint64_t)r) % (uint64_t)vocab);
    struct op_embed f = { rows, dim, vocab, mat_plain(DT_F32, table), ids, y }, g = f;
    struct op_embed_back b = { rows, dim, vocab, ids, dy, dt }, h = b;
    g.table = mat_plain(DT_BF16, up(d, table, m, DT_BF16)), g.ids = h.ids = up_ids(d, ids, rows);
    g.y = up(d, NULL, n, DT_BF16);
    h.dy = up(d, dy, n, DT_BF16), h.d_table = up(d, dt, m, DT_F32);
    RUN(cpu.embed(&cpu, &f));
    RUN(cpu.embed_back(&cpu, &b));
    RUN(d->embed(d, &g));
    RUN(d->embed_back(d, &h));
    got = down(d, g.y, n, DT_BF16), same_bits("embed", got, y, n), free(got);
    got = down(d, h.d_table, m, DT_F32), near("d_table", got, dt, m, 1e-6);
    h.d_table = up(d, start, m, DT_F32);
    RUN(d->embed_back(d, &h));
    again = down(d, h.d_table, m, DT_F32), same_bits("d_table again", got, again, m);
    d->release(d, (void *)(uintptr_t)g.table.data), d->release(d, (void *)(uintptr_t)g.ids);
    d->release(d, (void *)(uintptr_t)h.dy);
    free(table), free(dy), free(dt), free(y), free(ids), free(got), free(again), free(start);
}

static void test_embed(void **state)
{
    NEED_GPU();
    for (size_t s = 0; s < N_SHAPES; s++)
        if (!small() || shapes[s][0] < 300)
            one_embed(&gpu[0], shapes[s][0], shapes[s][1], 11, 0);
    one_embed(&gpu[0], small() ? 500 : 5000, 264, 3001, 1); /* a run of one id that is not ranked */
}

static void one_loss(struct device *d, int64_t rows, int64_t dim, int64_t vocab, int64_t chunk, float cap)
{
    int64_t n = rows * dim, m = vocab * dim;
    float *h = normal(n, 1, 1), *w = normal(m, 2, 0.3), *dw = normal(m, 3, 1), *got;
    float *nll = normal(rows, 4, 1), *dh = normal(n, 5, 1), *zero = calloc((size_t)m, 4);
    float *scratch = malloc(cpu.loss_scratch_bytes(&cpu, chunk, vocab));
    int32_t *targets = malloc((size_t)rows * sizeof *targets);

    for (int64_t r = 0; r < rows; r++)
        targets[r] = r % 7 == 3 || (r >= chunk && r < 2 * chunk && rows > 90)
                         ? -1 : (int32_t)(mix64((uint64_t)r) % (uint64_t)vocab);
    memcpy(dw, zero, (size_t)m * 4);
    struct op_loss a = { rows, dim, vocab, chunk, h, mat_plain(DT_F32, w), targets, nll, 0.37f, cap, dh, dw,
                         scratch, false }, b = a;
    b.h = up(d, h, n, DT_BF16), b.w = mat_plain(DT_BF16, up(d, w, m, DT_BF16)), b.targets = up_ids(d, targets, rows);
    b.nll = up(d, NULL, rows, DT_F32), b.dh = up(d, NULL, n, DT_BF16), b.dw = up(d, zero, m, DT_F32);
    b.scratch = up(d, NULL, (int64_t)d->loss_scratch_bytes(d, chunk, vocab) / 4 + 1, DT_F32);
    RUN(cpu.loss(&cpu, &a));
    RUN(d->loss(d, &b));
    got = down(d, b.dh, n, DT_BF16), near("dh", got, dh, n, 2 * tol), free(got);
    got = down(d, b.dw, m, DT_F32), near("dw", got, dw, m, tol), free(got);
    b.dh = NULL, b.dw = NULL;
    RUN(d->loss(d, &b)); /* forward only */
    got = down(d, b.nll, rows, DT_F32), near("nll", got, nll, rows, 1e-4);
    for (int64_t r = 0; r < rows; r++)
        assert_true(targets[r] >= 0 || got[r] == 0);
    d->release(d, (void *)(uintptr_t)b.h), d->release(d, (void *)(uintptr_t)b.w.data);
    d->release(d, (void *)(uintptr_t)b.targets), d->release(d, b.scratch);
    free(h), free(w), free(dw), free(got), free(nll), free(dh), free(zero), free(scratch);
    free(targets);
}

/* By its name: it goes through the library's products, as the two above. */
static void test_gemm_loss(void **state)
{
    NEED_GPU();
    one_loss(&gpu[0], 1, 1, 2, 1, 0);
    one_loss(&gpu[0], 9, 5, 7, 4, 0);
    one_loss(&gpu[0], 100, 16, 301, 33, 0);
    one_loss(&gpu[0], 64, 32, 5000, 64, 0);
    one_loss(&gpu[0], 20, 16, 33000, 9, 0); /* too many for a row in registers */
    one_loss(&gpu[0], 40, 64, 32001, 16, 0); /* rows that would not begin at 16 bytes */
    one_loss(&gpu[0], 40, 64, 4004, 16, 0);
    one_loss(&gpu[0], 40, 64, 4004, 16, 1.5f);
    one_loss(&gpu[0], 20, 16, 33001, 9, 3);
    if (!small())
        one_loss(&gpu[0], 200, 128, 32000, 96, 0);
}

static void test_adamw(void **state)
{
    static const int64_t sizes[] = { 1, 31, 1000001 };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (size_t s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        float *w = normal(n, 1, 1), *g = normal(n, 2, 1), *m = normal(n, 3, 1), *v = normal(n, 4, 1);
        float *got;
        struct op_adamw a = { n, 3, 0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, w, m, v, g }, b = a;

        for (int64_t i = 0; i < n; i++)
            v[i] *= v[i];
        b.w = up(d, w, n, DT_F32), b.m = up(d, m, n, DT_F32), b.v = up(d, v, n, DT_F32);
        b.grad = up(d, g, n, DT_F32);
        RUN(cpu.adamw(&cpu, &a));
        RUN(d->adamw(d, &b));
        d->release(d, (void *)(uintptr_t)b.grad);
        got = down(d, b.w, n, DT_F32), near("w", got, w, n, 1e-6), free(got);
        got = down(d, b.m, n, DT_F32), near("m", got, m, n, 1e-6), free(got);
        got = down(d, b.v, n, DT_F32), near("v", got, v, n, 1e-6), free(got);
        free(w), free(g), free(m), free(v);
    }
}

static void test_vec(void **state)
{
    static const int64_t sizes[] = { 1, 100, 300007 };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (size_t s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        float *x = normal(n, 1, 1), *y = normal(n, 2, 1), *got;
        void *px = up(d, x, n, DT_BF16), *py = up(d, y, n, DT_BF16), *pf = up(d, x, n, DT_F32);
        double sum, want;

        RUN(cpu.add(&cpu, &(struct op_add){ n, x, y }));
        RUN(d->add(d, &(struct op_add){ n, px, py }));
        RUN(cpu.sum_squares(&cpu, &(struct op_sum_squares){ n, x, &want }));
        RUN(d->sum_squares(d, &(struct op_sum_squares){ n, pf, &sum }));
        assert_true(fabs(sum - want) <= 1e-12 * want);
        got = down(d, py, n, DT_BF16), near("add", got, y, n, tol), free(got);
        RUN(cpu.scale(&cpu, &(struct op_scale){ n, 1.75f, x }));
        RUN(d->scale(d, &(struct op_scale){ n, 1.75f, px }));
        got = down(d, px, n, DT_BF16), near("scale", got, x, n, tol), free(got);
        free(x), x = normal(n, 1, 1);
        RUN(cpu.softcap(&cpu, &(struct op_softcap){ n, 0.75f, x }));
        RUN(d->softcap(d, &(struct op_softcap){ n, 0.75f, pf }));
        got = down(d, pf, n, DT_F32), near("softcap", got, x, n, 1e-5), free(got);
        free(x), free(y);
    }
}

/* Columns of rows, in sixteens of bytes and otherwise, set and added to. */
static void test_strip(void **state)
{
    static const int64_t v[][5] = { { 300, 64, 64, 192, 0 }, { 100, 33, 70, 35, 1 },
                                    { 513, 128, 256, 128, 1 }, { 1, 8, 16, 9, 0 } };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        int64_t rows = v[i][0], nx = rows * v[i][2], ny = rows * v[i][3];
        float *x = normal(nx, 1, 1), *y = normal(ny, 2, 1), *got;
        void *px = up(d, x, nx, DT_BF16), *py = up(d, y, ny, DT_BF16);

        RUN(cpu.strip(&cpu, &(struct op_strip){ rows, v[i][1], v[i][2], v[i][3], v[i][4], x, y }));
        RUN(d->strip(d, &(struct op_strip){ rows, v[i][1], v[i][2], v[i][3], v[i][4], px, py }));
        got = down(d, py, ny, DT_BF16), near("strip", got, y, ny, tol), free(got);
        d->release(d, px);
        free(x), free(y);
    }
}

/* Every 16-bit value there and back. */
static void test_cast(void **state)
{
    static uint16_t all[65536], back[65536];
    static float f[65536], want[65536];
    struct device *d = &gpu[0];
    void *p, *q, *r;
    struct err e = { 0 };

    NEED_GPU();
    for (int i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    RUN(d->alloc(d, sizeof all, &p, &e));
    RUN(d->alloc(d, sizeof f, &q, &e));
    RUN(d->alloc(d, sizeof all, &r, &e));
    RUN(d->to_device(d, p, all, sizeof all));
    for (int t = DT_F16; t <= DT_BF16; t++) {
        RUN(d->cast(d, &(struct op_cast){ 65536, p, (enum dtype)t, q, DT_F32 }));
        RUN(d->cast(d, &(struct op_cast){ 65536, q, DT_F32, r, (enum dtype)t }));
        RUN(d->to_host(d, f, q, sizeof f));
        RUN(d->to_host(d, back, r, sizeof back));
        RUN(cpu.cast(&cpu, &(struct op_cast){ 65536, all, (enum dtype)t, want, DT_F32 }));
        for (int i = 0; i < 65536; i++) {
            assert_true(isnan(want[i]) ? isnan(f[i]) : f[i] == want[i]);
            assert_true(isnan(want[i]) || back[i] == all[i]);
        }
    }
    d->release(d, p), d->release(d, q), d->release(d, r);
}

/* Past 2^31 elements: what was written behind it is what was meant. */
static void test_past_2_31(void **state)
{
    enum { TAIL = 1000 };
    int64_t n = ((int64_t)1 << 31) + 12345, at = n - TAIL;
    struct device *d = &gpu[0];
    float *g = NULL, *u = NULL, *y, *got;
    void *p[3];
    struct err e = { 0 };

    NEED_GPU();
    if (small() || d->free_bytes(d) < (size_t)16 << 30)
        skip();
    for (int i = 0; i < 3; i++)
        RUN(d->alloc(d, (size_t)n * 2, &p[i], &e));
    g = normal(TAIL, 1, 1), u = normal(TAIL, 2, 1), y = normal(TAIL, 3, 1);
    for (int64_t where = 0; where <= at; where += at) { /* both ends */
        void *a = up(d, g, TAIL, DT_BF16), *b = up(d, u, TAIL, DT_BF16);
        RUN(d->copy(d, (char *)p[0] + 2 * where, a, TAIL * 2));
        RUN(d->copy(d, (char *)p[1] + 2 * where, b, TAIL * 2));
        d->release(d, a), d->release(d, b);
    }
    RUN(d->swiglu(d, &(struct op_swiglu){ n, p[0], p[1], p[2], GATE_SILU }));
    RUN(d->add(d, &(struct op_add){ n, p[0], p[2] }));
    RUN(cpu.swiglu(&cpu, &(struct op_swiglu){ TAIL, g, u, y, GATE_SILU }));
    RUN(cpu.add(&cpu, &(struct op_add){ TAIL, g, y }));
    for (int64_t where = 0; where <= at; where += at) {
        void *a = up(d, NULL, TAIL, DT_BF16);
        RUN(d->copy(d, a, (char *)p[2] + 2 * where, TAIL * 2));
        got = down(d, a, TAIL, DT_BF16), near("past 2^31", got, y, TAIL, 2 * tol), free(got);
    }
    for (int i = 0; i < 3; i++)
        d->release(d, p[i]);
    free(g), free(u), free(y);
}

/* Any number of elements from any number on, aligned or not, in place or not: what is left out is the
 * same as on the CPU. */
static void test_dropout(void **state)
{
    static const struct { int64_t n, first; int at; } cases[] = {
        { 1, 0, 0 }, { 8, 0, 0 }, { 100, 3, 0 }, { 300007, 16, 0 }, { 4096, 8, 1 }, { 1000, (int64_t)1 << 40, 0 },
    };
    struct device *d = &gpu[0];

    (void)state;
    NEED_GPU();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t drop = 1; drop < 65536; drop += 21845) {
            int64_t n = cases[i].n, all = n + cases[i].at;
            float *x = normal(all, 1, 1), *y = normal(all, 2, 1), *got;
            uint16_t *px = up(d, x, all, DT_BF16), *py = up(d, y, all, DT_BF16);
            struct op_dropout a = { n, cases[i].first, 99, drop, x + cases[i].at, y + cases[i].at },
                              b = { n, cases[i].first, 99, drop, px + cases[i].at, py + cases[i].at };
            RUN(cpu.dropout(&cpu, &a));
            RUN(d->dropout(d, &b));
            got = down(d, py, all, DT_BF16);
            for (int64_t k = cases[i].at; k < all; k++)
                assert_int_equal(got[k] != 0, y[k] != 0);
            near("dropout", got, y, all, tol), free(got);
            b.y = px + cases[i].at;
            RUN(d->dropout(d, &b));
            got = down(d, px, all, DT_BF16);
            near("dropout in place", got + cases[i].at, y + cases[i].at, n, tol), free(got);
            free(x), free(y);
        }
}

/* An index past the GPUs there are is an error, not the CPU. */
static void test_index(void **state)
{
    struct err e = { 0 };
    struct device d;

    NEED_GPU();
    for (int i = 0; i < 2; i++)
        assert_int_equal(device_open(&d, &(struct device_options){ .name = i ? "auto" : GPU_NAME,
                                                                   .index = 999 }, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "no GPU 999"));
}

int main(void)
{
    const char *skip = getenv("LONGLORA_GPU_SKIP");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_gemm),   cmocka_unit_test(test_gemm_edges),
        cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_rope),
        cmocka_unit_test(test_swiglu), cmocka_unit_test(test_embed),
        cmocka_unit_test(test_gemm_loss), cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_vec), cmocka_unit_test(test_strip), cmocka_unit_test(test_cast),
        cmocka_unit_test(test_dropout), cmocka_unit_test(test_past_2_31),
    };

    if (skip && *skip) /* a pattern of names */
        cmocka_set_skip_filter(skip);
    return cmocka_run_group_tests(tests, open_all, close_all);
}
