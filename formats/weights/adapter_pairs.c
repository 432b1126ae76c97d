/* formats/weights/adapter_pairs.c - see adapter_pairs.h.
 *
 * PEFT goes through the modules of a model and asks of each path, "model.layers.3.self_attn.q_proj",
 * whether it has a pair, of which rank and which alpha. The same is done here for the modules that
 * the family's table lists; of the rules those that are regular expressions are compiled once. */
#include "formats/weights/adapter_pairs.h"

#include "formats/weights/naming.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Real adapters have a handful of expressions; of plain names one for each module. STEPS: of one
 * match, which need some hundred. MATCHES: of all, so that a hostile file costs seconds. */
enum { MAX_RANK = 1 << 16, MAX_EXPRESSIONS = 64, MAX_BYTES = 1 << 14, STEPS = 10000, MATCHES = 50000 };
/* Where the number of layers is not known: more than any model has that adapters are made for. */
enum { ANY_LAYERS = 256, PATH = 160 };

/* One name or expression. code: NULL for a plain name. */
struct rule {
    const char *text;
    pcre2_code *code;
    json_t *value; /* of rank_pattern and alpha_pattern */
};
struct rules {
    struct rule *at;
    size_t n;
    bool whole; /* one expression that must match the whole path */
};
struct reading {
    const struct adapter_rules *r;
    struct rules target, exclude, layer, rank, alpha;
    json_t *saved;           /* modules_to_save */
    bool all_linear;
    int64_t *layers;         /* layers_to_transform; NULL: all */
    size_t n_layers;
    int expressions, matched;
    pcre2_match_data *match;
    pcre2_match_context *limit;
    struct err *e;
    int rc;                  /* of a match that was given up */
};

/* ---- expressions ---- */

static int bad(const struct reading *b, const char *field, const char *what, struct err *e)
{
    return err_set(e, E_CONFIG, "'%s': %s %s", b->r->o->file, field, what);
}

/* before + text + after as an expression. */
static int compile(struct reading *b, const char *field, const char *before, const char *text,
                   const char *after, pcre2_code **code)
{
    PCRE2_UCHAR why[128];
    PCRE2_SIZE at;
    size_t n = strlen(before) + strlen(text) + strlen(after) + 1;
    char *all;
    int number;

    if (++b->expressions > MAX_EXPRESSIONS || n > MAX_BYTES)
        return bad(b, field, "has too many regular expressions, or too long ones", b->e);
    if (!(all = malloc(n)))
        return err_set(b->e, E_SYS, "out of memory");
    snprintf(all, n, "%s%s%s", before, text, after);
    *code = pcre2_compile((PCRE2_SPTR)all, PCRE2_ZERO_TERMINATED,
                          PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
    free(all);
    if (*code)
        return 0;
    pcre2_get_error_message(number, why, sizeof why);
    return err_set(b->e, E_CONFIG, "'%s': %s '%.100s' is not a regular expression that is understood: "
                   "%s", b->r->o->file, field, text, (const char *)why);
}

/* The expression matches from the path's beginning; group 1 into *group, unless NULL. */
static bool matches(struct reading *b, const struct rule *r, const char *path, const char **group)
{
    int n = b->matched++ == MATCHES || b->rc < 0 ? PCRE2_ERROR_MATCHLIMIT
            : pcre2_match(r->code, (PCRE2_SPTR)path, strlen(path), 0, 0, b->match, b->limit);

    if (n == PCRE2_ERROR_NOMATCH)
        return false;
    if (n < 0) {
        if (b->rc == 0)
            b->rc = err_set(b->e, E_CONFIG, "'%s': the regular expression '%.100s' takes too long",
                            b->r->o->file, r->text);
        return false;
    }
    if (group)
        *group = path + pcre2_get_ovector_pointer(b->match)[2];
    return true;
}

/* Letters, digits, and the dot, which as an expression is any byte. */
static bool is_plain(const char *text)
{
    return text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")] ==
           '\0';
}

/* What the expression (.*\.)?(key)$ says of a plain key. */
static bool ends_like(const char *path, const char *key)
{
    size_t n = strlen(path), k = strlen(key);

    if (k > n || (k < n && path[n - k - 1] != '.'))
        return false;
    for (size_t i = 0; i < k; i++)
        if (key[i] != '.' && key[i] != path[n - k + i])
            return false;
    return true;
}

/* The path is the name, or ends in "." and the name. */
static bool is_or_ends_in(const char *path, const char *name)
{
    size_t n = strlen(path), k = strlen(name);

    return k <= n && strcmp(path + n - k, name) == 0 && (k == n || path[n - k - 1] == '.');
}

/* ---- reading the rules ---- */

static int room(struct reading *b, struct rules *to, size_t n)
{
    to->at = calloc(n + 1, sizeof *to->at);
    return to->at ? 0 : err_set(b->e, E_SYS, "out of memory");
}

/* A list of names, or one expression that the whole path must match. Absent: none. */
static int read_names(struct reading *b, const char *field, struct rules *to)
{
    json_t *v = json_object_get(b->r->o->obj, field), *each;
    size_t i;
    int rc;

    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v)) {
        if (!*json_string_value(v))
            return 0;
        to->whole = true;
        to->n = 1;
        if ((rc = room(b, to, 1)) < 0)
            return rc;
        to->at[0].text = json_string_value(v);
        return compile(b, field, "(?:", to->at[0].text, ")\\z", &to->at[0].code);
    }
    if (!json_is_array(v))
        return err_set(b->e, E_DATA, "'%s': field '%s' must be an array", b->r->o->file, field);
    if ((rc = room(b, to, json_array_size(v))) < 0)
        return rc;
    json_array_foreach(v, i, each) {
        if (!json_is_string(each))
            return err_set(b->e, E_DATA, "'%s': field '%s[%zu]' is not a string", b->r->o->file,
                           field, i);
        to->at[to->n++].text = json_string_value(each);
    }
    return 0;
}

/* Keys are expressions for the end of a path: (.*\.)?(key)$. The first that matches counts. */
static int read_pattern(struct reading *b, const char *field, struct rules *to)
{
    const char *key;
    struct js sub;
    json_t *v;
    int rc = js_object(b->r->o, field, JS_MAY, &sub, b->e);

    if (rc < 0 || !sub.obj)
        return rc;
    if ((rc = room(b, to, json_object_size(sub.obj))) < 0)
        return rc;
    json_object_foreach(sub.obj, key, v) {
        struct rule *r = &to->at[to->n++];
        *r = (struct rule){ .text = key, .value = v };
        if (!is_plain(key) && (rc = compile(b, field, "(?:.*\\.)?(?:", key, ")\\z", &r->code)) < 0)
            return rc;
    }
    return 0;
}

static int read_layers(struct reading *b)
{
    json_t *v = json_object_get(b->r->o->obj, "layers_to_transform"), *each;
    size_t i, n = json_is_array(v) ? json_array_size(v) : json_is_integer(v) ? 1 : 0;

    if (v && !json_is_null(v) && !json_is_array(v) && !json_is_integer(v))
        return err_set(b->e, E_DATA, "'%s': field 'layers_to_transform' must be a number or an array",
                       b->r->o->file);
    if (n == 0)
        return 0;
    if (!(b->layers = calloc(n, sizeof *b->layers)))
        return err_set(b->e, E_SYS, "out of memory");
    if (json_is_integer(v))
        b->layers[b->n_layers++] = json_integer_value(v);
    json_array_foreach(v, i, each) {
        if (!json_is_integer(each))
            return err_set(b->e, E_DATA, "'%s': field 'layers_to_transform[%zu]' is not a number",
                           b->r->o->file, i);
        b->layers[b->n_layers++] = json_integer_value(each);
    }
    return 0;
}

/* What stands before a layer's number; where there is none of it, anything. */
static int read_layers_pattern(struct reading *b)
{
    static const char field[] = "layers_pattern";
    json_t *v = json_object_get(b->r->o->obj, field), *each;
    size_t i, n = json_is_array(v) ? json_array_size(v) : json_string_length(v) ? 1 : 0;
    int rc = room(b, &b->layer, n + 1);

    if (rc < 0)
        return rc;
    if (json_is_string(v) && n)
        b->layer.at[b->layer.n++].text = json_string_value(v);
    json_array_foreach(v, i, each) {
        if (!json_is_string(each))
            return err_set(b->e, E_DATA, "'%s': field '%s[%zu]' is not a string", b->r->o->file, field,
                           i);
        b->layer.at[b->layer.n++].text = json_string_value(each);
    }
    for (i = 0; i < b->layer.n; i++)
        if ((rc = compile(b, field, "(?:.*?\\.)??", b->layer.at[i].text, "\\.([0-9]+)\\.",
                          &b->layer.at[i].code)) < 0)
            return rc;
    if (b->layer.n)
        return 0;
    b->layer.at[0].text = field;
    b->layer.n = 1;
    return compile(b, field, ".*?\\.[^.]*", "", "\\.([0-9]+)\\.", &b->layer.at[0].code);
}

/* target_modules of a list, an expression, or "all-linear". */
static int read_targets(struct reading *b)
{
    static const char field[] = "target_modules";
    const char *word = json_string_value(json_object_get(b->r->o->obj, field));

    if (!js_has(b->r->o, field))
        return err_set(b->e, E_DATA, "'%s': field '%s' is missing", b->r->o->file, field);
    b->all_linear = word && strcasecmp(word, "all-linear") == 0;
    return b->all_linear ? 0 : read_names(b, field, &b->target);
}

static int read_rules(struct reading *b)
{
    int rc;

    if ((b->match = pcre2_match_data_create(4, NULL)) && (b->limit = pcre2_match_context_create(NULL)))
        pcre2_set_match_limit(b->limit, STEPS);
    else
        return err_set(b->e, E_SYS, "out of memory");
    if ((rc = js_array(b->r->o, "modules_to_save", JS_MAY, &b->saved, b->e)) < 0 ||
        (rc = read_targets(b)) < 0 || (rc = read_names(b, "exclude_modules", &b->exclude)) < 0 ||
        (rc = read_layers(b)) < 0 || (b->n_layers && (rc = read_layers_pattern(b)) < 0) ||
        (rc = read_pattern(b, "rank_pattern", &b->rank)) < 0)
        return rc;
    return read_pattern(b, "alpha_pattern", &b->alpha);
}

static void free_rules(struct reading *b)
{
    struct rules *const all[] = { &b->target, &b->exclude, &b->layer, &b->rank, &b->alpha };

    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        for (size_t i = 0; all[k]->at && i < all[k]->n; i++)
            pcre2_code_free(all[k]->at[i].code);
        free(all[k]->at);
    }
    free(b->layers);
    pcre2_match_data_free(b->match);
    pcre2_match_context_free(b->limit);
}

/* ---- applying them ---- */

static bool named(struct reading *b, const struct rules *r, const char *path)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->whole ? matches(b, &r->at[i], path, NULL) : is_or_ends_in(path, r->at[i].text))
            return true;
    return false;
}

/* A part of the path, or its whole, is a module of modules_to_save: (^|.*\.)m($|\..*). */
static bool is_saved(const struct reading *b, const char *path)
{
    json_t *v;
    size_t i;

    json_array_foreach(b->saved, i, v) {
        const char *m = json_string_value(v);
        size_t n = m ? strlen(m) : 0;
        for (const char *p = path; n && p; p = strchr(p, '.'), p = p ? p + 1 : NULL)
            if (strncmp(p, m, n) == 0 && (p[n] == '\0' || p[n] == '.'))
                return true;
    }
    return false;
}

/* layers_to_transform, where there is one: the first number in the path counts. */
static bool in_layers(struct reading *b, const char *path)
{
    const char *number = NULL;
    int64_t layer;

    if (!b->n_layers)
        return true;
    for (size_t i = 0; i < b->layer.n && !number; i++)
        matches(b, &b->layer.at[i], path, &number);
    if (!number)
        return false;
    layer = strtoll(number, NULL, 10);
    for (size_t i = 0; i < b->n_layers; i++)
        if (b->layers[i] == layer)
            return true;
    return false;
}

static bool has_pair(struct reading *b, enum role role, const char *path)
{
    if (named(b, &b->exclude, path) || is_saved(b, path))
        return false;
    if (b->all_linear)
        return arch_pairs(b->r->arch) & ROLE_BIT(role);
    return named(b, &b->target, path) && (b->target.whole || in_layers(b, path));
}

/* The value of the first key that matches the path, NULL: none. */
static json_t *pattern_of(struct reading *b, const struct rules *r, const char *path)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->at[i].code ? matches(b, &r->at[i], path, NULL) : ends_like(path, r->at[i].text))
            return r->at[i].value;
    return NULL;
}

static int pair_of(struct reading *b, const char *path, struct adapter_pair *p)
{
    json_t *rank = pattern_of(b, &b->rank, path), *alpha = pattern_of(b, &b->alpha, path);

    *p = (struct adapter_pair){ b->r->rank, b->r->alpha };
    if (rank && (!json_is_integer(rank) || json_integer_value(rank) < 1 ||
                 json_integer_value(rank) > MAX_RANK))
        return err_set(b->e, E_DATA, "'%s': rank_pattern has no rank for '%s'", b->r->o->file, path);
    if (alpha && !json_is_number(alpha))
        return err_set(b->e, E_DATA, "'%s': alpha_pattern has no number for '%s'", b->r->o->file, path);
    if (rank)
        p->rank = json_integer_value(rank);
    if (alpha)
        p->alpha = json_number_value(alpha);
    return 0;
}

const char *adapter_module_path(const struct arch *a, const struct naming *naming, const struct tensor_def *d,
                                int64_t layer, char *path, size_t cap)
{
    size_t n = strlen(d->name) - strlen(".weight");
    const char *number = strchr(d->name, '#');
    char own[PATH];

    if (number)
        snprintf(own, sizeof own, "%.*s%lld%.*s", (int)(number - d->name), d->name, (long long)layer,
                 (int)(n - (size_t)(number + 1 - d->name)), number + 1);
    else
        snprintf(own, sizeof own, "%.*s", (int)n, d->name);
    return naming_put(a, naming, own, path, cap);
}

/* Every module that could have a pair: a matrix. */
static int fill(struct reading *b, struct adapter_pairs *p)
{
    const struct arch *a = b->r->arch;
    char path[PATH];

    for (int64_t l = 0; l < p->layers; l++)
        for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++) {
            int rc = 0;

            if (role_form(d->role) != FORM_MATRIX || (!tensor_of_layer(d) && l > 0))
                continue;
            adapter_module_path(a, b->r->naming, d, l, path, sizeof path);
            if (has_pair(b, d->role, path))
                rc = pair_of(b, path, &p->at[l][d->role]);
            if (rc < 0 || b->rc < 0)
                return rc < 0 ? rc : b->rc;
        }
    return 0;
}

/* All layers are alike, and every pair is of the rank and alpha that the adapter begins with. */
static bool is_uniform(const struct reading *b, const struct adapter_pairs *p, uint64_t targets)
{
    uint64_t top = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD);

    for (int64_t l = 0; l < p->layers; l++)
        for (int r = 0; r < ROLES; r++) {
            const struct adapter_pair *x = &p->at[l][r];
            if ((targets & ROLE_BIT(r)) && !(l > 0 && (top & ROLE_BIT(r))) &&
                (x->rank != b->r->rank || x->alpha != b->r->alpha))
                return false;
        }
    return true;
}

/* Names of a list that no module has: they do nothing, but tell of another family. */
static int count_unknown(struct reading *b)
{
    const struct arch *a = b->r->arch;
    int unknown = 0;
    char path[PATH];

    for (size_t i = 0; i < b->target.n && !b->target.whole; i++) {
        bool found = false;
        for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors && !found; d++) {
            struct module m;
            found = role_form(d->role) == FORM_MATRIX && tensor_module(d, &m) &&
                    (is_or_ends_in(b->target.at[i].text, m.last) ||
                     is_or_ends_in(adapter_module_path(a, b->r->naming, d, 0, path, sizeof path),
                                   b->target.at[i].text));
        }
        unknown += !found;
    }
    return unknown;
}

/* Names what was asked for, and the family's modules. */
static int none_matches(struct reading *b)
{
    const struct arch *a = b->r->arch;
    char names[200] = "", list[200];
    struct module m;
    size_t n = 0;

    for (size_t i = 0; i < b->target.n && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s'%.60s'", i ? ", " : "",
                              b->target.at[i].text);
    err_set(b->e, E_CONFIG, "'%s': none of target_modules (%s) can have LoRA pairs in a model of the "
            "family '%s'", b->r->o->file, n ? names : "an empty list", a->model_type);
    n = 0;
    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        if ((arch_pairs(a) & ROLE_BIT(d->role)) && tensor_module(d, &m) && n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", m.last);
    return err_hint(b->e, "it has %s in every layer", list);
}

int adapter_pairs_read(const struct adapter_rules *r, uint64_t *targets, struct adapter_pairs **pairs,
                       int *unknown, struct err *e)
{
    struct reading b = { .r = r, .e = e };
    int64_t layers = r->layers ? r->layers : ANY_LAYERS;
    struct adapter_pairs *p = calloc(1, sizeof *p + (size_t)layers * sizeof *p->at);
    int rc = p ? read_rules(&b) : err_set(e, E_SYS, "out of memory");

    *pairs = NULL;
    *targets = 0;
    if (rc == 0) {
        p->layers = layers;
        rc = fill(&b, p);
    }
    for (int64_t l = 0; rc == 0 && l < layers; l++)
        for (int k = 0; k < ROLES; k++)
            *targets |= p->at[l][k].rank ? ROLE_BIT(k) : 0;
    if (rc == 0)
        *unknown = count_unknown(&b);
    if (rc == 0 && !*targets)
        rc = none_matches(&b);
    if (rc == 0 && !is_uniform(&b, p, *targets)) {
        *pairs = p;
        p = NULL;
    }
    free(p);
    free_rules(&b);
    return rc;
}
