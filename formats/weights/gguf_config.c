/* formats/weights/gguf_config.c - see gguf_config.h.
 *
 * The keys become a config.json in memory, so that one reader decides what a model is, whatever
 * file it came from. */
#include "formats/weights/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that change what is computed, and what they must be where they are there; of: but of that
 * architecture, where they are read. */
static const struct {
    const char *key;
    double is;
    const char *of;
} fixed[] = {
    { "%s.expert_count", 0, NULL }, { "%s.logit_scale", 1, "granite" }, { "%s.residual_scale", 1, "granite" },
    { "%s.embedding_scale", 1, "granite" }, { "%s.attn_logit_softcapping", 0, "gemma2" },
    { "%s.final_logit_softcapping", 0, "gemma2" }, { "%s.rope.freq_base_swa", NAN, "gemma3" }, { "%s.attention.clamp_kqv", 0, NULL },
    { "%s.attention.max_alibi_bias", 0, NULL }, { "%s.rope.scaling.alpha", 0, NULL },
    { "%s.attention.causal", 1, NULL }, { "%s.use_parallel_residual", 0, "gptneox" },
    { "%s.attention.scale", NAN, "granite" }, { "%s.deepstack_mapping", NAN, NULL },
};

static int check_fixed(const struct gguf *g, const char *arch, struct err *e)
{
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        const struct gguf_value *v;
        char key[128];

        snprintf(key, sizeof key, "%s%s", arch, fixed[i].key + 2);
        if ((fixed[i].of && strcmp(fixed[i].of, arch) == 0) || !(v = gguf_find(g, key)))
            continue;
        if (v->array || v->type == GGUF_STRING ||
            (v->type == GGUF_F32 || v->type == GGUF_F64 ? gguf_float_at(v, 0)
                                                        : (double)gguf_int_at(v, 0)) != fixed[i].is)
            return err_set(e, E_CONFIG, "'%s': key '%s' at byte %zu has a value that is not supported",
                           gguf_name(g), key, v->at);
    }
    return 0;
}

/* What the file is: a whole model of a known family. */
static int read_arch(const struct gguf *g, const struct gguf_arch **a, struct err *e)
{
    const char *name = "", *type = "model";
    size_t n = 0, k = 5;
    int64_t files = 1;
    char known[200];
    int rc;

    if ((rc = gguf_string(g, "general.architecture", "", true, &name, &n, e)) < 0 ||
        (rc = gguf_string(g, "general.type", "", false, &type, &k, e)) < 0 ||
        (rc = gguf_i64(g, "split.count", "", false, 0, 65535, &files, e)) < 0)
        return rc;
    if (k != 5 || memcmp(type, "model", k) != 0)
        return err_set(e, E_CONFIG, "'%s': general.type is '%.*s', not a model", gguf_name(g),
                       k < 40 ? (int)k : 40, type);
    if (files > 1) {
        err_set(e, E_CONFIG, "'%s' is one of %lld files", gguf_name(g), (long long)files);
        return err_hint(e, "join them: llama-gguf-split --merge FIRST OUT");
    }
    if ((*a = gguf_arch_named(name, n)))
        return check_fixed(g, (*a)->name, e);
    err_set(e, E_CONFIG, "'%s': general.architecture '%.*s' is not supported", gguf_name(g),
            n < 60 ? (int)n : 60, name);
    return err_hint(e, "supported are: %s", gguf_arch_names(known, sizeof known));
}

/* The rows of the table. */
static int read_fields(json_t *o, const struct gguf *g, const char *arch, struct err *e)
{
    for (const struct gguf_field *f = gguf_fields; f < gguf_fields + gguf_n_fields; f++) {
        char key[128];
        int64_t i = -1;
        int rc;

        snprintf(key, sizeof key, "%s.%s", arch, f->key);
        if ((rc = gguf_i64(g, key, "", f->must, 1, CONFIG_MAX_CONTEXT, &i, e)) < 0)
            return rc;
        if (i > 0 && json_object_set_new(o, f->field, json_integer(i)) < 0)
            return err_set(e, E_SYS, "out of memory");
    }
    return 0;
}

static double number(const json_t *o, const char *field) { return json_number_value(json_object_get(o, field)); }

/* What follows from other keys to llama.cpp, of a family where a missing field means something else too. */
static int read_heads(json_t *o, struct err *e)
{
    int64_t heads = (int64_t)number(o, "num_attention_heads"), dim = (int64_t)number(o, "hidden_size");

    if ((!json_object_get(o, "num_key_value_heads") &&
         json_object_set_new(o, "num_key_value_heads", json_integer(heads)) < 0) ||
        (!json_object_get(o, "head_dim") && heads > 0 && dim % heads == 0 && /* else it is refused */
         json_object_set_new(o, "head_dim", json_integer(dim / heads)) < 0))
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* A token of the vocabulary, or none. */
static json_t *read_id(const struct gguf *g, const char *key, int64_t vocab)
{
    int64_t id = -1;
    struct err ignored = { 0 };

    return gguf_i64(g, key, "", false, 0, vocab - 1, &id, &ignored) < 0 || id < 0 ? json_null()
                                                                                 : json_integer(id);
}

/* The vocabulary is as large as the embedding; the head is another tensor or the same. */
static int read_tensors(json_t *o, const struct gguf *g, const char *arch, struct err *e)
{
    const struct gguf_tensor *embed = gguf_tensor_find(g, "token_embd.weight");
    int64_t vocab, said;
    int rc;

    if (!embed || embed->dims != 2)
        return err_set(e, E_DATA, "'%s': tensor 'token_embd.weight' is missing or no matrix",
                       gguf_name(g));
    vocab = said = embed->size[1];
    if ((rc = gguf_i64(g, "%s.vocab_size", arch, false, 1, INT32_MAX, &said, e)) < 0)
        return rc;
    if (said != vocab)
        return err_set(e, E_DATA, "'%s': key '%s.vocab_size' is %lld, and token_embd.weight has %lld rows",
                       gguf_name(g), arch, (long long)said, (long long)vocab);
    if (json_object_set_new(o, "vocab_size", json_integer(vocab)) < 0 ||
        json_object_set_new(o, "tie_word_embeddings",
                            json_boolean(!gguf_tensor_find(g, "output.weight"))) < 0 ||
        json_object_set_new(o, "bos_token_id", read_id(g, "tokenizer.ggml.bos_token_id", vocab)) < 0 ||
        json_object_set_new(o, "eos_token_id", read_id(g, "tokenizer.ggml.eos_token_id", vocab)) < 0)
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* Llama's and granite's biases, which config.json switches, are told by the first layer's. */
static int read_biases(json_t *o, const struct gguf *g, const struct gguf_arch *a, struct err *e)
{
    if (strcmp(a->name, "llama") != 0 && strcmp(a->name, "granite") != 0) /* the family has them or not */
        return 0;
    if (json_object_set_new(o, "attention_bias",
                            json_boolean(gguf_tensor_find(g, "blk.0.attn_q.bias"))) < 0 ||
        json_object_set_new(o, "mlp_bias", json_boolean(gguf_tensor_find(g, "blk.0.ffn_up.bias"))) < 0)
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* One key as a field of another name; where the key is absent, is. */
static int read_real(json_t *o, const struct gguf *g, const char *arch, const char *key, const char *field,
                     double is, struct err *e)
{
    char whole[128];
    int rc;

    snprintf(whole, sizeof whole, "%s.%s", arch, key);
    if ((rc = gguf_f64(g, whole, "", false, 0, 1e6, &is, e)) < 0)
        return rc;
    return json_object_set_new(o, field, json_real(gguf_decimal(is))) < 0 ? err_set(e, E_SYS, "out of memory") : 0;
}

static double head_dim_of(const json_t *o)
{
    double heads = number(o, "num_attention_heads"), dim = number(o, "head_dim");

    return dim > 0 ? dim : heads > 0 ? floor(number(o, "hidden_size") / heads) : 1;
}

/* Granite's scales. Where there is none 0 is the usual one of the scores, and no other. */
static int read_scales(json_t *o, const struct gguf *g, const char *arch, struct err *e)
{
    const char *const scores = "attention_multiplier";
    bool finetuned = true;
    char key[128];
    int rc;

    snprintf(key, sizeof key, "%s.rope.scaling.finetuned", arch);
    if ((rc = read_real(o, g, arch, "attention.scale", scores, 0, e)) < 0 ||
        (rc = read_real(o, g, arch, "embedding_scale", "embedding_multiplier", 1, e)) < 0 ||
        (rc = read_real(o, g, arch, "residual_scale", "residual_multiplier", 1, e)) < 0 ||
        (rc = read_real(o, g, arch, "logit_scale", "logits_scaling", 1, e)) < 0 ||
        (rc = gguf_bool(g, key, false, &finetuned, e)) < 0)
        return rc;
    if (!finetuned)
        return err_set(e, E_CONFIG, "'%s': key '%s' is false: a model without RoPE is not supported",
                       gguf_name(g), key);
    if (number(o, scores) == 0 &&
        json_object_set_new(o, scores, json_real(1 / sqrt(head_dim_of(o)))) < 0)
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* gptneox's, of which hidden_activation is read here alone. */
static int read_parallel(json_t *o, const struct gguf *g, const char *arch, struct err *e)
{
    const char *act = "gelu";
    bool parallel = true;
    char key[128];
    size_t n = 4;
    int rc;

    snprintf(key, sizeof key, "%s.use_parallel_residual", arch);
    if ((rc = gguf_bool(g, key, false, &parallel, e)) < 0 ||
        (rc = gguf_string(g, "%s.hidden_activation", arch, false, &act, &n, e)) < 0)
        return rc;
    if (json_object_set_new(o, "use_parallel_residual", json_boolean(parallel)) < 0 ||
        json_object_set_new(o, "hidden_act", json_stringn(act, n)) < 0)
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* Gemma 2's and 3's: caps, what scores are divided by, which layers have the window, and their RoPE. */
static int read_gemma(json_t *o, const struct gguf *g, const struct gguf_arch *a, struct err *e)
{
    const struct block *b = &arch_find(a->model_type)->block;
    double heads = number(o, "num_attention_heads");
    double by = number(o, "num_hidden_layers") == (double)a->whole_layers && heads > 0
                    ? floor(number(o, "hidden_size") / heads) : head_dim_of(o);
    int64_t every = a->full;
    int rc = gguf_i64(g, "%s.attention.sliding_window_pattern", a->name, false, 1, CONFIG_MAX_LAYERS, &every, e);

    if (rc < 0 ||
        (b->cap_scores &&
         ((rc = read_real(o, g, a->name, "attn_logit_softcapping", "attn_logit_softcapping", 50, e)) < 0 ||
          (rc = read_real(o, g, a->name, "final_logit_softcapping", "final_logit_softcapping", 30, e)) < 0)) ||
        (b->local_rope &&
         (rc = read_real(o, g, a->name, "rope.freq_base_swa", "rope_local_base_freq", 10000, e)) < 0))
        return rc;
    if (b->windows == WINDOWS_OTHER && every != a->full)
        return err_set(e, E_CONFIG, "'%s': key '%s.attention.sliding_window_pattern' has a value that is not "
                       "supported", gguf_name(g), a->name);
    if (json_object_get(o, "sliding_window_pattern")) /* no layer has a window */
        every = 1;
    if (json_object_set_new(o, "query_pre_attn_scalar", json_real(by)) < 0 ||
        json_object_set_new(o, "sliding_window_pattern", json_integer(every)) < 0)
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* What one family alone has: its norms' epsilon, the share of a head that RoPE turns, scales. */
static int read_own(json_t *o, const struct gguf *g, const struct gguf_arch *a, struct err *e)
{
    const struct block *b = &arch_find(a->model_type)->block;
    const char *eps = b->norm == NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    double norm = 0, dim = head_dim_of(o);
    int64_t turned = (int64_t)dim;
    char key[128];
    int rc;

    snprintf(key, sizeof key, "%s.%s", a->name, eps);
    if ((rc = gguf_f64(g, key, "", true, 1e-30, 1, &norm, e)) < 0 ||
        (rc = gguf_i64(g, "%s.rope.dimension_count", a->name, false, 1, CONFIG_MAX_CONTEXT, &turned, e)) < 0 ||
        (b->multipliers && (rc = read_scales(o, g, a->name, e)) < 0) ||
        (b->parallel && (rc = read_parallel(o, g, a->name, e)) < 0) ||
        (b->query_scalar && (rc = read_gemma(o, g, a, e)) < 0))
        return rc;
    if (json_object_set_new(o, field_or(b->field.eps, "rms_norm_eps"), json_real(gguf_decimal(norm))) < 0 ||
        (b->rotary > 0 && (double)turned <= dim &&
         json_object_set_new(o, field_or(b->field.rotary, "partial_rotary_factor"),
                             json_real((double)turned / dim)) < 0))
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* RoPE needs the sizes of a head first: c has been read without it. */
static int read_rope(struct llama_config *c, const struct gguf *g, const char *arch, struct err *e)
{
    const struct gguf_tensor *lists[3];
    int64_t dim = c->head_dim, value = c->head_dim;
    int rc;

    for (int i = 0; i < 3; i++)
        lists[i] = gguf_tensor_find(g, gguf_rope_tensors[i]);
    if ((rc = gguf_i64(g, "%s.rope.dimension_count", arch, false, 1, CONFIG_MAX_CONTEXT, &dim, e)) < 0 ||
        (rc = gguf_i64(g, "%s.attention.value_length", arch, false, 1, CONFIG_MAX_CONTEXT, &value, e)) < 0)
        return rc;
    if (dim != config_rotary(c) || value != c->head_dim)
        return err_set(e, E_CONFIG, "'%s': heads of %lld channels, of which RoPE turns %lld, and values of "
                       "%lld are not supported", gguf_name(g), (long long)c->head_dim, (long long)dim,
                       (long long)value);
    return gguf_rope_read(&c->rope, g, arch, dim, c->context, lists, e);
}

/* A window makes llama's tensors mistral's model, as llama.cpp has one name for both. */
static int read_window(json_t *o, const struct gguf *g, const struct gguf_arch *a, struct err *e)
{
    const char *type = a->model_type;
    enum windows kind = arch_find(type)->block.windows;
    int64_t window = kind == WINDOWS_OTHER ? 4096 : 0;
    int rc = gguf_i64(g, "%s.attention.sliding_window", a->name, false, 0, CONFIG_MAX_CONTEXT, &window, e);

    if (rc < 0)
        return rc;
    if (window > 0 && strcmp(type, "llama") == 0)
        type = "mistral";
    if (window > 0 && arch_find(type)->block.windows == WINDOWS_NONE)
        return err_set(e, E_CONFIG, "'%s': key '%s.attention.sliding_window': a window is not supported in "
                       "this model family", gguf_name(g), a->name);
    if (kind == WINDOWS_PATTERN && window == 0) { /* all layers are alike, whatever it is */
        window = 4096;
        json_object_set_new(o, "sliding_window_pattern", json_integer(1));
    }
    if (json_object_set_new(o, "model_type", json_string(type)) < 0 ||
        json_object_set_new(o, "sliding_window", window > 0 ? json_integer(window) : json_null()) < 0)
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

int gguf_config_read(struct llama_config *c, const struct gguf_arch **a, const struct gguf *g,
                     struct err *e)
{
    json_t *o = json_object();
    char *text = NULL;
    int rc = o ? read_arch(g, a, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && (rc = read_window(o, g, *a, e)) == 0 &&
        (rc = read_fields(o, g, (*a)->name, e)) == 0 && (rc = read_heads(o, e)) == 0 &&
        (rc = read_tensors(o, g, (*a)->name, e)) == 0 &&
        (rc = read_biases(o, g, *a, e)) == 0 && (rc = read_own(o, g, *a, e)) == 0) {
        if (!(text = json_dumps(o, 0)))
            rc = err_set(e, E_SYS, "out of memory");
        else
            rc = config_parse(c, text, strlen(text), gguf_name(g), e);
    }
    free(text);
    json_decref(o);
    return rc < 0 ? rc : read_rope(c, g, (*a)->name, e);
}

/* ---- writing ---- */

static void put_rope(struct gguf_head *h, const char *arch, const struct gguf_rope *r)
{
    char key[128];

#define KEY(k) (snprintf(key, sizeof key, "%s.rope.scaling." k, arch), key)
    /* Where it is absent llama.cpp takes linear. */
    gguf_put_string(h, KEY("type"), r->type, strlen(r->type));
    if (r->factor > 0)
        gguf_put_f32(h, KEY("factor"), r->factor);
    if (r->original > 0)
        gguf_put_u32(h, KEY("original_context_length"), (uint32_t)r->original);
    if (fabs(r->scale - 1) > 1e-7)
        gguf_put_f32(h, KEY("attn_factor"), r->scale);
#undef KEY
}

/* Granite's; the logits are divided by theirs. */
static void put_scales(struct gguf_head *h, const struct llama_config *c, const char *arch)
{
    char key[128];

#define KEY(k) (snprintf(key, sizeof key, "%s." k, arch), key)
    gguf_put_f32(h, KEY("attention.scale"), c->times.scores);
    gguf_put_f32(h, KEY("embedding_scale"), config_times(c->times.embed));
    gguf_put_f32(h, KEY("residual_scale"), config_times(c->times.branch));
    gguf_put_f32(h, KEY("logit_scale"), 1 / config_times(c->times.logits));
#undef KEY
}

/* Gemma 2's and 3's. */
static void put_gemma(struct gguf_head *h, const struct llama_config *c, const char *arch)
{
    bool windows = false;
    char key[128];

#define KEY(k) (snprintf(key, sizeof key, "%s." k, arch), key)
    for (int64_t i = 0; i < c->layers; i++)
        windows |= config_window(c, i) > 0;
    if (windows)
        gguf_put_u32(h, KEY("attention.sliding_window"), (uint32_t)c->window);
    if (c->cap.scores > 0)
        gguf_put_f32(h, KEY("attn_logit_softcapping"), c->cap.scores);
    if (c->cap.logits > 0)
        gguf_put_f32(h, KEY("final_logit_softcapping"), c->cap.logits);
    if (c->local_theta > 0 && c->local_theta != 10000)
        gguf_put_f32(h, KEY("rope.freq_base_swa"), c->local_theta);
#undef KEY
}

/* What one family alone has. */
static void put_own(struct gguf_head *h, const struct llama_config *c, const char *arch)
{
    const struct block *b = &config_arch(c)->block;
    char key[128];

#define KEY(k) (snprintf(key, sizeof key, "%s." k, arch), key)
    if (b->multipliers)
        put_scales(h, c, arch);
    if (b->parallel)
        gguf_put_bool(h, KEY("use_parallel_residual"), c->parallel);
    if (b->parallel && c->activation == ACT_GELU_TANH) /* llama.cpp has no other; for those that have both */
        gguf_put_string(h, KEY("hidden_activation"), "gelu_pytorch_tanh", 17);
    if (b->windows == WINDOWS_ALL && strcmp(arch, "phi3") == 0) /* absent, older ones take one */
        gguf_put_u32(h, KEY("attention.sliding_window"), 0);
    if (b->query_scalar)
        put_gemma(h, c, arch);
#undef KEY
}

int gguf_config_write(struct gguf_head *h, const struct llama_config *c, struct gguf_rope *rope,
                      struct err *e)
{
    const struct gguf_arch *a = gguf_arch_of(c);
    char key[128];
    int rc = gguf_check(c, e);

    if (rc < 0 || (rc = gguf_rope_of(rope, &c->rope, config_rotary(c), e)) < 0)
        return rc;
    gguf_put_string(h, "general.architecture", a->name, strlen(a->name));
#define KEY(k) (snprintf(key, sizeof key, "%s." k, a->name), key)
    gguf_put_u32(h, KEY("block_count"), (uint32_t)c->layers);
    gguf_put_u32(h, KEY("context_length"), (uint32_t)config_reach(c));
    gguf_put_u32(h, KEY("embedding_length"), (uint32_t)c->dim);
    gguf_put_u32(h, KEY("feed_forward_length"), (uint32_t)c->ffn_dim);
    gguf_put_u32(h, KEY("attention.head_count"), (uint32_t)c->heads);
    gguf_put_u32(h, KEY("attention.head_count_kv"), (uint32_t)c->kv_heads);
    gguf_put_f32(h, config_arch(c)->block.norm == NORM_LAYER ? KEY("attention.layer_norm_epsilon")
                                                             : KEY("attention.layer_norm_rms_epsilon"),
                 c->norm_eps);
    gguf_put_u32(h, KEY("attention.key_length"), (uint32_t)c->head_dim);
    gguf_put_u32(h, KEY("attention.value_length"), (uint32_t)c->head_dim);
    gguf_put_u32(h, KEY("vocab_size"), (uint32_t)c->vocab);
    gguf_put_u32(h, KEY("rope.dimension_count"), (uint32_t)config_rotary(c));
    gguf_put_f32(h, KEY("rope.freq_base"), c->rope.theta);
#undef KEY
    put_rope(h, a->name, rope);
    put_own(h, c, a->name);
    return 0;
}
