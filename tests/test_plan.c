/* tests/test_plan.c - the memory plan of GPUs that are not here: it fits, and foretells the time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/planned.h"
#include "model/preset.h"
#include "model/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H200, RTX_4090 = 7 };
#define GIB ((int64_t)1 << 30)

static const struct llama_config llama_7b = {
    .vocab = 32000, .dim = 4096, .ffn_dim = 11008, .layers = 32, .heads = 32, .kv_heads = 32,
    .head_dim = 128, .context = 4096, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.02,
    .rope = { .type = ROPE_DEFAULT, .theta = 1e4 } };
static const struct llama_config llama_8b = {
    .vocab = 128256, .dim = 4096, .ffn_dim = 14336, .layers = 32, .heads = 32, .kv_heads = 8,
    .head_dim = 128, .context = 8192, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.02,
    .rope = { .type = ROPE_DEFAULT, .theta = 5e5 } };
static const struct llama_config llama_70b = {
    .vocab = 32000, .dim = 8192, .ffn_dim = 28672, .layers = 80, .heads = 64, .kv_heads = 8,
    .head_dim = 128, .context = 4096, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.02,
    .rope = { .type = ROPE_DEFAULT, .theta = 1e4 } };

static const struct llama_config small = {
    .vocab = 32000, .dim = 768, .ffn_dim = 2048, .layers = 12, .heads = 12, .kv_heads = 12,
    .head_dim = 64, .context = 1024, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.02,
    .rope = { .type = ROPE_DEFAULT, .theta = 1e4 } };

static struct model_options options(enum train_mode mode, int64_t ctx, int64_t gpu, int64_t host)
{
    struct model_options o;

    model_defaults(&o);
    o.mode = mode, o.ctx = ctx;
    o.attention_span = mode == TRAIN_LORA_PLUS ? ctx / 4 : ctx;
    o.device_bytes = gpu, o.host_bytes = host;
    return o;
}

/* Plans on a card; what it may take in all comes from gpu, 0: what the card has. */
static struct memory_plan plan(const struct llama_config *c, const struct model_options *o, int card)
{
    struct memory_plan p;
    struct err e = { 0 };
    struct device d;

    assert_int_equal(device_open_planned(&d, card_at(card), 0, &e), 0);
    if (model_plan(&d, c, o, &p, &e) < 0)
        fail_msg("%s", e.msg);
    d.close(&d);
    return p;
}

/* Seconds measured on an H200 (tests/gpu/RESULTS.md), with that of the card's and the host's memory. */
static void test_times_are_foretold(void **state)
{
    static const struct {
        const struct llama_config *c;
        enum train_mode mode;
        int64_t ctx, seqs, gpu, host;
        double s;
    } measured[] = {
        { &llama_7b, TRAIN_LORA_PLUS, 8192, 1, 0, -1, 0.4067 },
        { &llama_7b, TRAIN_LORA_PLUS, 32768, 1, 0, -1, 1.930 },
        { &llama_7b, TRAIN_LORA_PLUS, 65536, 1, 0, 94 * GIB, 4.686 },
        { &llama_7b, TRAIN_LORA_PLUS, 102400, 1, 0, 94 * GIB, 9.293 },
        { &llama_7b, TRAIN_LORA_PLUS, 102400, 1, 40 * GIB, 94 * GIB, 9.857 },
        { &llama_7b, TRAIN_LORA_PLUS, 102400, 1, 24 * GIB, 94 * GIB, 10.11 },
        { &llama_7b, TRAIN_NONE, 4096, 1, 0, -1, 0.0944 },
        { &llama_7b, TRAIN_NONE, 32768, 1, 0, -1, 1.165 },
        { &llama_7b, TRAIN_NONE, 102400, 1, 0, -1, 6.960 },
        { &small, TRAIN_FULL, 1024, 32, 0, -1, 0.0541 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        struct model_options o = options(measured[i].mode, measured[i].ctx, measured[i].gpu,
                                         measured[i].host);
        struct memory_plan p;

        o.seqs = measured[i].seqs;
        p = plan(measured[i].c, &o, H200);
        if (!(fabs(p.step_s / measured[i].s - 1) < 0.07))
            fail_msg("row %zu: foretold %.4f s, measured %.4f", i, p.step_s, measured[i].s);
    }
}

enum { NO_HOST, SOME_HOST, MUCH_HOST, HOSTS };
static const int64_t host_of[HOSTS] = { -1, 48 * GIB, 200 * GIB };

/* Over contexts, memory of the card and of the host, 7B, 8B and 70B: what is laid out fits in
 * both, or says that it does not; more memory of either is never slower, nor fits less. */
static void test_plans_fit_and_more_memory_is_not_slower(void **state)
{
    static const struct llama_config *const shape[] = { &llama_7b, &llama_8b, &llama_70b };
    static const int64_t ctx[] = { 8192, 102400, 262144 };
    static const int64_t gib[] = { 10, 24, 40, 139 };
    struct device d;
    struct err e = { 0 };
    int fitted = 0, offloaded = 0;

    (void)state;
    assert_int_equal(device_open_planned(&d, card_at(H200), 0, &e), 0);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (size_t j = 0; j < sizeof ctx / sizeof *ctx; j++) {
            double fastest[HOSTS] = { INFINITY, INFINITY, INFINITY };

            for (size_t k = 0; k < sizeof gib / sizeof *gib; k++)
                for (int h = 0; h < HOSTS; h++) {
                    struct model_options o = options(TRAIN_LORA_PLUS, ctx[j], gib[k] * GIB,
                                                     host_of[h]);
                    struct memory_plan p;
                    size_t room = (size_t)(gib[k] * GIB) - d.held_bytes;

                    assert_int_equal(model_plan(&d, shape[i], &o, &p, &e), 0);
                    assert_true(p.host <= (size_t)(host_of[h] > 0 ? host_of[h] : 0));
                    if (p.total > room) { /* it did not fit with less either */
                        assert_true(isinf(fastest[h]) && (h == 0 || isinf(fastest[h - 1])));
                        continue;
                    }
                    assert_true(p.step_s > 0 && p.step_s <= fastest[h] * 1.005);
                    assert_true(h == 0 || p.step_s <= fastest[h - 1] * 1.005);
                    fastest[h] = p.step_s;
                    fitted++;
                    offloaded += p.host > 0;
                }
        }
    d.close(&d);
    if (fitted < 40 || offloaded < 24)
        fail_msg("only %d of the plans fit, %d by the host", fitted, offloaded);
}

/* What issue 3 asks of Llama-2-7B: 100k tokens in 24 and 40 GiB, and 512k on one H200. */
static void test_long_contexts_fit_in_little(void **state)
{
    struct model_options o = options(TRAIN_LORA_PLUS, 102400, 0, 96 * GIB);
    double free = plan(&llama_7b, &o, H200).step_s;
    struct memory_plan p;

    (void)state;
    o.device_bytes = 40 * GIB;
    assert_true(plan(&llama_7b, &o, H200).step_s < free / 0.93);
    o.device_bytes = 24 * GIB;
    assert_true(plan(&llama_7b, &o, H200).step_s < free / 0.85);
    o.device_bytes = 0;
    p = plan(&llama_7b, &o, RTX_4090);
    assert_true(p.total < (size_t)(22.7 * 0x1p30) && p.host <= (size_t)(96 * GIB));
    o = options(TRAIN_LORA_PLUS, 524288, 0, 96 * GIB);
    p = plan(&llama_7b, &o, H200);
    assert_true(p.total < (size_t)(139 * GIB) && p.host <= (size_t)(96 * GIB));
}

/* Scoring in little memory: only as many matrices are streamed as must be. */
static void test_scoring_streams_what_does_not_fit(void **state)
{
    struct model_options o = options(TRAIN_NONE, 32768, 0, 0);
    struct memory_plan all = plan(&llama_7b, &o, H200), little;

    (void)state;
    assert_int_equal(all.placement.streamed, 0);
    o.device_bytes = 8 * GIB;
    little = plan(&llama_7b, &o, H200);
    assert_in_range(little.placement.streamed, 3, 32);
    assert_true(little.total < (size_t)(8 * GIB) && little.total > (size_t)(6 * GIB));
    assert_true(little.step_s > all.step_s && little.step_s < 1.2 * all.step_s);
    o.host_bytes = -1;
    assert_int_equal(plan(&llama_7b, &o, H200).placement.streamed, 0);
}

/* One step of a tiny model in so many bytes of a device's memory; grad: its gradients, malloc'ed. */
static double step_in(struct device *d, int64_t bytes, struct memory_plan *p, float **grad,
                      int64_t *n)
{
    static const struct llama_config tiny = {
        .vocab = 97, .dim = 64, .ffn_dim = 96, .layers = 9, .heads = 4, .kv_heads = 2,
        .head_dim = 16, .context = 128, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.1,
        .rope = { .type = ROPE_DEFAULT, .theta = 1e4 } };
    struct model_options o = options(TRAIN_LORA_PLUS, 128, bytes, GIB);
    struct segments seg = { 0 };
    struct batch b = { 0 };
    struct model *m = NULL;
    struct err e = { 0 };
    double nll = 0;
    int64_t scored;

    if (model_open(&m, d, &tiny, &o, &e) < 0 || model_noise(m, 3, &e) < 0 ||
        segments_build(&seg, ATTN_S2, 1, 128, 32, NULL, 0, &e) < 0 ||
        preset_batch(&b, 1, 128, tiny.vocab, &seg, &e) < 0 ||
        model_step(m, &b, 0.01, &nll, &scored, &e) < 0)
        fail_msg("%s", e.msg);
    *p = *model_memory(m);
    *n = model_trained(m)->n;
    *grad = malloc((size_t)*n * sizeof **grad);
    memcpy(*grad, model_trained(m)->grad, (size_t)*n * sizeof **grad);
    model_close(m);
    segments_free(&seg);
    preset_batch_free(&b);
    return nll;
}

/* From chosen plans to gradients: in little memory, with the host's, the same bits. */
static void test_what_is_chosen_is_carried_out(void **state)
{
    struct memory_plan all, p;
    struct err e = { 0 };
    struct model_options o;
    struct device d;
    float *want, *got;
    int64_t n, m;
    double nll;

    (void)state;
    assert_int_equal(device_open_cpu(&d, &(struct device_options){ .threads = 2 }, &e), 0);
    d.own_memory = true; /* so slow that copies are always worth their time */
    d.rates = (struct rates){ 1e9, 1e9, 1e9, 1e9, 1e12, 1e12 };
    nll = step_in(&d, 0, &all, &want, &n);
    assert_int_equal(all.host, 0);
    for (int i = 1; i <= 6; i++) {
        size_t room = all.total - all.saved * (size_t)i / 10 - all.frozen * (size_t)i / 20;

        assert_true(step_in(&d, (int64_t)room, &p, &got, &m) == nll);
        assert_true(p.host > 0 && p.total <= room);
        assert_int_equal(m, n);
        assert_memory_equal(got, want, (size_t)n * sizeof *got);
        free(got);
    }
    free(want);
    o.ctx = INT64_MAX; /* refused before it is multiplied by anything */
    assert_int_equal(model_plan(&d, &llama_7b, &o, &p, &e), E_CONFIG);
    o = options(TRAIN_LORA_PLUS, 128, 1 << 20, GIB);
    assert_int_equal(model_open(&(struct model *){ 0 }, &d, &llama_7b, &o, &e), E_CONFIG);
    d.own_memory = false;
    assert_int_equal(model_plan(&d, &llama_7b, &o, &p, &e), E_DEVICE);
    d.close(&d);
}

static void test_clocks(void **state)
{
    struct clocks c = { .send_byte_s = 1, .fetch_byte_s = 2 };
    struct device d;

    (void)state;
    device_open_clocks(&d, &c);
    c.now[QUEUE_OPS] = 5;
    assert_int_equal(d.mark(&d, QUEUE_OPS, 0), 0);
    assert_int_equal(d.await(&d, QUEUE_OUT, 0), 0); /* the copy out waits for the ops */
    assert_int_equal(d.send(&d, NULL, NULL, 3), 0);
    assert_int_equal(d.mark(&d, QUEUE_OUT, 1), 0);
    assert_int_equal(d.fetch(&d, NULL, NULL, 2), 0); /* for nobody */
    assert_int_equal(d.mark(&d, QUEUE_IN, 2), 0);
    assert_true(c.now[QUEUE_OPS] == 5 && c.now[QUEUE_OUT] == 8 && c.now[QUEUE_IN] == 4);
    assert_int_equal(d.await(&d, QUEUE_OPS, 2), 0); /* long done */
    assert_true(c.now[QUEUE_OPS] == 5);
    assert_int_equal(d.await(&d, QUEUE_OPS, 1), 0);
    assert_true(c.now[QUEUE_OPS] == 8);
}

static size_t seven_gib(struct device *d)
{
    (void)d;
    return (size_t)7 << 30;
}

/* What ops come to need besides stays free on a small card, where a 16th is less than that. */
static void test_small_cards_keep_a_reserve(void **state)
{
    struct model_options o = options(TRAIN_NONE, 4096, 0, 0);
    struct memory_plan p;
    struct err e = { 0 };
    struct device d;
    size_t limit;

    (void)state;
    assert_int_equal(device_open_planned(&d, card_at(H200), 0, &e), 0);
    d.free_bytes = seven_gib;
    limit = seven_gib(&d) - d.later_bytes;
    assert_true(d.later_bytes > seven_gib(&d) / 16);
    assert_int_equal(model_plan(&d, &llama_7b, &o, &p, &e), 0);
    assert_true(p.total <= limit && p.total > limit - ((size_t)512 << 20));
    assert_int_equal(model_capacity(&d, &o), limit);
    d.close(&d);
}

/* Of a rate that is not told no time is made: nothing is offloaded, and times are not known. */
static void test_rates_that_are_not_told(void **state)
{
    struct err e = { 0 };
    struct device d;
    struct rates all;

    (void)state;
    assert_int_equal(device_open_planned(&d, card_at(H200), 0, &e), 0);
    all = d.rates;
    for (int i = 0; i < 6; i++) {
        struct model_options o = options(TRAIN_LORA_PLUS, 8192, 0, 0);
        struct memory_plan p;

        d.rates = all;
        *(i == 0 ? &d.rates.matrix : i == 1 ? &d.rates.attention : i == 2 ? &d.rates.attention_back
          : i == 3 ? &d.rates.memory : i == 4 ? &d.rates.out : &d.rates.in) = 0;
        assert_int_equal(model_plan(&d, &llama_7b, &o, &p, &e), 0);
        assert_true(p.step_s == 0 && p.host == 0);
        assert_true(placement_layers(&p.placement, SAVE_ALL) > 20);
    }
    d.close(&d);
}

static void test_rates_of_cards(void **state)
{
    static const struct card_facts silent = { .name = "NVIDIA X1", .arch = 90, .sms = 100 },
        told = { "NVIDIA X1", 90, 100, 1800000, 2600000, 5120 },
        whole = { "NVIDIA H200", 90, 132, 0, 0, 0 },
        slice = { "NVIDIA H200 MIG 1g.18gb", 90, 16, 0, 0, 0 },
        b200 = { "NVIDIA B200", 100, 148, 0, 0, 0 },
        b300 = { "NVIDIA B300", 103, 148, 1900000, 4000000, 8192 };
    struct rates r = card_rates_of(&silent);

    (void)state;
    assert_true(r.matrix > 1e14 && r.attention > 1e14 && r.memory > 1e11 && r.in > 0 && r.out > 0);
    assert_true(card_rates_of(&told).matrix > r.matrix);
    r = card_rates_of(&whole);
    assert_true(r.matrix == card_rates(card_at(H200)).matrix);
    assert_true(fabs(card_rates_of(&slice).matrix / r.matrix * 132 / 16 - 1) < 1e-9);
    assert_true(fabs(card_rates_of(&slice).memory / r.memory * 132 / 16 - 1) < 1e-9);
    assert_true(card_rates_of(&b200).matrix > 2.2 * r.matrix);
    assert_true(fabs(card_rates_of(&b300).matrix / card_rates_of(&b200).matrix - 1) < 0.1);
}

static int cannot_pin(struct device *d, size_t nbytes, void **p, struct err *e)
{
    (void)d, (void)p;
    return err_set(e, E_DEVICE, "cannot pin %zu bytes", nbytes);
}

/* Where it was not asked for, a run goes on without the host's memory if it fits so. */
static void test_memory_that_cannot_be_pinned(void **state)
{
    struct session_options so = { .machine = { .host_bytes = -1 } };
    struct model_options o = options(TRAIN_LORA_PLUS, 128, 0, 0);
    struct session s = { .config = llama_7b, .has_device = true };
    struct err e = { 0 };
    size_t most;

    (void)state;
    s.config.vocab = 97, s.config.dim = 64, s.config.ffn_dim = 96, s.config.layers = 9;
    s.config.heads = s.config.kv_heads = 4, s.config.head_dim = 16;
    assert_int_equal(device_open_cpu(&s.device, &(struct device_options){ .threads = 2 }, &e), 0);
    s.device.own_memory = true; /* so slow that copies are always worth their time */
    s.device.rates = (struct rates){ 1e9, 1e9, 1e9, 1e9, 1e12, 1e12 };
    s.device.host_alloc = cannot_pin;
    assert_int_equal(session_plan(&s, &o, &e), 0);
    most = s.plan.total - s.plan.saved / 2;
    o.device_bytes = (int64_t)most, o.host_bytes = GIB; /* asked for */
    assert_int_equal(session_plan(&s, &o, &e), 0);
    assert_true(s.plan.host > 0);
    assert_int_equal(session_load(&s, &so, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "--host-memory"));
    session_unload(&s);
    o.host_bytes = 0;
    assert_int_equal(session_plan(&s, &o, &e), 0);
    assert_true(s.plan.host > 0);
    assert_int_equal(session_load(&s, &so, &e), 0);
    assert_true(s.plan.host == 0 && s.plan.total <= most && model_memory(s.model)->host == 0);
    session_close(&s);
}

/* Four processes of a run on one host take a quarter of its memory each. */
static void test_processes_share_the_host(void **state)
{
    struct model_options o = options(TRAIN_LORA_PLUS, 262144, 24 * GIB, 0);
    struct memory_plan alone, one;
    struct err e = { 0 };
    struct device d;

    (void)state;
    assert_int_equal(device_open_cpu(&d, &(struct device_options){ .threads = 2 }, &e), 0);
    d.own_memory = true;
    d.rates = card_rates(card_at(H200));
    assert_int_equal(model_plan(&d, &llama_7b, &o, &alone, &e), 0);
    setenv("WORLD_SIZE", "4", 1), setenv("RANK", "1", 1);
    setenv("LOCAL_RANK", "1", 1), setenv("LOCAL_WORLD_SIZE", "4", 1);
    assert_int_equal(model_plan(&d, &llama_7b, &o, &one, &e), 0);
    unsetenv("WORLD_SIZE"), unsetenv("RANK");
    unsetenv("LOCAL_RANK"), unsetenv("LOCAL_WORLD_SIZE");
    assert_true(alone.host > 0 && one.host < alone.host / 2);
    d.close(&d);
}

/* Wide heads fit every card, as tests/test_flash.c shows of the kernels; wider ones are refused
 * before anything is loaded. */
static void test_wide_heads(void **state)
{
    struct llama_config c = llama_7b;
    struct model_options o = options(TRAIN_LORA_PLUS, 4096, 0, 0);
    struct memory_plan p;
    struct err e = { 0 };
    struct device d;

    (void)state;
    c.heads = c.kv_heads = 8;
    for (int i = 0; card_at(i); i++) {
        assert_int_equal(device_open_planned(&d, card_at(i), 0, &e), 0);
        c.head_dim = 192;
        assert_int_equal(model_plan(&d, &c, &o, &p, &e), 0);
        c.head_dim = 256;
        assert_int_equal(model_plan(&d, &c, &o, &p, &e), 0);
        c.head_dim = 320;
        assert_int_equal(model_plan(&d, &c, &o, &p, &e), E_CONFIG);
        assert_non_null(strstr(e.msg, "320 channels"));
        d.close(&d);
    }
}

/* A sequence over ranks: half a group of keys and values of half the heads a layer each way, or all
 * heads' shares; a rank's part of the memory; the work of the rank that has most. */
static void test_a_sequence_over_ranks(void **state)
{
    struct model_options o = options(TRAIN_LORA_PLUS, 102400, 0, 64 * GIB);
    double halo = 12800.0 * 2048 * 2 * 2, share = 51200.0 * 4096 * 2 * 4 / 2;
    struct memory_plan one = plan(&llama_7b, &o, 0), p;

    (void)state;
    assert_true(one.line_bytes == 0 && one.line_most == 1);
    o.cp = 2, o.link_rate = 310e9;
    p = plan(&llama_7b, &o, 0);
    assert_true(p.line_bytes >= 2 * 32 * halo && p.line_bytes <= 3 * 32 * halo);
    assert_true(p.line_s > 0.02 && p.line_s < 0.04);
    assert_true(p.line_bare_s == 0); /* beside the product of q */
    assert_true(fabs(p.line_most - 2 / 1.875) < 1e-3); /* of 4 groups' pairs the second half has 2 */
    assert_true(p.step_s < one.step_s / 1.95 && p.step_s > one.step_s / 2.3);
    o.cp = 8; /* a part is half a group */
    p = plan(&llama_7b, &o, 0);
    assert_true(p.line_bytes >= 2 * 32 * halo && p.line_bytes <= 3 * 32 * halo);
    assert_true(p.step_s < one.step_s / 7);
    o.cp = 2, o.attention_span = o.ctx;
    p = plan(&llama_7b, &o, 0);
    assert_true(p.line_bytes >= 3 * 32 * share && p.line_bytes <= 4 * 32 * share);
    assert_true(p.line_most == 1);
    /* a quarter of q and of o, of their gradients as much */
    assert_true(p.line_bare_s > 0.06 * p.line_s && p.line_bare_s < 0.1 * p.line_s);
    o.link_rate = 1e9; /* slower than all that it is beside */
    p = plan(&llama_7b, &o, 0);
    assert_true(p.line_bare_s > 0.5 * p.line_s && p.line_bare_s < p.line_s);
    o.link_rate = 310e9;
    o.attention_span = o.ctx / 4, o.cp = 16; /* groups of four parts: turned */
    p = plan(&llama_7b, &o, 0);
    assert_true(p.line_bytes > 2.99 * 32 * 6400.0 * 4096 * 2 * 4 * 15 / 16 && p.line_most == 1);
    o.cp = 0, o.shares = 8; /* of the matrices an eighth, and two layers */
    p = plan(&llama_7b, &o, 0);
    assert_true(p.placement.streamed == 32 && p.frozen < one.frozen / 8 + 2 * 406 * (GIB >> 10) + 600 * (GIB >> 10));
    assert_true(p.step_s < one.step_s * 1.05);
    o.shares = 1;
    o.cp = 2, o.attention_span = o.ctx / 4;
    p = plan(&llama_7b, &o, 0);
    o.spans_ctx = true; /* room for dense steps */
    assert_true(plan(&llama_7b, &o, 0).work > p.work);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times_are_foretold),
        cmocka_unit_test(test_plans_fit_and_more_memory_is_not_slower),
        cmocka_unit_test(test_long_contexts_fit_in_little),
        cmocka_unit_test(test_scoring_streams_what_does_not_fit),
        cmocka_unit_test(test_what_is_chosen_is_carried_out),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_small_cards_keep_a_reserve),
        cmocka_unit_test(test_rates_that_are_not_told),
        cmocka_unit_test(test_rates_of_cards),
        cmocka_unit_test(test_memory_that_cannot_be_pinned),
        cmocka_unit_test(test_processes_share_the_host),
        cmocka_unit_test(test_wide_heads),
        cmocka_unit_test(test_a_sequence_over_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
