/* formats/weights/adapter_config.c - see adapter_config.h. */
#include "formats/weights/adapter_config.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds against damaged or hostile files; real ones are far smaller. */
#define MAX_BYTES ((size_t)1 << 20)
enum { MAX_RANK = 1 << 16 };

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
    /* plain: ways to begin the training that leave the base's weights as they are. */
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
        /* The json functions give 0 for NULL and for values of another type, so one test fits
         * all. */
        json_t *v = json_object_get(o->obj, off[i]);
        if (json_is_true(v) || json_array_size(v) || json_object_size(v) ||
            json_string_length(v) || json_number_value(v) != 0 ||
            (json_is_integer(v) && i == 7)) /* layers_to_transform: layer 0 alone is on */
            return err_set(e, E_CONFIG, "'%s': %s is not supported", o->file, off[i]);
    }
    /* true, false or absent: the ordinary way to begin. */
    if (!(init = json_string_value(json_object_get(o->obj, "init_lora_weights"))))
        return 0;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        known |= strcmp(init, plain[i]) == 0;
    if (known)
        return 0;
    err_set(e, E_CONFIG, "'%s': init_lora_weights '%.60s' is not supported", o->file, init);
    return err_hint(e, "such an adapter belongs to a changed base; convert it to plain LoRA");
}

/* The hint lists the modules of the family that may have a pair. */
static int hint_targets(const struct arch *arch, struct err *e)
{
    uint64_t pairs = arch_pairs(arch);
    struct module m;
    char list[200];
    size_t n = 0;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++)
        if ((pairs & ROLE_BIT(d->role)) && tensor_module(d, &m) && n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", m.last);
    return err_hint(e, "it has %s in every layer", list);
}

/* The roles of the modules that one name of target_modules means, of those that may have pairs. */
static uint64_t targets_of(const struct arch *arch, const char *name)
{
    uint64_t pairs = arch_pairs(arch), found = 0;
    struct module m;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++)
        /* peft: the path is the name, or ends in "." and the name */
        if ((pairs & ROLE_BIT(d->role)) && tensor_module(d, &m) &&
            (strcmp(name, m.last) == 0 || strcmp(name, m.path) == 0))
            found |= ROLE_BIT(d->role);
    return found;
}

/* Not one is known: the adapter is most likely of another family. Names what was asked for. */
static int none_matches(const struct adapter_config *a, const struct js *o, const json_t *list,
                        struct err *e)
{
    char names[200] = "";
    const json_t *v;
    size_t i, n = 0;

    json_array_foreach(list, i, v)
        if (n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s'%.60s'", i ? ", " : "",
                                  json_string_value(v));
    err_set(e, E_CONFIG, "'%s': none of target_modules (%s) can have LoRA pairs in a model of the "
            "family '%s'", o->file, n ? names : "an empty list", a->arch->model_type);
    return hint_targets(a->arch, e);
}

/* target_modules is a list of names, or the word "all-linear". A pattern (regular expression)
 * is refused. */
static int read_targets(struct adapter_config *a, const struct js *o, struct err *e)
{
    json_t *list = json_object_get(o->obj, "target_modules"), *v;
    const char *word = json_string_value(list);
    size_t i;
    int rc;

    if (word && strcmp(word, "all-linear") == 0) {
        a->targets = arch_pairs(a->arch);
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
        a->targets |= targets_of(a->arch, json_string_value(v));
    }
    if (!a->targets)
        return none_matches(a, o, list, e);
    json_array_foreach(list, i, v)
        if (!targets_of(a->arch, json_string_value(v))) {
            err_set(e, E_CONFIG, "'%s': target_modules '%.100s' is not supported", o->file,
                    json_string_value(v));
            return hint_targets(a->arch, e);
        }
    return 0;
}

/* The roles of the modules whose path ends in the name. */
static uint64_t ending_in(const struct arch *arch, const char *name)
{
    uint64_t found = 0;
    struct module m;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++)
        if (tensor_module(d, &m) && ends_with(m.path, name)) {
            found |= ROLE_BIT(d->role);
            if (role_form(d->role) == FORM_NORM && role_bias(d->role) < ROLES) /* in its module */
                found |= ROLE_BIT(role_bias(d->role)) & arch_roles(arch);
        }
    return found;
}

/* peft wraps every module whose path ends in one of the names, whole words or not: "norm"
 * alone takes all kinds of norms. */
static int read_saved(struct adapter_config *a, const struct js *o, struct err *e)
{
    json_t *list, *v;
    size_t i;
    int rc = js_array(o, "modules_to_save", JS_MAY, &list, e);

    json_array_foreach(list, i, v) {
        const char *name = json_string_value(v);
        uint64_t found;
        if (!name || !*name)
            return err_set(e, E_DATA, "'%s': field 'modules_to_save[%zu]' is not a name",
                           o->file, i);
        found = ending_in(a->arch, name);
        /* A matrix that may have a pair cannot be stored whole. */
        if (!found || (found & arch_pairs(a->arch))) {
            err_set(e, E_CONFIG, "'%s': modules_to_save '%.100s' is not supported", o->file,
                    name);
            return err_hint(e, "embed_tokens, lm_head and the norms of all layers are supported");
        }
        a->saved |= found;
    }
    return rc;
}

/* Both lists, by the names of one family. */
static int read_modules(struct adapter_config *a, const struct arch *arch, const struct js *o,
                        struct err *e)
{
    int rc;

    a->arch = arch;
    a->targets = a->saved = 0;
    rc = read_targets(a, o, e);
    return rc < 0 ? rc : read_saved(a, o, e);
}

/* With no family given, the first whose modules have all the names. Where none has them, the
 * error is the first family's. */
static int find_modules(struct adapter_config *a, const struct arch *arch, const struct js *o,
                        struct err *e)
{
    struct err unused = { 0 };

    for (int i = 0; !arch && arch_nth(i); i++)
        if (read_modules(a, arch_nth(i), o, &unused) == 0)
            return 0;
    return read_modules(a, arch ? arch : arch_nth(0), o, e);
}

static int read_all(struct adapter_config *a, const struct arch *arch, const struct js *o,
                    struct err *e)
{
    const char *base = "";
    int rc;

    *a = (struct adapter_config){ .rank = 8, .alpha = 8 }; /* peft's defaults */
    if ((rc = check_features(o, e)) < 0 ||
        (rc = js_i64(o, "r", JS_MAY, 1, MAX_RANK, &a->rank, e)) < 0 ||
        (rc = js_f64(o, "lora_alpha", JS_MAY, -1e9, 1e9, &a->alpha, e)) < 0 ||
        (rc = js_bool(o, "use_rslora", JS_MAY, &a->rslora, e)) < 0 ||
        (rc = js_bool(o, "ensure_weight_tying", JS_MAY, &a->tying, e)) < 0 ||
        (rc = js_str(o, "base_model_name_or_path", JS_MAY, &base, e)) < 0)
        return rc;
    snprintf(a->base, sizeof a->base, "%s", base);
    return find_modules(a, arch, o, e);
}

int adapter_config_parse(struct adapter_config *a, const struct arch *arch, const char *json,
                         size_t nbytes, const char *name, struct err *e)
{
    struct js o;
    int rc = js_parse(&o, json, nbytes, name, e);

    if (rc < 0)
        return rc;
    rc = read_all(a, arch, &o, e);
    js_free(&o);
    return rc;
}

int adapter_config_load(struct adapter_config *a, const struct arch *arch, const char *path,
                        struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(path, MAX_BYTES, &text, &n, e);

    if (rc < 0)
        return rc;
    rc = adapter_config_parse(a, arch, text, n, path, e);
    free(text);
    return rc;
}

/* Each by the last part of its path, unless that would take modules that are not in the set: the
 * last norm alone is "model.norm", since "norm" is the end of the layers' norms too. */
static json_t *names(const struct adapter_config *a, uint64_t set)
{
    const struct arch *arch = a->arch ? a->arch : arch_nth(0);
    json_t *list = json_array();
    struct module m;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++)
        if ((set & ROLE_BIT(d->role)) && tensor_module(d, &m))
            json_array_append_new(list, json_string(ending_in(arch, m.last) & ~set ? m.path
                                                                                   : m.last));
    return list;
}

/* Only fields that every version of peft knows. */
int adapter_config_text(const struct adapter_config *a, const char *name, char **text,
                        struct err *e)
{
    json_t *saved = names(a, a->saved), *o;
    /* Without saved modules the field is null. A whole alpha is written as an integer. */
    bool any = json_array_size(saved) > 0, whole = a->alpha == floor(a->alpha);
    int rc = 0;

    o = json_pack("{ss ss sn ss sn sb sI so sf ss sb so so sb sn sn s{} s{} sb sb}",
                  "peft_type", "LORA", "task_type", "CAUSAL_LM", "auto_mapping",
                  "base_model_name_or_path", a->base, "revision", "inference_mode", 1,
                  "r", (json_int_t)a->rank,
                  "lora_alpha", whole ? json_integer((json_int_t)a->alpha)
                                      : json_real(a->alpha),
                  "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0,
                  "target_modules", names(a, a->targets),
                  "modules_to_save", any ? saved : json_null(), "init_lora_weights", 1,
                  "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
                  "use_rslora", (int)a->rslora, "use_dora", 0);
    /* Otherwise json_pack has taken it over. */
    if (!any)
        json_decref(saved);
    if (!o)
        rc = err_set(e, E_DATA, "cannot write '%s': the base's name '%.100s' is not UTF-8", name,
                     a->base);
    else if (!(*text = js_text(o)))
        rc = err_set(e, E_SYS, "out of memory for '%s'", name);
    json_decref(o);
    return rc;
}
