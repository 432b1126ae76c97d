/* formats/weights/adapter_config.c - see adapter_config.h. */
#include "formats/weights/adapter_config.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)1 << 20)
enum { MAX_RANK = 1 << 16 };

/* Paths of the modules, less "layers.N.", which no name here may contain. */
static const struct { const char *path, *last; } modules[] = {
    [TK_EMBED] = { "model.embed_tokens", "embed_tokens" },
    [TK_NORM1] = { "input_layernorm", "input_layernorm" },
    [TK_Q] = { "self_attn.q_proj", "q_proj" },
    [TK_K] = { "self_attn.k_proj", "k_proj" },
    [TK_V] = { "self_attn.v_proj", "v_proj" },
    [TK_O] = { "self_attn.o_proj", "o_proj" },
    [TK_NORM2] = { "post_attention_layernorm", "post_attention_layernorm" },
    [TK_GATE] = { "mlp.gate_proj", "gate_proj" },
    [TK_UP] = { "mlp.up_proj", "up_proj" },
    [TK_DOWN] = { "mlp.down_proj", "down_proj" },
    [TK_NORM] = { "model.norm", "norm" },
    [TK_HEAD] = { "lm_head", "lm_head" },
};

const char *adapter_module(enum tensor_kind kind) { return modules[kind].last; }

bool adapter_kind_paired(enum tensor_kind kind)
{
    return (kind >= TK_Q && kind <= TK_O) || (kind >= TK_GATE && kind <= TK_DOWN);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return k <= n && strcmp(s + n - k, end) == 0;
}

/* Features that add something other than the plain pairs, or change the base's weights. Off is
 * absent, null, false, 0, "", [] or {}. */
static int check_features(const struct js *o, struct err *e)
{
    static const char *const off[] = { "use_dora", "use_qalora", "use_bdlora", "lora_bias",
        "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layers_to_transform",
        "exclude_modules", "trainable_token_indices", "target_parameters", "layer_replication",
        "alora_invocation_tokens", "arrow_config", "kasa_config", "megatron_config" };
    static const char *const plain[] = { "gaussian", "eva", "orthogonal" };
    const char *bias = "none", *type = NULL, *init;
    bool known = false;
    int rc;

    if ((rc = js_str(o, "peft_type", JS_MUST, &type, e)) < 0 ||
        (rc = js_str(o, "bias", JS_MAY, &bias, e)) < 0)
        return rc;
    if (strcmp(type, "LORA") != 0)
        return err_set(e, E_CONFIG, "'%s': peft_type '%.60s' is not supported, only LORA",
                       o->file, type);
    if (strcmp(bias, "none") != 0)
        return err_set(e, E_CONFIG, "'%s': bias '%.60s' is not supported, only none", o->file,
                       bias);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        json_t *v = json_object_get(o->obj, off[i]);
        if (json_is_true(v) || json_array_size(v) || json_object_size(v) ||
            json_string_length(v) || json_number_value(v) != 0 ||
            (json_is_integer(v) && i == 7)) /* layers_to_transform: layer 0 alone is on */
            return err_set(e, E_CONFIG, "'%s': %s is not supported", o->file, off[i]);
    }
    if (!(init = json_string_value(json_object_get(o->obj, "init_lora_weights"))))
        return 0;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        known |= strcmp(init, plain[i]) == 0;
    if (known)
        return 0;
    err_set(e, E_CONFIG, "'%s': init_lora_weights '%.60s' is not supported", o->file, init);
    return err_hint(e, "such an adapter belongs to a changed base; convert it to plain LoRA");
}

static int add_target(struct adapter_config *a, const struct js *o, const char *name,
                      struct err *e)
{
    bool found = false;

    for (int k = 0; k <= TK_HEAD; k++) {
        /* peft: the path is the name, or ends in "." and the name */
        bool same = strcmp(name, modules[k].last) == 0 || strcmp(name, modules[k].path) == 0;
        if (same && adapter_kind_paired((enum tensor_kind)k))
            a->target[k] = found = true;
    }
    if (found)
        return 0;
    err_set(e, E_CONFIG, "'%s': target_modules '%.100s' is not supported", o->file, name);
    return err_hint(e, "LoRA may be on q_, k_, v_, o_, gate_, up_, down_proj of all layers");
}

static int read_targets(struct adapter_config *a, const struct js *o, struct err *e)
{
    json_t *list = json_object_get(o->obj, "target_modules"), *v;
    const char *word = json_string_value(list);
    size_t i;
    int rc;

    if (word && strcmp(word, "all-linear") == 0) {
        for (int k = 0; k <= TK_HEAD; k++)
            a->target[k] = adapter_kind_paired((enum tensor_kind)k);
        return 0;
    }
    if (word) {
        err_set(e, E_CONFIG, "'%s': target_modules is the pattern '%.100s', which is not "
                "supported", o->file, word);
        return err_hint(e, "list the modules: [\"q_proj\", \"v_proj\"]");
    }
    if ((rc = js_array(o, "target_modules", JS_MUST, &list, e)) < 0)
        return rc;
    json_array_foreach(list, i, v) {
        if (!json_is_string(v))
            return err_set(e, E_DATA, "'%s': field 'target_modules[%zu]' is not a string",
                           o->file, i);
        if ((rc = add_target(a, o, json_string_value(v), e)) < 0)
            return rc;
    }
    return 0;
}

/* peft wraps every module whose path ends in one of the names, whole words or not: "norm"
 * alone takes all three kinds of norms. */
static int read_saved(struct adapter_config *a, const struct js *o, struct err *e)
{
    json_t *list, *v;
    size_t i;
    int rc = js_array(o, "modules_to_save", JS_MAY, &list, e);

    json_array_foreach(list, i, v) {
        const char *name = json_string_value(v);
        bool found = false;
        if (!name || !*name)
            return err_set(e, E_DATA, "'%s': field 'modules_to_save[%zu]' is not a name",
                           o->file, i);
        for (int k = 0; k <= TK_HEAD; k++)
            if (ends_with(modules[k].path, name)) {
                if (adapter_kind_paired((enum tensor_kind)k)) {
                    found = false;
                    break;
                }
                a->saved[k] = found = true;
            }
        if (!found) {
            err_set(e, E_CONFIG, "'%s': modules_to_save '%.100s' is not supported", o->file,
                    name);
            return err_hint(e, "embed_tokens, lm_head and the norms of all layers may be");
        }
    }
    return rc;
}

static int read_all(struct adapter_config *a, const struct js *o, struct err *e)
{
    const char *base = "";
    int rc;

    *a = (struct adapter_config){ .rank = 8, .alpha = 8 }; /* peft's defaults */
    if ((rc = check_features(o, e)) < 0 ||
        (rc = js_i64(o, "r", JS_MAY, 1, MAX_RANK, &a->rank, e)) < 0 ||
        (rc = js_f64(o, "lora_alpha", JS_MAY, -1e9, 1e9, &a->alpha, e)) < 0 ||
        (rc = js_bool(o, "use_rslora", JS_MAY, &a->rslora, e)) < 0 ||
        (rc = js_str(o, "base_model_name_or_path", JS_MAY, &base, e)) < 0 ||
        (rc = read_targets(a, o, e)) < 0)
        return rc;
    snprintf(a->base, sizeof a->base, "%s", base);
    return read_saved(a, o, e);
}

int adapter_config_parse(struct adapter_config *a, const char *json, size_t nbytes,
                         const char *name, struct err *e)
{
    struct js o;
    int rc = js_parse(&o, json, nbytes, name, e);

    if (rc < 0)
        return rc;
    rc = read_all(a, &o, e);
    js_free(&o);
    return rc;
}

int adapter_config_load(struct adapter_config *a, const char *path, struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(path, MAX_BYTES, &text, &n, e);

    if (rc < 0)
        return rc;
    rc = adapter_config_parse(a, text, n, path, e);
    free(text);
    return rc;
}

/* The last norm alone is "model.norm", since "norm" would take the layers' norms too. */
static json_t *names(const bool *on)
{
    json_t *list = json_array();
    bool alone = !on[TK_NORM1] || !on[TK_NORM2];

    for (int k = 0; k <= TK_HEAD; k++)
        if (on[k])
            json_array_append_new(list, json_string(k == TK_NORM && alone ? modules[k].path
                                                                          : modules[k].last));
    return list;
}

/* Only fields that every version of peft knows. */
int adapter_config_save(const struct adapter_config *a, const char *path, struct err *e)
{
    json_t *saved = names(a->saved), *o;
    bool any = json_array_size(saved) > 0, whole = a->alpha == floor(a->alpha);
    int rc;

    o = json_pack("{ss ss sn ss sn sb sI so sf ss sb so so sb sn sn s{} s{} sb sb}",
                  "peft_type", "LORA", "task_type", "CAUSAL_LM", "auto_mapping",
                  "base_model_name_or_path", a->base, "revision", "inference_mode", 1,
                  "r", (json_int_t)a->rank,
                  "lora_alpha", whole ? json_integer((json_int_t)a->alpha)
                                      : json_real(a->alpha),
                  "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0,
                  "target_modules", names(a->target),
                  "modules_to_save", any ? saved : json_null(), "init_lora_weights", 1,
                  "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
                  "use_rslora", (int)a->rslora, "use_dora", 0);
    if (!any)
        json_decref(saved);
    rc = o ? js_save(o, path, e)
           : err_set(e, E_DATA, "cannot write '%s': the base's name '%.100s' is not UTF-8",
                     path, a->base);
    json_decref(o);
    return rc;
}
