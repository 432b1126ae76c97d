/* tests/gpu/test_cuda_families.c - the ops that only some families have, and a model of each family, on
 * CUDA against the CPU. */
#include "tests/gpu/gputest.h"

#include "model/model.h"

#include "tests/families.h"

static const double tol = 6e-3; /* as in test_cuda_ops.c */
static const int64_t shapes[][2] = { { 1, 1 },     { 3, 5 },     { 7, 33 },   { 70, 64 },  { 129, 250 },
                                     { 301, 4096 }, { 33, 2048 }, { 5, 12296 }, { 3, 12291 }, { 2003, 264 } };
#define N_SHAPES (sizeof shapes / sizeof *shapes)

static void *from(const void *p) { return (void *)(uintptr_t)p; }

/* RMSNorm that adds and shifts, in the place of what it adds. */
static void one_rmsnorm(struct device *d, int64_t rows, int64_t dim)
{
    int64_t n = rows * dim;
    float *x = normal(n, 1, 1), *w = normal(dim, 2, 1), *y = normal(n, 3, 1), *dy = normal(n, 4, 1), *got;
    float *rstd = normal(rows, 5, 1), *dx = normal(n, 6, 1), *dw = normal(dim, 7, 1);
    struct op_rmsnorm f = { rows, dim, 1e-5f, x, w, y, rstd, y, 1 }, g = f;
    struct op_rmsnorm_back b = { rows, dim, x, dy, w, rstd, dx, dw, true, 1 }, h = b;

    g.x = h.x = up(d, x, n, DT_BF16), g.w = h.w = up(d, w, dim, DT_F32);
    g.y = up(d, y, n, DT_BF16), g.add = g.y, g.rstd = up(d, NULL, rows, DT_F32), h.rstd = g.rstd;
    h.dy = up(d, dy, n, DT_BF16), h.dx = up(d, NULL, n, DT_BF16), h.dw = up(d, dw, dim, DT_F32);
    RUN(cpu.rmsnorm(&cpu, &f));
    RUN(cpu.rmsnorm_back(&cpu, &b));
    RUN(d->rmsnorm(d, &g));
    RUN(d->rmsnorm_back(d, &h));
    got = down(d, g.y, n, DT_BF16), near("rmsnorm and more", got, y, n, tol), free(got);
    got = down(d, h.dx, n, DT_BF16), near("dx", got, dx, n, tol), free(got);
    got = down(d, h.dw, dim, DT_F32), near("dw", got, dw, dim, 1e-4), free(got);
    d->release(d, from(g.x)), d->release(d, from(g.w)), d->release(d, g.rstd), d->release(d, from(h.dy));
    free(x), free(w), free(y), free(dy), free(rstd), free(dx), free(dw);
}

static void test_rmsnorm(void **state)
{
    NEED_GPU();
    for (size_t s = 0; s < N_SHAPES; s++)
        if (!small() || shapes[s][0] < 300)
            one_rmsnorm(&gpu[0], shapes[s][0], shapes[s][1]);
}

static void one_layernorm(struct device *d, int64_t rows, int64_t dim, bool in_place)
{
    int64_t n = rows * dim;
    float *x = normal(n, 1, 1), *w = normal(dim, 2, 1), *bias = normal(dim, 8, 1), *y = normal(n, 3, 1);
    float *dy = normal(n, 4, 1), *rstd = normal(rows, 5, 1), *dx = normal(n, 6, 1), *dw = normal(dim, 7, 1);
    float *db = normal(dim, 9, 1), *got;
    struct op_layernorm f = { rows, dim, 1e-5f, x, w, bias, y, rstd }, g = f;
    struct op_layernorm_back b = { rows, dim, x, dy, w, rstd, dx, dw, db, in_place }, h = b;

    for (int64_t i = 0; i < n; i++) /* a mean that matters, in few bits */
        x[i] = (float)(int)(8 * x[i]) / 8 + 2;
    g.x = h.x = up(d, x, n, DT_BF16), g.w = h.w = up(d, w, dim, DT_F32), g.b = up(d, bias, dim, DT_F32);
    g.y = up(d, NULL, n, DT_BF16), g.rstd = up(d, NULL, rows, DT_F32), h.rstd = g.rstd;
    h.dy = up(d, dy, n, DT_BF16), h.dx = in_place ? from(h.dy) : up(d, dx, n, DT_BF16);
    h.dw = up(d, dw, dim, DT_F32), h.db = up(d, db, dim, DT_F32);
    RUN(cpu.layernorm(&cpu, &f));
    RUN(cpu.layernorm_back(&cpu, &b));
    RUN(d->layernorm(d, &g));
    RUN(d->layernorm_back(d, &h));
    got = down(d, g.y, n, DT_BF16), near("layernorm", got, y, n, tol), free(got);
    got = down(d, g.rstd, rows, DT_F32), near("rstd", got, rstd, rows, 1e-5), free(got);
    got = down(d, h.dw, dim, DT_F32), near("dw", got, dw, dim, 1e-4), free(got);
    got = down(d, h.db, dim, DT_F32), near("db", got, db, dim, 1e-4), free(got);
    if (!in_place)
        d->release(d, from(h.dy));
    got = down(d, h.dx, n, DT_BF16), near("dx", got, dx, n, tol), free(got);
    d->release(d, from(g.x)), d->release(d, from(g.w)), d->release(d, from(g.b));
    free(x), free(w), free(bias), free(y), free(dy), free(rstd), free(dx), free(dw), free(db);
}

static void test_layernorm(void **state)
{
    NEED_GPU();
    for (size_t s = 0; s < N_SHAPES; s++)
        if (shapes[s][1] > 1 && (!small() || shapes[s][0] < 300))
            one_layernorm(&gpu[s % 2 ? DET : DEFAULT], shapes[s][0], shapes[s][1], s % 2);
}

/* Every f, gated and not; sizes with and without a rest of eights. */
static void test_gates(void **state)
{
    static const int64_t sizes[] = { 1, 100003, 4096 };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (int k = 0; k < 18; k++) {
        int64_t n = sizes[k / 6];
        bool gated = k % 2;
        float *gate = normal(n, 1, 3), *by = normal(n, 2, 1), *dy = normal(n, 3, 1), *got;
        float *y = normal(n, 4, 1), *dg = normal(n, 5, 1), *du = normal(n, 6, 1);
        struct op_swiglu f = { n, gate, gated ? by : NULL, y, (enum gate)(k / 2 % 3) }, g = f;
        struct op_swiglu_back b = { n, gate, f.up, dy, dg, gated ? du : NULL, NULL, f.f }, h;

        if (n > 20)
            gate[3] = 200, gate[5] = -200;
        g.gate = up(d, gate, n, DT_BF16), g.up = gated ? up(d, by, n, DT_BF16) : NULL;
        g.y = up(d, NULL, n, DT_BF16);
        h = (struct op_swiglu_back){ n, g.gate, g.up, up(d, dy, n, DT_BF16), from(g.gate), NULL,
                                     up(d, NULL, n, DT_BF16), f.f };
        h.d_up = gated ? from(h.dy) : NULL; /* in place */
        RUN(cpu.swiglu(&cpu, &f));
        RUN(cpu.swiglu_back(&cpu, &b));
        RUN(d->swiglu(d, &g));
        RUN(d->swiglu_back(d, &h));
        got = down(d, g.y, n, DT_BF16), near("gate", got, y, n, tol), free(got);
        got = down(d, h.y, n, DT_BF16), near("gate again", got, y, n, tol), free(got);
        got = down(d, h.d_gate, n, DT_BF16), near("d_gate", got, dg, n, tol), free(got);
        got = down(d, from(h.dy), n, DT_BF16), near("d_up", got, gated ? du : dy, n, tol), free(got);
        if (gated)
            d->release(d, from(g.up));
        free(gate), free(by), free(dy), free(y), free(dg), free(du);
    }
}

static void test_heads(void **state)
{
    static const int64_t v[][3] = { { 37, 3, 5 }, { 130, 8, 64 }, { 1, 1, 1 }, { 300, 2, 24 } };
    struct device *d = &gpu[0];

    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        int64_t rows = v[i][0], heads = v[i][1], dim = v[i][2], all = 3 * heads * dim;
        float *x = normal(rows * all, 1, 1), *y = normal(rows * heads * dim, 2, 1), *got;
        char *px = up(d, x, rows * all, DT_BF16);
        struct op_heads a = { rows, heads, dim, x + dim, all, 3 * dim, y, heads * dim, dim }, b = a;

        b.x = px + 2 * dim, b.y = up(d, NULL, rows * heads * dim, DT_BF16);
        RUN(cpu.heads(&cpu, &a));
        RUN(d->heads(d, &b));
        got = down(d, b.y, rows * heads * dim, DT_BF16);
        same_bits("heads", got, y, rows * heads * dim);
        d->release(d, px);
        free(x), free(y), free(got);
    }
}

/* ---- models ---- */

enum { LEN = 300, SEQS = 2, ROWS = LEN * SEQS };

struct fixture {
    const char *name;
    struct model *m;
    struct segments seg;
    int32_t ids[ROWS], targets[ROWS];
    struct err e;
};
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s: %s", f->name, #x, f->e.msg); } while (0)

/* A family's configuration in sizes that GPUs are used for. */
static struct llama_config wide(struct fixture *f)
{
    struct llama_config c;
    char path[128];

    snprintf(path, sizeof path, FAMILIES_DATA "%s/config.json", f->name);
    OK(config_read(&c, path, &f->e));
    c.rotary_dim = c.rotary_dim ? 64 * c.rotary_dim / c.head_dim / 2 * 2 : 0;
    c.vocab = 1003, c.dim = 256, c.ffn_dim = 704, c.heads = 4, c.head_dim = 64;
    c.kv_heads = c.arch->block.by_head ? 4 : 2, c.context = 1024, c.init_range = 0.05;
    c.window = c.window ? 100 : 0;
    c.layers = 3;
    if (c.arch->block.one_more) /* Gemma */
        c.head_dim = 256, c.times.scores = c.times.scores > 0 ? 1.0 / 16 : 0;
    else if (c.times.scores > 0) /* Granite: not 1/8, and small enough that no key takes all */
        c.times.scores = 0.1;
    if (c.local_theta > 0)
        c.full.bits[0] = 2;
    if (c.rope.type == ROPE_LONGROPE) /* whose lists are for smaller heads */
        c.rope = (struct rope_config){ .type = ROPE_DEFAULT, .theta = 1e4, .factor = 1 };
    return c;
}

/* Norms and biases get values of some size. */
static void stir(struct fixture *f, struct device *d)
{
    const struct trained *t = model_trained(f->m);

    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        bool one = role_form(p->role) == FORM_NORM && p->part == 0 && !model_config(f->m)->arch->block.one_more;
        float mean = one ? 1 : 0, *v;

        if (role_form(p->role) == FORM_MATRIX && p->part == 0)
            continue;
        v = malloc((size_t)p->count * sizeof *v);
        for (int64_t k = 0; k < p->count; k++)
            v[k] = mean + 0.1f * (float)normal_at(9, (uint64_t)(100000 * i + k));
        OK(d->to_device(d, t->w + p->offset, v, (size_t)p->count * sizeof *v));
        free(v);
    }
    OK(model_sync_trained(f->m));
}

static void set_up(struct fixture *f, struct device *d, const char *name, enum train_mode mode, int64_t keep,
                   const struct placement *placed)
{
    struct model_options o;
    struct llama_config c;

    memset(f, 0, sizeof *f);
    f->name = name;
    c = wide(f);
    if (mode == TRAIN_LORA_PLUS)
        c.tied = false;
    model_defaults(&o);
    o.mode = mode, o.keep_layers = keep, o.placement = placed, o.ctx = LEN, o.seqs = SEQS, o.mlp_tile = 170;
    o.targets = arch_pairs(c.arch);
    OK(model_open(&f->m, d, &c, &o, &f->e));
    OK(model_init(f->m, 3, &f->e));
    stir(f, d);
    for (int i = 0; i < ROWS; i++)
        f->ids[i] = (int32_t)(mix64((uint64_t)i / 3) % (uint64_t)c.vocab);
    for (int i = 0; i < ROWS; i++)
        f->targets[i] = i % LEN == LEN - 1 ? -1 : f->ids[i + 1];
    OK(segments_build(&f->seg, keep % 2 ? ATTN_S2 : ATTN_DENSE, SEQS, LEN, keep % 2 ? 100 : 0, NULL, 0, &f->e));
}

static void tear_down(struct fixture *f)
{
    segments_free(&f->seg);
    model_close(f->m);
}

/* The mean loss; *grad: the flat gradient, the caller's to free. */
static double step(struct fixture *f, struct device *d, float **grad)
{
    const struct trained *t = model_trained(f->m);
    struct batch b = { .n_seqs = SEQS, .len = LEN, .ids = f->ids, .targets = f->targets,
                       .seg = &f->seg };
    double sum;
    int64_t n;

    OK(d->zero(d, t->grad, (size_t)t->n * 4));
    OK(model_step(f->m, &b, 1.0 / 100, &sum, &n, &f->e));
    *grad = malloc((size_t)t->n * 4);
    OK(d->to_host(d, *grad, t->grad, (size_t)t->n * 4));
    return sum / (double)n;
}

static double length(const float *x, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    return sqrt(s);
}

static double apart(const float *x, const float *y, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sqrt(s);
}

/* Every trained number moves by up to 2^-8 of itself, the width of bfloat16's steps. */
static void shake(struct fixture *f, struct device *d)
{
    const struct trained *t = model_trained(f->m);
    float *w = malloc((size_t)t->n * sizeof *w);

    OK(d->to_host(d, w, t->w, (size_t)t->n * sizeof *w));
    for (int64_t i = 0; i < t->n; i++)
        w[i] *= 1 + (float)((double)(mix64((uint64_t)i) >> 11) * 0x1p-52 - 1) * 0x1p-8f;
    OK(d->to_device(d, t->w, w, (size_t)t->n * sizeof *w));
    OK(model_sync_trained(f->m));
    free(w);
}

/*
 * How far a gradient in bfloat16 is off is a matter of the model: where it leaves 1 to 2% of the norm (3 to 4.5% of pairs,
 * whose products are rounded once more), shaking the CPU's model moves its gradient by as much, and Granite's pairs
 * by 8%. So the shaken CPU says what may be: of all within 1.5 times, of each tensor within 2.5 times and 2%.
 */
static void compare(struct fixture *f, double loss, const float *got, double want_loss, const float *want,
                    const float *shaken)
{
    const struct trained *t = model_trained(f->m);
    double off = 0, moved = 0, norm = 0;

    if (!(fabs(loss - want_loss) < 3e-3 * want_loss))
        fail_msg("%s: loss %.6f, on the CPU %.6f", f->name, loss, want_loss);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        double o = apart(got + p->offset, want + p->offset, p->count);
        double s = apart(shaken + p->offset, want + p->offset, p->count), n = length(want + p->offset, p->count);

        if (!(o <= 2.5 * s + 0.02 * n + 1e-6))
            fail_msg("%s: the gradient of %s is off by %.3g of its norm %.3g; shaken it moves by %.3g", f->name, p->name,
                     o / n, n, s / n);
        off += o * o, moved += s * s, norm += n * n;
    }
    printf("# %s: loss %.5f (CPU %.5f), gradients off by %.2f%%, shaken %.2f%%\n", f->name, loss, want_loss,
           100 * sqrt(off / norm), 100 * sqrt(moved / norm));
    assert_true(off <= 1.5 * 1.5 * moved + 1e-4 * norm && moved < 0.1 * 0.1 * norm);
}

static float *shaken_gradient(const char *name, enum train_mode mode, int64_t keep)
{
    static struct fixture f;
    float *grad;

    set_up(&f, &cpu, name, mode, keep, NULL);
    shake(&f, &cpu);
    step(&f, &cpu, &grad);
    tear_down(&f);
    return grad;
}

static void test_families(void **state)
{
    NEED_GPU();
    for (int i = 0; i < 2 * FAMILIES; i++) {
        static struct fixture c, g;
        enum train_mode mode = i % 2 ? TRAIN_LORA_PLUS : TRAIN_FULL;
        float *want, *got, *shaken = shaken_gradient(family_names[i / 2], mode, i % 2);
        double a, b;

        set_up(&c, &cpu, family_names[i / 2], mode, i % 2, NULL);
        set_up(&g, &gpu[0], family_names[i / 2], mode, i % 2, NULL);
        a = step(&c, &cpu, &want), b = step(&g, &gpu[0], &got);
        compare(&g, b, got, a, want, shaken);
        free(want), free(got), free(shaken);
        tear_down(&c), tear_down(&g);
    }
}

/* Wherever weights and activations lie: equal bits. */
static void test_placements(void **state)
{
    static const struct placement placed[] = {
        { .n[SAVE_ALL][0] = 3 }, { .n[SAVE_INPUT][1] = 3, .streamed = 3 },
        { .n[SAVE_ALL][4] = 3, .streamed = 2 }, { .n[SAVE_QKV][3] = 2, .n[SAVE_ATTENTION][0] = 1 },
    };

    NEED_GPU();
    for (int i = 0; i < FAMILIES; i++) {
        float *first = NULL, *again;

        for (size_t k = 0; k < sizeof placed / sizeof *placed; k++) {
            static struct fixture fix;
            struct fixture *f = &fix;

            set_up(f, &gpu[DET], family_names[i], TRAIN_LORA_PLUS, -1, &placed[k]);
            step(f, &gpu[DET], &again);
            if (!first)
                first = copy_of(again, model_trained(f->m)->n);
            same_bits(f->name, first, again, model_trained(f->m)->n);
            free(again);
            tear_down(f);
        }
        free(first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_layernorm), cmocka_unit_test(test_gates),
        cmocka_unit_test(test_heads), cmocka_unit_test(test_families), cmocka_unit_test(test_placements),
    };
    const struct CMUnitTest ops[] = {
        cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_layernorm), cmocka_unit_test(test_gates),
        cmocka_unit_test(test_heads),
    };

    return small() ? cmocka_run_group_tests(ops, open_all, close_all)
                   : cmocka_run_group_tests(tests, open_all, close_all);
}
