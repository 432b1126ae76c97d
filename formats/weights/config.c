/* formats/weights/config.c - reading config.json; see config.h.
 *
 * A field that asks for something that is not computed here is refused: a model that is
 * computed in another way than it was trained gives no error, just bad text. Fields that are
 * left out mean what they mean to transformers. */
#include "formats/weights/config.h"

#include "base/file.h"
#include "base/json.h"
#include "base/tensor_type.h"
#include "formats/weights/arch.h"
#include "formats/weights/multimodal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every size is bounded so that no product of two or three of them, times the layers, leaves
 * 63 bits; all are far above any model there is. */
enum { MAX_VOCAB = 1 << 24, MAX_DIM = 1 << 17, MAX_FFN = 1 << 20, MAX_LAYERS = CONFIG_MAX_LAYERS,
       MAX_HEADS = 4096, MAX_HEAD_DIM = 1024 };
#define MAX_BYTES ((size_t)4 << 20)

static int refuse(const struct js *o, const char *what, struct err *e)
{
    return err_set(e, E_CONFIG, "'%s': %s%s is not supported", o->file, o->path, what);
}

/* The family has a tensor of this role. */
static bool has(const struct llama_config *c, enum role r)
{
    return arch_roles(c->arch) & ROLE_BIT(r);
}

/* The error for an unknown model_type, with a hint that lists the known ones. */
static int unknown_family(const struct js *o, const char *type, struct err *e)
{
    char list[256] = "";
    size_t n = 0;

    for (int i = 0; arch_nth(i) && n < sizeof list; i++)
        if (arch_find(arch_nth(i)->model_type) == arch_nth(i))
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "",
                                  arch_nth(i)->model_type);
    err_set(e, E_CONFIG, "'%s': %smodel_type '%.60s' is not supported", o->file, o->path, type);
    if (js_has(o, "text_config"))
        return err_hint(e, "it has parts beside text: save the text part as a model of its own, of one of the families %s",
                        list);
    return err_hint(e, "supported are: %s", list);
}

/* The entry of the family that has the biases which the file says; without the fields the first. One
 * that no entry has is refused. */
static int choose_biases(struct llama_config *c, const struct js *o, struct err *e)
{
    bool attention = has(c, ROLE_Q_BIAS) || has(c, ROLE_QKV_BIAS), mlp = has(c, ROLE_DOWN_BIAS), said = attention,
         mlp_said = mlp;
    const struct arch *a;
    int rc;

    if ((rc = js_bool(o, "attention_bias", JS_MAY, &said, e)) < 0 ||
        (rc = js_bool(o, "mlp_bias", JS_MAY, &mlp_said, e)) < 0)
        return rc;
    if ((a = arch_with_biases(c->arch, said, mlp_said)))
        c->arch = a;
    else if (said != attention)
        return refuse(o, said ? "attention_bias" : "attention_bias false", e);
    else
        return refuse(o, mlp_said ? "mlp_bias" : "mlp_bias false", e);
    return 0;
}

/* The json functions give 0 for NULL and for values of another type. */
static bool is_on(const json_t *v, double neutral)
{
    return json_is_true(v) || json_array_size(v) || json_object_size(v) || json_string_length(v) ||
           (json_number_value(v) != 0 && json_number_value(v) != neutral);
}

/* Fields by which models of other families, or of changed code, differ: on in a family that has not
 * what they ask for, they are refused. Off is absent, null, false, 0, an empty list or object, and
 * neutral. */
static int check_others(const struct arch *a, const struct js *o, struct err *e)
{
    static const struct { const char *key; double neutral; } other[] = {
        { "embedding_multiplier", 1 }, { "attention_multiplier", 0 }, { "residual_multiplier", 1 },
        { "logits_scaling", 1 }, /* multipliers */
        { "logit_scale", 1 }, { "clip_qkv", 0 }, { "use_bidirectional_attention", 0 },
        { "num_local_experts", 1 }, { "num_experts", 1 }, { "n_routed_experts", 0 },
        { "kv_lora_rank", 0 }, { "qk_layernorm", 0 }, { "use_qk_norm", 0 }, { "alibi", 0 },
        { "attention_chunk_size", 0 }, { "cross_attention_layers", 0 },
    };
    const struct block *b = &a->block;
    const struct { const char *key; bool counts; } some[] = {
        { "attn_logit_softcapping", b->cap_scores }, { "final_logit_softcapping", b->cap_logits },
        { "query_pre_attn_scalar", b->query_scalar }, { "rope_local_base_freq", b->local_rope },
    };

    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        if (!some[i].counts && is_on(json_object_get(o->obj, some[i].key), 0))
            return refuse(o, some[i].key, e);

    for (size_t i = a->block.multipliers ? 4 : 0; i < sizeof other / sizeof *other; i++) {
        if (is_on(json_object_get(o->obj, other[i].key), other[i].neutral))
            return refuse(o, other[i].key, e);
    }
    return 0;
}

/* Several names of transformers mean the same, or the same but for rounding. */
static int read_activation(struct llama_config *c, const struct js *o, struct err *e)
{
    static const struct { const char *name; enum activation f; } all[] = {
        { "silu", ACT_SILU }, { "swish", ACT_SILU }, { "gelu", ACT_GELU }, { "gelu_python", ACT_GELU },
        { "gelu_new", ACT_GELU_TANH }, { "gelu_fast", ACT_GELU_TANH },
        { "gelu_pytorch_tanh", ACT_GELU_TANH }, { "gelu_accurate", ACT_GELU_TANH },
    };
    const char *key = field_or(c->arch->block.field.activation, "hidden_act"), *name = NULL;
    int rc = js_str(o, key, JS_MAY, &name, e);

    c->activation = c->arch->block.activation;
    if (rc < 0 || !name)
        return rc;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(name, all[i].name) == 0) {
            c->activation = all[i].f == ACT_GELU && c->arch->block.gelu_tanh ? ACT_GELU_TANH : all[i].f;
            return 0;
        }
    err_set(e, E_CONFIG, "'%s': %s%s '%.60s' is not supported", o->file, o->path, key, name);
    return err_hint(e, "silu, gelu and gelu_pytorch_tanh are");
}

/* Granite's: logits are divided by theirs, and the scores are multiplied by 1 where it is not said. */
static int read_multipliers(struct llama_config *c, const struct js *o, struct err *e)
{
    double embed = 1, scores = 1, branch = 1, logits = 1;
    int rc;

    if (!c->arch->block.multipliers)
        return 0;
    if ((rc = js_f64(o, "embedding_multiplier", JS_MAY, 1e-6, 1e6, &embed, e)) < 0 ||
        (rc = js_f64(o, "attention_multiplier", JS_MAY, 1e-6, 1e6, &scores, e)) < 0 ||
        (rc = js_f64(o, "residual_multiplier", JS_MAY, 1e-6, 1e6, &branch, e)) < 0 ||
        (rc = js_f64(o, "logits_scaling", JS_MAY, 1e-6, 1e6, &logits, e)) < 0)
        return rc;
    c->times.embed = embed, c->times.scores = scores, c->times.branch = branch;
    c->times.logits = 1 / logits;
    return 0;
}

/* A cap that is there: null is none. */
static int read_cap(const struct js *o, const char *key, double missing, double *cap, struct err *e)
{
    *cap = json_object_get(o->obj, key) ? 0 : missing;
    return js_f64(o, key, JS_MAY, 1e-3, 1e6, cap, e);
}

/* Gemma's: what scores are divided by, and the caps. */
static int read_caps(struct llama_config *c, const struct js *o, struct err *e)
{
    const struct block *b = &c->arch->block;
    const struct missing *m = &c->arch->missing;
    double scalar = (double)m->head_dim;
    int rc = 0;

    if (b->cap_scores)
        rc = read_cap(o, "attn_logit_softcapping", m->cap_scores, &c->cap.scores, e);
    if (rc == 0 && b->cap_logits)
        rc = read_cap(o, "final_logit_softcapping", m->cap_logits, &c->cap.logits, e);
    if (rc < 0 || !b->query_scalar)
        return rc;
    rc = js_f64(o, "query_pre_attn_scalar", JS_MAY, 1e-6, 1e9, &scalar, e);
    c->times.scores = 1 / sqrt(scalar);
    return rc;
}

double config_embed_times(const struct llama_config *c, enum dtype act)
{
    float root = (float)sqrt((double)c->dim);

    if (!(c->arch ? c->arch : arch_nth(0))->block.root_embed)
        return config_times(c->times.embed);
    return (double)(act == DT_BF16 ? bf16_to_f32(f32_to_bf16(root)) : root);
}

/* By the name of the method: gptq, awq, bitsandbytes, fp8. */
static int refuse_quantized(const struct js *o, struct err *e)
{
    const char *method = json_string_value(json_object_get(json_object_get(o->obj, "quantization_config"),
                                                           "quant_method"));

    if (method)
        err_set(e, E_CONFIG, "'%s': quantization_config is not supported: the weights are packed by %.40s", o->file,
                method);
    else
        refuse(o, "quantization_config", e);
    return err_hint(e, "use the model that it was made of, in float32, float16 or bfloat16, or a GGUF of it");
}

/* Fields that would change what the model computes must say what the family's description does. */
static int check_features(struct llama_config *c, const struct js *o, struct err *e)
{
    const char *type = NULL;
    int rc;

    if ((rc = js_str(o, "model_type", JS_MUST, &type, e)) < 0)
        return rc;
    if (!(c->arch = arch_find(type)))
        return unknown_family(o, type, e);
    c->parallel = c->arch->block.parallel;
    if ((rc = read_activation(c, o, e)) < 0 ||
        (c->parallel && (rc = js_bool(o, "use_parallel_residual", JS_MAY, &c->parallel, e)) < 0))
        return rc;
    if ((rc = choose_biases(c, o, e)) < 0 || (rc = check_others(c->arch, o, e)) < 0)
        return rc;
    return js_has(o, "quantization_config") ? refuse_quantized(o, e) : 0;
}

/* The sizes of the model. What is left out gets a value that follows from the others. */
static int read_sizes(struct llama_config *c, const struct js *o, struct err *e)
{
    const struct missing *m = &c->arch->missing;
    int rc;

    if ((rc = js_i64(o, "vocab_size", JS_MUST, 1, MAX_VOCAB, &c->vocab, e)) < 0 ||
        (rc = js_i64(o, "hidden_size", JS_MUST, 1, MAX_DIM, &c->dim, e)) < 0 ||
        (rc = js_i64(o, "intermediate_size", JS_MUST, 1, MAX_FFN, &c->ffn_dim, e)) < 0 ||
        (rc = js_i64(o, "num_hidden_layers", JS_MUST, 1, MAX_LAYERS, &c->layers, e)) < 0 ||
        (rc = js_i64(o, "num_attention_heads", JS_MUST, 1, MAX_HEADS, &c->heads, e)) < 0)
        return rc;
    c->kv_heads = m->kv_heads && !json_object_get(o->obj, "num_key_value_heads") ? m->kv_heads
                                                                                 : c->heads;
    /* 0 stands for unknown: the division leaves a rest, so the file must say it. */
    c->head_dim = m->head_dim && !json_object_get(o->obj, "head_dim") ? m->head_dim
                : c->dim % c->heads == 0 ? c->dim / c->heads : 0;
    c->context = m->context ? m->context : 2048;
    if ((rc = js_i64(o, "num_key_value_heads", JS_MAY, 1, MAX_HEADS, &c->kv_heads, e)) < 0 ||
        (rc = js_i64(o, "head_dim", JS_MAY, 1, MAX_HEAD_DIM, &c->head_dim, e)) < 0 ||
        (rc = js_i64(o, "max_position_embeddings", JS_MAY, 1, CONFIG_MAX_CONTEXT, &c->context, e)) < 0)
        return rc;
    if (c->arch->block.by_head) { /* transformers does not read the two */
        c->kv_heads = c->heads;
        c->head_dim = c->dim % c->heads == 0 ? c->dim / c->heads : 0;
    }
    if (c->head_dim == 0)
        return err_set(e, E_CONFIG, "'%s': %shidden_size %lld is not a multiple of "
                       "num_attention_heads %lld", o->file, o->path, (long long)c->dim,
                       (long long)c->heads);
    /* Each key/value head serves the same number of query heads. */
    if (c->heads % c->kv_heads != 0)
        return err_set(e, E_CONFIG, "'%s': %snum_attention_heads %lld is not a multiple of "
                       "num_key_value_heads %lld", o->file, o->path, (long long)c->heads,
                       (long long)c->kv_heads);
    /* RoPE turns pairs of channels. */
    if (c->head_dim % 2 != 0 || c->head_dim > MAX_HEAD_DIM)
        return err_set(e, E_CONFIG, "'%s': %shead_dim %lld must be even and at most %d", o->file, o->path,
                       (long long)c->head_dim, MAX_HEAD_DIM);
    return 0;
}

/* A token id, null, or a list whose first counts. Left out: what the family takes. */
static int read_id(const struct js *o, const char *key, int64_t vocab, int64_t missing,
                   int64_t *id, struct err *e)
{
    json_t *v = json_object_get(o->obj, key);

    /* A small vocabulary may not have the id that is taken when the field is missing. */
    *id = v ? -1 : missing < vocab ? missing : -1;
    if (json_is_array(v))
        v = json_array_get(v, 0);
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_integer(v))
        return err_set(e, E_DATA, "'%s': field '%s%s' is not a token id", o->file, o->path, key);
    if (json_integer_value(v) < -1 || json_integer_value(v) >= MAX_VOCAB)
        return err_set(e, E_DATA, "'%s': field '%s%s' is %lld, vocab_size is %lld", o->file, o->path,
                       key, (long long)json_integer_value(v), (long long)vocab);
    if (json_integer_value(v) < vocab) /* some published models name an id they do not have */
        *id = json_integer_value(v);
    return 0;
}

/* The family first, since it decides what the other fields mean; the context before RoPE, whose
 * forms fall back on it. */
static int read_all(struct llama_config *c, const struct js *o, struct err *e)
{
    const struct missing *m;
    struct layers_config l;
    struct rope_sizes z;
    int rc;

    *c = (struct llama_config){ .init_range = 0.02 };
    if ((rc = check_features(c, o, e)) < 0 || (rc = read_sizes(c, o, e)) < 0)
        return rc;
    m = &c->arch->missing;
    c->norm_eps = m->eps > 0 ? m->eps : 1e-6;
    c->tied = m->tied;
    if ((rc = config_read_layers(&l, c->arch, c->layers, o, e)) < 0)
        return rc;
    c->window = l.window, c->full = l.full, c->no_rope = l.no_rope;
    if ((rc = read_multipliers(c, o, e)) < 0 || (rc = read_caps(c, o, e)) < 0 ||
        (rc = js_f64(o, field_or(c->arch->block.field.eps, "rms_norm_eps"), JS_MAY, 1e-30, 1, &c->norm_eps, e)) < 0 ||
        (rc = js_f64(o, "initializer_range", JS_MAY, 0, 100, &c->init_range, e)) < 0 ||
        (rc = js_bool(o, "tie_word_embeddings", JS_MAY, &c->tied, e)) < 0 ||
        (rc = read_id(o, "bos_token_id", c->vocab, m->no_ids ? -1 : m->ids_2_1 ? 2 : 1, &c->bos, e)) < 0 ||
        (rc = read_id(o, "eos_token_id", c->vocab, m->no_ids ? -1 : m->ids_2_1 ? 1 : 2, &c->eos, e)) < 0)
        return rc;
    if (c->arch->block.local_rope && (rc = config_read_local(&c->local_theta, o, e)) < 0)
        return rc;
    z = (struct rope_sizes){ .local = c->arch->block.local_rope, .context = c->context, .head_dim = c->head_dim,
                             .share = c->arch->block.rotary, .theta = m->theta,
                             .theta_key = field_or(c->arch->block.field.theta, "rope_theta"),
                             .share_key = field_or(c->arch->block.field.rotary, "partial_rotary_factor") };
    return config_read_rope(&c->rope, &c->rotary_dim, o, &z, e);
}

/* The language model of one that has more: text_config, which may leave out much. What that is tied by the
 * top says too, which transformers 5 asks and 4 does not: so the files have the last word. */
static int read_within(struct llama_config *c, const struct multimodal *m, const struct js *o, struct err *e)
{
    bool tied = m->tied;
    struct js text;
    int rc;

    if (m->why)
        return err_set(e, E_CONFIG, "'%s': model_type '%s' is not supported: %s", o->file, m->model_type, m->why);
    if (js_has(o, "quantization_config"))
        return refuse_quantized(o, e);
    if ((rc = js_object(o, "text_config", JS_MUST, &text, e)) < 0 ||
        (rc = js_bool(o, "tie_word_embeddings", JS_MAY, &tied, e)) < 0 ||
        (rc = multimodal_fill(m, o, &text, e)) < 0 || (rc = read_all(c, &text, e)) < 0)
        return rc;
    c->multimodal = m;
    c->tied_headless = tied;
    return 0;
}

static int read_any(struct llama_config *c, const struct js *o, struct err *e)
{
    const char *type = NULL;
    const struct multimodal *m;
    int rc = js_str(o, "model_type", JS_MUST, &type, e);

    if (rc < 0)
        return rc;
    return (m = multimodal_find(type)) ? read_within(c, m, o, e) : read_all(c, o, e);
}

int config_parse(struct llama_config *c, const char *json, size_t nbytes, const char *name,
                 struct err *e)
{
    struct js o;
    int rc = js_parse(&o, json, nbytes, name, e);

    if (rc < 0)
        return rc;
    rc = read_any(c, &o, e);
    js_free(&o);
    return rc;
}

int config_read(struct llama_config *c, const char *path, struct err *e)
{
    size_t n;
    char *text;
    int rc = file_read(path, MAX_BYTES, &text, &n, e);

    if (rc < 0)
        return rc;
    rc = config_parse(c, text, n, path, e);
    free(text);
    return rc;
}
