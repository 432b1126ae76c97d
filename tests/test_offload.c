/* tests/test_offload.c - wherever weights and activations lie: the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/perm.h"
#include "model/inside.h"
#include "tests/queued.h"

#define DATA "tests/data/model/"

enum { LAYERS = 5, LEN = 24, SEQS = 2, ROWS = SEQS * LEN };

static const struct llama_config tiny = {
    .vocab = 41, .dim = 24, .ffn_dim = 32, .layers = LAYERS, .heads = 4, .kv_heads = 2,
    .head_dim = 8, .context = 64, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.2,
    .rope = { .type = ROPE_DEFAULT, .theta = 1e4 }
};

static const enum queue orders[6][QUEUES] = {
    { QUEUE_OPS, QUEUE_OUT, QUEUE_IN }, { QUEUE_OPS, QUEUE_IN, QUEUE_OUT },
    { QUEUE_OUT, QUEUE_OPS, QUEUE_IN }, { QUEUE_IN, QUEUE_OPS, QUEUE_OUT },
    { QUEUE_OUT, QUEUE_IN, QUEUE_OPS }, { QUEUE_IN, QUEUE_OUT, QUEUE_OPS },
};

#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, err.msg); } while (0)
static struct err err;
static struct device dev;

/* What a run leaves: losses of every row of four calls, gradients of two steps. */
struct outcome {
    float nll[4][ROWS];
    double sum[4];
    float *grad;
    int64_t n;
};

static struct model *open_model(enum train_mode mode, const struct placement *p)
{
    struct model_options o;
    struct model *m;

    model_defaults(&o);
    o.mode = mode, o.rank = 2, o.ctx = LEN, o.seqs = SEQS, o.mlp_tile = 10, o.loss_chunk = 7;
    o.placement = p;
    OK(model_open(&m, &dev, &tiny, &o, &err));
    OK(model_init(m, 5, &err));
    OK(dev.sync(&dev, &err));
    for (int64_t i = 0; i < model_trained(m)->n_params; i++) { /* B, which begins as zero */
        const struct param *q = &model_trained(m)->params[i];

        for (int64_t k = 0; q->part == 2 && k < q->count; k++)
            model_trained(m)->w[q->offset + k] = 0.01f * (float)(k % 7 - 3);
    }
    return m;
}

static void run(struct model *m, enum train_mode mode, struct outcome *out)
{
    static int32_t ids[2][ROWS], targets[2][ROWS];
    const struct trained *t = model_trained(m);
    struct segments seg = { 0 };

    memset(out, 0, sizeof *out);
    OK(segments_build(&seg, ATTN_S2, SEQS, LEN, 8, NULL, 0, &err));
    if (mode != TRAIN_NONE)
        OK(dev.zero(&dev, t->grad, (size_t)t->n * 4));
    for (int i = 0; i < 4; i++) { /* score one, learn two, score one */
        struct batch b = { .n_seqs = SEQS, .len = LEN, .ids = ids[i & 1], .targets = targets[i & 1],
                           .seg = &seg, .nll = out->nll[i] };
        int64_t scored;

        for (int k = 0; k < ROWS; k++) {
            ids[i & 1][k] = (int32_t)(mix64((uint64_t)(k + 100 * (i & 1))) % 41);
            targets[i & 1][k] = k % LEN == LEN - 1 ? -1 : ids[i & 1][k] * 7 % 41;
        }
        if ((i == 1 || i == 2) && mode != TRAIN_NONE)
            OK(model_step(m, &b, 0.1, &out->sum[i], &scored, &err));
        else
            OK(model_forward(m, &b, &out->sum[i], &scored, &err));
    }
    out->n = t->n;
    out->grad = calloc((size_t)t->n + 1, 4);
    OK(dev.to_host(&dev, out->grad, t->grad, (size_t)t->n * 4));
    OK(dev.sync(&dev, &err));
    segments_free(&seg);
}

/* Sources of the rings that no product file knows. Each item lies in two parts of its own memory. */
static unsigned char *part(const struct ring *r, int which, int64_t item)
{
    return (unsigned char *)r->state + (size_t)(2 * item + which) * (r->nbytes / 2);
}

/* A gather: an item is put together from what two owners have of it. */
static int gather_bring(struct device *d, const struct ring *r, int64_t item, void *slot)
{
    size_t half = r->nbytes / 2;
    int rc = d->fetch(d, slot, part(r, 0, item), half);

    return rc < 0 ? rc : d->fetch(d, (char *)slot + half, part(r, 1, item), half);
}

static int gather_store(struct device *d, const struct ring *r, int64_t item, const void *slot)
{
    size_t half = r->nbytes / 2;
    int rc = d->send(d, part(r, 0, item), slot, half);

    return rc < 0 ? rc : d->send(d, part(r, 1, item), (const char *)slot + half, half);
}

/* The same on the other queues, as a network's would be neither. */
static int crossed_bring(struct device *d, const struct ring *r, int64_t item, void *slot)
{
    size_t half = r->nbytes / 2;
    int rc = d->send(d, slot, part(r, 0, item), half);

    return rc < 0 ? rc : d->send(d, (char *)slot + half, part(r, 1, item), half);
}

static int crossed_store(struct device *d, const struct ring *r, int64_t item, const void *slot)
{
    size_t half = r->nbytes / 2;
    int rc = d->fetch(d, part(r, 0, item), slot, half);

    return rc < 0 ? rc : d->fetch(d, part(r, 1, item), (const char *)slot + half, half);
}

/* A dequantiser, which is an op: of each float32 the upper and the lower 16 bits lie apart. */
struct planes {
    uint16_t *high, *low;
    uint32_t *value;
    size_t n;
};

static int run_join(const void *arg)
{
    const struct planes *p = arg;

    for (size_t i = 0; i < p->n; i++)
        p->value[i] = (uint32_t)p->high[i] << 16 | p->low[i];
    return 0;
}

static int run_split(const void *arg)
{
    const struct planes *p = arg;

    for (size_t i = 0; i < p->n; i++) {
        p->high[i] = (uint16_t)(p->value[i] >> 16);
        p->low[i] = (uint16_t)p->value[i];
    }
    return 0;
}

static int planes_op(int (*op)(const void *), const struct ring *r, int64_t item, void *slot)
{
    struct planes p = { (uint16_t *)(void *)part(r, 0, item), (uint16_t *)(void *)part(r, 1, item),
                        slot, r->nbytes / 4 };

    queued_op(QUEUE_OPS, op, &p, sizeof p, 0);
    return 0;
}

static int planes_bring(struct device *d, const struct ring *r, int64_t item, void *slot)
{
    (void)d;
    return planes_op(run_join, r, item, slot);
}

static int planes_store(struct device *d, const struct ring *r, int64_t item, const void *slot)
{
    (void)d;
    return planes_op(run_split, r, item, (void *)(uintptr_t)slot);
}

static const struct ring_source gather = { QUEUE_IN, QUEUE_OUT, gather_bring, gather_store, false, false };
static const struct ring_source crossed = { QUEUE_OUT, QUEUE_IN, crossed_bring, crossed_store, false, false };
static const struct ring_source planes = { QUEUE_OPS, QUEUE_OPS, planes_bring, planes_store, false, false };

/* Gives every ring of a model another source, which takes over what host memory has. */
static void change_sources(struct model *m, const struct ring_source *s)
{
    for (int k = 0; k < RINGS; k++) {
        struct ring *r = &m->ring[k];

        r->source = s;
        r->state = calloc((size_t)r->n + 1, r->nbytes + 1);
        for (int64_t i = 0; i < r->n && k == RING_WEIGHTS; i++)
            OK(s->store(&dev, r, i, r->host + (size_t)i * r->nbytes));
    }
    OK(dev.sync(&dev, &err));
    memset(m->mem[MEM_HOST].base, 0xff, m->mem[MEM_HOST].used_bytes);
}

static const struct ring_source *source; /* of the rings in check; NULL: as they are */

static void check(enum train_mode mode, const struct placement *p, const struct outcome *want)
{
    struct model *m = open_model(mode, p);
    struct outcome got;

    if (source)
        change_sources(m, source);
    run(m, mode, &got);
    if (memcmp(got.nll, want->nll, sizeof got.nll) != 0 ||
        memcmp(got.sum, want->sum, sizeof got.sum) != 0 || got.n != want->n ||
        memcmp(got.grad, want->grad, (size_t)got.n * 4) != 0) {
        for (int k = 0; k < SAVE_LEVELS; k++)
            for (int a = 0; a <= k + 1; a++)
                if (p->n[k][a])
                    print_message("# %lld layers save %d, %d offloaded\n", (long long)p->n[k][a], k, a);
        fail_msg("other bits with the queues in order %d %d %d, %lld layers streamed",
                 queued.order[0], queued.order[1], queued.order[2], (long long)p->streamed);
    }
    free(got.grad);
    for (int k = 0; k < RINGS; k++)
        free(m->ring[k].state);
    model_close(m);
}

static int open_queued(void **state)
{
    (void)state;
    return queued_open(&dev, 1, &err);
}

static int close_queued(void **state)
{
    (void)state;
    dev.close(&dev);
    return 0;
}

/* On the CPU as it is, nothing saved but inputs, nothing offloaded. */
static void plain(enum train_mode mode, struct outcome *want)
{
    struct placement p = { .streamed = 0 };
    struct device was = dev;
    struct model *m;

    p.n[SAVE_INPUT][0] = mode == TRAIN_NONE ? 0 : LAYERS;
    OK(device_open_cpu(&dev, &(struct device_options){ .threads = 2 }, &err));
    m = open_model(mode, &p);
    run(m, mode, want);
    model_close(m);
    dev.close(&dev);
    dev = was;
}

static void test_every_level_offloaded_or_not(void **state)
{
    struct outcome want;

    (void)state;
    plain(TRAIN_LORA_PLUS, &want);
    assert_true(want.sum[1] > 0 && want.sum[1] == want.sum[3] && want.sum[0] == want.sum[2]);
    for (int o = 0; o < 6; o++)
        for (int k = 0; k < SAVE_LEVELS; k++)
            for (int a = 0; a <= k + 1; a++)
                for (int s = 0; s <= LAYERS; s += s ? LAYERS - 3 : 3) {
                    struct placement p = { .streamed = s };

                    p.n[k][a] = LAYERS;
                    queued.order = orders[o];
                    check(TRAIN_LORA_PLUS, &p, &want);
                }
    free(want.grad);
}

static void test_mixtures(void **state)
{
    static const enum train_mode modes[] = { TRAIN_LORA_PLUS, TRAIN_LORA, TRAIN_FULL };

    (void)state;
    for (int mode = 0; mode < 3; mode++) {
        struct outcome want;

        plain(modes[mode], &want);
        for (uint64_t i = 0; i < 40; i++) {
            struct placement p = { .streamed = modes[mode] == TRAIN_FULL ? 0 :
                                             (int64_t)(mix64(i) % (LAYERS + 1)) };

            for (uint64_t l = 0; l < LAYERS; l++) {
                uint64_t k = mix64(i * 64 + 2 * l) % SAVE_LEVELS;
                p.n[k][mix64(i * 64 + 2 * l + 1) % (k + 2)]++;
            }
            queued.order = orders[i % 6];
            check(modes[mode], &p, &want);
        }
        free(want.grad);
    }
}

static void test_scoring_with_streamed_weights(void **state)
{
    struct outcome want;

    (void)state;
    plain(TRAIN_NONE, &want);
    for (int o = 0; o < 6; o++)
        for (int s = 0; s <= LAYERS; s++) {
            struct placement p = { .streamed = s };

            queued.order = orders[o];
            check(TRAIN_NONE, &p, &want);
        }
    free(want.grad);
}

static void test_other_sources_bring_the_same_bits(void **state)
{
    static const struct ring_source *const sources[] = { &gather, &crossed, &planes };
    static const enum train_mode modes[] = { TRAIN_LORA_PLUS, TRAIN_NONE };

    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        struct outcome want;

        plain(modes[mode], &want);
        for (uint64_t i = 0; i < 36; i++) {
            struct placement p = { .streamed = LAYERS - (int64_t)(i % 3) };

            p.n[SAVE_ALL][SAVE_LEVELS] = modes[mode] == TRAIN_NONE ? 0 : LAYERS - (int64_t)(i % 2);
            p.n[SAVE_INPUT][1] = modes[mode] == TRAIN_NONE ? 0 : (int64_t)(i % 2);
            queued.order = orders[i % 6];
            source = sources[i / 12];
            check(modes[mode], &p, &want);
        }
        source = NULL;
        free(want.grad);
    }
}

/* The last two of a level stay in their slots; weights that lie there are not fetched again. */
static void test_nothing_moves_in_vain(void **state)
{
    struct placement all = { .n[SAVE_ALL][SAVE_LEVELS] = LAYERS, .streamed = LAYERS };
    struct placement two = { .n[SAVE_ALL][SAVE_LEVELS] = 2, .n[SAVE_ALL][0] = 3, .streamed = 2 };
    struct outcome out;
    struct model *m;

    (void)state;
    for (int i = 0; i < 2; i++) {
        m = open_model(TRAIN_LORA, i ? &two : &all);
        queued.sent = queued.fetched = 0;
        run(m, TRAIN_LORA, &out);
        assert_int_equal(queued.sent, i ? 0 : 2 * SAVE_LEVELS * (LAYERS - 2));
        /* weights: 5 to score, 2 + 3 and 3 for the first step, 3 and 3 for the next, 3 to score */
        assert_int_equal(queued.fetched, i ? 2 : queued.sent + 5 + 5 + 3 + 6 + 3);
        free(out.grad);
        model_close(m);
    }
}

/* What is offloaded takes host memory: of a level all but two layers, of weights all. */
static void test_bytes_of_a_placement(void **state)
{
    struct placement p = { .n[SAVE_INPUT][0] = LAYERS };
    int64_t x = ROWS * 24 * 4, matrices = (24 * 32 * 2 + 24 * 16 * 2 + 24 * 32 * 3) * 4;
    struct memory_plan none, offloaded, streamed;
    struct model_options o;

    (void)state;
    model_defaults(&o);
    o.ctx = LEN, o.seqs = SEQS, o.placement = &p;
    OK(model_plan(&dev, &tiny, &o, &none, &err));
    p = (struct placement){ .n[SAVE_INPUT][1] = LAYERS };
    OK(model_plan(&dev, &tiny, &o, &offloaded, &err));
    assert_int_equal(none.host, 0);
    assert_int_equal(offloaded.host, 3 * x);
    assert_int_equal(offloaded.total, none.total - (size_t)(3 * x));
    p.streamed = LAYERS;
    OK(model_plan(&dev, &tiny, &o, &streamed, &err));
    assert_int_equal(streamed.host, 3 * x + 5 * matrices);
    assert_int_equal(streamed.frozen, offloaded.frozen - (size_t)(3 * matrices));
}

static void test_impossible_placements_are_refused(void **state)
{
    static const struct placement bad[] = {
        { .n[SAVE_ALL][0] = LAYERS - 1 },
        { .n[SAVE_INPUT][2] = LAYERS },
        { .n[SAVE_INPUT][0] = LAYERS, .streamed = LAYERS + 1 },
        { .n[SAVE_INPUT][0] = LAYERS + 1, .n[SAVE_ALL][0] = -1 },
    };
    struct memory_plan plan;
    struct model_options o;

    (void)state;
    model_defaults(&o);
    o.ctx = LEN;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.placement = &bad[i];
        assert_int_equal(model_plan(&dev, &tiny, &o, &plan, &err), E_BUG);
    }
}

static int no_host_memory(struct device *d, size_t nbytes, void **p, struct err *e)
{
    (void)d, (void)p;
    return err_set(e, E_SYS, "no %zu bytes", nbytes);
}

/* Where the host's memory cannot be had, nothing stays behind, and the remedy is said. */
static void test_no_host_memory(void **state)
{
    struct placement p = { .n[SAVE_INPUT][1] = LAYERS, .streamed = LAYERS };
    struct device d = dev;
    struct model_options o;
    struct model *m;

    (void)state;
    model_defaults(&o);
    o.ctx = LEN, o.placement = &p;
    d.host_alloc = no_host_memory;
    assert_int_equal(model_open(&m, &d, &tiny, &o, &err), E_SYS);
    assert_non_null(strstr(err.msg, "--host-memory"));
}

/* A pair is merged into a streamed matrix as into any other. */
static void test_merging_into_streamed_weights(void **state)
{
    static int32_t ids[8] = { 1, 5, 9, 2, 40, 3, 3, 8 };
    struct segments seg = { 0 };
    struct weights *w;
    struct adapter *a;
    struct model_options o;
    float nll[3][8];

    (void)state;
    model_defaults(&o);
    o.mode = TRAIN_NONE, o.ctx = 8;
    OK(weights_open(&w, DATA "mha", &err));
    OK(adapter_open(&a, DATA "mha/adapter", weights_config(w), &err));
    OK(segments_build(&seg, ATTN_DENSE, 1, 8, 0, NULL, 0, &err));
    for (int i = 0; i < 3; i++) {
        struct placement p = { .streamed = i };
        struct batch b = { .n_seqs = 1, .len = 8, .ids = ids, .targets = ids, .seg = &seg,
                           .nll = nll[i] };
        struct llama_config c = *weights_config(w);
        struct model *m;
        double sum;
        int64_t n;

        o.placement = &p;
        c.tied = false;
        OK(model_open(&m, &dev, &c, &o, &err));
        OK(model_load(m, w, 1, &err));
        OK(model_forward(m, &b, &sum, &n, &err)); /* the slots hold what was there before */
        OK(model_load_adapter(m, a, &err));
        OK(model_forward(m, &b, &sum, &n, &err));
        assert_memory_equal(nll[i], nll[0], sizeof nll[0]);
        model_close(m);
    }
    segments_free(&seg);
    adapter_close(a);
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_level_offloaded_or_not),
        cmocka_unit_test(test_mixtures),
        cmocka_unit_test(test_scoring_with_streamed_weights),
        cmocka_unit_test(test_other_sources_bring_the_same_bits),
        cmocka_unit_test(test_nothing_moves_in_vain),
        cmocka_unit_test(test_bytes_of_a_placement),
        cmocka_unit_test(test_impossible_placements_are_refused),
        cmocka_unit_test(test_no_host_memory),
        cmocka_unit_test(test_merging_into_streamed_weights),
    };

    return cmocka_run_group_tests(tests, open_queued, close_queued);
}
