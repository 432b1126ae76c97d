/* formats/weights/config_write.c - writing config.json in the 4.x and 5.x forms; see config.h. */
#include "formats/weights/config.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/weights/tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sets a field; json takes the value over. Failure shows at the end as a NULL somewhere, so
 * *ok collects it. */
static void set(json_t *o, const char *key, json_t *v, bool *ok)
{
    if (json_object_set_new(o, key, v) < 0)
        *ok = false;
}

/* A linear factor of 1 is no scaling. */
static enum rope_type written_type(const struct rope_config *r)
{
    return r->type == ROPE_LINEAR && r->factor == 1 ? ROPE_DEFAULT : r->type;
}

static bool has_original(enum rope_type t)
{
    return t == ROPE_LLAMA3 || t == ROPE_YARN || t == ROPE_LONGROPE;
}

/* A number that is not the default one. */
static void set_unless(json_t *o, const char *key, double v, double missing, bool *ok)
{
    if (v != missing)
        set(o, key, json_real(v), ok);
}

static void set_list(json_t *o, const char *key, const double *v, int64_t n, bool *ok)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < n; i++)
        if (json_array_append_new(list, json_real(v[i])) < 0)
            *ok = false;
    set(o, key, list, ok);
}

/* The fields of the scaling that both forms have in common. What transformers would find out by
 * itself is written for longrope alone, whose versions find out different things. */
static void set_scale(json_t *o, const struct rope_config *r, bool *ok)
{
    enum rope_type t = written_type(r);

    if (t != ROPE_DEFAULT)
        set(o, "factor", json_real(r->factor), ok);
    if (has_original(t))
        set(o, "original_max_position_embeddings", json_integer(r->original_context), ok);
    if (t == ROPE_LLAMA3) {
        set(o, "low_freq_factor", json_real(r->low_freq_factor), ok);
        set(o, "high_freq_factor", json_real(r->high_freq_factor), ok);
    } else if (t == ROPE_YARN) {
        set_unless(o, "attention_factor", r->attention_factor, 0, ok);
        set_unless(o, "beta_fast", r->beta_fast, 32, ok);
        set_unless(o, "beta_slow", r->beta_slow, 1, ok);
        set_unless(o, "mscale", r->mscale, 0, ok);
        set_unless(o, "mscale_all_dim", r->mscale_all_dim, 0, ok);
        if (r->smooth)
            set(o, "truncate", json_false(), ok);
    } else if (t == ROPE_LONGROPE) {
        set(o, "attention_factor", json_real(config_rope_scale(r)), ok);
        set_list(o, "short_factor", r->short_factor, r->pairs, ok);
        set_list(o, "long_factor", r->long_factor, r->pairs, ok);
    }
}

/* The 4.x form. transformers before 4.43 refuse a scaling that has other than two fields, "type"
 * and "factor", and know linear and dynamic; later versions read these two. The other kinds came
 * with 4.43 and are "rope_type" there, as are all for Gemma 3, which came later; vLLM's older versions ask for
 * the "type" of yarn. */
static json_t *rope_scaling(const struct rope_config *r, const struct block *b, bool *ok)
{
    enum rope_type t = written_type(r);
    json_t *o;

    if (t == ROPE_DEFAULT)
        return json_null();
    o = json_object();
    if (t != ROPE_LLAMA3)
        set(o, "type", json_string(config_rope_name(t)), ok);
    if (b->three_fields && t == ROPE_LONGROPE) {
        set_list(o, "short_factor", r->short_factor, r->pairs, ok);
        set_list(o, "long_factor", r->long_factor, r->pairs, ok);
        return o;
    }
    if (has_original(t) || b->local_rope)
        set(o, "rope_type", json_string(config_rope_name(t)), ok);
    set_scale(o, r, ok);
    return o;
}

/* The 5.x form. "type" too: readers of the older name would drop the scaling without a word. */
static json_t *rope_parameters(const struct rope_config *r, bool *ok)
{
    const char *name = config_rope_name(written_type(r));
    json_t *o = json_object();

    set(o, "type", json_string(name), ok);
    set(o, "rope_type", json_string(name), ok);
    set_scale(o, r, ok);
    set(o, "rope_theta", json_real(r->theta), ok);
    return o;
}

json_t *config_rope_json(const struct rope_config *r)
{
    bool ok = true;
    json_t *o = rope_parameters(r, &ok);

    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

/* Both forms are written, so that old and new versions of transformers read the same. */
static void set_rope(json_t *o, const struct llama_config *c, bool *ok)
{
    if (config_arch(c)->block.rotary > 0)
        set(o, field_or(config_arch(c)->block.field.rotary, "partial_rotary_factor"),
            json_real(c->rotary_dim ? (double)c->rotary_dim / (double)c->head_dim : 1), ok);
    set(o, field_or(config_arch(c)->block.field.theta, "rope_theta"), json_real(c->rope.theta), ok);
    set(o, "rope_scaling", rope_scaling(&c->rope, &config_arch(c)->block, ok), ok);
    if (c->local_theta > 0) {
        json_t *layers = json_object();

        set(layers, "full_attention", rope_parameters(&c->rope, ok), ok);
        set(layers, "sliding_attention", rope_parameters(&(struct rope_config){ .theta = c->local_theta }, ok), ok);
        set(o, "rope_parameters", layers, ok);
        set(o, "rope_local_base_freq", json_real(c->local_theta), ok);
    } else {
        set(o, "rope_parameters", rope_parameters(&c->rope, ok), ok);
    }
    /* At the top as well: llama.cpp looks for llama3's there alone, transformers 4 for longrope's. */
    if (has_original(c->rope.type))
        set(o, "original_max_position_embeddings", json_integer(c->rope.original_context), ok);
    else
        json_object_del(o, "original_max_position_embeddings");
}

/* A list of ids whose first is still right stays as it is. */
static void set_id(json_t *o, const char *key, int64_t id, bool *ok)
{
    json_t *old = json_object_get(o, key);

    /* The other ids of the list end a text too, and would get lost. */
    if (json_is_array(old) && json_integer_value(json_array_get(old, 0)) == id)
        return;
    set(o, key, id < 0 ? json_null() : json_integer(id), ok);
}

/* Gemma's fields. transformers 5 takes no fraction that is a whole number. */
static void set_caps(json_t *o, const struct llama_config *c, bool *ok)
{
    const struct block *b = &config_arch(c)->block;
    double scalar = c->times.scores > 0 ? 1 / (c->times.scores * c->times.scores) : (double)c->head_dim;

    if (b->query_scalar)
        set(o, "query_pre_attn_scalar", fabs(scalar - round(scalar)) < 1e-9 * scalar
                                            ? json_integer((json_int_t)round(scalar)) : json_real(scalar), ok);
    if (b->cap_scores)
        set(o, "attn_logit_softcapping", c->cap.scores > 0 ? json_real(c->cap.scores) : json_null(), ok);
    if (b->cap_logits)
        set(o, "final_logit_softcapping", c->cap.logits > 0 ? json_real(c->cap.logits) : json_null(), ok);
}

/* What a file that is not made after another also needs. */
static void set_fixed(json_t *o, const struct llama_config *c, bool *ok)
{
    static const char *const activations[] = { "silu", "gelu", "gelu_pytorch_tanh" };
    const struct layers_config l = { c->window, c->full, c->no_rope };
    const struct arch *a = config_arch(c);

    set(o, "architectures", json_pack("[s]", a->class_name), ok);
    set(o, "model_type", json_string(a->model_type), ok);
    set(o, field_or(a->block.field.activation, "hidden_act"), json_string(activations[c->activation]), ok);
    if (a->block.parallel)
        set(o, "use_parallel_residual", json_boolean(c->parallel), ok);
    set(o, "attention_bias", json_boolean(arch_roles(a) & (ROLE_BIT(ROLE_Q_BIAS) | ROLE_BIT(ROLE_QKV_BIAS))),
        ok);
    set(o, "attention_dropout", json_real(0), ok);
    set(o, "mlp_bias", json_boolean(arch_roles(a) & ROLE_BIT(ROLE_DOWN_BIAS)), ok);
    set(o, "use_cache", json_true(), ok);
    if (a->block.multipliers) {
        set(o, "embedding_multiplier", json_real(config_times(c->times.embed)), ok);
        set(o, "attention_multiplier", json_real(config_times(c->times.scores)), ok);
        set(o, "residual_multiplier", json_real(config_times(c->times.branch)), ok);
        set(o, "logits_scaling", json_real(1 / config_times(c->times.logits)), ok);
    }
    set_caps(o, c, ok);
    if (!config_write_layers(&l, a, c->layers, o))
        *ok = false;
}

/* The fields that come from c, in a new file or over those of an old one. Fields that are not
 * named here stay as they were. */
static void set_all(json_t *o, const struct llama_config *c, bool *ok)
{
    const struct { const char *key; int64_t v; } sizes[] = {
        { "vocab_size", c->vocab }, { "hidden_size", c->dim },
        { "intermediate_size", c->ffn_dim }, { "num_hidden_layers", c->layers },
        { "num_attention_heads", c->heads }, { "num_key_value_heads", c->kv_heads },
        { "head_dim", c->head_dim }, { "max_position_embeddings", c->context },
    };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        set(o, sizes[i].key, json_integer(sizes[i].v), ok);
    set(o, field_or(config_arch(c)->block.field.eps, "rms_norm_eps"), json_real(c->norm_eps), ok);
    set(o, "initializer_range", json_real(c->init_range), ok);
    set(o, "tie_word_embeddings", json_boolean(c->tied), ok);
    set_id(o, "bos_token_id", c->bos, ok);
    set_id(o, "eos_token_id", c->eos, ok);
    set_rope(o, c, ok);
}

/* Newer versions call it dtype; they read the older name too. must: it is to be there. */
static void set_dtype(json_t *o, const char *dtype, bool must, bool *ok)
{
    static const char *const keys[] = { "torch_dtype", "dtype" };

    for (int i = 0; i < 2; i++)
        if ((must && i == 0) || json_object_get(o, keys[i]))
            set(o, keys[i], json_string(dtype), ok);
}

/* A multimodal model's file: the language model's fields are in text_config. What a version looks for at the
 * top is said there as well. */
static int set_within(json_t *top, const struct llama_config *c, const char *dtype, const char *name, bool *ok,
                      struct err *e)
{
    json_t *o = json_object_get(top, "text_config"), *vocab = json_object_get(top, "vocab_size");

    if (!json_is_object(o))
        return err_set(e, E_CONFIG, "cannot write '%s': the base's config.json has no text_config", name);
    if (vocab && json_equal(vocab, json_object_get(o, "vocab_size")))
        set(top, "vocab_size", json_integer(c->vocab), ok);
    if (!json_object_get(o, "model_type"))
        set(o, "model_type", json_string(config_arch(c)->model_type), ok);
    set_all(o, c, ok);
    set_dtype(o, dtype, false, ok);
    set(top, "tie_word_embeddings", json_boolean(c->tied), ok);
    return 0;
}

int config_text(const struct llama_config *c, const char *like, const char *dtype, const char *name,
                char **text, struct err *e)
{
    /* With "like", that file is read and changed; without, a new object is filled. */
    struct js o = { .file = name };
    bool ok = true;
    int rc = 0;

    /* A NULL object is not looked at here: then set fails and *ok turns false. */
    if (like)
        rc = js_load(&o, like, JS_MAX_BYTES, e);
    else if ((o.obj = json_object()))
        set_fixed(o.obj, c, &ok);
    if (rc < 0)
        return rc;
    if (like && c->multimodal)
        rc = set_within(o.obj, c, dtype, name, &ok, e);
    else
        set_all(o.obj, c, &ok);
    set_dtype(o.obj, dtype, true, &ok);
    if (rc == 0 && (!ok || !(*text = js_text(o.obj))))
        rc = err_set(e, E_SYS, "out of memory for '%s'", name);
    js_free(&o);
    return rc;
}

int config_write(const struct llama_config *c, const char *like, const char *dtype,
                 const char *path, struct err *e)
{
    char *text;
    int rc = config_text(c, like, dtype, path, &text, e);

    if (rc < 0)
        return rc;
    rc = file_replace(path, text, strlen(text), e);
    free(text);
    return rc;
}
