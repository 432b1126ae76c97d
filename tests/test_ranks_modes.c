/* tests/test_ranks_modes.c - whatever is trained: as many ranks, the same losses; the bytes that
 * travel; the same bits by the tree of rows; a checkpoint that any number of ranks reads. */
#include "base/log.h"
#include "formats/tokens/shard.h"
#include "kernels/group.h"
#include "train/run.h"
#include "train/state.h"
#include "train/stop.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rankstest.h"
#include "tests/wire.h"
#include "tests/traintest.h"

enum { STEPS = 4 };
static char docs[64]; /* a shard of documents, ids of a vocabulary of 48 */

struct mode {
    const char *name;
    int mode;            /* as settings have it */
    bool bestfit, mask, same_bits, each;
    bool apart;          /* the device's memory is taken not to be the host's */
    bool links;          /* and to have links; with every layer a chunk */
    bool fails;          /* rank 1's loss, in its third micro-batch */
    int64_t batch, micro, steps;
    double decay, dropout;
    const char *ranks;   /* --rank-pattern */
    int64_t group, dense_every; /* s2 */
    const char *cp;      /* of these runs ranks that share a sequence */
    bool shares;         /* frozen weights lie over all ranks */
};
struct one {
    const struct mode *mode;
    const char *out;
    int rc;
    struct err e;
    struct progress p;
    float *w;
    int64_t n;
};

/* In place of train/stop.c. */
int stop_asked(void) { return 0; }
void stop_after_step(void) {}

/*
 * Links that do at the last moment what was queued on them, as slow ones would. What is to be added
 * must be as it was then: nobody has changed it since.
 */
static int64_t queued_sums; /* by rank 0 */
static int64_t early_sums;  /* by all, before their losses were at the host */
static _Thread_local int (*device_loss)(struct device *d, const struct op_loss *a);
static _Thread_local struct {
    struct { float *x, *was; int64_t n; } q[64];
    int n, early;
    bool sums;
} late;

static _Thread_local int (*device_to_host)(struct device *d, void *dst, const void *src, size_t nbytes);
static int watched_to_host(struct device *d, void *dst, const void *src, size_t nbytes)
{
    pthread_mutex_lock(&made.lock);
    early_sums += late.sums ? late.n - late.early : 0;
    pthread_mutex_unlock(&made.lock);
    late.early = late.n;
    return device_to_host(d, dst, src, nbytes);
}

static int queue_late(struct device *d, float *x, int64_t n, bool sum)
{
    float *was = malloc((size_t)n * sizeof *was);

    (void)d;
    memcpy(was, x, (size_t)n * sizeof *was);
    assert_true(late.n < 64 && (late.n == 0 || late.sums == sum));
    late.sums = sum;
    late.q[late.n].x = x, late.q[late.n].was = was, late.q[late.n++].n = n;
    return 0;
}
static int late_sum(struct device *d, float *x, int64_t n) { return queue_late(d, x, n, true); }
static int late_share(struct device *d, float *x, int64_t n) { return queue_late(d, x, n, false); }

static int late_mark(struct device *d, enum queue q, int fence)
{
    int rc = 0;

    if (q != QUEUE_LINK || fence != FENCE_LINK + 1)
        return 0;
    for (int i = 0; i < late.n; i++) {
        if (memcmp(late.q[i].x, late.q[i].was, (size_t)late.q[i].n * sizeof(float)) != 0)
            fail_msg("chunk %d of %d was not final", i, late.n);
        free(late.q[i].was);
        if (rc == 0)
            rc = (late.sums ? made_sum_parts : made_share_parts)(d->group, late.q[i].x, late.q[i].n, NULL);
    }
    if (late.sums && d->group->rank == 0)
        queued_sums += late.n;
    late.n = late.early = 0;
    return rc;
}
static int now_move(struct device *d, const struct device_move *m, int n)
{
    struct wire_moves w = { .me = d->group->rank, .n = n };

    memcpy(w.m, m, (size_t)n * sizeof *m);
    return wire_run(&w);
}
static const struct device_links late_links = { .sum_parts = late_sum, .share_parts = late_share,
                                                .move = now_move };

static _Thread_local int losses;
static int failing_loss(struct device *d, const struct op_loss *a)
{
    (void)a;
    return ++losses == 3 ? E_DEVICE : device_loss(d, a);
}

static void run_rank(struct group *g, void *arg)
{
    struct one *o = arg;
    const struct mode *m = o->mode;
    struct run r = { .group = g };
    struct settings s;
    bool done = false;
    char *argv[] = { "ltrain" };

    settings_defaults(&s);
    s.machine.device = "cpu", s.machine.threads = 1, s.data = s.val = docs, s.out = o->out;
    s.model = m->mode ? "tests/data/model/gqa" : NULL;
    s.init = m->mode ? NULL : "tests/data/tiny-config.json";
    s.mode = m->mode, s.ctx = CTX, s.batch = m->batch, s.micro = m->micro ? m->micro : -1;
    s.packing = m->bestfit ? PACKING_BESTFIT : PACKING_CONCAT, s.mask_documents = m->mask;
    s.steps = m->steps ? m->steps : STEPS, s.lr = 1e-3, s.warmup = 1, s.val_every = 2;
    s.val_rows = 5, s.save_every = 100, s.decay = m->decay, s.same_bits = m->same_bits;
    s.metrics_ranks = m->each, s.lora.dropout = m->dropout, s.lora.rank_pattern = m->ranks;
    if (m->group)
        s.attention = ATTN_S2, s.group = m->group, s.dense_every = m->dense_every;
    if (m->cp && g->size > 1)
        s.cp_text = m->cp;
    s.shares = m->shares ? g->size : 1;
    o->rc = run_open(&r, &s, &o->e);
    r.session.device.own_memory = m->apart;
    if (m->links && g->size > 1) {
        r.session.device.links = &late_links, r.session.device.mark = late_mark;
        device_to_host = r.session.device.to_host, r.session.device.to_host = watched_to_host;
        r.open.plan.chunk = r.session.options.chunk = 1;
    }
    device_loss = r.session.device.loss, losses = 0;
    if (m->fails && g->rank == 1)
        r.session.device.loss = failing_loss;
    if (o->rc == 0 && (o->rc = run_begin(&r, &done, &o->e)) == 0 && !done)
        o->rc = run_train(&r, 1, argv, &o->e);
    o->p = r.p;
    if (r.t.m) {
        const struct trained *t = model_trained(r.t.m);
        assert_int_equal(trained_apart(t), m->apart && g->size > 1);
        o->n = t->n;
        o->w = malloc((size_t)t->n * sizeof *o->w);
        memcpy(o->w, t->w, (size_t)t->n * sizeof *o->w);
    }
    run_close(&r);
    while (late.n > 0) /* after a failure nothing waits for them */
        free(late.q[--late.n].was);
}

static const char *at(const char *name)
{
    static char path[8][128];
    static int n;

    n = (n + 1) % 8;
    snprintf(path[n], sizeof path[n], "%s/%s", dir, name);
    return path[n];
}

/* All ranks end well and with the same weights, which stay in one[0]. */
static struct one *train(int size, const struct mode *m, const char *out)
{
    static struct one one[RANKS_MAX];

    for (int k = 0; k < RANKS_MAX; k++) {
        free(one[k].w);
        one[k] = (struct one){ .mode = m, .out = out };
    }
    if (size == 1)
        run_rank(group_alone(), one);
    else
        made_ranks(size, run_rank, one, sizeof *one);
    for (int k = 0; k < size; k++) {
        if (one[k].rc < 0)
            fail_msg("%s, rank %d of %d: %s", m->name, k, size, one[k].e.msg);
        assert_int_equal(one[k].n, one[0].n);
        assert_memory_equal(one[k].w, one[0].w, (size_t)one[0].n * sizeof(float));
    }
    return one;
}

/* Losses, gradient norms and held-out losses of a run: the text of each number. */
static int numbers(const char *out, char v[][32], int most)
{
    static const char *const keys[] = { "\"loss_hex\":\"", "\"grad_norm\":", "\"val_hex\":\"" };
    char path[160], line[4096];
    FILE *f;
    int n = 0;

    snprintf(path, sizeof path, "%s/metrics.jsonl", out);
    assert_non_null(f = fopen(path, "r"));
    while (fgets(line, sizeof line, f))
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const char *p = strstr(line, keys[k]);
            if (p && n < most)
                snprintf(v[n++], 32, "%.*s", (int)strcspn(p + strlen(keys[k]), "\","),
                         p + strlen(keys[k]));
        }
    fclose(f);
    return n;
}

static void assert_near(const char *a, const char *b, int want, double most)
{
    char va[64][32], vb[64][32];
    int n = numbers(a, va, 64);

    assert_int_equal(n, want);
    assert_int_equal(numbers(b, vb, 64), n);
    for (int i = 0; i < n; i++) {
        double x = strtod(va[i], NULL), y = strtod(vb[i], NULL);
        if (!(fabs(x - y) <= most * fabs(x)))
            fail_msg("%s and %s differ: %s, %s", a, b, va[i], vb[i]);
    }
}

static void assert_same_file(const char *a, const char *b, const char *name)
{
    char pa[200], pb[200], *ta, *tb;
    size_t na, nb;
    struct err e = { 0 };

    snprintf(pa, sizeof pa, "%s/%s", a, name);
    snprintf(pb, sizeof pb, "%s/%s", b, name);
    if (file_read(pa, 1 << 26, &ta, &na, &e) < 0 || file_read(pb, 1 << 26, &tb, &nb, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(na, nb);
    assert_memory_equal(ta, tb, na);
    free(ta);
    free(tb);
}

static const struct mode modes[] = {
    { "full", .batch = 8, .micro = 2 },
    { "decay", .batch = 5, .micro = 1, .decay = 0.1 },
    { "lora", 1, .batch = 8 },
    { "lora+", 2, .batch = 6, .micro = 1 },
    { "packing", 2, .bestfit = true, .batch = 7, .micro = 3 },
    { "documents", .bestfit = true, .mask = true, .batch = 7 },
    { "few", 2, .mask = true, .batch = 2 },
};

/* A sum in parts and their sharing: as a ring carries them, 2 (N - 1) / N of the gradient. */
static void test_whatever_is_trained_ranks_agree_with_one(void **state)
{
    char a[32], b[32];

    (void)state;
    made.parts = true;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        snprintf(a, sizeof a, "%s1", modes[i].name);
        train(1, &modes[i], at(a));
        for (int size = 2; size <= RANKS_MAX; size++) {
            const struct one *one;

            snprintf(b, sizeof b, "%s%d", modes[i].name, size);
            one = train(size, &modes[i], at(b));
            assert_near(at(a), at(b), 2 * STEPS + STEPS / 2, 1e-6);
            assert_int_equal(made.parts_bytes, STEPS * 2 * one->n * 4 * (size - 1));
            assert_int_equal(made.sums, 0);
        }
    }
    made.parts = false;
}

/* As on GPUs: each rank keeps a part of the masters too, ops read copies, and what is written
 * is brought together first. The run is stopped and goes on as it does there. */
static void test_masters_may_be_in_parts_too(void **state)
{
    static const struct mode tried[] = {
        { "apart", .batch = 7, .micro = 2, .apart = true },
        { "apart+", 2, .batch = 6, .decay = 0.1, .apart = true },
    };
    char a[32], b[32];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        struct mode m = tried[i];

        snprintf(a, sizeof a, "%s1", m.name);
        train(1, &m, at(a));
        for (int size = 2; size <= RANKS_MAX; size++) {
            snprintf(b, sizeof b, "%s%d", m.name, size);
            m.steps = 2;
            train(size, &m, at(b));
            m.steps = STEPS;
            train(size == RANKS_MAX ? 2 : size, &m, at(b));
            assert_near(at(a), at(b), 2 * STEPS + STEPS / 2, 1e-6);
        }
    }
}

/* Over links the gradient goes in chunks, each as soon as its layers are through: as when
 * all of it goes afterwards. */
static void test_chunks_travel_while_layers_go_back(void **state)
{
    static const struct mode tried[] = {
        { "linked", .batch = 7, .micro = 2, .apart = true, .links = true },
        { "linked+", 2, .batch = 6, .decay = 0.1, .apart = true, .links = true },
        { "linked2", 1, .batch = 2, .micro = 1, .apart = true, .links = true },
    };
    char a[32], b[32];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++)
        for (int size = 2; size <= RANKS_MAX; size++) {
            struct mode plain = tried[i];

            plain.links = false;
            snprintf(a, sizeof a, "%s-%d", tried[i].name, size);
            snprintf(b, sizeof b, "%s-plain%d", tried[i].name, size);
            queued_sums = 0;
            train(size, &tried[i], at(a));
            assert_int_equal(queued_sums, STEPS * (i == 2 ? 2 : 3)); /* two layers, the embedding */
            train(size, &plain, at(b));
            assert_near(at(a), at(b), 2 * STEPS + STEPS / 2, 1e-6);
        }
}

/* The same where all ranks share each sequence, or the weights: their chunks are queued between what
 * layers exchange. Of two lines nothing is queued before all have met. */
static void test_chunks_beside_shared_sequences(void **state)
{
    static const char *const number[] = { "0", "1", "2", "3", "4" };

    (void)state;
    for (int size = 2; size <= RANKS_MAX; size++)
        for (int i = 0; i < 3; i++) {
            struct mode m = { i == 0 ? "line" : i == 1 ? "sharers" : "lines", 2, .batch = 4, .micro = 1,
                              .apart = true, .links = true, .group = 8 };
            struct mode plain;
            char a[32], b[32];

            if ((i == 1 && 4 % size) || (i == 2 && size != 4))
                continue;
            m.cp = i == 0 ? number[size] : i == 2 ? "2" : NULL, m.shares = i == 1;
            plain = m;
            plain.links = plain.shares = false, plain.cp = NULL;
            snprintf(a, sizeof a, "%s%d", m.name, size);
            snprintf(b, sizeof b, "%s-plain%d", m.name, size);
            queued_sums = early_sums = 0;
            train(size, &m, at(a));
            assert_int_equal(queued_sums, STEPS * 3);
            assert_int_equal(early_sums, i < 2 ? STEPS * 3 * size : 0);
            train(1, &plain, at(b));
            assert_near(at(a), at(b), 2 * STEPS + STEPS / 2, 1e-6);
            assert_false(wire.wrong);
        }
}

/* A sequence over ranks, and rows over lines of them: S2-Attn, dense, a mix, documents. Validation
 * is dense. The run goes on with other numbers of both. */
static void test_a_sequence_over_ranks(void **state)
{
    static const struct mode tried[] = {
        { "cp_full", .batch = 5, .micro = 1, .group = 8 },
        { "cp_dense", .batch = 4, .micro = 1, .apart = true },
        { "cp_mix", 2, .batch = 6, .micro = 1, .group = 9, .dense_every = 2, .decay = 0.1 },
        { "cp_docs", 2, .bestfit = true, .mask = true, .batch = 3, .micro = 1, .group = 10 },
    };
    static const struct { int size; const char *cp; } ways[] = {
        { 2, "2" }, { 3, "3" }, { 4, "2" }, { 4, "4" } };
    char a[32], b[32];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        struct mode m = tried[i];

        snprintf(a, sizeof a, "%s1", m.name);
        train(1, &m, at(a));
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            snprintf(b, sizeof b, "%s%d%s", m.name, ways[k].size, ways[k].cp);
            m.cp = ways[k].cp, m.steps = 2;
            train(ways[k].size, &m, at(b));
            m.cp = ways[3 - k].cp, m.steps = STEPS;
            train(ways[3 - k].size, &m, at(b));
            assert_near(at(a), at(b), 2 * STEPS + STEPS / 2, 1e-6);
        }
    }
}

/* Each holds a part of the frozen weights: of plain rows, of which validation gives some ranks more,
 * and of sequences over two. */
static void test_frozen_weights_over_ranks(void **state)
{
    static const struct mode one = { "share", 2, .batch = 12, .micro = 2, .shares = true };
    struct mode m = one;

    (void)state;
    train(1, &m, at("share1"));
    for (int size = 2; size <= RANKS_MAX; size++) {
        char b[32];

        snprintf(b, sizeof b, "share%d", size);
        train(size, &m, at(b));
        assert_near(at("share1"), at(b), 2 * STEPS + STEPS / 2, 1e-6);
    }
    m.micro = 1;
    train(1, &m, at("pairs1"));
    m.cp = "2";
    train(4, &m, at("pairs4"));
    assert_near(at("pairs1"), at("pairs4"), 2 * STEPS + STEPS / 2, 1e-6);
}

/* What does not fit the ranks is said by all of them. */
static void test_ranks_that_do_not_fit(void **state)
{
    static const struct mode tried[] = {
        { "three", .batch = 2, .cp = "3" }, { "word", .batch = 2, .cp = "all" },
        { "tree", .batch = 2, .cp = "2", .same_bits = true }, { "rows", 2, .batch = 3, .shares = true }, { "micro", .batch = 2, .micro = 2, .cp = "2" },
    };
    static struct one one[RANKS_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        for (int k = 0; k < 2; k++)
            one[k] = (struct one){ .mode = &tried[i], .out = at("none") };
        made_ranks(2, run_rank, one, sizeof *one);
        for (int k = 0; k < 2; k++)
            assert_int_equal(one[k].rc, E_USAGE);
        assert_non_null(strstr(one[0].e.msg, i == 2 ? "--same-on" : i == 3 ? "--batch"
                               : i == 4 ? "--micro" : "--cp"));
    }
}

/* What the others have queued a rank that fails has not: it is met, and none waits. */
static void test_a_failure_beside_what_is_queued_ends_all(void **state)
{
    static const struct mode m = { "torn", .batch = 9, .micro = 2, .apart = true, .links = true,
                                   .fails = true };
    static struct one one[RANKS_MAX];

    (void)state;
    queued_sums = 0;
    for (int k = 0; k < 3; k++)
        one[k] = (struct one){ .mode = &m, .out = at("torn") };
    made_ranks(3, run_rank, one, sizeof *one);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(one[k].rc, E_DEVICE);
        assert_non_null(strstr(one[k].e.msg, k == 1 ? "failed" : "rank 1 on b: "));
        free(one[k].w);
    }
    assert_int_equal(queued_sums, 3); /* of the first step alone */
    assert_int_equal(made.failed, 0);
}

/* Also of a batch that no tree fills, on ranks whose rows end inside its nodes. */
static void test_the_tree_of_rows_gives_the_same_bits(void **state)
{
    static const struct mode tried[] = {
        { "tree", .same_bits = true, .batch = 8 }, { "odd", 2, .same_bits = true, .batch = 7 },
        { "masked", .bestfit = true, .mask = true, .same_bits = true, .batch = 11 },
        { "left_out", 2, .same_bits = true, .batch = 7, .dropout = 0.2, .ranks = "q=3,layers.0.self_attn.v_proj=1" },
    };
    char a[32], b[32];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        float *w;
        const struct one *one;

        snprintf(a, sizeof a, "%s1", tried[i].name);
        one = train(1, &tried[i], at(a));
        w = malloc((size_t)one->n * sizeof *w);
        memcpy(w, one->w, (size_t)one->n * sizeof *w);
        for (int size = 2; size <= RANKS_MAX; size++) {
            snprintf(b, sizeof b, "%s%d", tried[i].name, size);
            one = train(size, &tried[i], at(b));
            assert_memory_equal(one->w, w, (size_t)one->n * sizeof *w);
            assert_near(at(a), at(b), 2 * STEPS + STEPS / 2, 0);
            assert_same_file(at(a), at(b), "checkpoints/step-00000004/state.safetensors");
        }
        free(w);
    }
    /* without the tree the bits are others: or this would have shown nothing */
    {
        struct mode plain = tried[0];
        char va[64][32], vb[64][32];
        int n, other = 0;

        plain.same_bits = false, plain.micro = 1;
        train(3, &plain, at("plain3"));
        n = numbers(at("tree3"), va, 64);
        assert_int_equal(numbers(at("plain3"), vb, 64), n);
        for (int i = 0; i < n; i++)
            other += strcmp(va[i], vb[i]) != 0;
        assert_true(other > 0);
    }
}

static void test_any_number_of_ranks_goes_on(void **state)
{
    static const int sizes[] = { 1, 3, 2, 1 };
    struct mode m = { "relay", 2, .batch = 7, .micro = 2 };

    (void)state;
    m.steps = 8;
    train(1, &m, at("relay1"));
    for (int i = 0; i < 4; i++) {
        const struct one *one;

        m.steps = 2 * (i + 1);
        one = train(sizes[i], &m, at("relay"));
        assert_int_equal(one->p.step, m.steps);
        assert_int_equal(one->p.updates, m.steps);
    }
    assert_near(at("relay1"), at("relay"), 2 * 8 + 4, 1e-6);
}

/* What three ranks hold in parts is written as one process would. */
struct saving {
    const char *from, *root;
    int rc;
    int64_t elsewhere; /* values of the moments that rank 0 has not */
    struct err e;
};

static int64_t not_here(const struct trained *t)
{
    int64_t n = 0;

    for (int64_t i = 0; i < t->n_params; i++)
        for (int k = 0; k < t->chunks; k++) {
            struct share o = trained_share(t, k, t->rank);
            int64_t from = t->params[i].offset, to = from + t->params[i].count;
            int64_t here = (to < o.to ? to : o.to) - (from > o.from ? from : o.from);

            n += (k == 0 ? to - from : 0) - (here > 0 ? here : 0);
        }
    return 2 * n;
}

static void save_again(struct group *g, void *arg)
{
    struct saving *s = arg;
    struct checkpoint c = { .step = 8, .run = "{}" };
    struct model_options o;
    struct session open = { 0 };
    struct session_options so = { .model = "tests/data/model/gqa" };
    struct machine m = { .device = "cpu", .threads = 1, .group = g };

    model_defaults(&o);
    o.ctx = CTX, o.shards = g->size;
    if ((s->rc = session_files(&open, &so, &s->e)) == 0 &&
        (open.config.tied = false, s->rc = session_device(&open, &m, &s->e)) == 0 &&
        (s->rc = session_plan(&open, &o, &s->e)) == 0 &&
        (s->rc = session_load(&open, &so, &s->e)) == 0) {
        const struct trained *t = model_trained(open.model);

        assert_int_equal(t->held * g->size, t->n);
        s->elsewhere = not_here(t);
        s->rc = state_load(&open.device, t, s->from, &s->e);
        if (s->rc == 0)
            s->rc = group_writes(g) ? state_save(&open.device, t, s->root, &c, 1, &s->e)
                                    : state_send(&open.device, t, &s->e);
        s->rc = group_meet(g, s->rc, NULL, &s->e);
    }
    session_close(&open);
}

static void test_parts_are_saved_as_one_process_saves(void **state)
{
    struct saving s[RANKS_MAX];
    char from[160];

    (void)state;
    snprintf(from, sizeof from, "%s/checkpoints/step-00000008", at("relay1"));
    for (int size = 2; size <= RANKS_MAX; size++) {
        char root[160];

        snprintf(root, sizeof root, "%s/again%d", dir, size);
        for (int k = 0; k < size; k++)
            s[k] = (struct saving){ .from = from, .root = root };
        made.straight = size != 2; /* for two it is the same, one broadcast the piece */
        made_ranks(size, save_again, s, sizeof *s);
        for (int k = 0; k < size; k++)
            if (s[k].rc < 0)
                fail_msg("rank %d of %d: %s", k, size, s[k].e.msg);
        assert_true(s[0].elsewhere > 1000);
        assert_int_equal(made.brought, made.straight ? 4 * s[0].elsewhere : 0); /* each once */
        strcat(root, "/step-00000008");
        assert_same_file(from, root, "state.safetensors");
    }
    made.straight = false;
    /* a disk that is full is told on all of them: root is a file */
    for (int k = 0; k < 2; k++)
        s[k] = (struct saving){ .from = from, .root = docs };
    made_ranks(2, save_again, s, sizeof *s);
    assert_true(s[0].rc < 0);
    assert_int_equal(s[1].rc, s[0].rc);
    assert_int_equal(made.failed, 0);
}

static const char *text_of(const char *name)
{
    static char text[1 << 16];
    FILE *f = fopen(at(name), "r");

    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* A line has the slowest rank and the exchanges; asked for, three numbers of each kind. */
static void test_ranks_are_seen(void **state)
{
    struct mode m = { "seen", .batch = 7, .each = true };
    const char *text, *p;
    double a, b, c, ms;
    int rank;

    (void)state;
    train(3, &m, at("seen"));
    text = text_of("seen/metrics.jsonl");
    assert_non_null(p = strstr(text, "\"ranks\":3,\"comm_ms\":"));
    assert_int_equal(sscanf(p, "\"ranks\":3,\"comm_ms\":%lf,\"slowest_rank\":%d,\"slowest_ms\":%lf,"
                               "\"rank_ms\":[%lf,%lf,%lf]", &ms, &rank, &c, &a, &b, &c), 6);
    assert_true(ms >= 0 && a > 0 && b > 0 && c > 0 && rank >= 0 && rank < 3);
    assert_non_null(p = strstr(text, "\"rank_mem\":["));
    assert_int_equal(sscanf(p, "\"rank_mem\":[%lf,%lf,%lf],", &a, &b, &c), 3);
    text = text_of("seen/summary.json");
    assert_non_null(strstr(text, "\"ranks\": 3"));
    assert_non_null(p = strstr(text, "\"scaling\": "));
    ms = strtod(p + 11, NULL);
    assert_true(ms > 0 && ms <= 3);
    m.name = "alone", m.each = false;
    train(1, &m, at("alone"));
    assert_null(strstr(text_of("alone/metrics.jsonl"), "ranks"));
    assert_null(strstr(text_of("alone/summary.json"), "ranks"));
    train(2, &m, at("pair"));
    assert_non_null(strstr(text_of("pair/metrics.jsonl"), "\"slowest_rank\":"));
    assert_null(strstr(text_of("pair/metrics.jsonl"), "rank_ms"));
}

static int quiet(void **state)
{
    struct token_info info = { .width = 2, .vocab = 48, .bos = -1, .eos = 2 };
    struct shard_writer *w;
    struct err e = { 0 };
    int fd, rc = 0;

    log_init("test_ranks_modes", -2);
    setenv("LONGLORA_BLAS", "builtin", 1);
    if (setup(state) < 0)
        return -1;
    snprintf(docs, sizeof docs, "%s/docs.shard", dir);
    if ((fd = open(docs, O_CREAT | O_WRONLY | O_TRUNC, 0666)) < 0 ||
        shard_create(&w, fd, docs, &info, dir, &e) < 0)
        return -1;
    for (int i = 0; i < 60 && rc == 0; i++) { /* lengths from 1 to 41, a part of each masked */
        uint32_t ids[64];
        struct mask_run run = { 1, 2 };
        struct token_doc t = { .ids = ids, .n_ids = 1 + (i * 17) % 41, .runs = &run,
                               .n_runs = i % 3 == 0 && (i * 17) % 41 > 4, .source = "s", .name = "n" };

        for (int k = 0; k < t.n_ids; k++)
            ids[k] = (uint32_t)(mix64((uint64_t)(i * 100 + k / 2)) % 48);
        rc = shard_write(w, &t, &e);
    }
    rc = rc < 0 ? rc : shard_finish(w, NULL, &e);
    close(fd);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whatever_is_trained_ranks_agree_with_one),
        cmocka_unit_test(test_masters_may_be_in_parts_too),
        cmocka_unit_test(test_chunks_travel_while_layers_go_back),
        cmocka_unit_test(test_chunks_beside_shared_sequences),
        cmocka_unit_test(test_a_sequence_over_ranks),
        cmocka_unit_test(test_frozen_weights_over_ranks),
        cmocka_unit_test(test_ranks_that_do_not_fit),
        cmocka_unit_test(test_a_failure_beside_what_is_queued_ends_all),
        cmocka_unit_test(test_the_tree_of_rows_gives_the_same_bits),
        cmocka_unit_test(test_any_number_of_ranks_goes_on),
        cmocka_unit_test(test_parts_are_saved_as_one_process_saves),
        cmocka_unit_test(test_ranks_are_seen),
    };

    return cmocka_run_group_tests(tests, quiet, teardown);
}
