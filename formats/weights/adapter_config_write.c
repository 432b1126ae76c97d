/* formats/weights/adapter_config_write.c - adapter_config.json as every peft reads it; see
 * adapter_config.h.
 *
 * Modules are named by the end of their path. Where only some layers have a pair, or have it of
 * another rank, each is named with its layer: "layers.3.self_attn.q_proj", which as one of peft's
 * expressions means itself. So is every pair of a language model within a multimodal one, as
 * "language_model.layers.3.self_attn.q_proj": what it has beside that has modules of the same names. */
#include "formats/weights/adapter_config.h"

#include "base/json.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/naming.h"

#include <math.h>
#include <string.h>

enum { PATH = 160 };

/* A whole number as an integer. */
static json_t *number(double v)
{
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

/* The last part of its path, unless that would take modules that are not in the set: the last norm
 * alone is "model.norm", since "norm" is the end of the layers' norms too. */
static const char *short_name(const struct arch *arch, const struct module *m, uint64_t set)
{
    return adapter_roles_ending(arch, NULL, m->last) & ~set ? m->path : m->last;
}

/* "layers.3.self_attn.q_proj": old versions of peft want something before a pattern's key. */
static const char *layer_name(const struct adapter_config *a, const struct arch *arch, const struct tensor_def *d,
                              int64_t layer, char *path, size_t cap)
{
    const struct naming *n = a->multimodal ? a->multimodal->names : NULL;
    const char *dot = strchr(adapter_module_path(arch, n, d, layer, path, cap), '.');

    return dot ? dot + 1 : path;
}

/* Layers of the role, and whether all have a pair of one rank and alpha. */
static int64_t layers_of(const struct adapter_config *a, const struct tensor_def *d)
{
    return !tensor_of_layer(d) ? 1 : a->pairs ? a->pairs->layers : a->multimodal ? a->layers : 1;
}

enum what { HAS, RANK, ALPHA };
static double value_of(const struct adapter_config *a, const struct tensor_def *d, int64_t layer,
                       enum what w)
{
    const struct adapter_pair *p = a->pairs ? &a->pairs->at[layer][d->role] : NULL;

    return w == HAS ? !p || p->rank > 0 : w == RANK ? (double)(p ? p->rank : a->rank)
                                                    : p ? p->alpha : a->alpha;
}

/* All layers that have a pair have this value in common. */
static bool in_common(const struct adapter_config *a, const struct tensor_def *d, enum what w,
                      double *v)
{
    bool first = true;

    for (int64_t l = 0; l < layers_of(a, d); l++) {
        double x = value_of(a, d, l, w);
        if (w != HAS && value_of(a, d, l, HAS) == 0)
            continue;
        if (!first && x != *v)
            return false;
        *v = x;
        first = false;
    }
    return true;
}

static json_t *targets(const struct adapter_config *a, const struct arch *arch)
{
    json_t *list = json_array();
    char path[PATH];
    struct module m;
    double v = 0;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++) {
        if (!(a->targets & ROLE_BIT(d->role)) || !tensor_module(d, &m))
            continue;
        if (!a->multimodal && in_common(a, d, HAS, &v)) {
            json_array_append_new(list, json_string(short_name(arch, &m, a->targets)));
            continue;
        }
        for (int64_t l = 0; l < layers_of(a, d); l++)
            if (value_of(a, d, l, HAS) != 0)
                json_array_append_new(list, json_string(layer_name(a, arch, d, l, path, sizeof path)));
    }
    return list;
}

/* Rank or alpha is another than the adapter's own. */
static bool differs(const struct adapter_config *a, const struct tensor_def *d, int64_t layer)
{
    return value_of(a, d, layer, HAS) != 0 && (value_of(a, d, layer, RANK) != (double)a->rank ||
                                               value_of(a, d, layer, ALPHA) != a->alpha);
}

static bool any_differs(const struct adapter_config *a, const struct tensor_def *d)
{
    bool any = false;

    for (int64_t l = 0; l < layers_of(a, d); l++)
        any |= differs(a, d, l);
    return any;
}

/* rank_pattern or alpha_pattern, with the same keys in both: peft before 0.14 looks for one key in the
 * two, and takes both values by it. */
static json_t *pattern(const struct adapter_config *a, const struct arch *arch, enum what w)
{
    json_t *o = json_object();
    double rank = 0, alpha = 0;
    char path[PATH];
    struct module m;

    for (const struct tensor_def *d = arch->tensors; a->pairs && d < arch->tensors + arch->n_tensors;
         d++) {
        if (!(a->targets & ROLE_BIT(d->role)) || !tensor_module(d, &m) || !any_differs(a, d))
            continue;
        if (in_common(a, d, RANK, &rank) && in_common(a, d, ALPHA, &alpha)) {
            json_object_set_new(o, short_name(arch, &m, a->targets), number(w == RANK ? rank : alpha));
            continue;
        }
        for (int64_t l = 0; l < layers_of(a, d); l++)
            if (differs(a, d, l))
                json_object_set_new(o, layer_name(a, arch, d, l, path, sizeof path),
                                    number(value_of(a, d, l, w)));
    }
    return o;
}

/* A head that versions of transformers call differently has both names; peft passes over the other. */
static void add_saved(json_t *list, const struct adapter_config *a, const struct arch *arch,
                      const struct tensor_def *d, const struct module *m)
{
    const char *also = d->role == ROLE_HEAD ? arch->block.head_also : NULL;
    char path[PATH];

    json_array_append_new(list, json_string(a->multimodal && !tensor_of_layer(d)
                                                ? layer_name(a, arch, d, 0, path, sizeof path)
                                                : short_name(arch, m, a->saved)));
    if (also)
        json_array_append_new(list, json_stringn(also, strlen(also) - strlen(".weight")));
}

static json_t *saved(const struct adapter_config *a, const struct arch *arch)
{
    json_t *list = json_array();
    struct module m;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++)
        if ((a->saved & ROLE_BIT(d->role)) && tensor_module(d, &m))
            add_saved(list, a, arch, d, &m);
    if (json_array_size(list) > 0)
        return list;
    json_decref(list);
    return json_null();
}

/* Only fields that every version of peft knows. */
int adapter_config_text(const struct adapter_config *a, const char *name, char **text,
                        struct err *e)
{
    const struct arch *arch = a->arch ? a->arch : arch_nth(0);
    int rc = 0;
    json_t *o = json_pack("{ss ss sn ss sn sb sI so sf ss sb so so sb sn sn so so sb sb}",
                  "peft_type", "LORA", "task_type", "CAUSAL_LM", "auto_mapping",
                  "base_model_name_or_path", a->base, "revision", "inference_mode", 1,
                  "r", (json_int_t)a->rank, "lora_alpha", number(a->alpha),
                  "lora_dropout", a->dropout, "bias", "none", "fan_in_fan_out", 0,
                  "target_modules", targets(a, arch),
                  "modules_to_save", saved(a, arch), "init_lora_weights", 1,
                  "layers_to_transform", "layers_pattern", "rank_pattern", pattern(a, arch, RANK),
                  "alpha_pattern", pattern(a, arch, ALPHA),
                  "use_rslora", (int)a->rslora, "use_dora", 0);

    if (!o)
        rc = err_set(e, E_DATA, "cannot write '%s': the base's name '%.100s' is not UTF-8", name,
                     a->base);
    else if (!(*text = js_text(o)))
        rc = err_set(e, E_SYS, "out of memory for '%s'", name);
    json_decref(o);
    return rc;
}
