/* train/lora.c - see lora.h.
 *
 * The options say the same as fields of PEFT's adapter_config.json, and are read by what reads that:
 * a list of targets, and patterns of ranks and alphas. Words such as q stand for a module's name. */
#include "train/lora.h"

#include "base/json.h"
#include "base/opt.h"
#include "formats/weights/adapter_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 128 };

static bool is(const char *p, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(p, word, n) == 0;
}

/* The last part of a module's path, as dense, in some family. */
static bool is_module(const char *p, size_t n)
{
    struct module m;

    for (int i = 0; arch_nth(i); i++)
        for (const struct tensor_def *d = arch_nth(i)->tensors; d < arch_nth(i)->tensors + arch_nth(i)->n_tensors; d++)
            if (role_form(d->role) == FORM_MATRIX && tensor_module(d, &m) && is(p, n, m.last))
                return true;
    return false;
}

/* Names have an underscore or a dot, or are a module's, which tells them from a word that was meant to be one. */
static bool is_name(const char *p, size_t n)
{
    bool told = is_module(p, n);

    for (size_t i = 0; i < n; i++) {
        told |= p[i] == '_' || p[i] == '.';
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-", p[i]))
            return false;
    }
    return told && n < NAME;
}

/* What a word or a name of n bytes means in a family: the end of a module's path. */
static const char *module_of(const struct arch *a, const char *p, size_t n, char *name)
{
    enum role r = role_of_word(p, n);
    struct module m;

    snprintf(name, NAME, "%.*s", (int)n, p);
    for (const struct tensor_def *d = a->tensors; r < ROLES && d < a->tensors + a->n_tensors; d++)
        if (d->role == r && tensor_module(d, &m))
            snprintf(name, NAME, "%s", m.path);
    return name;
}

static int bad_word(const char *option, const char *p, size_t n, struct err *e)
{
    char words[128];

    err_set(e, E_USAGE, "%s: '%.*s' is not one of %s", option, (int)n, p,
            role_words(words, sizeof words));
    return err_hint(e, "or a module's name, as q_proj or layers.0.self_attn.q_proj");
}

/* Of a family with q, k and v in one tensor, those three words are it. */
static int add_words(uint64_t words, const struct arch *a, json_t *names, struct err *e)
{
    char name[NAME];
    int rc = arch_targets(a, &words, e);

    for (int r = 0; r < ROLES && rc == 0; r++)
        if (words & ROLE_BIT(r))
            json_array_append_new(names, json_string(module_of(a, role_word(r), strlen(role_word(r)), name)));
    return rc;
}

/* "q,down_proj" to a list of names, or "all-linear". */
static int read_targets(const char *list, const struct arch *a, json_t *root, struct err *e)
{
    bool fused = arch_roles(a) & (ROLE_BIT(ROLE_QKV) | ROLE_BIT(ROLE_GATE_UP));
    json_t *names = json_array(), *each;
    uint64_t words = 0;
    char name[NAME];
    bool twice;
    size_t i;

    if (strcmp(list, "all-linear") == 0) {
        json_decref(names);
        json_object_set_new(root, "target_modules", json_string(list));
        return 0;
    }
    json_object_set_new(root, "target_modules", names);
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        enum role role = role_of_word(p, n);

        if (role == ROLES && !is_name(p, n))
            return bad_word("--targets", p, n, e);
        module_of(a, p, n, name);
        twice = fused && role < ROLES && words & ROLE_BIT(role);
        json_array_foreach(names, i, each)
            twice |= strcmp(json_string_value(each), name) == 0;
        if (twice)
            return err_set(e, E_USAGE, "--targets: '%.*s' is given twice", (int)n, p);
        if (fused && role < ROLES)
            words |= ROLE_BIT(role);
        else
            json_array_append_new(names, json_string(name));
        p += n;
        if (*p == '\0')
            break;
    }
    return words ? add_words(words, a, names, e) : 0;
}

/* "down=16,layers.0.mlp.up_proj=4" to an object. */
static int read_pattern(const char *option, const char *field, const char *list, const struct arch *a,
                        bool whole, json_t *root, struct err *e)
{
    json_t *o = json_object();
    char name[NAME], number[32];

    json_object_set_new(root, field, o);
    for (const char *p = list; p; p++) {
        size_t n = strcspn(p, ","), k = strcspn(p, "=,");
        int64_t rank = 0;
        double alpha = 0;

        if (role_of_word(p, k) == ROLES && !is_name(p, k))
            return bad_word(option, p, k, e);
        if (k == n || n - k - 1 >= sizeof number)
            return err_set(e, E_USAGE, "%s: '%.*s' has no number (q=16)", option, (int)n, p);
        snprintf(number, sizeof number, "%.*s", (int)(n - k - 1), p + k + 1);
        if (whole ? !num_i64(number, &rank) || rank < 1 || rank > 4096
                  : !num_f64(number, &alpha) || !(alpha > 0) || alpha > 1e9)
            return err_set(e, E_USAGE, "%s: '%.*s' is not %s", option, (int)n, p,
                           whole ? "a rank, 1 to 4096" : "above 0");
        if (json_object_get(o, module_of(a, p, k, name)))
            return err_set(e, E_USAGE, "%s: '%.*s' is given twice", option, (int)k, p);
        json_object_set_new(o, name, whole ? json_integer(rank) : json_real(alpha));
        p += n;
        if (*p == '\0')
            return 0;
    }
    return 0;
}

/* The options as fields of adapter_config.json. */
static int read_lists(const struct lora_lists *l, const struct arch *a, json_t *root, struct err *e)
{
    int rc = read_targets(l->targets, a, root, e);

    if (rc == 0 && l->rank_pattern)
        rc = read_pattern("--rank-pattern", "rank_pattern", l->rank_pattern, a, true, root, e);
    if (rc == 0 && l->alpha_pattern)
        rc = read_pattern("--alpha-pattern", "alpha_pattern", l->alpha_pattern, a, false, root, e);
    return rc;
}

/* "embed,norm,lm_head", or modules by the ends of their paths, to roles. */
static int read_trainable(const char *list, const struct arch *a, uint64_t *whole, struct err *e)
{
    *whole = 0;
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        uint64_t found = 0;
        char name[NAME];

        snprintf(name, sizeof name, "%.*s", (int)n, p);
        if (is(p, n, "embed"))
            found = ROLE_BIT(ROLE_EMBED);
        else if (is(p, n, "head"))
            found = ROLE_BIT(ROLE_HEAD);
        else if (n && !is(p, n, "norms"))
            found = adapter_roles_ending(a, NULL, name);
        for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
            if ((is(p, n, "norm") || is(p, n, "norms")) && role_form(d->role) == FORM_NORM)
                found |= ROLE_BIT(d->role);
        if (!found) {
            err_set(e, E_USAGE, "--trainable: '%.*s' is no module of a %s model", (int)n, p, a->model_type);
            return err_hint(e, "embed, norm, head, or modules by name, as up_proj");
        }
        *whole |= found;
        p += n;
        if (*p == '\0')
            return 0;
    }
}

int lora_check(const struct lora_lists *l, bool full, struct err *e)
{
    json_t *root = json_object();
    int rc = read_lists(l, arch_nth(0), root, e);

    json_decref(root);
    if (rc == 0 && l->trainable && full)
        rc = err_set(e, E_USAGE, "--trainable goes with LoRA: --mode full trains everything");
    return rc;
}

bool lora_trains_ends(const struct lora_lists *l, bool plus)
{
    return l->trainable ? strstr(l->trainable, "embed") || strstr(l->trainable, "head") : plus;
}

void lora_free(struct lora_lists *l)
{
    free(l->pairs);
    l->pairs = NULL;
}

int lora_resolve(struct lora_lists *l, const struct llama_config *c, struct model_options *o,
                 struct err *e)
{
    json_t *root = json_object();
    const struct js js = { .file = "--targets", .obj = root };
    const struct adapter_rules rules = { &js, config_arch(c), NULL, c->layers, o->rank, o->alpha };
    bool lora = o->mode == TRAIN_LORA || o->mode == TRAIN_LORA_PLUS;
    int unknown = 0, rc = read_lists(l, config_arch(c), root, e);

    lora_free(l);
    if (rc == 0)
        rc = adapter_pairs_read(&rules, &o->targets, &l->pairs, &unknown, e);
    json_decref(root);
    if (rc == 0 && unknown)
        rc = err_set(e, E_USAGE, "--targets '%s': %d of the names are no modules of a %s model", l->targets,
                     unknown, config_arch(c)->model_type);
    if (rc == 0 && l->trainable && lora)
        rc = read_trainable(l->trainable, config_arch(c), &o->whole, e);
    o->pairs = l->pairs;
    o->rslora = l->rslora;
    o->dropout = lora ? l->dropout : 0;
    return rc;
}
