/* tests/test_pairs.c - gradients of LoRA pairs on any set of matrices, against differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/perm.h"
#include "model/model.h"

#include <math.h>

#define DATA "tests/data/model/"
enum { SEQS = 2, LEN = 13, ROWS = SEQS * LEN };

static struct device cpu;
static struct err e;
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, e.msg); } while (0)

/* What the tests ask for beside sets of matrices. */
static struct {
    const struct adapter_pairs *pairs;
    bool rslora;
    double dropout;
    uint64_t whole;
} more;

struct fixture {
    struct model *m;
    struct segments seg;
    int32_t ids[ROWS], targets[ROWS];
    struct batch b;
};

/* kinds: "qv", "kgd": whose matrices have pairs. Both factors are of some size. */
static void set_up(struct fixture *f, const char *name, const char *kinds, int64_t keep)
{
    static const char letters[] = "qkvogud";
    static const enum role role[] = { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP,
                                      ROLE_DOWN };
    const struct trained *t;
    struct model_options o;
    struct weights *w;

    memset(f, 0, sizeof *f);
    OK(weights_open(&w, name, &e));
    model_defaults(&o);
    o.mode = TRAIN_LORA, o.rank = 3, o.alpha = 5, o.keep_layers = keep;
    o.mlp_tile = 7, o.loss_chunk = 5, o.ctx = LEN, o.seqs = SEQS;
    o.targets = 0;
    for (int i = 0; i < 7; i++)
        o.targets |= strchr(kinds, letters[i]) ? ROLE_BIT(role[i]) : 0;
    o.pairs = more.pairs, o.rslora = more.rslora, o.dropout = more.dropout, o.whole = more.whole;
    OK(model_open(&f->m, &cpu, weights_config(w), &o, &e));
    OK(model_load(f->m, w, 1, &e));
    t = model_trained(f->m);
    for (int64_t i = 0; i < t->n_params; i++)
        for (int64_t j = 0; j < t->params[i].count && t->params[i].part; j++)
            t->w[t->params[i].offset + j] =
                0.2f * (float)normal_at(5, (uint64_t)(1000000 * i + j));
    OK(model_sync_trained(f->m));
    for (int i = 0; i < ROWS; i++) {
        f->ids[i] = (int32_t)(mix64((uint64_t)i) % (uint64_t)weights_config(w)->vocab);
        f->targets[i] = i % 5 == 3 ? -1 : (f->ids[i] * 7 + i) % (int)weights_config(w)->vocab;
    }
    OK(segments_build(&f->seg, ATTN_S2, SEQS, LEN, 4, NULL, 0, &e));
    f->b = (struct batch){ .n_seqs = SEQS, .len = LEN, .ids = f->ids, .targets = f->targets,
                           .seg = &f->seg };
    model_number(f->m, 11, 6);
    weights_close(w);
}

/* The loss of a training step, which leaves out what dropout says; its gradient is of no use. */
static double trained_loss(struct fixture *f)
{
    double sum;
    int64_t n;

    if (more.dropout > 0)
        OK(model_step(f->m, &f->b, 0, &sum, &n, &e));
    else
        OK(model_forward(f->m, &f->b, &sum, &n, &e));
    return sum;
}

/* The loss with the values of a tensor moved by so much along a direction. */
static double moved(struct fixture *f, const struct param *p, const float *along, double by)
{
    float *w = model_trained(f->m)->w + p->offset;
    float *was = malloc((size_t)p->count * sizeof *was);
    double sum;

    memcpy(was, w, (size_t)p->count * sizeof *was);
    for (int64_t j = 0; j < p->count; j++)
        w[j] = (float)((double)was[j] + by * (double)along[j]);
    OK(model_sync_trained(f->m));
    sum = trained_loss(f);
    memcpy(w, was, (size_t)p->count * sizeof *was);
    free(was);
    return sum;
}

/* Along its gradient the loss grows by the gradient's norm. */
static void check(const char *name, const char *kinds, int64_t keep)
{
    const double by = 5e-3;
    const struct trained *t;
    struct fixture f;
    double sum;
    int64_t n;

    set_up(&f, name, kinds, keep);
    t = model_trained(f.m);
    if (!more.pairs && !more.whole)
        assert_int_equal(t->n_params, 2 * (int64_t)strlen(kinds) * model_config(f.m)->layers);
    memset(t->grad, 0, (size_t)t->n * sizeof *t->grad);
    OK(model_step(f.m, &f.b, 1, &sum, &n, &e));
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        float *g = malloc((size_t)p->count * sizeof *g);
        double norm = 0, slope;

        for (int64_t j = 0; j < p->count; j++)
            norm += (double)t->grad[p->offset + j] * (double)t->grad[p->offset + j];
        norm = sqrt(norm);
        assert_true(norm > 0);
        for (int64_t j = 0; j < p->count; j++)
            g[j] = (float)((double)t->grad[p->offset + j] / norm);
        slope = (moved(&f, p, g, by) - moved(&f, p, g, -by)) / (2 * by);
        if (!(fabs(slope - norm) <= 5e-3 * norm + 2e-3))
            fail_msg("%s, pairs of %s: %s: slope %.6g, gradient %.6g", name, kinds, p->name,
                     slope, norm);
        free(g);
    }
    segments_free(&f.seg);
    model_close(f.m);
}

static void test_sets(void **state)
{
    static const char *const sets[] = { "qkvo", "qv", "k", "o", "gu", "u",
                                        "d", "qkvogud", "vgd" };

    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (int64_t keep = 0; keep < 3; keep++)
            check(i % 2 ? DATA "gqa" : DATA "odd", sets[i], keep);
}

/* Some layers, each with a rank and an alpha of its own. */
static struct adapter_pairs *uneven(void)
{
    enum { LAYERS = 8 };
    static const enum role role[] = { ROLE_Q, ROLE_V, ROLE_O, ROLE_UP, ROLE_DOWN };
    struct adapter_pairs *p = calloc(1, sizeof *p + LAYERS * sizeof *p->at);

    p->layers = LAYERS;
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < 5; i++)
            if ((l + i) % 3)
                p->at[l][role[i]] = (struct adapter_pair){ 1 + (l + 2 * i) % 4, 2 + i };
    return p;
}

static void test_patterns(void **state)
{
    struct adapter_pairs *p = uneven();

    (void)state;
    more.pairs = p;
    for (int64_t keep = 0; keep < 3; keep++) {
        more.rslora = keep % 2;
        check(keep % 2 ? DATA "gqa" : DATA "odd", "qvoud", keep);
    }
    memset(&more, 0, sizeof more);
    free(p);
}

static void test_dropout(void **state)
{
    struct adapter_pairs *p = uneven();

    (void)state;
    more.dropout = 0.3;
    for (int64_t keep = 0; keep < 3; keep++) {
        more.pairs = keep == 1 ? p : NULL;
        check(keep % 2 ? DATA "gqa" : DATA "odd", "qvoud", keep);
    }
    memset(&more, 0, sizeof more);
    free(p);
}

/* Beside pairs: norms, the head, a matrix of every layer. */
static void test_whole(void **state)
{
    (void)state;
    more.whole = ROLE_BIT(ROLE_HEAD) | ROLE_BIT(ROLE_MLP_NORM) | ROLE_BIT(ROLE_GATE);
    check(DATA "odd", "qd", 1);
    more.whole = ROLE_BIT(ROLE_EMBED);
    check(DATA "gqa", "qu", 0);
    memset(&more, 0, sizeof more);
}

/* The sequences one by one leave out what they leave out together; other numbers, something else; and
 * tiles of the MLP change nothing. */
static void test_what_is_left_out_follows_from_numbers(void **state)
{
    struct fixture f;
    struct segments one = { 0 };
    double together, first, second, other;
    int64_t n;

    (void)state;
    more.dropout = 0.5;
    set_up(&f, DATA "gqa", "qvoud", 0);
    together = trained_loss(&f);
    assert_true(together == trained_loss(&f));
    OK(segments_build(&one, ATTN_S2, 1, LEN, 4, NULL, 0, &e));
    f.b.n_seqs = 1, f.b.seg = &one;
    first = trained_loss(&f);
    f.b.ids += LEN, f.b.targets += LEN;
    model_number(f.m, 11, 7);
    second = trained_loss(&f);
    assert_true(fabs(first + second - together) < 1e-4 * together);
    model_number(f.m, 11, 9);
    other = trained_loss(&f);
    assert_true(fabs(other - second) > 1e-3 * second);
    model_number(f.m, 12, 7);
    assert_true(fabs(trained_loss(&f) - second) > 1e-3 * second);
    /* scoring leaves out nothing */
    OK(model_forward(f.m, &f.b, &other, &n, &e));
    more.dropout = 0;
    segments_free(&one);
    segments_free(&f.seg);
    model_close(f.m);
}

/* Against the formula, from any number on. */
static void test_the_op(void **state)
{
    enum { N = 1 << 16, DROP = 19661 };
    static float x[N], y[N];
    int64_t kept = 0;

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i + 1);
    OK(cpu.dropout(&cpu, &(struct op_dropout){ N, 3, 77, DROP, x, y }));
    for (int64_t i = 0; i < N; i++) {
        uint64_t k = (uint64_t)i + 3, bits = mix64(77 ^ k / 4) >> 16 * (k % 4) & 0xFFFF;
        float want = bits >= DROP ? x[i] * (65536.0f / (65536 - DROP)) : 0;
        assert_true(y[i] == want);
        kept += y[i] != 0;
    }
    assert_true(fabs((double)kept / N - (1 - DROP / 65536.0)) < 0.01);
    OK(cpu.dropout(&cpu, &(struct op_dropout){ N, 3, 77, DROP, x, x })); /* in place */
    assert_memory_equal(x, y, sizeof x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_what_is_left_out_follows_from_numbers),
        cmocka_unit_test(test_the_op),
    };
    int rc;

    if (device_open(&cpu, &(struct device_options){ .name = "cpu", .threads = 1 }, &e) < 0)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    cpu.close(&cpu);
    return rc;
}
