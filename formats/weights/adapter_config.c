/* formats/weights/adapter_config.c - see adapter_config.h. */
#include "formats/weights/adapter_config.h"

#include "base/file.h"
#include "base/json.h"
#include "formats/weights/naming.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The factor of B A: alpha / r, or alpha / sqrt(r) with rsLoRA. */
static double scale_of(const struct adapter_config *a, int64_t rank, double alpha)
{
    return alpha / (a->rslora ? sqrt((double)rank) : (double)rank);
}

double adapter_scale(const struct adapter_config *a) { return scale_of(a, a->rank, a->alpha); }

/* The module's own; rank 0 where it has none. */
static struct adapter_pair pair_of(const struct adapter_config *a, enum role role, int64_t layer)
{
    struct adapter_pair none = { 0 }, all = { a->rank, a->alpha };

    if (!(a->targets & ROLE_BIT(role)))
        return none;
    if (!a->pairs)
        return all;
    layer = layer < 0 ? 0 : layer;
    return layer < a->pairs->layers ? a->pairs->at[layer][role] : none;
}

int64_t adapter_rank(const struct adapter_config *a, enum role role, int64_t layer)
{
    return pair_of(a, role, layer).rank;
}

double adapter_pair_scale(const struct adapter_config *a, enum role role, int64_t layer)
{
    struct adapter_pair p = pair_of(a, role, layer);

    return p.rank ? scale_of(a, p.rank, p.alpha) : 0;
}

/* Bounds against damaged or hostile files; real ones are far smaller. */
#define MAX_BYTES ((size_t)1 << 20)
enum { MAX_RANK = 1 << 16 };

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return k <= n && strcmp(s + n - k, end) == 0;
}

/* Fields of every version of peft up to 0.21 that change nothing here: they are read elsewhere, or
 * say how the training began or ran. fan_in_fan_out is for other modules than linear ones, for which
 * peft takes it back. */
static const char *const inert[] = { "peft_type", "task_type", "auto_mapping", "peft_version",
    "base_model_name_or_path", "revision", "inference_mode", "r", "lora_alpha", "lora_dropout",
    "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias", "ensure_weight_tying",
    "init_lora_weights", "fan_in_fan_out", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "velora_config", "runtime_config", "megatron_core", "qalora_group_size",
    "enable_lora", "merge_weights" };

/* Off is absent, null, false, 0, "", [] or {}. The json functions give 0 for NULL and for values of
 * another type, so one test fits all. */
static bool is_off(const json_t *v)
{
    return !json_is_true(v) && !json_array_size(v) && !json_object_size(v) &&
           !json_string_length(v) && json_number_value(v) == 0;
}

/* A field that adds something other than plain pairs, or changes the base's weights, is refused by
 * name, and so is one that no version of peft known here has. */
static int check_fields(const struct js *o, struct err *e)
{
    static const char *const known[] = { "use_qalora", "use_bdlora", "lora_bias", "layer_replication",
        "trainable_token_indices", "target_parameters", "alora_invocation_tokens", "arrow_config",
        "kasa_config", "megatron_config", "monteclora_config" };
    const char *key;
    json_t *v;

    json_object_foreach(o->obj, key, v) {
        bool fine = is_off(v), named = false;
        for (size_t i = 0; i < sizeof inert / sizeof *inert && !fine; i++)
            fine = strcmp(key, inert[i]) == 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            named |= strcmp(key, known[i]) == 0;
        if (fine)
            continue;
        err_set(e, E_CONFIG, "'%s': %.100s is not supported", o->file, key);
        return named ? E_CONFIG
                     : err_hint(e, "what this field changes is not known here; if nothing, set it to "
                                   "null");
    }
    return 0;
}

/* Ways to begin the training that leave the base's weights as they are: true, false, absent, or
 * one of these. */
static int check_init(const struct js *o, struct err *e)
{
    static const char *const plain[] = { "gaussian", "eva", "orthogonal" };
    const char *init = json_string_value(json_object_get(o->obj, "init_lora_weights"));

    for (size_t i = 0; init && i < sizeof plain / sizeof *plain; i++)
        if (strcmp(init, plain[i]) == 0)
            return 0;
    if (!init)
        return 0;
    err_set(e, E_CONFIG, "'%s': init_lora_weights '%.60s' is not supported", o->file, init);
    return err_hint(e, "such an adapter belongs to a changed base; convert it to plain LoRA");
}

static int check_features(struct adapter_config *a, const struct js *o, struct err *e)
{
    const char *bias = "none", *type = NULL;
    int rc;

    if ((rc = js_str(o, "peft_type", JS_MUST, &type, e)) < 0 ||
        (rc = js_str(o, "bias", JS_MAY, &bias, e)) < 0)
        return rc;
    if (strcmp(type, "LORA") != 0)
        return err_set(e, E_CONFIG, "'%s': peft_type '%.60s' is not supported, only LORA",
                       o->file, type);
    a->biases = strcmp(bias, "none") != 0;
    if (a->biases && strcmp(bias, "all") != 0 && strcmp(bias, "lora_only") != 0)
        return err_set(e, E_CONFIG, "'%s': bias '%.60s' is not supported, only none, all and lora_only",
                       o->file, bias);
    return (rc = check_fields(o, e)) < 0 ? rc : check_init(o, e);
}

/* The path, or that of what it is part of, ends in the name; path is cut. */
static bool path_ends(char *path, const char *name)
{
    for (char *dot; *path; *dot = '\0') {
        if (ends_with(path, name))
            return true;
        if (!(dot = strrchr(path, '.')))
            break;
    }
    return false;
}

uint64_t adapter_roles_ending(const struct arch *arch, const struct naming *n, const char *name)
{
    uint64_t found = 0;
    struct module m;
    char path[160];

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++) {
        uint64_t its = ROLE_BIT(d->role);
        const char *also = d->role == ROLE_HEAD ? arch->block.head_also : NULL;

        if (!tensor_module(d, &m))
            continue;
        if (role_bias(d->role) < ROLES) /* in its module */
            its |= ROLE_BIT(role_bias(d->role)) & arch_roles(arch);
        naming_put(arch, tensor_of_layer(d) ? NULL : n, m.path, path, sizeof path);
        if (path_ends(path, name))
            found |= its;
        snprintf(path, sizeof path, "%.*s", also ? (int)(strlen(also) - strlen(".weight")) : 0, also ? also : "");
        if (also && (path_ends(path, name) || path_ends(m.path, name)))
            found |= its;
    }
    return found;
}

/* peft wraps every module whose path ends in one of the names, whole words or not: "norm"
 * alone takes all kinds of norms. */
static int read_saved(struct adapter_config *a, const struct naming *n, const struct js *o, struct err *e)
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
        if (!(found = adapter_roles_ending(a->arch, n, name))) {
            err_set(e, E_CONFIG, "'%s': modules_to_save '%.100s' is not supported", o->file,
                    name);
            return err_hint(e, "embed_tokens, lm_head, and modules of all layers are supported");
        }
        a->saved |= found;
    }
    /* One that old versions of peft would have wrapped twice. */
    if (rc == 0 && (a->saved & a->targets))
        return err_set(e, E_CONFIG, "'%s': a module is in target_modules and in modules_to_save",
                       o->file);
    return rc;
}

/* Both lists, by the names of one family. unknown: of target_modules, that no module has. */
static int read_modules(struct adapter_config *a, const struct arch *arch, const struct naming *n, int64_t layers,
                        const struct js *o, int *unknown, struct err *e)
{
    const struct adapter_rules rules = { o, arch, n, layers, a->rank, a->alpha };
    struct adapter_pairs *pairs = NULL;
    int rc = adapter_pairs_read(&rules, &a->targets, &pairs, unknown, e);

    a->arch = arch;
    a->saved = 0;
    a->pairs = pairs;
    if (rc == 0 && (rc = read_saved(a, n, o, e)) < 0)
        adapter_config_free(a);
    return rc;
}

/* With no family given, the first whose modules have all the names, else the first that has some: by its
 * own names, then by others. Where none has them, the error is the first family's. */
static int find_modules(struct adapter_config *a, const struct arch *arch, const struct naming *n, int64_t layers,
                        const struct js *o, struct err *e)
{
    const struct arch *some = NULL;
    const struct naming *its = NULL;
    struct err unused = { 0 };
    int unknown;

    for (int k = -1; !arch && (k < 0 || naming_nth(k)); k++)
        for (int i = 0; arch_nth(i); i++) {
            n = k < 0 ? NULL : naming_nth(k);
            if (read_modules(a, arch_nth(i), n, layers, o, &unknown, &unused) < 0)
                continue;
            if (unknown == 0)
                return 0;
            if (!some)
                some = arch_nth(i), its = n;
            adapter_config_free(a);
        }
    if (!arch)
        arch = some ? some : arch_nth(0), n = its;
    return read_modules(a, arch, n, layers, o, &unknown, e);
}

static int read_all(struct adapter_config *a, const struct arch *arch, const struct naming *n, int64_t layers,
                    const struct js *o, struct err *e)
{
    const char *base = "";
    int rc;

    *a = (struct adapter_config){ .rank = 8, .alpha = 8 }; /* peft's defaults */
    if ((rc = check_features(a, o, e)) < 0 ||
        (rc = js_i64(o, "r", JS_MAY, 1, MAX_RANK, &a->rank, e)) < 0 ||
        (rc = js_f64(o, "lora_alpha", JS_MAY, -1e9, 1e9, &a->alpha, e)) < 0 ||
        (rc = js_bool(o, "use_rslora", JS_MAY, &a->rslora, e)) < 0 ||
        (rc = js_bool(o, "use_dora", JS_MAY, &a->dora, e)) < 0 ||
        (rc = js_f64(o, "lora_dropout", JS_MAY, 0, 1, &a->dropout, e)) < 0 ||
        (rc = js_bool(o, "ensure_weight_tying", JS_MAY, &a->tying, e)) < 0 ||
        (rc = js_str(o, "base_model_name_or_path", JS_MAY, &base, e)) < 0)
        return rc;
    snprintf(a->base, sizeof a->base, "%s", base);
    return find_modules(a, arch, n, layers, o, e);
}

void adapter_config_free(struct adapter_config *a)
{
    free((void *)(uintptr_t)a->pairs);
    a->pairs = NULL;
}

int adapter_config_parse(struct adapter_config *a, const struct arch *arch, const struct naming *n, int64_t layers,
                         const char *json, size_t nbytes, const char *name, struct err *e)
{
    struct js o;
    int rc = js_parse(&o, json, nbytes, name, e);

    if (rc < 0)
        return rc;
    rc = read_all(a, arch, n, layers, &o, e);
    js_free(&o);
    return rc;
}

int adapter_config_load(struct adapter_config *a, const struct arch *arch, const struct naming *naming,
                        int64_t layers, const char *path, struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(path, MAX_BYTES, &text, &n, e);

    if (rc < 0)
        return rc;
    rc = adapter_config_parse(a, arch, naming, layers, text, n, path, e);
    free(text);
    return rc;
}
