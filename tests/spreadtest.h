/* tests/spreadtest.h - a sequence over ranks that are threads, against one: losses, gradients, bytes. */
#ifndef TESTS_SPREADTEST_H
#define TESTS_SPREADTEST_H
#include "base/log.h"
#include "base/perm.h"
#include "kernels/subgroup.h"
#include "model/spread.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rankstest.h"

enum { VOCAB = 61, DIM = 24, HEAD = 6, LAYERS = 3, MOST = 96 };

struct try {
    int64_t ctx, group, dense; /* group: planned for; dense: the batch's attention is; 2: unplanned */
    int64_t heads, kv_heads, window, docs, keep;
    enum train_mode mode;
    bool spans, shares, alone; /* frozen matrices over the ranks; each with the whole sequence */
    bool apart;                /* the device's memory is taken not to be the host's */
};
struct result {
    const struct try *t;
    int rc;
    struct err e;
    double loss;
    int64_t scored, n, sent, shared;
    size_t frozen;
    float *grad, nll[MOST];
};

static inline struct llama_config config_of(const struct try *t)
{
    return (struct llama_config){ .vocab = VOCAB, .dim = DIM, .layers = LAYERS, .heads = t->heads,
                                  .kv_heads = t->kv_heads, .head_dim = HEAD, .ffn_dim = 40,
                                  .norm_eps = 1e-5, .init_range = 0.15, .window = t->window,
                                  .context = MOST, .rope = { .theta = 10000 } };
}

/* Documents begin where a hash says. */
static inline int64_t starts_of(const struct try *t, int64_t *at)
{
    int64_t n = 0;

    for (int64_t i = 1; i < t->ctx && t->docs; i++)
        if (mix64((uint64_t)(i * 31 + t->docs)) % 9 == 0)
            at[n++] = i;
    return n;
}

static inline void segments_of(const struct try *t, struct segments *s)
{
    int64_t at[MOST], n = starts_of(t, at);
    struct err e = { 0 };

    if (segments_build(s, t->dense ? ATTN_DENSE : ATTN_S2, 1, t->ctx, t->group, n ? at : NULL, n,
                       &e) < 0)
        fail_msg("%s", e.msg);
}

/* One op of one rank fails: the others must not wait for what it does not compute. */
static int fails_rank = -1, fails_call;
static _Thread_local int norms;
static _Thread_local int (*real_norm)(struct device *d, const struct op_rmsnorm *a);
static int faulty_norm(struct device *d, const struct op_rmsnorm *a)
{
    return d->group->rank == fails_rank && ++norms == fails_call ? E_DEVICE : real_norm(d, a);
}

static inline void run_batch(struct result *r, struct device *d, struct group *line)
{
    const struct try *t = r->t;
    struct llama_config c = config_of(t);
    int32_t ids[MOST], targets[MOST];
    struct segments seg = { 0 };
    struct batch b = { .n_seqs = 1, .len = t->ctx, .ids = ids, .targets = targets, .seg = &seg,
                       .nll = r->nll };
    struct model_options o;
    struct model *m = NULL;

    for (int i = 0; i < t->ctx; i++) {
        ids[i] = (int32_t)(mix64((uint64_t)i) % VOCAB);
        targets[i] = i % 7 == 3 ? -1 : (int32_t)(mix64((uint64_t)i + 1) % VOCAB);
    }
    model_defaults(&o);
    o.mode = t->mode, o.ctx = t->ctx, o.seqs = 1, o.attention_span = t->group;
    o.keep_layers = t->keep, o.rank = 2, o.spans_ctx = t->spans || t->dense == 1;
    o.cp = t->alone ? 1 : line->size, o.line = line;
    o.shares = t->shares ? line->size : 1, o.sharers = line;
    segments_of(t, &seg);
    r->rc = model_open(&m, d, &c, &o, &r->e);
    if (r->rc == 0 && (r->rc = model_init(m, 7, &r->e)) == 0) {
        const struct trained *w = model_trained(m);

        r->n = w->n;
        if (t->mode == TRAIN_NONE)
            r->rc = model_forward(m, &b, &r->loss, &r->scored, &r->e);
        else
            r->rc = model_step(m, &b, 0.25, &r->loss, &r->scored, &r->e);
        r->grad = malloc((size_t)(w->n + 1) * sizeof *r->grad);
        if (w->n > 0) /* nothing is trained in the mode none */
            memcpy(r->grad, w->grad, (size_t)w->n * sizeof *r->grad);
        r->sent = m->spread ? m->spread->line.bytes : 0;
        r->shared = m->share ? share_line(m)->bytes : 0;
        r->frozen = model_memory(m)->frozen;
    }
    model_close(m);
    segments_free(&seg);
}

/* What ranks compute with. */
static int cpu_open(struct device *d, struct group *g, struct err *e)
{
    int rc = device_open(d, &(struct device_options){ .name = "cpu", .threads = 1, .group = g }, e);

    d->group = g;
    return rc;
}
static int (*rank_open)(struct device *d, struct group *g, struct err *e) = cpu_open;

static inline void one_rank(struct group *g, void *arg)
{
    struct result *r = arg;
    struct device d;
    struct group *line;

    if ((r->rc = rank_open(&d, g, &r->e)) < 0)
        return;
    d.own_memory = r->t->apart;
    if (fails_rank >= 0)
        real_norm = d.rmsnorm, d.rmsnorm = faulty_norm;
    if ((r->rc = group_split(g, g->size, &line, &r->e)) == 0)
        run_batch(r, &d, line);
    if (line->size > 1)
        line->close(line);
    d.close(&d);
}

static struct result result[RANKS_MAX];

static inline void compute(const struct try *t, int size)
{
    for (int k = 0; k < RANKS_MAX; k++) {
        free(result[k].grad);
        result[k] = (struct result){ .t = t };
    }
    if (size == 1)
        one_rank(group_alone(), result);
    else
        made_ranks(size, one_rank, result, sizeof *result);
}

static inline void assert_near(const char *what, const struct try *t, int size, double a, double b,
                        double scale)
{
    if (!(fabs(a - b) <= 1e-6 * scale))
        fail_msg("ctx %d group %d heads %d/%d docs %d dense %d over %d ranks: %s %.9g, not %.9g, of %.9g",
                 (int)t->ctx, (int)t->group, (int)t->heads, (int)t->kv_heads, (int)t->docs,
                 (int)t->dense, size, what, b, a, scale);
}

/* The sum of the ranks' losses and gradients is one's: to 1e-6, of every value of the gradient to 4e-6
 * of the largest (float32 sums in another order). */
static inline void assert_alike(const struct try *t, int size, struct result *one)
{
    double loss = 0, most = 0, apart = 0, squares = 0, other = 0;
    int64_t scored = 0, at = 0;

    compute(t, size);
    for (int k = 0; k < size; k++) {
        struct group who = { .rank = k, .size = size };
        int64_t from, to;

        if (result[k].rc < 0)
            fail_msg("rank %d of %d: %s", k, size, result[k].e.msg);
        loss += result[k].loss, scored += result[k].scored;
        group_part(&who, t->ctx, &from, &to);
        assert_int_equal(from, at);
        for (; at < to; at++)
            assert_near("nll", t, size, one->nll[at], result[k].nll[at], 5);
    }
    assert_near("loss", t, size, one->loss, loss, fabs(one->loss));
    assert_int_equal(scored, one->scored);
    for (int64_t i = 0; i < one->n; i++) {
        double sum = 0, x = (double)one->grad[i];

        for (int k = 0; k < size; k++)
            sum += (double)result[k].grad[i];
        squares += x * x, other += (x - sum) * (x - sum);
        most = fmax(most, fabs(x)), apart = fmax(apart, fabs(x - sum));
    }
    assert_near("gradient, as a vector", t, size, 0, sqrt(other), sqrt(squares));
    assert_near("a value of the gradient", t, size, 0, apart, 4 * most);
}

static inline void try_all(const struct try *t)
{
    struct result one;

    compute(t, 1);
    if (result[0].rc < 0)
        fail_msg("%s", result[0].e.msg);
    one = result[0], result[0].grad = NULL;
    for (int size = 2; size <= RANKS_MAX; size++)
        if (t->dense || t->spans || t->group <= t->ctx / size)
            assert_alike(t, size, &one);
    free(one.grad);
}
#endif
