/* tests/test_multimodal.c - language models within multimodal ones, and models saved without their head: what
 * config.json leaves out, names of tensors, what is refused. Their arithmetic is in test_families.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/weights/adapter.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/naming.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/weights.h"
#include "tests/families.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA FAMILIES_DATA
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, err.msg); } while (0)
static struct err err;

static char *scratch(const char *name)
{
    static char path[6][200];
    static int turn;
    const char *tmp = getenv("TMPDIR");

    turn = (turn + 1) % 6;
    snprintf(path[turn], sizeof *path, "%s/test_multimodal.%d%s%s", tmp ? tmp : "/tmp", (int)getpid(),
             *name ? "/" : "", name);
    return path[turn];
}

static int parse(const char *json, struct llama_config *c)
{
    err = (struct err){ 0 };
    return config_parse(c, json, strlen(json), "c.json", &err);
}

/* ---- config.json ---- */

/* As they lie on the hub, less what is of pictures, and the sizes that transformers 4.57 and 5.24 make of them. */
static const char gemma3_4b[] =
    "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"boi_token_index\":255999,\"eoi_token_index\":256000,"
    "\"eos_token_id\":[1,106],\"image_token_index\":262144,\"initializer_range\":0.02,\"mm_tokens_per_image\":256,"
    "\"model_type\":\"gemma3\",\"text_config\":{\"hidden_size\":2560,\"intermediate_size\":10240,\"model_type\":"
    "\"gemma3_text\",\"num_hidden_layers\":34,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
    "\"sliding_window\":1024},\"torch_dtype\":\"bfloat16\",\"vision_config\":{\"hidden_size\":1152}}";
static const char llava_15[] =
    "{\"model_type\":\"llava\",\"text_config\":{\"_name_or_path\":\"lmsys/vicuna-7b-v1.5\",\"max_position_embeddings\":4096,"
    "\"model_type\":\"llama\",\"rms_norm_eps\":1e-05,\"torch_dtype\":\"float16\",\"vocab_size\":32064},"
    "\"tie_word_embeddings\":false,\"vision_config\":{\"hidden_size\":1024}}";
static const char mistral_small_31[] =
    "{\"model_type\":\"mistral3\",\"text_config\":{\"attention_dropout\":0.0,\"head_dim\":128,\"hidden_act\":\"silu\","
    "\"hidden_size\":5120,\"initializer_range\":0.02,\"intermediate_size\":32768,\"max_position_embeddings\":131072,"
    "\"model_type\":\"mistral\",\"num_attention_heads\":32,\"num_hidden_layers\":40,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":1000000000.0,\"sliding_window\":null,\"use_cache\":true,\"vocab_size\":131072},"
    "\"vision_config\":{\"hidden_size\":1024}}";

static void test_what_is_left_out(void **state)
{
    static const struct {
        const char *json;
        int64_t vocab, dim, ffn, layers, heads, kv, head_dim, context, window;
        double theta, eps;
        bool tied, headless;
    } of[] = {
        { gemma3_4b, 262208, 2560, 10240, 34, 8, 4, 256, 131072, 1024, 1e6, 1e-6, true, true },
        { llava_15, 32064, 4096, 11008, 32, 32, 32, 128, 4096, 0, 1e4, 1e-5, false, false },
        { mistral_small_31, 131072, 5120, 32768, 40, 32, 8, 128, 131072, 0, 1e9, 1e-5, false, true },
        { "{\"model_type\":\"mistral3\",\"text_config\":{}}", 32000, 4096, 14336, 32, 32, 8, 128, 131072, 4096, 1e4,
          1e-6, false, true },
        { "{\"model_type\":\"internvl\",\"text_config\":{\"hidden_size\":null}}", 151936, 4096, 22016, 32, 32, 32, 128,
          32768, 0, 1e4, 1e-6, false, true },
    };
    struct llama_config c;

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        OK(parse(of[i].json, &c));
        assert_non_null(c.multimodal);
        assert_int_equal(c.vocab, of[i].vocab);
        assert_int_equal(c.dim, of[i].dim);
        assert_int_equal(c.ffn_dim, of[i].ffn);
        assert_int_equal(c.layers, of[i].layers);
        assert_int_equal(c.heads, of[i].heads);
        assert_int_equal(c.kv_heads, of[i].kv);
        assert_int_equal(c.head_dim, of[i].head_dim);
        assert_int_equal(c.context, of[i].context);
        assert_int_equal(c.window, of[i].window);
        assert_true(c.rope.theta == of[i].theta && c.norm_eps == of[i].eps);
        assert_true(c.tied == of[i].tied && c.tied_headless == of[i].headless);
    }
    OK(parse(gemma3_4b, &c));
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 8 && c.local_theta == 1e4);
    assert_int_equal(c.eos, 1);
    for (int64_t l = 0; l < c.layers; l++) /* every sixth sees all */
        assert_int_equal(config_window(&c, l), (l + 1) % 6 ? 1024 : 0);
    assert_true(1 / (c.times.scores * c.times.scores) > 255.99 && 1 / (c.times.scores * c.times.scores) < 256.01);
}

static void test_what_is_refused(void **state)
{
    static const struct { const char *json; int rc; const char *why; } spoilt[] = {
        { "{\"model_type\":\"gemma3\"}", E_DATA, "'text_config' is missing" },
        { "{\"model_type\":\"gemma3\",\"text_config\":null}", E_DATA, "'text_config'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":7}", E_DATA, "'text_config'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":[{}]}", E_DATA, "'text_config'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"text_config\":{}}}", E_CONFIG, "within a model" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma3\",\"text_config\":{}}}", E_CONFIG,
          "within a model" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"llama\"}}", E_CONFIG,
          "text_config.model_type 'llama'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":3}}", E_DATA, "'text_config.model_type'" },
        { "{\"model_type\":\"mistral3\",\"text_config\":{\"model_type\":\"ministral3\"}}", E_CONFIG,
          "text_config.model_type 'ministral3'" },
        { "{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"llava\"}}", E_CONFIG,
          "text_config.model_type 'llava'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"hidden_size\":\"2\"}}", E_DATA, "'text_config.hidden_size'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"num_attention_heads\":7}}", E_CONFIG,
          "text_config.num_attention_heads 7" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"sliding_window\":null}}", E_CONFIG, "text_config.sliding_window" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"attn_logit_softcapping\":5}}", E_CONFIG,
          "text_config.attn_logit_softcapping" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"layer_types\":[\"full_attention\"]}}", E_DATA,
          "text_config.layer_types" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{\"rope_scaling\":{\"rope_type\":\"odd\"}}}", E_CONFIG,
          "text_config.rope_scaling.rope_type 'odd'" },
        { "{\"model_type\":\"gemma3\",\"tie_word_embeddings\":1,\"text_config\":{}}", E_DATA, "'tie_word_embeddings'" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{},\"quantization_config\":{\"quant_method\":\"gptq\"}}", E_CONFIG,
          "packed by gptq" },
        { "{\"model_type\":\"gemma3\",\"text_config\":{},\"eos_token_id\":\"x\"}", E_DATA, "eos_token_id" },
        { "{\"model_type\":\"mllama\",\"text_config\":{}}", E_CONFIG, "cross-attention" },
        { "{\"model_type\":\"paligemma\",\"text_config\":{}}", E_CONFIG, "both directions" },
        { "{\"model_type\":\"llama4\"}", E_CONFIG, "experts" },
        { "{\"model_type\":\"cohere2_vision\",\"text_config\":{}}", E_CONFIG, "'cohere2_vision'" },
    };
    struct llama_config c;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        int rc = parse(spoilt[i].json, &c);

        if (rc != spoilt[i].rc || !strstr(err.msg, spoilt[i].why) || !strstr(err.msg, "c.json"))
            fail_msg("%s: %d %s", spoilt[i].json, rc, err.msg);
    }
}

/* What is written over such a file is said where each version looks. */
static void test_written(void **state)
{
    struct llama_config c, again;
    char *text, *path;

    (void)state;
    OK(dir_make(scratch(""), &err));
    path = scratch("config.json");
    OK(file_replace(path, llava_15, strlen(llava_15), &err));
    OK(parse(llava_15, &c));
    c.rope = (struct rope_config){ .type = ROPE_LINEAR, .theta = 1e4, .factor = 4 };
    c.context = 16384, c.vocab = 32065, c.tied = true;
    OK(config_text(&c, path, "bfloat16", "c.json", &text, &err));
    OK(parse(text, &again));
    assert_true(again.multimodal == c.multimodal && again.tied && again.context == 16384 && again.vocab == 32065);
    assert_true(config_rope_same(&again.rope, &c.rope));
    assert_non_null(strstr(text, "\"hidden_size\": 1024")); /* the vision tower's */
    assert_non_null(strstr(text, "\"model_type\": \"llava\""));
    assert_null(strstr(text, "\"torch_dtype\": \"float16\""));
    free(text);
    OK(file_replace(path, "{\"text_config\":[]}", 18, &err)); /* changed since it was read */
    assert_int_equal(config_text(&c, path, "bfloat16", "c.json", &text, &err), E_CONFIG);
    assert_non_null(strstr(err.msg, "no text_config"));
    OK(dir_remove(scratch(""), &err));
}

/* ---- names ---- */

static void test_names(void **state)
{
    static const struct { const char *family; int n; const char *own, *other; } of[] = {
        { "gemma3_text", 0, "model.layers.3.mlp.up_proj.weight", "model.language_model.layers.3.mlp.up_proj.weight" },
        { "gemma3_text", 1, "model.embed_tokens.weight", "language_model.model.embed_tokens.weight" },
        { "mistral", 1, "lm_head.weight", "language_model.lm_head.weight" },
        { "mistral", 0, "lm_head.lora_A.weight", "lm_head.lora_A.weight" },
        { "llama", 2, "model.norm.weight", "model.text_model.norm.weight" },
        { "gpt_neox", 3, "embed_out.weight", "lm_head.weight" },
        { "gpt_neox", 3, "gpt_neox.embed_in.weight", "gpt_neox.embed_in.weight" },
        { "gpt_neox", 4, "gpt_neox.layers.0.attention.dense.bias", "layers.0.attention.dense.bias" },
        { "gpt_neox", 4, "embed_out.weight", "embed_out.weight" },
    };
    char buf[160];

    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const struct arch *a = arch_find(of[i].family);
        const struct naming *n = naming_nth(of[i].n);

        assert_string_equal(naming_put(a, n, of[i].own, buf, sizeof buf), of[i].other);
        assert_true(naming_own(a, n, of[i].other, buf, sizeof buf));
        assert_string_equal(buf, of[i].own);
    }
    assert_false(naming_own(arch_find("gemma3_text"), naming_nth(0), "model.vision_tower.norm.weight", buf, sizeof buf));
    assert_false(naming_own(arch_find("gemma3_text"), naming_nth(1), "lm_headless.weight", buf, sizeof buf));
    assert_null(naming_nth(6));
}

/* ---- files ---- */

/* What becomes of one tensor of a copy: its name, "" to leave it out. */
typedef void rename_fn(const char *name, char *to, size_t cap);

/* The model of tests/data/arch with other names, and config (NULL: its own). extra: one tensor more. */
static const char *copy(const char *name, rename_fn *f, const char *config, const char *extra)
{
    struct st_decl decl[200];
    const struct tensor *from[200];
    static char names[200][160];
    static const uint16_t none[8];
    struct st_file *in;
    struct st_writer *w;
    char path[200], *text;
    size_t n;
    int64_t k = 0;

    if (path_exists(scratch("")))
        OK(dir_remove(scratch(""), &err));
    OK(dir_make(scratch(""), &err));
    snprintf(path, sizeof path, DATA "%s/model.safetensors", name);
    OK(st_open(&in, path, &err));
    for (int64_t i = 0; i < st_count(in); i++) {
        const struct tensor *t = st_at(in, i);

        f(t->name, names[k], sizeof names[k]);
        if (!*names[k])
            continue;
        decl[k] = (struct st_decl){ .name = names[k], .type = t->type, .dims = t->dims };
        memcpy(decl[k].shape, t->shape, sizeof t->shape);
        from[k++] = t;
    }
    if (extra)
        decl[k] = (struct st_decl){ .name = extra, .type = &type_bf16, .dims = 1, .shape = { 8 } }, from[k++] = NULL;
    OK(st_create(&w, scratch("model.safetensors"), decl, k, &err));
    for (int64_t i = 0; i < k; i++)
        OK(st_write_raw(w, from[i] ? from[i]->data : (const void *)none, from[i] ? from[i]->nbytes : sizeof none, &err));
    OK(st_finish(w, &err));
    st_close(in);
    snprintf(path, sizeof path, DATA "%s/config.json", name);
    if (config)
        OK(file_replace(scratch("config.json"), config, strlen(config), &err));
    else {
        OK(file_read(path, 1 << 20, &text, &n, &err));
        OK(file_replace(scratch("config.json"), text, n, &err));
        free(text);
    }
    return scratch("");
}

static void same(const char *name, char *to, size_t cap) { snprintf(to, cap, "%s", name); }
static void less_model(const char *name, char *to, size_t cap)
{
    const char *dot = strncmp(name, "model.", 6) == 0 ? name + 6 : strncmp(name, "gpt_neox.", 9) == 0 ? name + 9 : name;

    snprintf(to, cap, "%s", dot);
}
static void less_head(const char *name, char *to, size_t cap)
{
    less_model(name, to, cap);
    if (strstr(name, "lm_head") || strstr(name, "embed_out"))
        *to = '\0';
}
static void wrapped(const char *name, char *to, size_t cap) { snprintf(to, cap, "module.%s", name); }
static void less_norm(const char *name, char *to, size_t cap)
{
    snprintf(to, cap, "%s", strstr(name, "language_model.model.layers.5.input_layernorm") ? "" : name);
}
static void to_old(const char *name, char *to, size_t cap)
{
    if (strncmp(name, "model.language_model.", 21) == 0)
        snprintf(to, cap, "language_model.model.%s", name + 21);
    else
        same(name, to, cap);
}

static bool opens(const char *folder)
{
    struct weights *w;
    int rc;

    err = (struct err){ 0 };
    rc = weights_open(&w, folder, &err);
    weights_close(w);
    return rc == 0;
}
static void refused(const char *folder, const char *why)
{
    struct weights *w;
    int rc;

    err = (struct err){ 0 };
    rc = weights_open(&w, folder, &err);
    weights_close(w);
    if ((rc != E_DATA && rc != E_CONFIG) || !strstr(err.msg, why))
        fail_msg("%d '%s', without '%s'", rc, err.msg, why);
}

static void test_other_names(void **state)
{
    static const char tied[] = "{\"model_type\":\"gpt_neox\",\"vocab_size\":32,\"hidden_size\":32,\"intermediate_size\":20,"
                               "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"tie_word_embeddings\":true}";
    struct weights *w;

    (void)state;
    /* without the part of the head: where it is tied, or kept beside */
    assert_true(opens(copy("qwen2_window", less_model, NULL, NULL)));
    assert_true(opens(copy("mistral", less_model, NULL, NULL)));
    assert_true(opens(copy("neox", less_model, NULL, NULL)));
    assert_true(opens(copy("neox", less_head, tied, NULL)));
    refused(copy("mistral", less_head, NULL, NULL), "has no head");
    refused(copy("neox", less_head, NULL, NULL), "has no head");
    refused(copy("mistral", wrapped, NULL, NULL), "'module.");
    /* a multimodal model's */
    OK(weights_open(&w, copy("mistral3", to_old, NULL, NULL), &err)); /* whose head has the newer name */
    assert_string_equal(weights_naming(w)->body, "language_model.model.");
    assert_string_equal(weights_beside(w), "4 tensors of multi_modal_projector, 11 of vision_tower");
    weights_close(w);
    refused(copy("gemma3_vision", less_norm, NULL, NULL), "'language_model.model.layers.5.input_layernorm.weight' is missing (1 of");
    refused(copy("gemma3_vision", same, NULL, "model.language_model.layers.0.mlp.up_proj.weight"), "twice");
    refused(copy("gemma3_vision", same, NULL, "model.language_model.embed_tokens.weight"), "twice");
    refused(copy("gemma3_vision", same, NULL, "model.layers.0.mlp.up_proj.weight"), "twice");
    refused(copy("mistral3", same, NULL, "language_model.lm_head.weight"), "'lm_head.weight'");
    refused(copy("qwen2", same, NULL, "layers.0.mlp.up_proj.weight"), "twice");
    refused(copy("qwen2", same, "{\"model_type\":\"llava\",\"text_config\":{}}", NULL), "shape");
    assert_true(opens(copy("gemma3_vision", same, NULL, "another.part")));
    OK(dir_remove(scratch(""), &err));
}

/* Headers that say of the vision tower what is not so. */
static void test_lying_sizes(void **state)
{
    static const struct { const char *was, *is; } lies[] = {
        { "[4,4,4]", "[4,4,9]" }, { "[6,4]", "[6,9]" }, { "[4,6]", "[9,6]" }, { "\"BF16\"", "\"F64\" " },
    };
    char *text;
    size_t n;
    int tried = 0;

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char *at, *end;

        copy("gemma3_vision", same, NULL, NULL);
        OK(file_read(scratch("model.safetensors"), 1 << 20, &text, &n, &err));
        at = text + 8;
        while ((at = memmem(at, n - (size_t)(at - text), "\"vision_tower", 13))) {
            end = memchr(at, '}', n - (size_t)(at - text));
            if ((at = memmem(at, (size_t)(end - at), lies[i].was, strlen(lies[i].was)))) {
                memcpy(at, lies[i].is, strlen(lies[i].is));
                break;
            }
            at = end;
        }
        if (at) {
            tried++;
            OK(file_replace(scratch("model.safetensors"), text, n, &err));
            assert_false(opens(scratch("")));
            assert_int_equal(err.code, E_DATA);
        }
        free(text);
    }
    assert_true(tried >= 2);
    OK(dir_remove(scratch(""), &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_left_out), cmocka_unit_test(test_what_is_refused), cmocka_unit_test(test_written),
        cmocka_unit_test(test_names), cmocka_unit_test(test_other_names), cmocka_unit_test(test_lying_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
