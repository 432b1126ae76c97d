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
    OK(model_open(&f->m, &cpu, weights_config(w), &o, &e));
    OK(model_load(f->m, w, 1, &e));
    t = model_trained(f->m);
    for (int64_t i = 0; i < t->n_params; i++)
        for (int64_t j = 0; j < t->params[i].count; j++)
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
    weights_close(w);
}

/* The loss with the values of a tensor moved by so much along a direction. */
static double moved(struct fixture *f, const struct param *p, const float *along, double by)
{
    float *w = model_trained(f->m)->w + p->offset;
    float *was = malloc((size_t)p->count * sizeof *was);
    double sum;
    int64_t n;

    memcpy(was, w, (size_t)p->count * sizeof *was);
    for (int64_t j = 0; j < p->count; j++)
        w[j] = (float)((double)was[j] + by * (double)along[j]);
    OK(model_sync_trained(f->m));
    OK(model_forward(f->m, &f->b, &sum, &n, &e));
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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sets) };
    int rc;

    if (device_open(&cpu, &(struct device_options){ .name = "cpu", .threads = 1 }, &e) < 0)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    cpu.close(&cpu);
    return rc;
}
