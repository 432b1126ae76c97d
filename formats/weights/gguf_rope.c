/* formats/weights/gguf_rope.c - RoPE in llama.cpp's terms; see gguf_arch.h.
 *
 * llama.cpp turns pair i by theta^(-2i/dim) / (factor list[i]) and multiplies cos and sin by attn_factor,
 * of type yarn also by 1 + 0.1 ln factor. Its own ramp of yarn has the usual beta_fast and beta_slow;
 * whatever else does not depend on a text's length is a list of factors, of type none. */
#include "formats/weights/gguf_arch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const gguf_rope_tensors[3] = { "rope_freqs.weight", "rope_factors_long.weight",
                                           "rope_factors_short.weight" };

/* What llama3 divides the frequency of pair i by: 1 where a wave is short, the factor where it is long. */
static double llama3_factor(const struct rope_config *r, int64_t dim, int64_t i)
{
    double wave = 2 * M_PI * pow(r->theta, 2.0 * (double)i / (double)dim);
    double turns = (double)r->original_context / wave, blend;

    if (turns > r->high_freq_factor)
        return 1;
    if (turns < r->low_freq_factor)
        return r->factor;
    blend = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return 1 / ((1 - blend) / r->factor + blend);
}

/* The pair that turns so many times in the original context. */
static double pair_of(const struct rope_config *r, int64_t dim, double turns)
{
    return (double)dim * log((double)r->original_context / (turns * 2 * M_PI)) / (2 * log(r->theta));
}

static double yarn_factor(const struct rope_config *r, int64_t dim, int64_t i)
{
    double from = pair_of(r, dim, r->beta_fast), to = pair_of(r, dim, r->beta_slow), slowed;

    if (!r->smooth) {
        from = floor(from);
        to = ceil(to);
    }
    from = fmax(from, 0);
    to = fmin(to, (double)dim - 1);
    if (from == to)
        to += 0.001;
    slowed = fmin(fmax(((double)i - from) / (to - from), 0), 1);
    return 1 / (slowed / r->factor + 1 - slowed);
}

static void fill(struct gguf_rope *g, const struct rope_config *r, int64_t dim,
                 double (*factor)(const struct rope_config *, int64_t, int64_t))
{
    g->type = "none";
    g->lists = 1;
    for (int64_t i = 0; i < g->pairs; i++)
        g->list[0][i] = (float)factor(r, dim, i);
}

int gguf_rope_of(struct gguf_rope *g, const struct rope_config *r, int64_t dim, struct err *e)
{
    *g = (struct gguf_rope){ .type = "none", .scale = 1, .pairs = dim / 2 };
    if (r->type == ROPE_DYNAMIC) {
        err_set(e, E_CONFIG, "RoPE of type dynamic depends on the length of the text, and llama.cpp has no "
                "such");
        return err_hint(e, "train with another --rope, or write a folder for transformers or vLLM");
    }
    if (g->pairs > ROPE_PAIRS)
        return err_set(e, E_CONFIG, "heads of more than %d channels are not written to GGUF",
                       2 * ROPE_PAIRS);
    if (r->type == ROPE_LINEAR && r->factor != 1) {
        g->type = "linear";
        g->factor = r->factor;
    } else if (r->type == ROPE_LLAMA3) {
        fill(g, r, dim, llama3_factor);
        g->original = r->original_context;
    } else if (r->type == ROPE_YARN && r->beta_fast == 32 && r->beta_slow == 1 && !r->smooth) {
        g->type = "yarn";
        g->factor = r->factor;
        g->original = r->original_context;
        g->scale = config_rope_scale(r) / (1 + 0.1 * log(r->factor));
    } else if (r->type == ROPE_YARN) {
        fill(g, r, dim, yarn_factor);
        g->scale = config_rope_scale(r);
    } else if (r->type == ROPE_LONGROPE) {
        g->type = "longrope";
        g->lists = 2;
        g->original = r->original_context;
        g->scale = config_rope_scale(r);
        for (int64_t i = 0; i < g->pairs; i++) {
            g->list[0][i] = (float)r->long_factor[i];
            g->list[1][i] = (float)r->short_factor[i];
        }
    }
    return 0;
}

/* ---- the other way ---- */

double gguf_decimal(double v)
{
    char text[40];

    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if ((float)strtod(text, NULL) == (float)v)
            return strtod(text, NULL);
    }
    return v;
}

/* A list is a float32 vector of one number a pair. */
static int read_list(double *to, const struct gguf *g, const struct gguf_tensor *t, int64_t pairs,
                     struct err *e)
{
    float f;

    if (t->type != GGML_F32 || t->dims != 1 || t->size[0] != pairs || pairs > ROPE_PAIRS)
        return err_set(e, E_DATA, "'%s': tensor '%s' at byte %zu must be %lld values of F32, at most %d",
                       gguf_name(g), t->name, t->at, (long long)pairs, ROPE_PAIRS);
    for (int64_t i = 0; i < pairs; i++) {
        memcpy(&f, t->data + 4 * i, sizeof f);
        if (!(f >= 1e-6F && f <= 1e9F))
            return err_set(e, E_DATA, "'%s': tensor '%s': value %lld is %g, must be 1e-6 to 1e9",
                           gguf_name(g), t->name, (long long)i, (double)f);
        to[i] = gguf_decimal(f);
    }
    return 0;
}

/* The lists that the converters write for Llama 3.1 to 3.3, and such with the context that the file
 * names: they are that kind, which can be extended. */
static bool is_llama3(struct rope_config *r, int64_t dim)
{
    struct rope_config try = *r;
    const double *list = r->long_factor;

    try.type = ROPE_LLAMA3;
    try.low_freq_factor = 1;
    try.high_freq_factor = 4;
    try.factor = 1;
    for (int64_t i = 0; i < r->pairs; i++)
        try.factor = fmax(try.factor, list[i]);
    for (int64_t i = 0; i < r->pairs; i++)
        if (fabs(llama3_factor(&try, dim, i) / list[i] - 1) > 1e-4)
            return false;
    try.pairs = 0;
    *r = try;
    return true;
}

/* One list for texts of any length. */
static int read_freqs(struct rope_config *r, const struct gguf *g, const struct gguf_tensor *t,
                      int64_t dim, bool original, struct err *e)
{
    int rc = read_list(r->long_factor, g, t, dim / 2, e);

    if (rc < 0)
        return rc;
    r->pairs = dim / 2;
    memcpy(r->short_factor, r->long_factor, sizeof r->short_factor);
    if (!original)
        r->original_context = 8192;
    if (r->attention_factor == 1 && is_llama3(r, dim))
        r->attention_factor = 0;
    else
        r->type = ROPE_LONGROPE;
    return 0;
}

/* Two lists, for texts within the original context and beyond; attention_factor is the file's. */
static int read_longrope(struct rope_config *r, const struct gguf *g, const struct gguf_tensor *const lists[3],
                         int64_t dim, int64_t context, struct err *e)
{
    double scale = r->attention_factor;
    int rc;

    r->type = ROPE_LONGROPE;
    r->pairs = dim / 2;
    if (!lists[1] || !lists[2])
        return err_set(e, E_DATA, "'%s': RoPE of type longrope without '%s' and '%s'", gguf_name(g),
                       gguf_rope_tensors[1], gguf_rope_tensors[2]);
    if ((rc = read_list(r->long_factor, g, lists[1], dim / 2, e)) < 0 ||
        (rc = read_list(r->short_factor, g, lists[2], dim / 2, e)) < 0)
        return rc;
    r->factor = (double)context / (double)r->original_context;
    r->attention_factor = 0; /* where it is what follows from the factor */
    if ((float)config_rope_scale(r) != (float)scale)
        r->attention_factor = scale;
    return 0;
}

int gguf_rope_read(struct rope_config *r, const struct gguf *g, const char *arch, int64_t dim,
                   int64_t context, const struct gguf_tensor *const lists[3], struct err *e)
{
    const char *type = "linear";
    size_t n = 6;
    double factor = 0, scale = 1;
    bool original;
    int rc;

    *r = (struct rope_config){ .type = ROPE_DEFAULT, .theta = 10000, .factor = 1 };
    if ((rc = gguf_f64(g, "%s.rope.freq_base", arch, false, 1, 1e15, &r->theta, e)) < 0 ||
        (rc = gguf_string(g, "%s.rope.scaling.type", arch, false, &type, &n, e)) < 0 ||
        (rc = gguf_f64(g, "%s.rope.scale_linear", arch, false, 0, 1e6, &factor, e)) < 0 ||
        (rc = gguf_f64(g, "%s.rope.scaling.factor", arch, false, 0, 1e6, &factor, e)) < 0 ||
        (rc = gguf_f64(g, "%s.rope.scaling.attn_factor", arch, false, 1e-6, 1e6, &scale, e)) < 0 ||
        (rc = gguf_i64(g, "%s.rope.scaling.original_context_length", arch, false, 1, CONFIG_MAX_CONTEXT,
                       &r->original_context, e)) < 0)
        return rc;
    original = r->original_context > 0;
    r->original_context = original ? r->original_context : context;
    r->attention_factor = scale;
    factor = factor > 0 ? factor : 1; /* 0 is what llama.cpp takes for none */
    /* phi3's files have no type, but lists */
    if ((n == 8 && memcmp(type, "longrope", n) == 0) ||
        (strcmp(arch, "phi3") == 0 && lists[1] && lists[2] && factor == 1 && !lists[0])) {
        return read_longrope(r, g, lists, dim, context, e);
    } else if (n == 4 && memcmp(type, "yarn", n) == 0 && !lists[0]) {
        r->type = ROPE_YARN;
        r->factor = factor;
        r->beta_fast = 32;
        r->beta_slow = 1;
        r->attention_factor = scale == 1 ? 0 : scale * (1 + 0.1 * log(factor));
    } else if (n == 6 && memcmp(type, "linear", n) == 0 && factor != 1 && !lists[0] && scale == 1) {
        r->type = ROPE_LINEAR;
        r->factor = factor;
    } else if ((n == 4 && memcmp(type, "none", n) == 0) ||
               (n == 6 && memcmp(type, "linear", n) == 0 && factor == 1)) {
        if (lists[0])
            return read_freqs(r, g, lists[0], dim, original, e);
        if (scale != 1)
            return err_set(e, E_CONFIG, "'%s': rope.scaling.attn_factor without a scaling is not "
                           "supported", gguf_name(g));
    } else {
        return err_set(e, E_CONFIG, "'%s': RoPE scaling of type '%.*s' with these lists and factors is "
                       "not supported", gguf_name(g), n < 40 ? (int)n : 40, type);
    }
    if (r->type == ROPE_DEFAULT || r->type == ROPE_LINEAR)
        r->original_context = 0, r->attention_factor = 0;
    return 0;
}
