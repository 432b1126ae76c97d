/* model/rope_extend.c - extending a model's RoPE by a named kind; see rope.h. */
#include "model/rope.h"

#include "base/json.h"
#include "formats/weights/tensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_FACTOR 65536.0

enum takes { FACTOR = 1, THETA = 2, PARTS = 4, RAMP = 8, ATTENTION = 16, LISTS = 32 };

/* In the order of ROPE_KINDS. becomes: ROPE_DEFAULT for those that change the base alone. */
static const struct kind {
    const char *name;
    enum rope_type becomes;
    int takes; /* parameters, of enum takes */
} kinds[] = {
    { "auto", ROPE_DEFAULT, FACTOR }, /* is replaced, by kind_of */
    { "pi", ROPE_LINEAR, FACTOR },
    { "theta", ROPE_DEFAULT, THETA },
    { "parts", ROPE_LLAMA3, FACTOR | PARTS },
    { "yarn", ROPE_YARN, FACTOR | RAMP | ATTENTION },
    { "ntk", ROPE_DEFAULT, FACTOR },
    { "dynamic", ROPE_DYNAMIC, FACTOR },
    { "llama3", ROPE_LLAMA3, FACTOR | PARTS },
    { "longrope", ROPE_LONGROPE, FACTOR | ATTENTION | LISTS },
};
enum { KIND_PI = 1, KINDS = sizeof kinds / sizeof *kinds };

/* RoPE that is scaled already: a linear factor of 1 is none. */
static bool scaled(const struct rope_config *r)
{
    return r->type != ROPE_DEFAULT && !(r->type == ROPE_LINEAR && r->factor == 1);
}

/* The kind that was asked for, or the first of those that go on from the model's. */
static const struct kind *kind_of(const struct llama_config *c, const struct rope_ask *a)
{
    int k = KIND_PI;

    if (a->kind > 0 && !(a->unscaled && scaled(&c->rope)))
        return &kinds[a->kind];
    while (scaled(&c->rope) && kinds[k].becomes != c->rope.type)
        k++;
    return &kinds[k];
}

/* The first parameter that was given and that a kind does not have; NULL: none. */
static const char *foreign(const struct rope_ask *a, int takes)
{
    const struct { const char *name; bool given; int takes; } all[] = {
        { "factor", a->factor > 0, FACTOR }, { "theta", a->theta > 0, THETA },
        { "low", a->low > 0, PARTS },        { "high", a->high > 0, PARTS },
        { "fast", a->fast > 0, RAMP },       { "slow", a->slow > 0, RAMP },
        { "attention", a->attention > 0, ATTENTION },
        { "lists", a->lists != NULL, LISTS },
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].given && !(all[i].takes & takes))
            return all[i].name;
    return NULL;
}

static double or_else(double given, double missing) { return given > 0 ? given : missing; }

int rope_check(const struct rope_ask *a, struct err *e)
{
    const char *odd = foreign(a, kinds[a->kind].takes);

    if (odd && a->kind == 0) {
        err_set(e, E_USAGE, "--rope-%s belongs to a kind of RoPE, and none is given", odd);
        return err_hint(e, "give --rope, one of " ROPE_KINDS);
    }
    if (odd)
        return err_set(e, E_USAGE, "--rope %s has no --rope-%s", kinds[a->kind].name, odd);
    if (a->factor > 0 && !(a->factor >= 1 && a->factor <= MOST_FACTOR))
        return err_set(e, E_USAGE, "--rope-factor %g: must be auto or 1 to 65536", a->factor);
    if (kinds[a->kind].takes == THETA && !(a->theta > 0)) {
        err_set(e, E_USAGE, "--rope theta needs --rope-theta");
        return err_hint(e, "--rope ntk computes one from the factor");
    }
    if (or_else(a->high, 4) <= or_else(a->low, 1))
        return err_set(e, E_USAGE, "--rope-high %g must be above --rope-low %g",
                       or_else(a->high, 4), or_else(a->low, 1));
    if (or_else(a->fast, 32) < or_else(a->slow, 1))
        return err_set(e, E_USAGE, "--rope-fast %g must not be below --rope-slow %g",
                       or_else(a->fast, 32), or_else(a->slow, 1));
    return 0;
}

/* What cannot go on from the model's RoPE, and where the factor has to be told. */
static int check_scaled(const struct llama_config *c, const struct kind *k,
                        const struct rope_ask *a, struct err *e)
{
    const struct rope_config *r = &c->rope;
    const char *odd = foreign(a, FACTOR), *name = config_rope_name(r->type);

    if (k->becomes == ROPE_DEFAULT)
        return 0;
    if (k->becomes != r->type) {
        err_set(e, E_CONFIG, "the model's RoPE is scaled already (%s, factor %g), and --rope %s "
                "cannot go on from that", name, r->factor, k->name);
        return err_hint(e, "leave --rope out to go on by %s, or give ntk or theta", name);
    }
    if (odd) {
        err_set(e, E_CONFIG, "the model's RoPE is scaled already (%s, factor %g) and keeps its "
                "own parameters: --rope-%s cannot be given", name, r->factor, odd);
        return err_hint(e, "only --rope-factor can");
    }
    if (a->factor > 0 || r->type != ROPE_LINEAR)
        return 0;
    err_set(e, E_CONFIG, "the model's RoPE is already scaled by %g; config.json does not say "
            "whether its context of %lld is the one before or after that scaling", r->factor,
            (long long)c->context);
    return err_hint(e, "give the further scaling with --rope-factor F: the total becomes %g x F",
                    r->factor);
}

/* The lists of longrope, from a file that has them as config.json does. */
static int load_lists(struct rope_config *r, int64_t dim, const char *path, struct err *e)
{
    struct js o;
    int rc;

    if (!path) {
        err_set(e, E_CONFIG, "--rope longrope of a model that has no lists of factors needs "
                "--rope-lists");
        return err_hint(e, "a JSON file with short_factor and long_factor");
    }
    if ((rc = js_load(&o, path, JS_MAX_BYTES, e)) < 0)
        return rc;
    rc = config_read_lists(r, &o, dim / 2, e);
    js_free(&o);
    return rc;
}

/* A model that is not scaled: by the kind, with the parameters that were given. */
static int begin(struct llama_config *c, const struct kind *k, double factor,
                 const struct rope_ask *a, struct err *e)
{
    struct rope_config *r = &c->rope;
    int64_t dim = config_rotary(c);
    int rc = 0;

    *r = (struct rope_config){ .type = k->becomes, .theta = r->theta };
    if (r->type == ROPE_LLAMA3) {
        r->low_freq_factor = or_else(a->low, 1);
        r->high_freq_factor = or_else(a->high, 4);
    } else if (r->type == ROPE_YARN) {
        r->beta_fast = or_else(a->fast, 32);
        r->beta_slow = or_else(a->slow, 1);
    } else if (r->type == ROPE_LONGROPE) {
        rc = load_lists(r, dim, a->lists, e);
    }
    if (r->type != ROPE_LINEAR)
        r->original_context = c->context;
    if (a->attention > 0)
        r->attention_factor = a->attention;
    r->factor = factor;
    if (rc == 0 && r->type == ROPE_DYNAMIC && dim < 4)
        rc = err_set(e, E_CONFIG, "--rope dynamic needs heads of more than 2 channels");
    if (rc == 0 && r->type == ROPE_YARN && r->theta <= 1)
        rc = err_set(e, E_CONFIG, "--rope yarn needs a rope_theta above 1, the model's is %g",
                     r->theta);
    if (rc == 0 && r->type == ROPE_LONGROPE && c->context < 2)
        rc = err_set(e, E_CONFIG, "--rope longrope needs a model with a context above 1");
    return rc;
}

/* In its own kind. Where the factor was the reach by the original context, it is so again, exactly:
 * transformers compares them. ctx: 0 with a given factor. */
static void go_on(struct rope_config *r, double factor, int64_t ctx, int64_t reach)
{
    double original = (double)r->original_context;

    if (ctx > 0 && original > 0 && r->type != ROPE_LLAMA3 &&
        round(r->factor * original) == (double)reach)
        r->factor = (double)ctx / original;
    else
        r->factor *= factor;
    for (int64_t i = 0; r->type == ROPE_LONGROPE && i < r->pairs; i++)
        r->long_factor[i] *= factor;
}

/* theta and ntk: the base, whatever scaling there is beside it. */
static int raise_base(struct llama_config *c, double factor, const struct rope_ask *a,
                      struct err *e)
{
    int64_t dim = config_rotary(c);

    if (a->theta > 0) {
        c->rope.theta = a->theta;
        return 0;
    }
    if (dim < 4)
        return err_set(e, E_CONFIG, "--rope ntk needs heads of more than 2 channels");
    c->rope.theta *= pow(factor, (double)dim / (double)(dim - 2));
    return 0;
}

/* max_position_embeddings of the extended model. */
static int64_t new_context(const struct llama_config *c, const struct kind *k, int64_t ctx,
                           double factor, int64_t reach, bool given)
{
    const struct rope_config *r = &c->rope;
    double n = ceil((double)reach * factor);

    if (r->type == ROPE_DYNAMIC)
        return c->context;
    /* yarn's and longrope's factor is this by the original context */
    if (given && ctx > 0 && (k->becomes == ROPE_YARN || k->becomes == ROPE_LONGROPE))
        n = round(r->factor * (double)r->original_context);
    else if (given && ctx > 0)
        n = (double)c->context;
    else if (!given && k != &kinds[KIND_PI])
        n = (double)ctx;
    if (n > (double)CONFIG_MAX_CONTEXT)
        n = (double)CONFIG_MAX_CONTEXT;
    return n > (double)ctx ? (int64_t)n : ctx;
}

int rope_extend(struct llama_config *c, int64_t ctx, const struct rope_ask *a, struct err *e)
{
    const struct kind *k = kind_of(c, a);
    bool given = a->factor > 0 || a->theta > 0;
    int64_t reach = config_reach(c);
    struct llama_config to = *c;
    double factor = a->factor;
    int rc = 0;

    if (!given && ctx <= reach)
        return 0;
    if (scaled(&c->rope) && (rc = check_scaled(c, k, a, e)) < 0)
        return rc;
    if (!given)
        factor = k == &kinds[KIND_PI] ? ceil((double)ctx / (double)reach)
                                      : (double)ctx / (double)reach;
    if (!(a->theta > 0) && (!(factor >= 1) || factor > MOST_FACTOR))
        return err_set(e, E_CONFIG, "a RoPE factor of %g: must be 1 to 65536", factor);
    if (k->becomes == ROPE_DEFAULT)
        rc = raise_base(&to, factor, a, e);
    else if (scaled(&c->rope))
        go_on(&to.rope, factor, given ? 0 : ctx, reach);
    else
        rc = begin(&to, k, factor, a, e);
    if (rc < 0)
        return rc;
    to.context = new_context(&to, k, ctx, a->theta > 0 ? 1 : factor, reach, given);
    *c = to;
    return 0;
}

void rope_words(const struct rope_config *r, double theta, char *out, size_t cap)
{
    char factor[24] = "", base[32] = "";

    if (r->type != ROPE_DEFAULT)
        snprintf(factor, sizeof factor, " %g", r->factor);
    if (r->theta != theta)
        snprintf(base, sizeof base, " theta %g", r->theta);
    snprintf(out, cap, "%s%s%s", config_rope_name(r->type), factor, base);
}

void rope_advice(const struct llama_config *c, char *out, size_t cap)
{
    long long n = (long long)config_reach(c);
    uint32_t kinds4 = config_arch(c)->block.kinds4;
    char taken[64] = "";
    size_t at = 0;

    *out = '\0';
    if (!scaled(&c->rope))
        return;
    if (kinds4 && !(kinds4 >> c->rope.type & 1)) {
        for (int t = 0; t <= ROPE_LONGROPE && at < sizeof taken; t++)
            if (kinds4 >> t & 1)
                at += (size_t)snprintf(taken + at, sizeof taken - at, "%s%s", at ? " or " : "",
                                       config_rope_name((enum rope_type)t));
        snprintf(out, cap, "transformers 4 refuse a model of the family %s whose RoPE is scaled by %s, and take "
                 "%s alone", config_arch(c)->model_type, config_rope_name(c->rope.type), taken);
        return;
    }
    switch (c->rope.type) {
    case ROPE_LINEAR:
        snprintf(out, cap, "vLLM and SGLang take the context times the factor for the model's: give "
                 "them --max-model-len %lld (SGLang: --context-length)", n);
        break;
    case ROPE_DYNAMIC:
        snprintf(out, cap, "vLLM has dynamic's frequencies of %lld tokens at every length, and "
                 "llama.cpp none of them", n);
        break;
    case ROPE_YARN:
        snprintf(out, cap, "transformers before 4.51 take the new context for the original "
                 "one of yarn%s", c->rope.attention_factor > 0 ?
                 ", and older versions of vLLM take no attention_factor" : "");
        break;
    case ROPE_LONGROPE:
        snprintf(out, cap, "vLLM has longrope's scale from the contexts, and needs --max-model-len "
                 "%lld; llama.cpp's converter leaves its lists out, lmerge -o FILE.gguf does not", n);
        break;
    default:
        break;
    }
}
