/* tests/test_config.c - config.json in both forms, its limits, and model folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/weights/config.h"
#include "base/json.h"
#include "formats/weights/weights.h"
#include "formats/weights/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE OF("llama")
#define OF(type) "\"model_type\":\"" type "\",\"vocab_size\":100,\"hidden_size\":16," \
             "\"intermediate_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":4"
#define YARN ",\"rope_scaling\":{\"rope_type\":\"yarn\""
#define LONGROPE ",\"rope_scaling\":{\"type\":\"longrope\""
#define LISTS ",\"short_factor\":[1,2.5],\"long_factor\":[1,8]"
#define LLAMA3 "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0"

static int parse(const char *json, struct llama_config *c, struct err *e)
{
    *e = (struct err){0};
    return config_parse(c, json, strlen(json), "c.json", e);
}

#define KV ",\"num_key_value_heads\":4"
static const struct { const char *json; int rc; const char *why; } spoilt[] = {
    { "", E_DATA, "not valid JSON" }, { "[]", E_DATA, "not a JSON object" },
    { "{} x", E_DATA, "not valid JSON" }, { "{\"a\":1,\"a\":2}", E_DATA, "duplicate" },
    { "{}", E_DATA, "'model_type' is missing" },
    { "{\"model_type\":1}", E_DATA, "'model_type' is an integer, must be a string" },
    { "{\"model_type\":\"gpt2\"}", E_CONFIG, "'gpt2'" },
    { "{" OF("mistral") KV ",\"sliding_window\":0}", E_DATA, "'sliding_window' is 0" },
    { "{" OF("mistral") KV ",\"sliding_window\":\"4k\"}", E_DATA, "sliding_window" },
    { "{" OF("mistral") KV ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", E_CONFIG,
      "layer_types[0] full_attention" },
    { "{" OF("mistral") KV ",\"attention_bias\":true}", E_CONFIG, "attention_bias" },
    { "{" OF("qwen2") KV ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", E_CONFIG,
      "no sliding_window" },
    { "{" OF("qwen2") KV ",\"layer_types\":[\"full_attention\"]}", E_DATA, "has 1 elements" },
    { "{" OF("qwen2") KV ",\"layer_types\":[\"full_attention\",\"linear_attention\"]}", E_CONFIG,
      "'linear_attention'" },
    { "{" OF("qwen2") KV ",\"layer_types\":[\"full_attention\",1]}", E_DATA, "layer_types[1]" },
    { "{" OF("qwen2") KV ",\"layer_types\":7}", E_DATA, "layer_types" },
    { "{" OF("qwen2") KV ",\"use_sliding_window\":1}", E_DATA, "use_sliding_window" },
    { "{" OF("qwen2") KV ",\"use_sliding_window\":true,\"max_window_layers\":-1}", E_DATA,
      "max_window_layers" },
    { "{" OF("qwen2") KV ",\"mlp_bias\":true}", E_CONFIG, "mlp_bias" },
    { "{" OF("smollm3") KV ",\"no_rope_layers\":[1]}", E_DATA, "has 1 elements" },
    { "{" OF("smollm3") KV ",\"no_rope_layers\":[1,\"0\"]}", E_DATA, "no_rope_layers[1]" },
    { "{" OF("smollm3") KV ",\"no_rope_layer_interval\":0}", E_DATA, "no_rope_layer_interval" },
    { "{" BASE ",\"no_rope_layers\":[1,0]}", E_CONFIG, "no_rope_layers" },
    { "{" BASE ",\"attn_logit_softcapping\":50.0}", E_CONFIG, "attn_logit_softcapping" },
    { "{" BASE ",\"residual_multiplier\":0.2}", E_CONFIG, "residual_multiplier" },
    { "{" BASE ",\"query_pre_attn_scalar\":256}", E_CONFIG, "query_pre_attn_scalar" },
    { "{" BASE ",\"rope_local_base_freq\":10000}", E_CONFIG, "rope_local_base_freq" },
    { "{" BASE ",\"use_bidirectional_attention\":true}", E_CONFIG, "use_bidirectional_attention" },
    { "{" OF("gemma") KV ",\"final_logit_softcapping\":30}", E_CONFIG, "final_logit_softcapping" },
    { "{" OF("gemma") KV ",\"attention_bias\":true}", E_CONFIG, "attention_bias" },
    { "{" OF("gemma2") KV ",\"attn_logit_softcapping\":-1}", E_DATA, "attn_logit_softcapping" },
    { "{" OF("gemma2") KV ",\"final_logit_softcapping\":\"30\"}", E_DATA, "final_logit_softcapping" },
    { "{" OF("gemma2") KV ",\"query_pre_attn_scalar\":0}", E_DATA, "query_pre_attn_scalar" },
    { "{" OF("gemma2") KV ",\"sliding_window\":null}", E_CONFIG, "sliding_window null" },
    { "{" OF("gemma2") KV ",\"hidden_activation\":\"relu\"}", E_CONFIG, "hidden_activation 'relu'" },
    { "{" OF("gemma2") KV ",\"rope_local_base_freq\":10000}", E_CONFIG, "rope_local_base_freq" },
    { "{" OF("gemma2") KV ",\"rope_parameters\":{\"full_attention\":{}}}", E_CONFIG, "differs by layer" },
    { "{" OF("gemma3_text") KV ",\"attn_logit_softcapping\":50}", E_CONFIG, "attn_logit_softcapping" },
    { "{" OF("gemma3_text") KV ",\"sliding_window_pattern\":0}", E_DATA, "sliding_window_pattern" },
    { "{" OF("gemma3_text") KV ",\"rope_local_base_freq\":0}", E_DATA, "rope_local_base_freq" },
    { "{" OF("gemma3_text") KV ",\"rope_parameters\":{\"rope_theta\":1e6}}", E_CONFIG,
      "neither full_attention nor" },
    { "{" OF("gemma3_text") KV ",\"rope_parameters\":{\"full_attention\":7}}", E_DATA, "full_attention" },
    { "{" OF("gemma3_text") KV ",\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"linear\","
      "\"factor\":2}}}", E_CONFIG, "sliding_attention.rope_type 'linear'" },
    { "{\"model_type\":\"gemma9\",\"text_config\":{\"hidden_size\":16}}", E_CONFIG, "'gemma9'" },
    { "{" BASE ",\"num_local_experts\":8}", E_CONFIG, "num_local_experts" },
    { "{" BASE ",\"use_qk_norm\":true}", E_CONFIG, "use_qk_norm" },
    { "{" BASE ",\"clip_qkv\":8}", E_CONFIG, "clip_qkv" },
    { "{\"model_type\":\"llama\"}", E_DATA, "'vocab_size' is missing" },
    { "{\"model_type\":\"llama\",\"vocab_size\":0}", E_DATA, "'vocab_size' is 0" },
    { "{\"model_type\":\"llama\",\"vocab_size\":-5}", E_DATA, "'vocab_size' is -5" },
    { "{\"model_type\":\"llama\",\"vocab_size\":16777217}", E_DATA, "'vocab_size'" },
    { "{\"model_type\":\"llama\",\"vocab_size\":9223372036854775807}", E_DATA, "'vocab_size'" },
    { "{\"model_type\":\"llama\",\"vocab_size\":9223372036854775808}", E_DATA, "'vocab_size' is 9.22337e+18, too big" },
    { "{\"model_type\":\"llama\",\"vocab_size\":-9223372036854775809}", E_DATA, "too big" },
    { "{\"model_type\":\"llama\",\"vocab_size\":00000000000000000000001}", E_DATA, "not valid JSON" },
    { "{\"model_type\":\"llama\",\"vocab_size\":100.5}", E_DATA, "is a number, must be an" },
    { "{\"model_type\":\"llama\",\"vocab_size\":\"100\"}", E_DATA, "is a string, must be an" },
    { "{\"model_type\":\"llama\",\"vocab_size\":1,\"hidden_size\":131073}", E_DATA, "'hidden" },
    { "{\"model_type\":\"llama\",\"vocab_size\":1,\"hidden_size\":1,"
      "\"intermediate_size\":2000000}", E_DATA, "'intermediate_size'" },
    { "{\"model_type\":\"llama\",\"vocab_size\":1,\"hidden_size\":1,\"intermediate_size\":1,"
      "\"num_hidden_layers\":4097}", E_DATA, "'num_hidden_layers'" },
    { "{\"model_type\":\"llama\",\"vocab_size\":1,\"hidden_size\":1,\"intermediate_size\":1,"
      "\"num_hidden_layers\":1,\"num_attention_heads\":0}", E_DATA, "'num_attention_heads'" },
    { "{\"model_type\":\"llama\",\"vocab_size\":1,\"hidden_size\":10,\"intermediate_size\":1,"
      "\"num_hidden_layers\":1,\"num_attention_heads\":4}", E_CONFIG, "not a multiple" },
    { "{" BASE ",\"num_key_value_heads\":3}", E_CONFIG, "not a multiple" },
    { "{" BASE ",\"num_key_value_heads\":0}", E_DATA, "'num_key_value_heads'" },
    { "{" BASE ",\"head_dim\":3}", E_CONFIG, "head_dim 3" },
    { "{" BASE ",\"head_dim\":1026}", E_DATA, "'head_dim'" },
    { "{" BASE ",\"max_position_embeddings\":2147483649}", E_DATA, "'max_position" },
    { "{" BASE ",\"hidden_act\":\"relu\"}", E_CONFIG, "'relu'" },
    { "{" OF("mistral") KV ",\"attention_bias\":true}", E_CONFIG, "attention_bias" },
    { "{" OF("mistral") KV ",\"mlp_bias\":true}", E_CONFIG, "mlp_bias" },
    { "{" BASE ",\"mlp_bias\":1}", E_DATA, "'mlp_bias' is an integer" },
    { "{" BASE ",\"quantization_config\":{}}", E_CONFIG, "quantization_config" },
    { "{" BASE ",\"quantization_config\":{\"bits\":4,\"quant_method\":\"gptq\"}}", E_CONFIG, "are packed by gptq" },
    { "{" BASE ",\"quantization_config\":{\"quant_method\":7}}", E_CONFIG, "quantization_config is not supported" },
    { "{" BASE ",\"quantization_config\":[]}", E_CONFIG, "quantization_config is not supported" },
    { "{" BASE ",\"partial_rotary_factor\":0.5}", E_CONFIG, "partial_rotary_factor" },
    { "{" BASE ",\"rms_norm_eps\":0}", E_DATA, "'rms_norm_eps'" },
    { "{" BASE ",\"rms_norm_eps\":1e999}", E_DATA, "not valid JSON" },
    { "{" BASE ",\"bos_token_id\":\"x\"}", E_DATA, "'bos_token_id'" },
    { "{" BASE ",\"rope_theta\":0}", E_DATA, "'rope_theta'" },
    { "{" BASE ",\"rope_scaling\":8}", E_DATA, "'rope_scaling' is an integer" },
    { "{" BASE ",\"rope_parameters\":{\"rope_type\":\"mrope\"}}", E_CONFIG, "'mrope'" },
    { "{" BASE ",\"rope_parameters\":{\"full_attention\":{}}}", E_CONFIG, "differs by layer" },
    { "{" BASE ",\"rope_parameters\":{\"partial_rotary_factor\":0.25}}", E_CONFIG, "partial" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"linear\"}}", E_DATA,
      "'rope_scaling.factor' is missing" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", E_DATA, "factor" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":-4}}", E_DATA, "factor" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}}", E_DATA, "low_freq" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
      "\"high_freq_factor\":4}}", E_CONFIG, "high_freq_factor" },
    { "{" BASE ",\"original_max_position_embeddings\":4096,\"rope_scaling\":{\"rope_type\":"
      "\"llama3\",\"factor\":8," LLAMA3 ",\"original_max_position_embeddings\":32}}", E_CONFIG,
      "'c.json': rope_scaling.original_max_position_embeddings is 32, and 4096 at the top" },
    { "{" BASE ",\"rope_scaling\":{},\"rope_parameters\":{\"rope_type\":\"yarns\"}}", E_CONFIG, "'yarns'" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"su\"}}", E_CONFIG, "'su'" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"dynamic\"}}", E_DATA, "'rope_scaling.factor' is missing" },
    { "{" BASE ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":0}}", E_DATA, "'rope_scaling.factor'" },
    { "{" BASE ",\"head_dim\":2,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", E_CONFIG, "2 channels" },
    { "{" BASE YARN "}}", E_DATA, "'rope_scaling.factor' is missing" },
    { "{" BASE YARN ",\"factor\":0}}", E_DATA, "'rope_scaling.factor'" },
    { "{" BASE YARN ",\"factor\":1e7}}", E_DATA, "'rope_scaling.factor'" },
    { "{" BASE YARN ",\"factor\":NaN}}", E_DATA, "not valid JSON" },
    { "{" BASE YARN ",\"factor\":\"4\"}}", E_DATA, "'rope_scaling.factor' is a string" },
    { "{" BASE YARN ",\"factor\":4,\"attention_factor\":0}}", E_DATA, "attention_factor'" },
    { "{" BASE YARN ",\"factor\":4,\"attention_factor\":-1}}", E_DATA, "attention_factor'" },
    { "{" BASE YARN ",\"factor\":4,\"beta_fast\":-1}}", E_DATA, "beta_fast'" },
    { "{" BASE YARN ",\"factor\":4,\"beta_slow\":1e7}}", E_DATA, "beta_slow'" },
    { "{" BASE YARN ",\"factor\":4,\"beta_slow\":40}}", E_CONFIG, "beta_fast 32 must not be below beta_slow 40" },
    { "{" BASE YARN ",\"factor\":4,\"mscale\":-1}}", E_DATA, "mscale'" },
    { "{" BASE YARN ",\"factor\":4,\"mscale_all_dim\":1e9}}", E_DATA, "mscale_all_dim'" },
    { "{" BASE YARN ",\"factor\":4,\"truncate\":1}}", E_DATA, "truncate' is an integer" },
    { "{" BASE YARN ",\"factor\":4,\"original_max_position_embeddings\":0}}", E_DATA, "original_max" },
    { "{" BASE YARN ",\"factor\":4,\"original_max_position_embeddings\":1.5}}", E_DATA, "original_max" },
    { "{" BASE YARN ",\"factor\":4,\"rope_theta\":1}}", E_CONFIG, "rope_theta 1 must be above 1" },
    { "{" BASE LONGROPE "}}", E_DATA, "'rope_scaling.short_factor' is missing" },
    { "{" BASE LONGROPE ",\"short_factor\":[1,2]}}", E_DATA, "'rope_scaling.long_factor' is missing" },
    { "{" BASE LONGROPE ",\"short_factor\":[1,2,3],\"long_factor\":[1,2]}}", E_DATA,
      "'rope_scaling.short_factor' has 3 numbers, must have 2" },
    { "{" BASE LONGROPE ",\"short_factor\":[1,2],\"long_factor\":[]}}", E_DATA, "has 0 numbers" },
    { "{" BASE LONGROPE ",\"short_factor\":[1,2],\"long_factor\":[1,0]}}", E_DATA,
      "'rope_scaling.long_factor[1]'" },
    { "{" BASE LONGROPE ",\"short_factor\":[\"1\",2],\"long_factor\":[1,2]}}", E_DATA,
      "'rope_scaling.short_factor[0]'" },
    { "{" BASE LONGROPE LISTS ",\"factor\":0}}", E_DATA, "'rope_scaling.factor'" },
    { "{" BASE LONGROPE LISTS ",\"attention_factor\":0}}", E_DATA, "attention_factor'" },
    { "{" BASE LONGROPE LISTS ",\"original_max_position_embeddings\":1}}", E_DATA, "original_max" },
    { "{" BASE ",\"max_position_embeddings\":1" LONGROPE LISTS "}}", E_CONFIG, "must be 2 or more" },
    { "{" BASE ",\"head_dim\":258" LONGROPE "}}", E_CONFIG, "256 channels" },
};

static void test_what_is_refused_is_named(void **state)
{
    struct llama_config c;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        int rc = parse(spoilt[i].json, &c, &e);
        if (rc != spoilt[i].rc || !strstr(e.msg, spoilt[i].why) || !strstr(e.msg, "c.json"))
            fail_msg("%s: %d %s", spoilt[i].json, rc, e.msg);
    }
}

/* Integers of more than 64 bits, as transformers writes them for "none": reals; all others stay. */
static void test_integers_of_any_size(void **state)
{
    static const char text[] = "{\"a\":1000000000000000019884624838656,\"b\":[-9223372036854775808,9223372036854775807,"
                               "-99999999999999999999],\"c\":\"12345678901234567890123 \\\"9\",\"d\":12345678901234567890.5,"
                               "\"99999999999999999999\":1e5}";
    struct err e = { 0 };
    struct js o;
    char *copy = malloc(sizeof text - 1);
    double d;

    (void)state;
    memcpy(copy, text, sizeof text - 1); /* no NUL */
    assert_int_equal(js_parse(&o, copy, sizeof text - 1, "big", &e), 0);
    assert_true(json_real_value(json_object_get(o.obj, "a")) == 1e30);
    assert_true(json_integer_value(json_array_get(json_object_get(o.obj, "b"), 0)) == INT64_MIN);
    assert_true(json_integer_value(json_array_get(json_object_get(o.obj, "b"), 1)) == INT64_MAX);
    assert_true(json_real_value(json_array_get(json_object_get(o.obj, "b"), 2)) == -1e20);
    assert_string_equal(json_string_value(json_object_get(o.obj, "c")), "12345678901234567890123 \"9");
    assert_int_equal(js_f64(&o, "d", JS_MUST, 0, 1e20, &d, &e), 0);
    assert_true(d == 12345678901234567890.5);
    assert_int_equal(js_f64(&o, "99999999999999999999", JS_MUST, 0, 1e20, &d, &e), 0);
    js_free(&o);
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *cut = malloc(n + !n);

        memcpy(cut, text, n);
        assert_int_equal(js_parse(&o, cut, n, "cut", &e), E_DATA);
        free(cut);
    }
    free(copy);
}

static void test_nesting_is_bounded(void **state)
{
    enum { N = 200000 };
    char *deep = malloc(2 * N + 1);
    struct llama_config c;
    struct err e = {0};

    (void)state;
    assert_non_null(deep);
    memset(deep, '[', N);
    memset(deep + N, ']', N);
    assert_int_equal(config_parse(&c, deep, 2 * N, "deep", &e), E_DATA);
    assert_non_null(strstr(e.msg, "nested"));
    free(deep);
}

static void test_both_forms_of_rope(void **state)
{
    struct llama_config c;
    struct err e;

    (void)state;
    assert_int_equal(parse("{" BASE "}", &c, &e), 0);
    assert_int_equal(c.rope.type, ROPE_DEFAULT);
    assert_true(c.rope.theta == 10000 && c.context == 2048 && c.kv_heads == 4);
    assert_true(c.head_dim == 4 && c.bos == 1 && c.eos == 2 && !c.tied);
    assert_int_equal(parse("{" BASE ",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\","
                           "\"factor\":2.5}}", &c, &e), 0);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 2.5 && c.rope.theta == 5e5);
    assert_int_equal(parse("{" BASE ",\"rope_parameters\":{\"rope_type\":\"linear\","
                           "\"rope_theta\":7,\"factor\":3}}", &c, &e), 0);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 3 && c.rope.theta == 7);
    /* rope_scaling wins; rope_type wins over type */
    assert_int_equal(parse("{" BASE ",\"rope_parameters\":{\"rope_type\":\"yarn\"},"
                           "\"rope_scaling\":{\"type\":\"yarn\",\"rope_type\":\"linear\","
                           "\"factor\":4}}", &c, &e), 0);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 4);
    /* an empty rope_scaling is none */
    assert_int_equal(parse("{" BASE ",\"rope_scaling\":{},\"rope_parameters\":{\"rope_type\":"
                           "\"linear\",\"rope_theta\":7,\"factor\":3}}", &c, &e), 0);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 3 && c.rope.theta == 7);
    assert_int_equal(parse("{" BASE ",\"rope_theta\":9,\"rope_scaling\":{},\"rope_parameters\":{}}",
                           &c, &e), 0);
    assert_true(c.rope.type == ROPE_DEFAULT && c.rope.theta == 9);
    /* llama3: the original context inside, or at the top, or the context */
    assert_int_equal(parse("{" BASE ",\"original_max_position_embeddings\":64,\"rope_scaling\":"
                           "{\"rope_type\":\"llama3\",\"factor\":8," LLAMA3 "}}", &c, &e), 0);
    assert_int_equal(c.rope.original_context, 64);
    assert_int_equal(parse("{" BASE ",\"max_position_embeddings\":99,\"rope_scaling\":"
                           "{\"rope_type\":\"llama3\",\"factor\":8," LLAMA3 ","
                           "\"original_max_position_embeddings\":8192}}", &c, &e), 0);
    assert_true(c.rope.type == ROPE_LLAMA3 && c.rope.original_context == 8192);
    assert_true(c.rope.low_freq_factor == 1 && c.rope.high_freq_factor == 4);
    assert_int_equal(parse("{" BASE ",\"max_position_embeddings\":99,\"rope_scaling\":"
                           "{\"rope_type\":\"llama3\",\"factor\":8," LLAMA3 "}}", &c, &e), 0);
    assert_int_equal(c.rope.original_context, 99);
}

/* Mistral's window: given, none, or its default; nothing to a llama. */
static void test_windows(void **state)
{
    static const struct { const char *more; int64_t window; } of[] = {
        { "", 4096 }, { ",\"sliding_window\":null", 0 }, { ",\"sliding_window\":77", 77 } };
    struct llama_config c;
    char text[512];
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        for (int llama = 0; llama < 2; llama++) {
            snprintf(text, sizeof text, "{\"model_type\":\"%s\"%s,\"num_key_value_heads\":4%s}",
                     llama ? "llama" : "mistral", strchr(BASE, ','), of[i].more);
            assert_int_equal(parse(text, &c, &e), 0);
            assert_string_equal(c.arch->model_type, llama ? "llama" : "mistral");
            assert_int_equal(c.window, llama ? 0 : of[i].window);
        }
}

/* Which layers have windows, and which RoPE, by each field that says so. */
static void test_layers_that_differ(void **state)
{
    static const struct { const char *family, *more; int windows, turned; } of[] = {
        { "qwen2", "", 0, 3 }, { "qwen2", ",\"use_sliding_window\":true", 0, 3 },
        { "qwen3", ",\"use_sliding_window\":true,\"max_window_layers\":1", 2, 3 },
        { "qwen2", ",\"use_sliding_window\":true,\"sliding_window\":null,\"max_window_layers\":0", 0, 3 },
        { "qwen3", ",\"use_sliding_window\":true,\"layer_types\":[\"sliding_attention\",\"full_attention\"]",
          1, 3 },
        { "qwen3", ",\"layer_types\":[\"full_attention\",\"full_attention\"]", 0, 3 },
        { "smollm3", "", 0, 3 }, { "smollm3", ",\"no_rope_layers\":[0,1]", 0, 2 },
        { "smollm3", ",\"no_rope_layer_interval\":2,\"use_sliding_window\":true,\"sliding_window\":9", 2, 1 },
        { "mistral", ",\"no_rope_layers\":[1,1]", 3, 3 },
        { "gemma2", "", 1, 3 }, { "gemma2", ",\"sliding_window_pattern\":1", 1, 3 }, { "gemma", "", 0, 3 },
        { "gemma2", ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]", 2, 3 },
        { "gemma3_text", "", 3, 3 }, { "gemma3_text", ",\"sliding_window_pattern\":1", 0, 3 },
        { "gemma3_text", ",\"sliding_window_pattern\":2", 1, 3 },
    };
    struct llama_config c;
    char text[512];
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        int windows = 0, turned = 0;

        snprintf(text, sizeof text, "{\"model_type\":\"%s\"%s" KV "%s}", of[i].family,
                 strchr(BASE, ','), of[i].more);
        if (parse(text, &c, &e) < 0)
            fail_msg("%s: %s", text, e.msg);
        for (int k = 0; k < 2; k++) {
            windows |= (config_window(&c, k) > 0) << k;
            turned |= !layer_in(&c.no_rope, k) << k;
        }
        if (windows != of[i].windows || turned != of[i].turned)
            fail_msg("%s: windows %d, turned %d", text, windows, turned);
    }
}

/* Gemma's fields, as they stand in files and as they are meant where they do not; both forms of Gemma 3's two
 * RoPEs. */
static void test_gemma(void **state)
{
    static const struct { const char *family, *more; double scores, logits, by, theta, factor, local; } of[] = {
        { "gemma", "", 0, 0, 0, 1e4, 1, 0 },
        { "gemma2", "", 50, 30, 256, 1e4, 1, 0 },
        { "gemma2", ",\"attn_logit_softcapping\":null,\"final_logit_softcapping\":7,"
          "\"query_pre_attn_scalar\":144", 0, 7, 144, 1e4, 1, 0 },
        { "gemma3_text", "", 0, 0, 256, 1e6, 1, 1e4 },
        { "gemma3_text", ",\"rope_theta\":5e5,\"rope_local_base_freq\":77,\"final_logit_softcapping\":9,"
          "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}", 0, 9, 256, 5e5, 8, 77 },
        { "gemma3_text", ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":4,"
          "\"rope_theta\":3e5},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":99}}",
          0, 0, 256, 3e5, 4, 99 },
        { "gemma3_text", ",\"rope_parameters\":{\"sliding_attention\":{\"rope_theta\":99}}", 0, 0, 256, 1e6, 1, 99 },
        { "gemma3_text", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"rope_parameters\":"
          "{\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":3e5}}", 0, 0, 256, 3e5, 2, 1e4 },
    };
    struct llama_config c;
    char text[600];
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        snprintf(text, sizeof text, "{\"model_type\":\"%s\"%s" KV "%s}", of[i].family, strchr(BASE, ','),
                 of[i].more);
        if (parse(text, &c, &e) < 0)
            fail_msg("%s: %s", text, e.msg);
        assert_true(c.cap.scores == of[i].scores && c.cap.logits == of[i].logits);
        assert_true(of[i].by > 0 ? fabs(c.times.scores * sqrt(of[i].by) - 1) < 1e-12 : c.times.scores == 0);
        assert_true(c.rope.theta == of[i].theta && c.rope.factor == of[i].factor && c.local_theta == of[i].local);
        assert_true(c.tied && c.bos == 2 && c.eos == 1 && c.head_dim == 256 && c.activation == ACT_GELU_TANH);
        /* the root of 16 is 4 in any type; that of 2000 is 44.721 in float32, 44.75 in bfloat16 */
        assert_true(config_embed_times(&c, DT_BF16) == 4);
        c.dim = 2000;
        assert_true(config_embed_times(&c, DT_BF16) == 44.75 &&
                    fabs(config_embed_times(&c, DT_F32) - sqrt(2000)) < 1e-5);
    }
    assert_int_equal(parse("{" OF("gemma") ",\"hidden_act\":\"gelu\",\"num_key_value_heads\":4}", &c, &e), 0);
    assert_int_equal(c.activation, ACT_GELU_TANH); /* what its first files mean by it */
}

static void test_ids_null_lists_and_beyond(void **state)
{
    struct llama_config c;
    struct err e;

    (void)state;
    assert_int_equal(parse("{" BASE ",\"bos_token_id\":null,\"eos_token_id\":[7,8]}", &c, &e),
                     0);
    assert_true(c.bos == -1 && c.eos == 7);
    assert_int_equal(parse("{" BASE ",\"eos_token_id\":100}", &c, &e), 0);
    assert_int_equal(c.eos, -1);
}

static void test_the_largest_sizes_do_not_overflow(void **state)
{
    struct llama_config c;
    struct tensor_spec s;
    int64_t sum = 0;
    struct err e;

    (void)state;
    assert_int_equal(parse("{\"model_type\":\"llama\",\"vocab_size\":16777216,\"hidden_size\":"
                           "131072,\"intermediate_size\":1048576,\"num_hidden_layers\":4096,"
                           "\"num_attention_heads\":4096,\"head_dim\":1024}", &c, &e), 0);
    for (int64_t i = 0; i < config_tensors(&c); i++) {
        config_tensor(&c, i, &s);
        assert_true(s.count > 0);
        assert_false(__builtin_add_overflow(sum, s.count, &sum));
    }
    assert_true(config_params(&c) == sum);
}

static char *scratch(const char *name)
{
    static char path[2][160];
    static int k;

    k ^= 1;
    snprintf(path[k], sizeof path[k], "/tmp/test_config.%ld/%s", (long)getpid(), name);
    return path[k];
}

static void assert_same(const struct llama_config *a, const struct llama_config *b)
{
    const struct rope_config *r = &a->rope, *s = &b->rope;

    assert_memory_equal(a, b, offsetof(struct llama_config, norm_eps)); /* the sizes */
    assert_true(a->norm_eps == b->norm_eps && a->tied == b->tied && a->bos == b->bos &&
                a->eos == b->eos && a->init_range == b->init_range);
    assert_true(r->type == s->type && r->theta == s->theta && r->factor == s->factor &&
                r->low_freq_factor == s->low_freq_factor &&
                r->high_freq_factor == s->high_freq_factor &&
                r->original_context == s->original_context);
}

/* Of each kind: what the versions of transformers that know it want, and no more. */
static void test_each_kind_is_written_as_it_is_read(void **state)
{
    static const struct { const char *given, *written; } kinds[] = {
        { ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2,\"original_max_position_embeddings\":9}",
          "{\"type\":\"dynamic\",\"factor\":2.0}" },
        { YARN ",\"factor\":null,\"original_max_position_embeddings\":512}",
          "{\"type\":\"yarn\",\"rope_type\":\"yarn\",\"factor\":4.0,"
          "\"original_max_position_embeddings\":512}" },
        { YARN ",\"factor\":4,\"beta_fast\":0,\"attention_factor\":1,\"beta_slow\":2,\"mscale\":0.5,"
          "\"mscale_all_dim\":0.25,\"truncate\":null}",
          "{\"type\":\"yarn\",\"rope_type\":\"yarn\",\"factor\":4.0,"
          "\"original_max_position_embeddings\":2048,\"attention_factor\":1.0,\"beta_slow\":2.0,"
          "\"mscale\":0.5,\"mscale_all_dim\":0.25,\"truncate\":false}" },
        { ",\"original_max_position_embeddings\":512" LONGROPE LISTS "}",
          "{\"type\":\"longrope\",\"rope_type\":\"longrope\",\"factor\":4.0,"
          "\"original_max_position_embeddings\":512,\"attention_factor\":1.1055415967851334,"
          "\"short_factor\":[1.0,2.5],\"long_factor\":[1.0,8.0]}" },
    };
    struct llama_config c, back;
    struct err e = {0};
    struct js o, s;

    (void)state;
    assert_int_equal(dir_make(scratch(""), &e), 0);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char json[1024], *text;
        int64_t top = 0;

        snprintf(json, sizeof json, "{" BASE "%s}", kinds[i].given);
        if (parse(json, &c, &e) < 0)
            fail_msg("%s: %s", json, e.msg);
        assert_int_equal(config_write(&c, NULL, "float32", scratch("out"), &e), 0);
        assert_int_equal(config_read(&back, scratch("out"), &e), 0);
        c.rope.attention_factor = back.rope.attention_factor; /* longrope's is written out */
        assert_true(config_rope_same(&c.rope, &back.rope) && c.context == back.context);
        assert_int_equal(js_load(&o, scratch("out"), JS_MAX_BYTES, &e), 0);
        assert_int_equal(js_object(&o, "rope_scaling", JS_MUST, &s, &e), 0);
        assert_non_null(text = json_dumps(s.obj, JSON_COMPACT));
        assert_string_equal(text, kinds[i].written);
        free(text);
        assert_int_equal(js_i64(&o, "original_max_position_embeddings", JS_MAY, 1, 1 << 20, &top, &e), 0);
        assert_int_equal(top, i == 0 ? 0 : c.rope.original_context);
        js_free(&o);
    }
    dir_remove(scratch(""), &e);
}

/* Written and read again; a field of the source model that we do not know stays. */
static void test_what_is_written_reads_the_same(void **state)
{
    struct llama_config c = { .vocab = 99, .dim = 24, .ffn_dim = 40, .layers = 3, .heads = 6,
                              .kv_heads = 2, .head_dim = 8, .context = 4096, .norm_eps = 1e-5,
                              .tied = true, .bos = 1, .eos = 7, .init_range = 0.02 }, back;
    const struct rope_config ropes[] = {
        { .type = ROPE_DEFAULT, .theta = 10000, .factor = 1 },
        { .type = ROPE_LINEAR, .theta = 5e5, .factor = 2.7 },
        { .type = ROPE_LLAMA3, .theta = 5e5, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4,
          .original_context = 8192 },
    };
    static const char like[] = "{\"architectures\":[\"X\"],\"model_type\":\"llama\",\"zz\":[1,"
                               "{\"y\":0.1}],\"eos_token_id\":[7,8],\"dtype\":\"float16\"}";
    struct err e = {0};
    struct js o, s;
    json_t *a;
    const char *text;

    (void)state;
    assert_int_equal(dir_make(scratch(""), &e), 0);
    assert_int_equal(file_replace(scratch("like"), like, strlen(like), &e), 0);
    for (int i = 0; i < 6; i++) {
        c.rope = ropes[i / 2];
        assert_int_equal(config_write(&c, i & 1 ? scratch("like") : NULL, "bfloat16",
                                      scratch("out"), &e), 0);
        assert_int_equal(config_read(&back, scratch("out"), &e), 0);
        assert_same(&c, &back);
        assert_int_equal(js_load(&o, scratch("out"), JS_MAX_BYTES, &e), 0);
        assert_int_equal(js_str(&o, "torch_dtype", JS_MUST, &text, &e), 0);
        assert_string_equal(text, "bfloat16");
        if (i & 1) { /* kept: unknown fields, a list of ids; dtype follows */
            assert_int_equal(js_array(&o, "zz", JS_MUST, &a, &e), 0);
            assert_int_equal(js_array(&o, "eos_token_id", JS_MUST, &a, &e), 0);
            assert_int_equal(js_str(&o, "dtype", JS_MUST, &text, &e), 0);
            assert_string_equal(text, "bfloat16");
        }
        /* transformers before 4.43 take two fields and no others; llama3 came with 4.43 */
        assert_int_equal(js_object(&o, "rope_scaling", JS_MAY, &s, &e), 0);
        assert_int_equal(json_object_size(s.obj), i < 2 ? 0 : i < 4 ? 2 : 5);
        assert_true(i < 2 ? !s.obj && json_object_get(o.obj, "rope_scaling") :
                    js_has(&s, "factor") && js_has(&s, i < 4 ? "type" : "rope_type"));
        assert_int_equal(js_object(&o, "rope_parameters", JS_MUST, &s, &e), 0);
        assert_true(js_has(&s, "type") && js_has(&s, "rope_type") && js_has(&s, "rope_theta"));
        js_free(&o);
    }
    dir_remove(scratch(""), &e);
}

static const struct llama_config tiny = { .vocab = 20, .dim = 8, .ffn_dim = 12, .layers = 2,
    .heads = 2, .kv_heads = 1, .head_dim = 4, .context = 64, .norm_eps = 1e-6, .bos = 1,
    .eos = 2, .init_range = 0.02, .rope = { .type = ROPE_DEFAULT, .theta = 10000, .factor = 1 } };

/* A linear factor of 1 scales nothing. */
static void test_a_factor_of_one_is_no_scaling(void **state)
{
    struct llama_config c = tiny;
    const char *type;
    struct err e = {0};
    struct js o, s;

    (void)state;
    c.rope = (struct rope_config){ .type = ROPE_LINEAR, .theta = 10000, .factor = 1 };
    assert_int_equal(dir_make(scratch(""), &e), 0);
    assert_int_equal(config_write(&c, NULL, "float32", scratch("out"), &e), 0);
    assert_int_equal(js_load(&o, scratch("out"), JS_MAX_BYTES, &e), 0);
    assert_true(json_is_null(json_object_get(o.obj, "rope_scaling")));
    assert_int_equal(js_object(&o, "rope_parameters", JS_MUST, &s, &e), 0);
    assert_int_equal(js_str(&s, "rope_type", JS_MUST, &type, &e), 0);
    assert_string_equal(type, "default");
    assert_false(js_has(&s, "factor"));
    js_free(&o);
    dir_remove(scratch(""), &e);
}

/* A model folder of c whose tensors are F32 zeros, except: skip leaves one out, and bend
 * gives one another shape. files: one, or two with an index. */
static void make_model(const struct llama_config *c, const char *skip, const char *bend,
                       int files)
{
    int64_t n = config_tensors(c), at[3] = { 0, files == 2 ? n / 2 : n, n };
    struct tensor_spec *s = calloc((size_t)n, sizeof *s);
    struct st_decl *d = calloc((size_t)n, sizeof *d);
    static const float zeros[4096];
    json_t *map = json_object(), *root;
    struct st_writer *w;
    struct err e = {0};

    assert_true(s && d);
    dir_remove(scratch(""), &e);
    assert_int_equal(dir_make(scratch(""), &e), 0);
    assert_int_equal(config_write(c, NULL, "float32", scratch("config.json"), &e), 0);
    for (int f = 0; f < files; f++) {
        const char *name = files == 1 ? "model.safetensors" : f ? "b.safetensors" :
                           "a.safetensors";
        int64_t k = 0;
        for (int64_t i = at[f]; i < at[f + 1]; i++) {
            config_tensor(c, i, &s[i]);
            json_object_set_new(map, s[i].name, json_string(name));
            if (skip && strcmp(s[i].name, skip) == 0)
                continue;
            d[k] = (struct st_decl){ s[i].name, &type_f32, s[i].dims,
                                     { s[i].shape[0], s[i].shape[1] } };
            d[k++].shape[0] += bend && strcmp(s[i].name, bend) == 0;
        }
        assert_int_equal(st_create(&w, scratch(name), d, k, &e), 0);
        for (int64_t i = 0; i < k; i++)
            assert_int_equal(st_write_f32(w, zeros, d[i].shape[0] *
                             (d[i].dims == 2 ? d[i].shape[1] : 1), &e), 0);
        assert_int_equal(st_finish(w, &e), 0);
    }
    root = json_pack("{s{} so}", "metadata", "weight_map", map);
    if (files == 2)
        assert_int_equal(js_save(root, scratch("model.safetensors.index.json"), &e), 0);
    json_decref(root);
    free(s);
    free(d);
}


static void expect_model(int rc, const char *why)
{
    struct weights *w;
    struct err e = {0};
    int got = weights_open(&w, scratch(""), &e);

    if (got != rc || (why && !strstr(e.msg, why)))
        fail_msg("%d %s; expected %d %s", got, e.msg, rc, why ? why : "");
    weights_close(w);
}

/* config.json is made to tie what has a head of its own. */
static void tie(struct llama_config c, const char *head_dtype, float value)
{
    struct tensor_spec s;
    static const float zeros[4096];
    float *head = calloc((size_t)(c.vocab * c.dim), sizeof *head);
    struct st_decl d[40];
    struct st_writer *w;
    struct err e = {0};
    int64_t n;

    c.tied = false;
    n = config_tensors(&c);
    assert_true(head && n < 40);
    head[c.vocab * c.dim - 1] = value;
    make_model(&c, NULL, NULL, 1);
    for (int64_t i = 0; i < n; i++) {
        static char names[40][96];

        config_tensor(&c, i, &s);
        memcpy(names[i], s.name, sizeof names[i]);
        d[i] = (struct st_decl){ names[i], s.role == ROLE_HEAD ? st_type(head_dtype) : &type_f32,
                                 s.dims, { s.shape[0], s.shape[1] } };
    }
    assert_int_equal(st_create(&w, scratch("model.safetensors"), d, n, &e), 0);
    for (int64_t i = 0; i < n; i++) {
        config_tensor(&c, i, &s);
        assert_int_equal(st_write_f32(w, s.role == ROLE_HEAD ? head : zeros, s.count, &e), 0);
    }
    assert_int_equal(st_finish(w, &e), 0);
    c.tied = true;
    assert_int_equal(config_write(&c, NULL, "float32", scratch("config.json"), &e), 0);
    free(head);
}

static void test_a_tied_base_with_another_head(void **state)
{
    struct err e = {0};

    (void)state;
    tie(tiny, "F32", 0);
    expect_model(0, NULL);
    tie(tiny, "BF16", 0); /* the same values in another type */
    expect_model(0, NULL);
    tie(tiny, "F32", 1);
    expect_model(E_CONFIG, "ties lm_head to the embedding");
    tie(tiny, "F16", 1);
    expect_model(E_CONFIG, "set tie_word_embeddings to false");
    dir_remove(scratch(""), &e);
}

static void test_model_folders(void **state)
{
    static const char bad_index[] = "{\"weight_map\":{\"a\":\"../x\"}}",
                      below[] = "{\"weight_map\":{\"a\":\"sub/x\"}}",
                      moved[] = "{\"weight_map\":{\"lm_head.weight\":\"a.safetensors\","
                                "\"model.norm.weight\":\"b.safetensors\"}}";
    struct err e = {0};
    struct llama_config tied = tiny;

    (void)state;
    tied.tied = true;
    make_model(&tiny, NULL, NULL, 1);
    expect_model(0, NULL);
    make_model(&tied, NULL, NULL, 1);
    expect_model(0, NULL);
    make_model(&tiny, NULL, NULL, 2);
    expect_model(0, NULL);
    file_replace(scratch("model.safetensors.index.json"), bad_index, strlen(bad_index), &e);
    expect_model(E_DATA, "does not name a file");
    file_replace(scratch("model.safetensors.index.json"), below, strlen(below), &e);
    expect_model(E_DATA, "does not name a file");
    file_replace(scratch("model.safetensors.index.json"), moved, strlen(moved), &e);
    expect_model(E_DATA, "not in 'a.safetensors' but in 'b.safetensors'");
    make_model(&tiny, "model.norm.weight", NULL, 2);
    expect_model(E_DATA, "tensor 'model.norm.weight' is not in 'b.safetensors'");
    make_model(&tiny, "model.layers.1.mlp.up_proj.weight", NULL, 1);
    expect_model(E_DATA, "'model.layers.1.mlp.up_proj.weight' is missing (1 of 21 are)");
    make_model(&tiny, "lm_head.weight", NULL, 1);
    expect_model(E_DATA, "'lm_head.weight' is missing");
    make_model(&tiny, NULL, "model.layers.0.self_attn.k_proj.weight", 1);
    expect_model(E_DATA, "has shape [5, 8], config.json wants [4, 8]");
    make_model(&tiny, NULL, NULL, 2);
    assert_int_equal(rename(scratch("a.safetensors"), scratch("c.safetensors")), 0);
    expect_model(E_NOINPUT, "a.safetensors");
    assert_int_equal(file_copy(scratch("b.safetensors"), scratch("a.safetensors"), &e), 0);
    expect_model(E_DATA, "is both in");
    unlink(scratch("model.safetensors.index.json"));
    expect_model(E_NOINPUT, "has neither model.safetensors");
    file_replace(scratch("pytorch_model.bin"), "x", 1, &e);
    expect_model(E_DATA, "pytorch_model.bin");
    unlink(scratch("config.json"));
    expect_model(E_NOINPUT, "config.json");
    dir_remove(scratch(""), &e);
    expect_model(E_NOINPUT, "No such file or directory\na model is a folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused_is_named),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_integers_of_any_size),
        cmocka_unit_test(test_both_forms_of_rope),
        cmocka_unit_test(test_each_kind_is_written_as_it_is_read),
        cmocka_unit_test(test_windows), cmocka_unit_test(test_layers_that_differ), cmocka_unit_test(test_gemma),
        cmocka_unit_test(test_ids_null_lists_and_beyond),
        cmocka_unit_test(test_the_largest_sizes_do_not_overflow),
        cmocka_unit_test(test_what_is_written_reads_the_same),
        cmocka_unit_test(test_a_factor_of_one_is_no_scaling),
        cmocka_unit_test(test_a_tied_base_with_another_head),
        cmocka_unit_test(test_model_folders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
