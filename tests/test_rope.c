/* tests/test_rope.c - every kind of RoPE against transformers' numbers, and how models are extended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/tensors.h"
#include "model/model.h"
#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA "tests/data/rope/"
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, err.msg); } while (0)

enum { SEQS = 2, SHORT = 12, LONG = 40, VOCAB = 48 };
static struct err err;

/* ---- frequencies ---- */

/* The word of a kind in ROPE_KINDS. */
static int kind(const char *word)
{
    const char *p = ROPE_KINDS;
    int k = 0;

    for (; strncmp(p, word, strlen(word)) != 0 || (p[strlen(word)] != '|' && p[strlen(word)]); k++)
        p = strchr(p, '|') + 1;
    return k;
}

static void check_table(const struct js *o, size_t at)
{
    struct llama_config c;
    struct js config;
    json_t *want, *v;
    double scale;
    int64_t len;
    size_t i;
    char *text;
    float got[512], s;

    OK(js_object(o, "config", JS_MUST, &config, &err));
    OK(js_i64(o, "length", JS_MUST, 1, 1 << 30, &len, &err));
    OK(js_f64(o, "scale", JS_MUST, 0, 100, &scale, &err));
    OK(js_array(o, "inv_freq", JS_MUST, &want, &err));
    text = json_dumps(config.obj, 0);
    OK(config_parse(&c, text, strlen(text), "case", &err));
    s = rope_inv_freq(&c.rope, config_rotary(&c), len, got);
    if (fabs((double)s - scale) > 1e-6 * scale)
        fail_msg("case %zu %s: scale %.9g, not %.9g", at, text, (double)s, scale);
    assert_int_equal(json_array_size(want), config_rotary(&c) / 2);
    json_array_foreach(want, i, v)
        if (fabs((double)got[i] - json_number_value(v)) > 1e-6 * json_number_value(v))
            fail_msg("case %zu %s: pair %zu has %.9g, not %.9g", at, text, i, (double)got[i],
                     json_number_value(v));
    free(text);
}

static void test_frequencies_equal_transformers(void **state)
{
    struct js top, o;
    json_t *cases;
    size_t n;

    (void)state;
    OK(js_load(&top, "tests/data/rope.json", JS_MAX_BYTES, &err));
    OK(js_array(&top, "cases", JS_MUST, &cases, &err));
    n = json_array_size(cases);
    assert_true(n >= 100);
    for (size_t i = 0; i < n; i++) {
        OK(js_item(&top, "cases", cases, i, &o, &err));
        check_table(&o, i);
    }
    js_free(&top);
}

/* ---- models ---- */

struct fixture {
    struct device d;
    struct model *m;
    struct weights *w;
    struct st_file *gold;
    struct llama_config c;
    struct segments seg;
    int32_t ids[SEQS * LONG], targets[SEQS * LONG];
};

static const float *gold(struct fixture *f, const char *prefix, const char *name, int64_t n)
{
    char full[200];
    const struct tensor *t;

    snprintf(full, sizeof full, "%s%s", prefix, name);
    if (!(t = st_find(f->gold, full)))
        fail_msg("no golden tensor '%s'", full);
    assert_true(t->count == n);
    return t->data;
}

/* Largest |got - want| over the largest |want|. */
static double worst(const float *got, const void *want, int64_t n)
{
    double off = 0, top = 1e-30;

    for (int64_t i = 0; i < n; i++) {
        float w;

        memcpy(&w, (const char *)want + 4 * i, 4);
        off = fmax(off, fabs((double)got[i] - (double)w));
        top = fmax(top, fabs((double)w));
        if (!isfinite(got[i]))
            return INFINITY;
    }
    return off / top;
}

static void set_up(struct fixture *f, const char *name, enum train_mode mode)
{
    struct model_options o;
    char path[128];

    memset(f, 0, sizeof *f);
    OK(device_open(&f->d, &(struct device_options){ .name = "cpu", .threads = 2 }, &err));
    snprintf(path, sizeof path, DATA "%s.json", strcmp(name, "default") ? name : "base/config");
    OK(config_read(&f->c, path, &err));
    OK(weights_open(&f->w, DATA "base", &err));
    snprintf(path, sizeof path, DATA "%s.safetensors", name);
    OK(st_open(&f->gold, path, &err));
    model_defaults(&o);
    o.mode = mode, o.ctx = LONG, o.seqs = SEQS;
    OK(model_open(&f->m, &f->d, &f->c, &o, &err));
    OK(model_load(f->m, f->w, 1, &err));
    for (int i = 0; i < SEQS * LONG; i++) {
        int64_t id;

        memcpy(&id, (const char *)st_find(f->gold, "ids")->data + 8 * i, 8);
        f->ids[i] = (int32_t)id;
        if (i % LONG)
            f->targets[i - 1] = f->ids[i];
        f->targets[i] = -1;
    }
}

static void tear_down(struct fixture *f)
{
    segments_free(&f->seg);
    st_close(f->gold);
    model_close(f->m);
    weights_close(f->w);
    f->d.close(&f->d);
}

static void check_logits(struct fixture *f, const char *name, int64_t len)
{
    static float logits[SEQS * LONG * VOCAB];
    int32_t ids[SEQS * LONG], none[SEQS * LONG];
    const char *length = len == LONG ? "long" : "short";
    double off;

    for (int64_t i = 0; i < SEQS * len; i++) {
        ids[i] = f->ids[i / len * LONG + i % len];
        none[i] = -1;
    }
    OK(segments_build(&f->seg, ATTN_DENSE, SEQS, len, 0, NULL, 0, &err));
    OK(model_logits(f->m, &(struct batch){ .n_seqs = SEQS, .len = len, .ids = ids,
                                           .targets = none, .seg = &f->seg }, logits, &err));
    off = worst(logits, gold(f, length, "", SEQS * len * VOCAB), SEQS * len * VOCAB);
    if (!(off < 1e-4))
        fail_msg("%s: %s logits are off by %g", name, length, off);
}

static void check_gradients(struct fixture *f, const char *name)
{
    const struct trained *t = model_trained(f->m);
    struct batch b = { .n_seqs = SEQS, .len = LONG, .ids = f->ids, .targets = f->targets,
                       .seg = &f->seg };
    double sum, want, off;
    int64_t n;

    OK(segments_build(&f->seg, ATTN_DENSE, SEQS, LONG, 0, NULL, 0, &err));
    f->d.zero(&f->d, t->grad, (size_t)t->n * 4);
    OK(model_step(f->m, &b, 1.0 / (SEQS * (LONG - 1)), &sum, &n, &err));
    want = (double)*gold(f, "loss", "", 1);
    if (!(fabs(sum / (double)n - want) < 1e-4 * want))
        fail_msg("%s: loss %.7f, not %.7f", name, sum / (double)n, want);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        const float *g = t->grad + p->offset;
        char full[200];
        double square = 0;

        snprintf(full, sizeof full, "grad.%s", p->name);
        if (st_find(f->gold, full) && !((off = worst(g, gold(f, full, "", p->count), p->count)) < 1e-4))
            fail_msg("%s: gradient of %s is off by %g", name, p->name, off);
        for (int64_t k = 0; k < p->count; k++)
            square += (double)g[k] * (double)g[k];
        want = (double)*gold(f, "square.", p->name, 1);
        if (!(fabs(square - want) < 3e-4 * want))
            fail_msg("%s: gradient of %s has a square of %g, not %g", name, p->name, square, want);
    }
}

static void test_models_equal_transformers(void **state)
{
    static const char *const names[] = { "default", "linear", "llama3", "dynamic", "yarn",
                                         "longrope" };
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        set_up(&f, names[i], TRAIN_FULL);
        /* The long one first: nothing of it may stay. */
        check_logits(&f, names[i], LONG);
        check_logits(&f, names[i], SHORT);
        check_gradients(&f, names[i]);
        tear_down(&f);
    }
}

/* ---- extending ---- */

static const struct rope_ask automatic;

static struct rope_ask ask(const char *word, double factor)
{
    return (struct rope_ask){ .kind = kind(word), .factor = factor };
}

static struct llama_config plain(int64_t context)
{
    return (struct llama_config){ .context = context, .head_dim = 64,
                                  .rope = { .type = ROPE_DEFAULT, .theta = 1e4, .factor = 1 } };
}

static void extend(struct llama_config *c, int64_t ctx, struct rope_ask a)
{
    OK(rope_extend(c, ctx, &a, &err));
}

static void refused(struct llama_config c, int64_t ctx, struct rope_ask a, const char *why)
{
    struct llama_config was = c;

    assert_int_equal(rope_extend(&c, ctx, &a, &err), E_CONFIG);
    if (!strstr(err.msg, why))
        fail_msg("'%s' does not say '%s'", err.msg, why);
    assert_true(c.context == was.context && config_rope_same(&c.rope, &was.rope));
}

static void test_the_reference_rule(void **state)
{
    struct llama_config c = plain(4096);

    (void)state;
    extend(&c, 4096, automatic);
    assert_int_equal(c.rope.type, ROPE_DEFAULT);
    extend(&c, 10000, automatic);
    assert_int_equal(c.rope.type, ROPE_LINEAR);
    assert_true(c.rope.factor == 3 && c.context == 3 * 4096);
    refused(c, 2 * c.context, automatic, "before or after");
    assert_non_null(strstr(err.msg, "--rope-factor"));
    extend(&c, 2 * c.context, ask("pi", 2));
    assert_true(c.rope.factor == 6 && c.context == 6 * 4096);
    /* an explicit factor: the context that is trained, or where nobody says it, all of it */
    c = plain(4096);
    extend(&c, 6000, ask("pi", 8));
    assert_true(c.rope.factor == 8 && c.context == 6000);
    extend(&c, 100, ask("pi", 2));
    assert_true(c.rope.factor == 16 && c.context == 6000);
    extend(&c, 0, ask("pi", 2));
    assert_true(c.rope.factor == 32 && c.context == 12000);
    refused(c, 100, ask("pi", 1e5), "1 to 65536");
}

static void test_each_kind_begins(void **state)
{
    struct llama_config c = plain(4096);
    struct rope_ask a = ask("theta", 0);

    (void)state;
    extend(&c, 4096, ask("parts", 0));
    assert_int_equal(c.rope.type, ROPE_DEFAULT);
    /* exactly, not the next whole number */
    extend(&c, 10000, ask("parts", 0));
    assert_true(c.rope.type == ROPE_LLAMA3 && c.rope.factor == 10000.0 / 4096 && c.context == 10000);
    assert_true(c.rope.low_freq_factor == 1 && c.rope.high_freq_factor == 4 &&
                c.rope.original_context == 4096);
    c = plain(4096);
    extend(&c, 102400, (struct rope_ask){ .kind = kind("llama3"), .low = 2, .high = 32 });
    assert_true(c.rope.low_freq_factor == 2 && c.rope.high_freq_factor == 32 && c.rope.factor == 25);
    c = plain(4096);
    extend(&c, 10000, ask("yarn", 0));
    assert_true(c.rope.type == ROPE_YARN && c.rope.factor == 10000.0 / 4096 && c.context == 10000 &&
                c.rope.beta_fast == 32 && c.rope.beta_slow == 1 && c.rope.attention_factor == 0);
    assert_float_equal(config_rope_scale(&c.rope), 1 + 0.1 * log(10000.0 / 4096), 1e-12);
    c = plain(4096);
    extend(&c, 10000, (struct rope_ask){ .kind = kind("yarn"), .factor = 8, .attention = 1 });
    assert_true(c.rope.factor == 8 && c.context == 8 * 4096 && config_rope_scale(&c.rope) == 1);
    c = plain(4096);
    extend(&c, 16384, ask("dynamic", 0)); /* transformers computes with the context: it stays */
    assert_true(c.rope.type == ROPE_DYNAMIC && c.rope.factor == 4 && c.context == 4096 &&
                config_reach(&c) == 16384);
    c = plain(4096);
    extend(&c, 32768, ask("ntk", 0));
    assert_true(c.rope.type == ROPE_DEFAULT && c.context == 32768);
    assert_float_equal(c.rope.theta, 1e4 * pow(8, 64.0 / 62), 1e-6);
    c = plain(4096);
    a.theta = 5e5;
    extend(&c, 32768, a);
    assert_true(c.rope.type == ROPE_DEFAULT && c.context == 32768 && c.rope.theta == 5e5);
    extend(&c, 100, (struct rope_ask){ .kind = kind("theta"), .theta = 6e5 });
    assert_true(c.context == 32768 && c.rope.theta == 6e5);
    refused(plain(4096), 8192, ask("longrope", 0), "--rope-lists");
    c = plain(4096);
    c.head_dim = 2;
    refused(c, 8192, ask("ntk", 0), "2 channels");
}

static void test_longrope_begins_with_lists(void **state)
{
    struct llama_config c = plain(4096);
    struct rope_ask a = ask("longrope", 0);

    (void)state;
    a.lists = DATA "lists.json";
    assert_int_equal(rope_extend(&c, 8192, &a, &err), E_DATA); /* 8 pairs, and here are 32 */
    assert_non_null(strstr(err.msg, "'short_factor' has 8 numbers, must have 32"));
    a.lists = DATA "nothing.json";
    c = plain(4096);
    assert_int_equal(rope_extend(&c, 8192, &a, &err), E_NOINPUT);
    a.lists = DATA "lists.json";
    c = plain(4096);
    c.head_dim = 16;
    extend(&c, 8192, a);
    assert_true(c.rope.type == ROPE_LONGROPE && c.rope.factor == 2 && c.context == 8192 &&
                c.rope.pairs == 8 && c.rope.original_context == 4096);
    assert_float_equal(config_rope_scale(&c.rope), sqrt(1 + log(2) / log(4096)), 1e-12);
    /* and goes on: the last list, the factor and what follows from it */
    a = automatic;
    double last = c.rope.long_factor[7], first = c.rope.short_factor[7];
    extend(&c, 16384, a);
    assert_true(c.rope.factor == 4 && c.context == 16384 && c.rope.long_factor[7] == 2 * last &&
                c.rope.short_factor[7] == first);
}

static void test_scaled_models_go_on_in_their_kind(void **state)
{
    const struct llama_config llama31 = { .context = 131072, .head_dim = 128,
        .rope = { .type = ROPE_LLAMA3, .theta = 5e5, .factor = 8, .low_freq_factor = 1,
                  .high_freq_factor = 4, .original_context = 8192 } };
    struct llama_config c = llama31;

    (void)state;
    extend(&c, 131072, automatic);
    assert_true(c.rope.factor == 8);
    extend(&c, 262144, automatic);
    assert_true(c.rope.factor == 16 && c.context == 262144 && c.rope.original_context == 8192);
    extend(&c, 524288, ask("parts", 2));
    assert_true(c.rope.factor == 32 && c.context == 524288);
    c = llama31;
    extend(&c, 262144, ask("ntk", 0)); /* the base; the scaling stays */
    assert_true(c.rope.type == ROPE_LLAMA3 && c.rope.factor == 8 && c.context == 262144);
    assert_float_equal(c.rope.theta, 5e5 * pow(2, 128.0 / 126), 1e-3);
    refused(llama31, 262144, ask("pi", 0), "(llama3, factor 8), and --rope pi");
    refused(llama31, 262144, ask("yarn", 2), "--rope yarn");
    refused(llama31, 262144, (struct rope_ask){ .kind = kind("parts"), .low = 2 }, "--rope-low");
    /* of yarn max_position_embeddings may be the context before or after: the factor tells */
    c = plain(32768);
    c.rope = (struct rope_config){ .type = ROPE_YARN, .theta = 1e6, .factor = 4, .beta_fast = 32,
                                   .beta_slow = 1, .original_context = 32768 };
    assert_int_equal(config_reach(&c), 131072);
    extend(&c, 131072, automatic);
    assert_true(c.rope.factor == 4 && c.context == 32768);
    extend(&c, 200000, automatic);
    assert_true(c.rope.factor == 200000.0 / 32768 && c.context == 200000);
    c = plain(4096);
    extend(&c, 10000, ask("dynamic", 0));
    extend(&c, 30000, automatic);
    assert_true(c.rope.factor == 30000.0 / 4096 && c.context == 4096 && config_reach(&c) == 30000);
    c = plain(4096);
    c.rope = (struct rope_config){ .type = ROPE_LINEAR, .theta = 1e4, .factor = 2 };
    refused(c, 8192, ask("parts", 2), "(linear, factor 2), and --rope parts");
    c.rope.factor = 1; /* is no scaling */
    extend(&c, 8192, ask("parts", 0));
    assert_true(c.rope.type == ROPE_LLAMA3 && c.rope.factor == 2);
}

static void test_options_that_do_not_go_together(void **state)
{
    static const struct { struct rope_ask a; const char *kind, *why; } bad[] = {
        { { .low = 2 }, NULL, "--rope-low belongs to a kind" },
        { { .low = 2 }, "yarn", "--rope yarn has no --rope-low" },
        { { .fast = 2 }, "parts", "--rope parts has no --rope-fast" },
        { { .attention = 2 }, "ntk", "--rope ntk has no --rope-attention" },
        { { .lists = "x" }, "dynamic", "--rope dynamic has no --rope-lists" },
        { { .theta = 1e6 }, "pi", "--rope pi has no --rope-theta" },
        { { .factor = 2 }, "theta", "--rope theta has no --rope-factor" },
        { { .factor = -1 }, "theta", "needs --rope-theta" },
        { { .factor = 0.5 }, "pi", "--rope-factor 0.5" },
        { { .factor = NAN, .theta = NAN }, "theta", "needs --rope-theta" },
        { { .low = 4 }, "parts", "--rope-high 4 must be above --rope-low 4" },
        { { .high = 1 }, "llama3", "--rope-high 1 must be above --rope-low 1" },
        { { .slow = 33 }, "yarn", "--rope-fast 32 must not be below --rope-slow 33" },
    };
    struct rope_ask good = { .kind = kind("yarn"), .fast = 3, .slow = 3, .attention = 2 };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rope_ask a = bad[i].a;

        a.kind = bad[i].kind ? kind(bad[i].kind) : 0;
        if (rope_check(&a, &err) != E_USAGE || !strstr(err.msg, bad[i].why))
            fail_msg("%zu: '%s' does not say '%s'", i, err.msg, bad[i].why);
    }
    OK(rope_check(&good, &err));
    OK(rope_check(&automatic, &err));
}

/* Windows that are computed together must have the same frequencies. */
static void test_lengths_that_turn_alike(void **state)
{
    struct rope_config r = { .type = ROPE_YARN, .original_context = 16 };

    (void)state;
    assert_true(rope_length(&r, 10) == rope_length(&r, 20));
    r.type = ROPE_DYNAMIC;
    assert_true(rope_length(&r, 10) == rope_length(&r, 16) &&
                rope_length(&r, 16) != rope_length(&r, 17) &&
                rope_length(&r, 18) != rope_length(&r, 17));
    r.type = ROPE_LONGROPE;
    assert_true(rope_length(&r, 10) == rope_length(&r, 16) &&
                rope_length(&r, 16) != rope_length(&r, 17) &&
                rope_length(&r, 18) == rope_length(&r, 17));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies_equal_transformers),
        cmocka_unit_test(test_models_equal_transformers),
        cmocka_unit_test(test_the_reference_rule),
        cmocka_unit_test(test_each_kind_begins),
        cmocka_unit_test(test_longrope_begins_with_lists),
        cmocka_unit_test(test_scaled_models_go_on_in_their_kind),
        cmocka_unit_test(test_options_that_do_not_go_together),
        cmocka_unit_test(test_lengths_that_turn_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
