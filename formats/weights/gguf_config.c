/* formats/weights/gguf_config.c - see gguf_config.h.
 *
 * The keys become a config.json in memory, so that one reader decides what a model is, whatever
 * file it came from. */
#include "formats/weights/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that change what is computed, and what they must be where they are there. */
static const struct {
    const char *key;
    double is;
} fixed[] = {
    { "%s.expert_count", 0 }, { "%s.logit_scale", 1 }, { "%s.residual_scale", 1 },
    { "%s.embedding_scale", 1 }, { "%s.attn_logit_softcapping", 0 }, { "%s.final_logit_softcapping", 0 },
    { "%s.attention.clamp_kqv", 0 }, { "%s.attention.max_alibi_bias", 0 }, { "%s.rope.scaling.alpha", 0 },
    { "%s.attention.causal", 1 }, { "%s.use_parallel_residual", 0 }, { "%s.attention.scale", NAN },
};

static int check_fixed(const struct gguf *g, const char *arch, struct err *e)
{
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        const struct gguf_value *v;
        char key[128];

        snprintf(key, sizeof key, "%s%s", arch, fixed[i].key + 2);
        if (!(v = gguf_find(g, key)))
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
        double d = -1;
        int rc;

        snprintf(key, sizeof key, "%s.%s", arch, f->key);
        rc = f->real ? gguf_f64(g, key, "", f->must, 1e-30, 1, &d, e)
                     : gguf_i64(g, key, "", f->must, 1, CONFIG_MAX_CONTEXT, &i, e);
        if (rc < 0)
            return rc;
        if ((f->real ? d > 0 : i > 0) &&
            json_object_set_new(o, f->field, f->real ? json_real(d) : json_integer(i)) < 0)
            return err_set(e, E_SYS, "out of memory");
    }
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

/* Llama's biases, which config.json switches, are told by the first layer's. */
static int read_biases(json_t *o, const struct gguf *g, const struct gguf_arch *a, struct err *e)
{
    if (strcmp(a->name, "llama") != 0) /* the family has them or not */
        return 0;
    if (json_object_set_new(o, "attention_bias",
                            json_boolean(gguf_tensor_find(g, "blk.0.attn_q.bias"))) < 0 ||
        json_object_set_new(o, "mlp_bias", json_boolean(gguf_tensor_find(g, "blk.0.ffn_up.bias"))) < 0)
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
    int64_t window = 0;
    int rc = gguf_i64(g, "%s.attention.sliding_window", a->name, false, 0, CONFIG_MAX_CONTEXT, &window, e);

    if (rc < 0)
        return rc;
    if (window > 0 && strcmp(type, "llama") == 0)
        type = "mistral";
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
        (rc = read_fields(o, g, (*a)->name, e)) == 0 && (rc = read_tensors(o, g, (*a)->name, e)) == 0 &&
        (rc = read_biases(o, g, *a, e)) == 0) {
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

/* What llama.cpp has no key for. */
static int check_same(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    if (!a) {
        err_set(e, E_CONFIG, "models of the family '%s' are not written to GGUF",
                config_arch(c)->model_type);
        return err_hint(e, "write a folder, and use llama.cpp's convert_hf_to_gguf.py");
    }
    if (c->window > 0 && c->window < config_reach(c)) {
        err_set(e, E_CONFIG, "the model has a window of %lld tokens, which llama.cpp does not have for '%s': "
                "beyond it texts would be computed in another way", (long long)c->window, a->name);
        return err_hint(e, "train with --window 0, or use the folder with vLLM or transformers");
    }
    return 0;
}

int gguf_config_write(struct gguf_head *h, const struct llama_config *c, struct gguf_rope *rope,
                      struct err *e)
{
    const struct gguf_arch *a = gguf_arch_of(c);
    char key[128];
    int rc = check_same(c, a, e);

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
    gguf_put_f32(h, KEY("attention.layer_norm_rms_epsilon"), c->norm_eps);
    gguf_put_u32(h, KEY("attention.key_length"), (uint32_t)c->head_dim);
    gguf_put_u32(h, KEY("attention.value_length"), (uint32_t)c->head_dim);
    gguf_put_u32(h, KEY("vocab_size"), (uint32_t)c->vocab);
    gguf_put_u32(h, KEY("rope.dimension_count"), (uint32_t)config_rotary(c));
    gguf_put_f32(h, KEY("rope.freq_base"), c->rope.theta);
#undef KEY
    put_rope(h, a->name, rope);
    return 0;
}
