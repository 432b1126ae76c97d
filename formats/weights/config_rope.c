/* formats/weights/config_rope.c - reading how RoPE is scaled; see config_rope.h. */
#include "formats/weights/config_rope.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

static const char original_key[] = "original_max_position_embeddings";

/* What a reader of one kind looks at. */
struct source {
    const struct js *top, *in; /* config.json, and its object that says how RoPE is scaled */
    int64_t context, pairs;
};
typedef int read_kind(struct rope_config *r, const struct source *f, struct err *e);

/* The share of each head that RoPE turns, where the family's can be a part. */
static int set_rotary(int64_t *rotary, const struct js *o, const struct rope_sizes *z,
                      double share, struct err *e)
{
    int64_t n = (int64_t)((double)z->head_dim * share);

    *rotary = 0; /* all */
    if (share == 1)
        return 0;
    if (z->share == 0)
        return err_set(e, E_CONFIG, "'%s': %spartial_rotary_factor below 1 is not supported",
                       o->file, o->path);
    if (n < 2 || n % 2 != 0)
        return err_set(e, E_CONFIG, "'%s': %spartial_rotary_factor %g of head_dim %lld is not an "
                       "even number of channels", o->file, o->path, share,
                       (long long)z->head_dim);
    *rotary = n;
    return 0;
}

/* The context before the scaling may stand at the top, inside, or be max_position_embeddings. Where
 * the first two differ, transformers 4 takes the inner one and transformers 5 the outer one. */
static int read_original(struct rope_config *r, const struct source *f, int64_t least,
                         struct err *e)
{
    int64_t outer = 0, inner = 0; /* 0: not given */
    int rc;

    if ((rc = js_i64(f->in, original_key, JS_MAY, least, CONFIG_MAX_CONTEXT, &inner, e)) < 0 ||
        (rc = js_i64(f->top, original_key, JS_MAY, least, CONFIG_MAX_CONTEXT, &outer, e)) < 0)
        return rc;
    if (inner && outer && inner != outer) {
        err_set(e, E_CONFIG, "'%s': %s%s is %lld, and %lld at the top: versions of transformers "
                "differ in which counts", f->in->file, f->in->path, original_key, (long long)inner,
                (long long)outer);
        return err_hint(e, "write the one that the model was trained with into both places");
    }
    r->original_context = inner ? inner : outer ? outer : f->context;
    if (r->original_context < least)
        return err_set(e, E_CONFIG, "'%s': %s%s must be %lld or more", f->in->file, f->in->path,
                       original_key, (long long)least);
    return 0;
}

static int read_factor(struct rope_config *r, const struct source *f, enum js_need need,
                       struct err *e)
{
    return js_f64(f->in, "factor", need, 1e-6, 1e6, &r->factor, e);
}

static int read_linear(struct rope_config *r, const struct source *f, struct err *e)
{
    return read_factor(r, f, JS_MUST, e);
}

/* transformers looks at no other field: max_position_embeddings is the context before. */
static int read_dynamic(struct rope_config *r, const struct source *f, struct err *e)
{
    r->original_context = f->context;
    if (f->pairs < 2)
        return err_set(e, E_CONFIG, "'%s': %srope_type dynamic needs heads of more than 2 channels",
                       f->in->file, f->in->path);
    return read_factor(r, f, JS_MUST, e);
}

static int read_llama3(struct rope_config *r, const struct source *f, struct err *e)
{
    const struct js *s = f->in;
    int rc;

    if ((rc = read_factor(r, f, JS_MUST, e)) < 0 ||
        (rc = js_f64(s, "low_freq_factor", JS_MUST, 1e-6, 1e6, &r->low_freq_factor, e)) < 0 ||
        (rc = js_f64(s, "high_freq_factor", JS_MUST, 1e-6, 1e6, &r->high_freq_factor, e)) < 0 ||
        (rc = read_original(r, f, 1, e)) < 0)
        return rc;
    if (r->high_freq_factor <= r->low_freq_factor)
        return err_set(e, E_CONFIG, "'%s': %shigh_freq_factor %g must be above low_freq_factor "
                       "%g", s->file, s->path, r->high_freq_factor, r->low_freq_factor);
    return 0;
}

/* A factor that is there and null is the context over the original one; betas of 0 count as not
 * given, and a truncate of null as false: so transformers has it. */
static int read_yarn(struct rope_config *r, const struct source *f, struct err *e)
{
    const struct js *s = f->in;
    const json_t *truncate = json_object_get(s->obj, "truncate");
    bool cut = !json_is_null(truncate);
    int rc;

    if ((rc = read_original(r, f, 1, e)) < 0)
        return rc;
    if (json_is_null(json_object_get(s->obj, "factor")))
        r->factor = (double)f->context / (double)r->original_context;
    else if ((rc = read_factor(r, f, JS_MUST, e)) < 0)
        return rc;
    if ((rc = js_f64(s, "attention_factor", JS_MAY, 1e-6, 1e6, &r->attention_factor, e)) < 0 ||
        (rc = js_f64(s, "beta_fast", JS_MAY, 0, 1e6, &r->beta_fast, e)) < 0 ||
        (rc = js_f64(s, "beta_slow", JS_MAY, 0, 1e6, &r->beta_slow, e)) < 0 ||
        (rc = js_f64(s, "mscale", JS_MAY, 0, 1e6, &r->mscale, e)) < 0 ||
        (rc = js_f64(s, "mscale_all_dim", JS_MAY, 0, 1e6, &r->mscale_all_dim, e)) < 0 ||
        (rc = js_bool(s, "truncate", JS_MAY, &cut, e)) < 0)
        return rc;
    r->smooth = !cut;
    r->beta_fast = r->beta_fast > 0 ? r->beta_fast : 32;
    r->beta_slow = r->beta_slow > 0 ? r->beta_slow : 1;
    if (r->beta_fast < r->beta_slow)
        return err_set(e, E_CONFIG, "'%s': %sbeta_fast %g must not be below beta_slow %g", s->file,
                       s->path, r->beta_fast, r->beta_slow);
    if (r->theta <= 1)
        return err_set(e, E_CONFIG, "'%s': %srope_theta %g must be above 1 for yarn", f->top->file,
                       f->top->path, r->theta);
    return 0;
}

/* A list of numbers, one for each pair of channels. */
static int read_list(const struct js *s, const char *key, int64_t pairs, double *to, struct err *e)
{
    json_t *list, *v;
    size_t i;
    int rc = js_array(s, key, JS_MUST, &list, e);

    if (rc < 0)
        return rc;
    if ((int64_t)json_array_size(list) != pairs)
        return err_set(e, E_DATA, "'%s': field '%s%s' has %zu numbers, must have %lld: one for each "
                       "two channels that RoPE turns", s->file, s->path, key,
                       json_array_size(list), (long long)pairs);
    json_array_foreach(list, i, v) {
        to[i] = json_number_value(v);
        if (!json_is_number(v) || !(to[i] >= 1e-6 && to[i] <= 1e9))
            return err_set(e, E_DATA, "'%s': field '%s%s[%zu]' must be a number from 1e-6 to 1e9",
                           s->file, s->path, key, i);
    }
    return 0;
}

int config_read_lists(struct rope_config *r, const struct js *s, int64_t pairs, struct err *e)
{
    int rc;

    r->pairs = pairs;
    r->factor = r->attention_factor = 0;
    if (pairs > ROPE_PAIRS)
        return err_set(e, E_CONFIG, "'%s': %slongrope of heads with more than %d channels is not "
                       "supported", s->file, s->path, 2 * ROPE_PAIRS);
    if ((rc = read_list(s, "short_factor", pairs, r->short_factor, e)) < 0 ||
        (rc = read_list(s, "long_factor", pairs, r->long_factor, e)) < 0 ||
        (rc = js_f64(s, "attention_factor", JS_MAY, 1e-6, 1e6, &r->attention_factor, e)) < 0)
        return rc;
    return js_f64(s, "factor", JS_MAY, 1e-6, 1e6, &r->factor, e);
}

static int read_longrope(struct rope_config *r, const struct source *f, struct err *e)
{
    int rc = config_read_lists(r, f->in, f->pairs, e);

    /* 2: the logarithm of the original context is divided by */
    if (rc == 0 && (rc = read_original(r, f, 2, e)) == 0 && r->factor == 0)
        r->factor = (double)f->context / (double)r->original_context;
    return rc;
}

/* In the order of enum rope_type. */
static const struct {
    const char *name;
    read_kind *read;
} kinds[] = {
    { "default", NULL },         { "linear", read_linear }, { "llama3", read_llama3 },
    { "dynamic", read_dynamic }, { "yarn", read_yarn },     { "longrope", read_longrope },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const char *config_rope_name(enum rope_type t) { return kinds[t].name; }

/* What stands in the object beside what its kind means. */
static int read_kind_of(struct rope_config *r, const struct source *f, const char *type,
                        struct err *e)
{
    int k = 0;

    while (k < KINDS && strcmp(type, kinds[k].name) != 0)
        k++;
    if (k == KINDS) {
        err_set(e, E_CONFIG, "'%s': %srope_type '%.60s' is not supported", f->in->file,
                f->in->path, type);
        return err_hint(e, "default, linear, dynamic, yarn, longrope and llama3 are");
    }
    r->type = (enum rope_type)k;
    return kinds[k].read ? kinds[k].read(r, f, e) : 0;
}

/* rope_parameters of a family whose layers differ in it: the object of one kind of layer. Without it s.obj is
 * NULL. */
static int layers_object(const struct js *o, const char *layers, struct js *s, struct err *e)
{
    struct js all;
    int rc = js_object(o, "rope_parameters", JS_MAY, &all, e);

    *s = (struct js){ 0 };
    if (rc < 0 || json_object_size(all.obj) == 0)
        return rc;
    if (!json_object_get(all.obj, "full_attention") && !json_object_get(all.obj, "sliding_attention"))
        return err_set(e, E_CONFIG, "'%s': %srope_parameters has neither full_attention nor sliding_attention, "
                       "which this model family needs", o->file, o->path);
    return js_object(&all, layers, JS_MAY, s, e);
}

int config_read_local(double *theta, const struct js *o, struct err *e)
{
    const char *type = "default";
    struct js s;
    int rc;

    *theta = 10000;
    if ((rc = js_f64(o, "rope_local_base_freq", JS_MAY, 1, 1e15, theta, e)) < 0 ||
        (rc = layers_object(o, "sliding_attention", &s, e)) < 0 || !s.obj)
        return rc;
    if ((rc = js_f64(&s, "rope_theta", JS_MAY, 1, 1e15, theta, e)) < 0 ||
        (rc = js_str(&s, "type", JS_MAY, &type, e)) < 0 ||
        (rc = js_str(&s, "rope_type", JS_MAY, &type, e)) < 0)
        return rc;
    if (strcmp(type, "default") != 0)
        return err_set(e, E_CONFIG, "'%s': %srope_type '%.60s' is not supported, only default", o->file, s.path,
                       type);
    return 0;
}

/* The object that says how RoPE is scaled, as transformers 5 finds it: rope_scaling (4.x) wins over
 * rope_parameters (5.x), an empty one is none. */
static int rope_object(const struct js *o, bool local, struct js *s, struct err *e)
{
    int rc = js_object(o, "rope_scaling", JS_MAY, s, e);

    if (rc == 0 && json_object_size(s->obj) == 0)
        rc = local ? layers_object(o, "full_attention", s, e) : js_object(o, "rope_parameters", JS_MAY, s, e);
    return rc;
}

/* The base that stands in full_attention counts as well where rope_scaling has the rest. */
static int read_full_theta(struct rope_config *r, const struct js *o, struct err *e)
{
    struct js s;
    int rc = layers_object(o, "full_attention", &s, e);

    return rc < 0 || !s.obj ? rc : js_f64(&s, "rope_theta", JS_MAY, 1, 1e15, &r->theta, e);
}

/* rope_theta stands at the top or inside. */
int config_read_rope(struct rope_config *r, int64_t *rotary, const struct js *o,
                     const struct rope_sizes *z, struct err *e)
{
    /* Values inside the object win over those at the top, as they are read later. */
    const char *type = "default", *key;
    double share = z->share > 0 ? z->share : 1;
    struct source f = { .top = o, .context = z->context };
    struct js s;
    json_t *v;
    int rc;

    *r = (struct rope_config){ .type = ROPE_DEFAULT, .theta = z->theta > 0 ? z->theta : 10000,
                               .factor = 1 };
    if ((rc = js_f64(o, z->share_key, JS_MAY, 0, 1, &share, e)) < 0 ||
        (rc = js_f64(o, z->theta_key, JS_MAY, 1, 1e15, &r->theta, e)) < 0 ||
        (z->local && (rc = read_full_theta(r, o, e)) < 0) || (rc = rope_object(o, z->local, &s, e)) < 0)
        return rc;
    if (!s.obj)
        return set_rotary(rotary, o, z, share, e);
    /* Objects inside the object: other values for other layers. */
    json_object_foreach(s.obj, key, v)
        if (json_is_object(v))
            return err_set(e, E_CONFIG, "'%s': %s differs by layer ('%.60s'), which is not "
                           "supported", o->file, s.path, key);
    /* "type" is the older name; "rope_type" wins where both are there. */
    if ((rc = js_str(&s, "type", JS_MAY, &type, e)) < 0 ||
        (rc = js_str(&s, "rope_type", JS_MAY, &type, e)) < 0 ||
        (rc = js_f64(&s, "rope_theta", JS_MAY, 1, 1e15, &r->theta, e)) < 0 ||
        (rc = js_f64(&s, "partial_rotary_factor", JS_MAY, 0, 1, &share, e)) < 0 ||
        (rc = set_rotary(rotary, &s, z, share, e)) < 0)
        return rc;
    /* Phi-3's older names of longrope */
    if (js_has(&s, "short_factor") && (strcmp(type, "su") == 0 || strcmp(type, "yarn") == 0))
        type = "longrope";
    f.in = &s;
    f.pairs = (*rotary ? *rotary : z->head_dim) / 2;
    return read_kind_of(r, &f, type, e);
}

int64_t config_rope_reach(const struct rope_config *r, int64_t context)
{
    double n = r->type == ROPE_DYNAMIC || r->type == ROPE_YARN
                   ? round(r->factor * (double)r->original_context) : 0;

    return n <= (double)context ? context
           : n < (double)CONFIG_MAX_CONTEXT ? (int64_t)n : CONFIG_MAX_CONTEXT;
}

static double mscale(double factor, double by) { return factor <= 1 ? 1 : 0.1 * by * log(factor) + 1; }

double config_rope_scale(const struct rope_config *r)
{
    if (r->type != ROPE_YARN && r->type != ROPE_LONGROPE)
        return 1;
    if (r->attention_factor > 0)
        return r->attention_factor;
    if (r->type == ROPE_YARN)
        return r->mscale > 0 && r->mscale_all_dim > 0
                   ? mscale(r->factor, r->mscale) / mscale(r->factor, r->mscale_all_dim)
                   : mscale(r->factor, 1);
    return r->factor <= 1 ? 1 : sqrt(1 + log(r->factor) / log((double)r->original_context));
}

bool config_rope_same(const struct rope_config *a, const struct rope_config *b)
{
    size_t n = (size_t)a->pairs * sizeof *a->short_factor;

    return a->type == b->type && a->theta == b->theta && a->factor == b->factor &&
           a->low_freq_factor == b->low_freq_factor && a->high_freq_factor == b->high_freq_factor &&
           a->original_context == b->original_context &&
           a->attention_factor == b->attention_factor && a->beta_fast == b->beta_fast &&
           a->beta_slow == b->beta_slow && a->mscale == b->mscale &&
           a->mscale_all_dim == b->mscale_all_dim && a->smooth == b->smooth &&
           a->pairs == b->pairs && memcmp(a->short_factor, b->short_factor, n) == 0 &&
           memcmp(a->long_factor, b->long_factor, n) == 0;
}
