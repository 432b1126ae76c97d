/* tests/test_families.c - tiny models of every family against transformers' numbers
 * (tests/make_arch_golden.py), and from a base through an adapter to a merged model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/perm.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/weights.h"
#include "model/model.h"
#include "tests/families.h"
#include "tools/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA FAMILIES_DATA
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s: %s", f->name, #x, err.msg); } while (0)

enum { SHORT = 10, LONG = 26, VOCAB = 32, GROUP = 8 };
static struct err err;
static struct device cpu;

struct fixture {
    const char *name;
    struct weights *w;
    struct st_file *gold;
    struct model *m;
    struct segments seg;
    int32_t ids[LONG], targets[LONG];
};

static char *scratch(const char *name)
{
    static char path[4][160];
    static int turn;
    const char *tmp = getenv("TMPDIR");

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof *path, "%s/test_families.%d%s%s", tmp ? tmp : "/tmp", (int)getpid(),
             *name ? "/" : "", name);
    return path[turn];
}

static void open_model(struct fixture *f, const struct llama_config *c, enum train_mode mode,
                       int64_t keep)
{
    struct model_options o;

    model_defaults(&o);
    o.mode = mode, o.ctx = LONG, o.keep_layers = keep, o.mlp_tile = 7, o.loss_chunk = 5;
    o.targets = arch_pairs(config_arch(c));
    model_close(f->m);
    OK(model_open(&f->m, &cpu, c, &o, &err));
    OK(model_load(f->m, f->w, 1, &err));
}

static void set_up(struct fixture *f, const char *name)
{
    char path[128];

    memset(f, 0, sizeof *f);
    f->name = name;
    snprintf(path, sizeof path, DATA "%s", name);
    OK(weights_open(&f->w, path, &err));
    snprintf(path, sizeof path, DATA "%s.safetensors", name);
    OK(st_open(&f->gold, path, &err));
    memcpy(f->ids, st_find(f->gold, "ids")->data, sizeof f->ids);
    for (int i = 0; i < LONG; i++)
        f->targets[i] = i + 1 < LONG ? f->ids[i + 1] : -1;
}

static void tear_down(struct fixture *f)
{
    segments_free(&f->seg);
    st_close(f->gold);
    model_close(f->m);
    weights_close(f->w);
}

/* Values of the golden file; NULL: it has none of that name. */
static const float *find(const struct fixture *f, const char *prefix, const char *name, int64_t n)
{
    const struct tensor *t;
    char full[200];

    snprintf(full, sizeof full, "%s%s", prefix, name);
    t = st_find(f->gold, full);
    assert_true(!t || t->count == n);
    return t ? t->data : NULL;
}

static double value(const struct fixture *f, const char *prefix, const char *name)
{
    const float *at = find(f, prefix, name, 1);
    float v;

    if (!at)
        fail_msg("%s: no golden value %s%s", f->name, prefix, name);
    memcpy(&v, at, sizeof v);
    return (double)v;
}

/* Largest |got - want| over the largest |want|. */
static void close_to(const struct fixture *f, const char *what, const float *got, const void *want,
                     int64_t n)
{
    double off = 0, top = 1e-30;

    for (int64_t i = 0; i < n; i++) {
        float w;

        memcpy(&w, (const char *)want + 4 * i, 4);
        off = fmax(off, isfinite(got[i]) ? fabs((double)got[i] - (double)w) : INFINITY);
        top = fmax(top, fabs((double)w));
    }
    if (!(off < 1e-4 * top))
        fail_msg("%s: %s is off by %g of %g", f->name, what, off, top);
}

static struct batch batch(struct fixture *f, int64_t len, enum attention_kind kind)
{
    segments_free(&f->seg);
    OK(segments_build(&f->seg, kind, 1, len, kind == ATTN_DENSE ? 0 : GROUP, NULL, 0, &err));
    return (struct batch){ .n_seqs = 1, .len = len, .ids = f->ids, .targets = f->targets, .seg = &f->seg };
}

static void check_logits(struct fixture *f, int64_t len)
{
    const char *what = len == LONG ? "long" : "short";
    struct batch b = batch(f, len, ATTN_DENSE);
    float logits[LONG * VOCAB];

    b.targets = NULL;
    OK(model_logits(f->m, &b, logits, &err));
    close_to(f, what, logits, find(f, what, "", len * VOCAB), len * VOCAB);
}

/* The mean loss; the gradient is that of it. */
static double step(struct fixture *f, enum attention_kind kind)
{
    const struct trained *t = model_trained(f->m);
    struct batch b = batch(f, LONG, kind);
    double sum;
    int64_t n;

    memset(t->grad, 0, (size_t)t->n * sizeof *t->grad);
    OK(model_step(f->m, &b, 1.0 / (LONG - 1), &sum, &n, &err));
    assert_int_equal(n, LONG - 1);
    return sum / (LONG - 1);
}

static void check_gradients(struct fixture *f)
{
    const struct trained *t = model_trained(f->m);
    double loss = step(f, ATTN_DENSE), want = value(f, "loss", "");

    if (!(fabs(loss - want) < 1e-4 * want))
        fail_msg("%s: loss %.7f, not %.7f", f->name, loss, want);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        const float *g = t->grad + p->offset, *whole = find(f, "grad.", p->name, p->count);
        double square = 0, dot = 0, most = value(f, "square.", p->name);

        for (int64_t k = 0; k < p->count; k++) {
            square += (double)g[k] * (double)g[k];
            dot += (double)g[k] * cos(0.7 * (double)k);
        }
        if (!(fabs(square - most) < 2e-4 * most))
            fail_msg("%s: gradient of %s: square %g, not %g", f->name, p->name, square, most);
        if (!(fabs(dot - value(f, "dot.", p->name)) < 1e-4 * sqrt(most * (double)p->count)))
            fail_msg("%s: gradient of %s: %g, not %g", f->name, p->name, dot, value(f, "dot.", p->name));
        if (whole)
            close_to(f, p->name, g, whole, p->count);
    }
}

static void test_equal_transformers(void **state)
{
    struct fixture f;

    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        set_up(&f, family_names[i]);
        open_model(&f, weights_config(f.w), TRAIN_FULL, -1);
        check_logits(&f, LONG); /* first: nothing of it may stay */
        check_logits(&f, SHORT);
        check_gradients(&f);
        tear_down(&f);
    }
}

/* The family's config.json with another max_position_embeddings and rope_scaling. */
static void with_kind(const struct fixture *f, const json_t *kind, struct llama_config *c)
{
    char path[128], *json;
    json_t *text;
    struct js o;

    snprintf(path, sizeof path, DATA "%s/config.json", f->name);
    OK(js_load(&o, path, JS_MAX_BYTES, &err));
    text = weights_config(f->w)->multimodal ? json_object_get(o.obj, "text_config") : o.obj;
    json_object_update(text, (json_t *)(uintptr_t)kind);
    /* at the top as well: Phi-3 has it there */
    json_object_set_new(text, "original_max_position_embeddings", json_integer(12));
    json = json_dumps(o.obj, 0);
    OK(config_parse(c, json, strlen(json), f->name, &err));
    free(json);
    js_free(&o);
}

/* Every kind of RoPE that transformers computes for the family, beyond the original context. */
static void test_each_kind_of_rope(void **state)
{
    struct js all;
    int seen = 0;

    (void)state;
    if (js_load(&all, DATA "kinds.json", JS_MAX_BYTES, &err) < 0)
        fail_msg("%s", err.msg);
    for (int i = 0; i < FAMILIES; i++) {
        struct fixture fixture, *f = &fixture;
        struct llama_config c;
        const char *kind;
        json_t *kinds, *v;
        char pairs[16];

        set_up(f, family_names[i]);
        snprintf(pairs, sizeof pairs, "%d", (int)(config_rotary(weights_config(f->w)) / 2));
        kinds = json_object_get(all.obj, pairs);
        json_object_foreach(kinds, kind, v) {
            const float *want = find(f, "kind.", kind, 2 * VOCAB);
            float logits[LONG * VOCAB];
            struct batch b;

            if (!want)
                continue;
            with_kind(f, v, &c);
            assert_string_equal(config_rope_name(c.rope.type), kind);
            open_model(f, &c, TRAIN_NONE, -1);
            b = batch(f, LONG, ATTN_DENSE);
            OK(model_logits(f->m, &b, logits, &err));
            close_to(f, kind, logits + (LONG - 2) * VOCAB, want, 2 * VOCAB);
            seen++;
        }
        tear_down(f);
    }
    js_free(&all);
    assert_true(seen > 20);
}

/* All that is trained gets values of some size. */
static void stir(struct fixture *f)
{
    const struct trained *t = model_trained(f->m);

    for (int64_t i = 0; i < t->n; i++)
        t->w[i] += 0.1f * (float)normal_at(7, (uint64_t)i);
    OK(model_sync_trained(f->m));
}

/* Whatever is kept or computed again: the same bits, dense or not. */
static void test_levels(void **state)
{
    static const enum train_mode modes[] = { TRAIN_FULL, TRAIN_LORA_PLUS };
    struct fixture fixture, *f = &fixture;

    (void)state;
    for (int i = 0; i < 2 * FAMILIES; i++) {
        enum attention_kind kind = i % 2 ? ATTN_S2 : ATTN_DENSE;
        float *first = NULL;

        set_up(f, family_names[i / 2]);
        for (int k = 0; k <= (int)weights_config(f->w)->layers; k++) {
            const struct trained *t;

            open_model(f, weights_config(f->w), modes[i % 2], k);
            stir(f);
            step(f, kind);
            t = model_trained(f->m);
            if (!first)
                first = memcpy(malloc((size_t)t->n * 4), t->grad, (size_t)t->n * 4);
            assert_memory_equal(first, t->grad, (size_t)t->n * 4);
        }
        free(first);
        tear_down(f);
    }
}

/* The gradient of LoRA's pairs and of what LoRA+ trains, with S2-Attn, along itself. */
static void test_plus_gradients(void **state)
{
    struct fixture fixture, *f = &fixture;

    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        const struct trained *t;
        double square = 0, slope, up, h = 4e-4;
        float *g;

        set_up(f, family_names[i]);
        open_model(f, weights_config(f->w), TRAIN_LORA_PLUS, -1);
        stir(f);
        step(f, ATTN_S2);
        t = model_trained(f->m);
        g = memcpy(malloc((size_t)t->n * 4), t->grad, (size_t)t->n * 4);
        for (int64_t k = 0; k < t->n; k++)
            square += (double)g[k] * (double)g[k];
        for (int64_t k = 0; k < t->n; k++)
            t->w[k] += (float)(h / sqrt(square)) * g[k];
        OK(model_sync_trained(f->m));
        up = step(f, ATTN_S2);
        for (int64_t k = 0; k < t->n; k++)
            t->w[k] -= (float)(2 * h / sqrt(square)) * g[k];
        OK(model_sync_trained(f->m));
        slope = (up - step(f, ATTN_S2)) / (2 * h);
        if (!(fabs(slope - sqrt(square)) < 3e-3 * slope))
            fail_msg("%s: slope %.6g, gradient %.6g", f->name, slope, sqrt(square));
        free(g);
        tear_down(f);
    }
}

static const float *trained_value(void *ctx, int64_t i)
{
    const struct trained *t = ctx;

    return t->w + t->params[i].offset;
}

/* The loss of a folder, with an adapter or none. */
static double score(struct fixture *f, const char *folder, const char *adapter)
{
    struct batch b = batch(f, LONG, ATTN_DENSE);
    struct weights *was = f->w;
    struct adapter *a;
    double sum;
    int64_t n;

    OK(weights_open(&f->w, folder, &err));
    open_model(f, weights_config(f->w), TRAIN_NONE, -1);
    if (adapter) {
        OK(adapter_open(&a, adapter, weights_config(f->w), &err));
        OK(model_load_adapter(f->m, a, &err));
        adapter_close(a);
    }
    OK(model_forward(f->m, &b, &sum, &n, &err));
    weights_close(f->w);
    f->w = was;
    return sum / (LONG - 1);
}

static void check_loss(const struct fixture *f, const char *what, double got, double want)
{
    if (!(fabs(got - want) < 1e-5 * want))
        fail_msg("%s: loss of the %s %.7f, not %.7f", f->name, what, got, want);
}

static void test_adapter_and_merged_model(void **state)
{
    struct fixture fixture, *f = &fixture;

    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        struct adapter_config a;
        struct merge_report r;
        struct weights *merged;
        char base[128], like[160];
        double want;

        set_up(f, family_names[i]);
        snprintf(base, sizeof base, DATA "%s", family_names[i]);
        snprintf(like, sizeof like, "%s/config.json", base);
        /* the embedding of a tied base would come apart */
        open_model(f, weights_config(f->w), weights_config(f->w)->tied ? TRAIN_LORA : TRAIN_LORA_PLUS, -1);
        stir(f);
        want = step(f, ATTN_DENSE);
        model_adapter_config(f->m, &a);
        snprintf(a.base, sizeof a.base, "%s", base);
        OK(dir_make(scratch(""), &err));
        OK(dir_make(scratch("adapter"), &err));
        OK(adapter_write(scratch("adapter"), &a, model_config(f->m), like, trained_value,
                         (void *)(uintptr_t)model_trained(f->m), &err));
        check_loss(f, "adapter", score(f, base, scratch("adapter")), want);
        OK(merge_run(&(struct merge_options){ .base = base, .adapter = scratch("adapter"),
            .out = scratch("merged"), .type = &type_f32, .shard_bytes = 1 << 20, .threads = 1 },
            &r, &err));
        check_loss(f, "merged model", score(f, scratch("merged"), NULL), want);
        OK(weights_open(&merged, scratch("merged"), &err));
        /* every tensor of the base, by its own name */
        assert_int_equal(weights_count(merged), weights_count(f->w));
        for (int64_t k = 0; k < weights_count(merged); k++)
            assert_string_equal(tensor_file_name(weights_at(merged, k)), tensor_file_name(weights_at(f->w, k)));
        assert_ptr_equal(weights_config(merged)->arch, weights_config(f->w)->arch);
        weights_close(merged);
        OK(dir_remove(scratch(""), &err));
        tear_down(f);
    }
}

/* A config.json that is not made after another says the same again. */
static void test_config_written_anew(void **state)
{
    struct fixture fixture, *f = &fixture;

    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        struct llama_config c;
        char *text;

        set_up(f, family_names[i]);
        OK(config_text(weights_config(f->w), NULL, "float32", "anew", &text, &err));
        OK(config_parse(&c, text, strlen(text), f->name, &err));
        assert_ptr_equal(c.arch, weights_config(f->w)->arch);
        assert_true(config_rope_same(&c.rope, &weights_config(f->w)->rope));
        open_model(f, &c, TRAIN_NONE, -1);
        check_logits(f, LONG);
        free(text);
        tear_down(f);
    }
}

/* What --targets asks for, as a family has it. */
static void test_targets(void **state)
{
    const struct arch *phi = arch_find("phi3");
    uint64_t qkvo = ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_K) | ROLE_BIT(ROLE_V) | ROLE_BIT(ROLE_O), t = qkvo;

    (void)state;
    assert_int_equal(arch_targets(arch_nth(0), &t, &err), 0);
    assert_true(t == qkvo);
    assert_int_equal(arch_targets(phi, &t, &err), 0);
    assert_true(t == (ROLE_BIT(ROLE_QKV) | ROLE_BIT(ROLE_O)));
    t = qkvo | ROLE_BIT(ROLE_GATE) | ROLE_BIT(ROLE_UP) | ROLE_BIT(ROLE_DOWN);
    assert_int_equal(arch_targets(phi, &t, &err), 0);
    assert_true(t == arch_pairs(phi));
    t = ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_V);
    assert_int_equal(arch_targets(phi, &t, &err), E_CONFIG);
    assert_non_null(strstr(err.msg, "one matrix for q, k and v"));
    t = ROLE_BIT(ROLE_QKV);
    assert_int_equal(arch_targets(arch_nth(0), &t, &err), E_CONFIG);
}

/* Who makes a RoPE that transformers 4 refuse of the family is told. */
static void test_advice(void **state)
{
    static const struct { const char *name; enum rope_type t; const char *says; } of[] = {
        { "olmo2", ROPE_LLAMA3, "linear or dynamic alone" }, { "olmo2", ROPE_DYNAMIC, "vLLM" },
        { "phi3", ROPE_LINEAR, "longrope alone" }, { "phi4mini", ROPE_LONGROPE, "vLLM" },
        { "qwen3", ROPE_LLAMA3, "" },
    };
    struct fixture fixture, *f = &fixture;

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct llama_config c;
        char out[256];

        set_up(f, of[i].name);
        c = *weights_config(f->w);
        c.rope.type = of[i].t, c.rope.factor = 2;
        rope_advice(&c, out, sizeof out);
        if (!strstr(out, of[i].says) || (!*of[i].says && *out))
            fail_msg("%s: '%s' does not say '%s'", f->name, out, of[i].says);
        tear_down(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_transformers), cmocka_unit_test(test_each_kind_of_rope),
        cmocka_unit_test(test_levels), cmocka_unit_test(test_plus_gradients),
        cmocka_unit_test(test_adapter_and_merged_model), cmocka_unit_test(test_config_written_anew), cmocka_unit_test(test_targets),
        cmocka_unit_test(test_advice),
    };
    int rc;

    if (device_open(&cpu, &(struct device_options){ .name = "cpu", .threads = 2 }, &err) < 0)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    cpu.close(&cpu);
    return rc;
}
