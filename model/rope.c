/* model/rope.c - the frequencies of each kind of RoPE; see rope.h. */
#include "model/rope.h"

#include <math.h>

/* Long waves are slowed by factor, short ones kept, those between blended. */
static double llama3(const struct rope_config *r, double freq)
{
    /* wave: tokens in one full turn; it is compared with the context before the extension */
    double wave = 2.0 * M_PI / freq, len = (double)r->original_context;
    double blend = (len / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);

    if (wave < len / r->high_freq_factor)
        return freq;
    if (wave > len / r->low_freq_factor)
        return freq / r->factor;
    return (1.0 - blend) * freq / r->factor + blend * freq;
}

/* The pair, as a real number, whose wave turns so many times in the original context. */
static double pair_of(const struct rope_config *r, int64_t dim, double turns)
{
    return (double)dim * log((double)r->original_context / (turns * 2 * M_PI)) /
           (2 * log(r->theta));
}

/* Where yarn's ramp begins and ends. */
static void ramp(const struct rope_config *r, int64_t dim, double *from, double *to)
{
    *from = pair_of(r, dim, r->beta_fast);
    *to = pair_of(r, dim, r->beta_slow);
    if (!r->smooth) {
        *from = floor(*from);
        *to = ceil(*to);
    }
    *from = fmax(*from, 0);
    *to = fmin(*to, (double)dim - 1);
    if (*from == *to)
        *to += 0.001;
}

/* Pairs before the ramp keep their frequency, those after it are slowed by factor. */
static double yarn(const struct rope_config *r, int64_t dim, int64_t i, double freq)
{
    double from, to, slowed;

    ramp(r, dim, &from, &to);
    slowed = fmin(fmax(((double)i - from) / (to - from), 0), 1);
    return freq / r->factor * slowed + freq * (1 - slowed);
}

/* The base of the frequencies, for sequences of len tokens. */
static double base(const struct rope_config *r, int64_t dim, int64_t len)
{
    double longer = (double)len / (double)r->original_context;

    if (r->type != ROPE_DYNAMIC || len <= r->original_context)
        return r->theta;
    return r->theta * pow(r->factor * longer - (r->factor - 1), (double)dim / (double)(dim - 2));
}

int64_t rope_length(const struct rope_config *r, int64_t len)
{
    bool longer = len > r->original_context;

    return r->type == ROPE_LONGROPE ? longer : r->type == ROPE_DYNAMIC && longer ? len : 0;
}

float rope_inv_freq(const struct rope_config *r, int64_t dim, int64_t len, float *inv_freq)
{
    double theta = base(r, dim, len);
    const double *list = len > r->original_context ? r->long_factor : r->short_factor;

    for (int64_t i = 0; i < dim / 2; i++) {
        double f = pow(theta, -2.0 * (double)i / (double)dim);

        if (r->type == ROPE_LINEAR)
            f /= r->factor;
        else if (r->type == ROPE_LLAMA3)
            f = llama3(r, f);
        else if (r->type == ROPE_YARN)
            f = yarn(r, dim, i, f);
        else if (r->type == ROPE_LONGROPE)
            f /= list[i];
        inv_freq[i] = (float)f;
    }
    return (float)config_rope_scale(r);
}
