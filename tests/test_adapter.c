/* tests/test_adapter.c - adapters made by peft and by us, and what they compute with a base. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/adapter_config.h"
#include "base/json.h"
#include "model/model.h"
#include "tests/adaptertest.h"
#include "tools/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA "tests/data/peft_tiny/"
#define QKVO (ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_K) | ROLE_BIT(ROLE_V) | ROLE_BIT(ROLE_O))
#define NORMS (ROLE_BIT(ROLE_ATTN_NORM) | ROLE_BIT(ROLE_MLP_NORM) | ROLE_BIT(ROLE_LAST_NORM))

static char *scratch(const char *name)
{
    static char path[4][160];
    static int k;

    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "/tmp/test_adapter.%ld/%s", (long)getpid(), name);
    return path[k];
}

#define PEFT "\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"q_proj\"]"
static const struct { const char *json, *why; int rc; } spoilt[] = {
    { "", "not valid JSON", E_DATA }, { "{}", "'peft_type' is missing", E_DATA },
    { "{\"peft_type\":\"IA3\"}", "'IA3'", E_CONFIG },
    { "{\"peft_type\":\"LORA\"}", "'target_modules' is missing", E_DATA },
    { "{\"peft_type\":\"LORA\",\"target_modules\":\"(q_proj\"}", "not a regular expression", E_CONFIG },
    { "{\"peft_type\":\"LORA\",\"target_modules\":\"(.*.*.*.*.*.*.*.*)*[0-9][a-z]\"}", "takes too long",
      E_CONFIG },
    { "{\"peft_type\":\"LORA\",\"target_modules\":\"q_proj\"}", "none of target_modules ('q_proj')",
      E_CONFIG }, /* all of the path */
    { "{\"peft_type\":\"LORA\",\"target_modules\":7}", "must be an array", E_DATA },
    { "{\"peft_type\":\"LORA\",\"target_modules\":[1]}", "not a string", E_DATA },
    { "{\"peft_type\":\"LORA\",\"target_modules\":[\"q\"]}", "'q'", E_CONFIG },
    { "{" PEFT ",\"r\":8}", "duplicate", E_DATA },
    { "{" PEFT ",\"lora_alpha\":\"16\"}", "'lora_alpha' is a string", E_DATA },
    { "{\"peft_type\":\"LORA\",\"r\":0}", "'r' is 0", E_DATA },
    { "{\"peft_type\":\"LORA\",\"r\":65537}", "'r'", E_DATA },
    { "{" PEFT ",\"use_dora\":1}", "'use_dora' is an integer", E_DATA },
    { "{" PEFT ",\"bias\":\"some\"}", "bias 'some'", E_CONFIG },
    { "{" PEFT ",\"lora_bias\":true}", "lora_bias", E_CONFIG },
    { "{" PEFT ",\"new_field\":[1]}", "new_field is not supported", E_CONFIG },
    { "{" PEFT ",\"rank_pattern\":{\"q_proj\":0}}", "rank_pattern has no rank", E_DATA },
    { "{" PEFT ",\"rank_pattern\":{\"q_proj\":\"4\"}}", "rank_pattern has no rank", E_DATA },
    { "{" PEFT ",\"rank_pattern\":[4]}", "must be an object", E_DATA },
    { "{" PEFT ",\"rank_pattern\":{\"[q_proj\":4}}", "rank_pattern '[q_proj' is not", E_CONFIG },
    { "{" PEFT ",\"alpha_pattern\":{\"q_proj\":[]}}", "alpha_pattern has no number", E_DATA },
    { "{" PEFT ",\"layers_to_transform\":\"1\"}", "layers_to_transform", E_DATA },
    { "{" PEFT ",\"layers_to_transform\":[0.5]}", "layers_to_transform[0]", E_DATA },
    { "{" PEFT ",\"layers_to_transform\":[1],\"layers_pattern\":\"h\"}", "none of target_modules",
      E_CONFIG },
    { "{" PEFT ",\"trainable_token_indices\":[1]}", "trainable_token_indices", E_CONFIG },
    { "{" PEFT ",\"layer_replication\":[[0,4]]}", "layer_replication", E_CONFIG },
    { "{" PEFT ",\"exclude_modules\":\".*q_proj\"}", "none of target_modules", E_CONFIG },
    { "{" PEFT ",\"exclude_modules\":[\"self_attn.q_proj\"]}", "none of target_modules", E_CONFIG },
    { "{" PEFT ",\"init_lora_weights\":\"pissa_niter_4\"}", "pissa_niter_4", E_CONFIG },
    { "{" PEFT ",\"modules_to_save\":[\"score\"]}", "score", E_CONFIG },
    { "{" PEFT ",\"modules_to_save\":[\"q_proj\"]}", "none of target_modules", E_CONFIG },
    { "{" PEFT ",\"modules_to_save\":[\"proj\"]}", "in target_modules and in modules_to_save", E_CONFIG },
    { "{" PEFT ",\"modules_to_save\":[\"\"]}", "not a name", E_DATA },
    { "{" PEFT ",\"modules_to_save\":[\"layers.0.input_layernorm\"]}", "layers.0", E_CONFIG },
    { "{" PEFT ",\"modules_to_save\":\"norm\"}", "must be an array", E_DATA },
};

static void test_what_is_refused_is_named(void **state)
{
    struct adapter_config a;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        struct err e = {0};
        int rc = adapter_config_parse(&a, NULL, NULL, 0, spoilt[i].json, strlen(spoilt[i].json), "a", &e);
        if (rc != spoilt[i].rc || !strstr(e.msg, spoilt[i].why))
            fail_msg("%s: %d %s", spoilt[i].json, rc, e.msg);
    }
}

static void test_names_as_peft_matches_them(void **state)
{
    static const char json[] = "{\"peft_type\":\"LORA\",\"r\":16,\"lora_alpha\":8,"
        "\"use_rslora\":true,\"target_modules\":[\"self_attn.v_proj\",\"down_proj\"],"
        "\"modules_to_save\":[\"norm\",\"lm_head\"],\"eva_config\":null,\"new_field\":[],"
        "\"runtime_config\":{\"ephemeral_gpu_offload\":false},\"qalora_group_size\":16,"
        "\"layers_to_transform\":null,\"layers_pattern\":[],\"rank_pattern\":{},"
        "\"megatron_core\":\"megatron.core\",\"fan_in_fan_out\":true,\"bias\":\"all\"}";
    static const char all[] = "{\"peft_type\":\"LORA\",\"target_modules\":\"all-linear\"}";
    struct adapter_config a;
    struct err e = {0};

    (void)state;
    OK(adapter_config_parse(&a, NULL, NULL, 0, json, strlen(json), "a", &e));
    assert_true(a.targets == (ROLE_BIT(ROLE_V) | ROLE_BIT(ROLE_DOWN)));
    assert_true(a.saved == (NORMS | ROLE_BIT(ROLE_HEAD))); /* bare endswith */
    assert_true(a.rank == 16 && adapter_scale(&a) == 2.0); /* 8 / sqrt 16 */
    OK(adapter_config_parse(&a, NULL, NULL, 0, all, strlen(all), "a", &e));
    assert_true(a.targets == arch_pairs(arch_nth(0)) && a.rank == 8);
    assert_true(adapter_scale(&a) == 1.0);
}

static void test_one_that_peft_made(void **state)
{
    const struct adapter_config *ac;
    struct adapter_change x;
    struct weights *w;
    struct adapter *a;
    struct tensor_spec s;
    struct err e = {0};

    (void)state;
    OK(weights_open(&w, DATA "tied/base", &e));
    OK(adapter_open(&a, DATA "tied/adapter", weights_config(w), &e));
    ac = adapter_config(a);
    assert_string_equal(ac->base, "base");
    assert_true(ac->rank == 8 && ac->alpha == 16 && adapter_scale(ac) == 2);
    assert_true(ac->targets == QKVO);
    assert_true(ac->saved == (NORMS | ROLE_BIT(ROLE_EMBED)));
    assert_int_equal(adapter_tensors(ac, weights_config(w)), 22);
    assert_false(adapter_model_config(a)->tied); /* it came apart */
    for (int64_t i = 0; i < config_tensors(weights_config(w)); i++) {
        config_tensor(weights_config(w), i, &s);
        adapter_change(a, &s, &x);
        assert_int_equal(x.whole != NULL, (ac->saved & ROLE_BIT(s.role)) != 0);
        assert_int_equal(x.a != NULL, (ac->targets & ROLE_BIT(s.role)) != 0);
        assert_int_equal(x.b != NULL, (ac->targets & ROLE_BIT(s.role)) != 0);
        assert_null(x.magnitude);
    }
    adapter_close(a);
    weights_close(w);
}

static void test_logits_are_those_of_peft(void **state)
{
    (void)state;
    assert_true(logits_differ(DATA "plain/base", DATA "plain/adapter",
                              DATA "plain/logits.json") < 1e-4);
    assert_true(logits_differ(DATA "tied/base", DATA "tied/adapter",
                              DATA "tied/logits.json") < 1e-4);
}

static int no_product(struct device *d, const struct op_gemm *a)
{
    (void)d, (void)a;
    return E_BUG;
}

static void test_a_merge_that_fails_is_no_success(void **state)
{
    struct model_options o;
    struct weights *w;
    struct adapter *a;
    struct model *m;
    struct device d;
    struct err e = {0};

    (void)state;
    OK(device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1 }, &e));
    OK(weights_open(&w, DATA "plain/base", &e));
    OK(adapter_open(&a, DATA "plain/adapter", weights_config(w), &e));
    model_defaults(&o);
    o.mode = TRAIN_NONE;
    o.ctx = o.seqs = 1;
    OK(model_open(&m, &d, adapter_model_config(a), &o, &e));
    OK(model_load(m, w, 1, &e));
    d.gemm = no_product;
    assert_int_equal(model_load_adapter(m, a, &e), E_BUG);
    assert_non_null(strstr(e.msg, "cannot merge"));
    model_close(m);
    adapter_close(a);
    weights_close(w);
    d.close(&d);
}

/* Every tensor of the folder against what peft's merge_and_unload gave. */
static void tensors_equal(const char *folder, const char *golden)
{
    const struct tensor *t, *g;
    struct weights *w;
    struct st_file *f;
    struct err e = {0};

    OK(weights_open(&w, folder, &e));
    OK(st_open(&f, golden, &e));
    assert_int_equal(weights_count(w), st_count(f));
    for (int64_t i = 0; i < st_count(f); i++) {
        t = weights_at(w, i);
        g = st_at(f, i);
        assert_string_equal(t->name, g->name);
        assert_int_equal(t->count, g->count);
        for (int64_t k = 0; k < t->count; k++) {
            float x, y;
            memcpy(&x, (const char *)t->data + 4 * k, 4);
            memcpy(&y, (const char *)g->data + 4 * k, 4);
            assert_true(fabs((double)x - (double)y) < 1e-6);
        }
    }
    st_close(f);
    weights_close(w);
}

static void test_merged_is_what_peft_merges(void **state)
{
    static const char *const names[] = { "plain", "tied" };
    struct err e = {0};

    (void)state;
    OK(dir_make(scratch(""), &e));
    for (int i = 0; i < 2; i++) {
        char base[64], adapter[64], golden[64];
        struct merge_report r;
        struct merge_options o = { base, adapter, scratch("merged"), .keep_dtype = true,
                                   .shard_bytes = 10000, .threads = 2, .force = i };
        snprintf(base, sizeof base, DATA "%s/base", names[i]);
        snprintf(adapter, sizeof adapter, DATA "%s/adapter", names[i]);
        snprintf(golden, sizeof golden, DATA "%s/logits.json", names[i]);
        OK(merge_run(&o, &r, &e));
        assert_true(r.merged == 8 && r.replaced == 6 && r.copied == 7 && r.untied == i);
        assert_true(logits_differ(scratch("merged"), NULL, golden) < 1e-4);
        snprintf(golden, sizeof golden, DATA "%s/merged.safetensors", names[i]);
        tensors_equal(scratch("merged"), golden);
    }
    OK(dir_remove(scratch(""), &e));
}

struct values {
    const struct adapter_config *a;
    const struct llama_config *c;
    float v[4096];
};

static float value_of(int64_t i, int64_t k) { return (float)(i + 1) / 64 + (float)k / 4096; }

static const float *values(void *ctx, int64_t i)
{
    struct values *v = ctx;
    struct adapter_tensor t;

    adapter_tensor(v->a, v->c, i, &t);
    assert_true(t.count <= 4096);
    for (int64_t k = 0; k < t.count; k++)
        v->v[k] = value_of(i, k);
    return v->v;
}

static struct llama_config small = { .vocab = 20, .dim = 8, .ffn_dim = 12, .layers = 2,
    .heads = 2, .kv_heads = 1, .head_dim = 4, .context = 256, .norm_eps = 1e-6, .bos = 1,
    .eos = 2, .init_range = 0.02, .rope = { .type = ROPE_LINEAR, .theta = 10000, .factor = 4 } };

static void write_small(struct adapter_config *a)
{
    struct values v = { .a = a, .c = &small };
    struct err e = {0};

    *a = (struct adapter_config){ .base = "some/base", .rank = 4, .alpha = 8,
        .targets = ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_O) | ROLE_BIT(ROLE_DOWN),
        .saved = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_ATTN_NORM) | ROLE_BIT(ROLE_LAST_NORM) };
    OK(dir_make(scratch(""), &e));
    OK(adapter_write(scratch(""), a, &small, NULL, values, &v, &e));
}

static void test_ours_reads_back(void **state)
{
    struct llama_config base = small;
    const struct tensor *f;
    struct adapter_config a;
    struct adapter_tensor t;
    struct adapter *r;
    struct st_file *file;
    struct err e = {0};

    (void)state;
    base.context = 64;
    base.rope = (struct rope_config){ .type = ROPE_DEFAULT, .theta = 10000, .factor = 1 };
    write_small(&a);
    OK(adapter_open(&r, scratch(""), &base, &e));
    assert_true(adapter_config(r)->targets == a.targets && adapter_config(r)->saved == a.saved);
    assert_string_equal(adapter_config(r)->base, "some/base");
    assert_int_equal(adapter_model_config(r)->context, 256);
    assert_int_equal(adapter_model_config(r)->rope.type, ROPE_LINEAR);
    OK(st_open(&file, scratch("adapter_model.safetensors"), &e));
    assert_int_equal(st_count(file), 1 + 2 * 7 + 1);
    assert_non_null(st_find(file, "base_model.model.model.embed_tokens.weight"));
    assert_non_null(st_find(file, "base_model.model.model.norm.weight"));
    assert_non_null(st_find(file, "base_model.model.model.layers.1.input_layernorm.weight"));
    assert_non_null(st_find(file,
                            "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"));
    for (int64_t i = 0; i < adapter_tensors(&a, &small); i++) {
        adapter_tensor(&a, &small, i, &t);
        assert_non_null(f = st_find(file, t.name));
        assert_int_equal(f->count, t.count);
        for (int64_t k = 0; k < t.count; k++) {
            float got;
            memcpy(&got, (const char *)f->data + 4 * k, 4);
            assert_true(got == value_of(i, k));
        }
    }
    f = st_find(file, "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight");
    assert_true(f->shape[0] == 4 && f->shape[1] == 12);
    st_close(file);
    adapter_close(r);
    OK(dir_remove(scratch(""), &e));
}

static void expect(int rc, const char *why, const struct llama_config *c)
{
    struct adapter *a;
    struct err e = {0};
    int got = adapter_open(&a, scratch(""), c, &e);

    if (got != rc || !strstr(e.msg, why))
        fail_msg("%d %s; expected %d %s", got, e.msg, rc, why);
}

static void opens_with_vocab(const struct llama_config *c)
{
    struct adapter *a;
    struct err e = {0};

    OK(adapter_open(&a, scratch(""), c, &e));
    assert_int_equal(adapter_model_config(a)->vocab, small.vocab);
    adapter_close(a);
}

static void edit_config(const char *key, json_t *v)
{
    struct err e = {0};
    struct js o;

    OK(js_load(&o, scratch("adapter_config.json"), JS_MAX_BYTES, &e));
    json_object_set_new(o.obj, key, v);
    OK(js_save(o.obj, scratch("adapter_config.json"), &e));
    js_free(&o);
}

static void test_files_that_do_not_fit(void **state)
{
    struct llama_config c = small;
    struct adapter_config a;
    struct err e = {0};

    (void)state;
    write_small(&a);
    c.layers = 3;
    expect(E_CONFIG, "other sizes", &c);
    expect(E_CONFIG, "trained on another base model", &c);
    c.layers = small.layers;
    c.vocab = 24; /* the adapter's own embedding tells that it has another vocabulary */
    opens_with_vocab(&c);
    unlink(scratch("config.json"));
    opens_with_vocab(&c);
    c.ffn_dim *= 2;
    expect(E_CONFIG, "trained on another base model", &c);
    c = small;
    c.layers = 3;
    expect(E_DATA, "layers.2.input_layernorm.weight' is missing (7 of 23 are)", &c);
    c.layers = 1;
    expect(E_CONFIG, "in none of target_modules", &c);
    c = small;
    c.dim = 16;
    expect(E_CONFIG, "[20, 8], the base model needs [20, 16]", &c);
    edit_config("r", json_integer(5));
    expect(E_CONFIG, "lora_A.weight' is [4, 8], the base model needs [5, 8]", &small);
    edit_config("r", json_integer(4));
    edit_config("target_modules", json_pack("[s,s]", "q_proj", "o_proj"));
    expect(E_CONFIG, "down_proj.lora_A.weight' is in none", &small);
    edit_config("target_modules", json_pack("[s,s,s,s]", "q_proj", "o_proj", "down_proj",
                                            "v_proj"));
    expect(E_DATA, "v_proj.lora_A.weight' is missing (4 of 20 are)", &small);
    edit_config("target_modules", json_pack("[s,s]", "c_attn", "c_proj"));
    expect(E_CONFIG, "none of target_modules ('c_attn', 'c_proj') can", &small);
    expect(E_CONFIG, "it has q_proj, k_proj, v_proj, o_proj,", &small);
    edit_config("target_modules", json_pack("[s,s,s,s]", "q_proj", "o_proj", "down_proj",
                                            "v_proj"));
    OK(file_replace(scratch("adapter_model.bin"), "x", 1, &e));
    unlink(scratch("adapter_model.safetensors"));
    expect(E_DATA, "adapter_model.bin' is no zip archive", &small);
    unlink(scratch("adapter_model.bin"));
    expect(E_NOINPUT, "neither adapter_model.safetensors nor adapter_model.bin", &small);
    unlink(scratch("adapter_config.json"));
    expect(E_NOINPUT, "adapter_config.json", &small);
    OK(dir_remove(scratch(""), &e));
}

static void test_folders_that_hold_an_adapter(void **state)
{
    struct adapter_config a;
    struct err e = {0};

    (void)state;
    write_small(&a);
    /* one folder down, as the newest of a training by others */
    unlink(scratch("adapter_config.json"));
    expect(E_NOINPUT, "an adapter has adapter_config.json", &small);
    for (int i = 0; i < 3; i++) {
        static const char *const within[] = { "checkpoint-9", "checkpoint-500", "checkpoint-70" };
        char *folder = path_join(scratch(""), within[i]), *path = path_join(folder, "adapter_config.json");

        OK(dir_make(folder, &e));
        OK(file_replace(path, "{}", 2, &e));
        free(path);
        free(folder);
    }
    expect(E_NOINPUT, "checkpoint-500'", &small);
    OK(dir_remove(scratch(""), &e));
    expect(E_NOINPUT, "No such file or directory\nan adapter has", &small);
}

/* Against sums in double, at sizes that are no multiple of anything. */
static void test_merged_rows(void **state)
{
    enum { ROWS = 3, COLS = 1031, RANK = 5 };
    static float w[ROWS * COLS], was[ROWS * COLS], a[RANK * COLS], b[ROWS * RANK];
    double max = 0;
    float got;

    (void)state;
    for (int i = 0; i < ROWS * COLS; i++)
        was[i] = w[i] = sinf((float)i);
    for (int i = 0; i < RANK * COLS; i++)
        a[i] = cosf((float)i * 1.7f);
    for (int i = 0; i < ROWS * RANK; i++)
        b[i] = sinf((float)i * 2.3f);
    got = merge_rows(w, b, a, ROWS, COLS, COLS, RANK, 2.0f);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) {
            double sum = 0;
            for (int k = 0; k < RANK; k++)
                sum += (double)b[r * RANK + k] * (double)a[k * COLS + c];
            assert_true(fabs((double)w[r * COLS + c] -
                             ((double)was[r * COLS + c] + 2 * sum)) < 2e-6);
            max = fmax(max, fabs(2 * sum));
        }
    assert_true(fabs((double)got - max) < 2e-6);
}

/* Each pattern of 16 bits, and as many of 32, in the middle of a row of plain ones. */
static void test_what_a_merge_counts(void **state)
{
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    uint16_t half[33], other[33];
    float wide[33], again[33];

    (void)state;
    for (uint32_t i = 0; i < 1 << 16; i++)
        for (int t = 0; t < 3; t++) {
            enum dtype type = types[t];
            uint32_t bits = i << 16 | (i & 1);
            const void *a = type == DT_F32 ? (void *)wide : half,
                       *b = type == DT_F32 ? (void *)again : other;
            float v, zero[33];

            memset(half, 0, sizeof half), memset(other, 0, sizeof other);
            memset(wide, 0, sizeof wide), memset(again, 0, sizeof again);
            memcpy(&wide[17], &bits, 4);
            half[17] = (uint16_t)i;
            floats_widen(type, a, 33, zero);
            v = zero[17];
            assert_int_equal(merge_not_finite(type, a, 33), !isfinite(v));
            assert_int_equal(merge_same(type, a, b, 33), 32 + (v == 0));
            assert_int_equal(merge_same(type, a, a, 33), 33);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused_is_named),
        cmocka_unit_test(test_names_as_peft_matches_them),
        cmocka_unit_test(test_one_that_peft_made),
        cmocka_unit_test(test_logits_are_those_of_peft),
        cmocka_unit_test(test_a_merge_that_fails_is_no_success),
        cmocka_unit_test(test_merged_is_what_peft_merges),
        cmocka_unit_test(test_ours_reads_back),
        cmocka_unit_test(test_files_that_do_not_fit),
        cmocka_unit_test(test_folders_that_hold_an_adapter),
        cmocka_unit_test(test_merged_rows),
        cmocka_unit_test(test_what_a_merge_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
