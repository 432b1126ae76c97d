/* model/rope.c - see rope.h. */
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

/* Pair i of a head's channels turns by inv_freq[i] radians a token: theta^(-2i / head_dim). */
void rope_inv_freq(const struct rope_config *r, int64_t head_dim, float *inv_freq)
{
    for (int64_t i = 0; i < head_dim / 2; i++) {
        double f = pow(r->theta, -2.0 * (double)i / (double)head_dim);

        if (r->type == ROPE_LINEAR)
            f /= r->factor;
        else if (r->type == ROPE_LLAMA3)
            f = llama3(r, f);
        inv_freq[i] = (float)f;
    }
}

/* Stretches the positions (linear scaling) so that ctx tokens fit. factor 0: the smallest
 * whole one that does, and none where the context is long enough already. */
int rope_extend(struct llama_config *c, int64_t ctx, double factor, struct err *e)
{
    bool given = factor != 0;

    if (!given && ctx <= c->context)
        return 0;
    if (c->rope.type == ROPE_LLAMA3) {
        if (given)
            return err_set(e, E_CONFIG, "llama3 RoPE scaling cannot be extended by "
                           "--rope-factor");
        err_set(e, E_CONFIG, "--ctx %lld is beyond the model's %lld, and llama3 RoPE scaling "
                             "cannot be extended", (long long)ctx, (long long)c->context);
        return err_hint(e, "choose --ctx %lld or less", (long long)c->context);
    }
    if (factor == 0 && c->rope.type == ROPE_LINEAR && c->rope.factor != 1) {
        err_set(e, E_CONFIG, "--ctx %lld is beyond the model's %lld, whose RoPE is already "
                             "scaled by %g; config.json does not say whether %lld is the "
                             "context before or after that scaling", (long long)ctx,
                             (long long)c->context,
                c->rope.factor, (long long)c->context);
        return err_hint(e, "give the further scaling with --rope-factor F: the total becomes "
                           "%g x F",
                        c->rope.factor);
    }
    if (factor == 0)
        factor = ceil((double)ctx / (double)c->context);
    if (!(factor >= 1) || factor > 65536)
        return err_set(e, E_CONFIG, "a RoPE factor of %g: must be 1 to 65536", factor);
    /* factors multiply: 2 and then 4 is 8 */
    if (c->rope.type == ROPE_LINEAR)
        c->rope.factor *= factor;
    else
        c->rope = (struct rope_config){ .type = ROPE_LINEAR, .theta = c->rope.theta,
                                        .factor = factor };
    if (!given || ctx == 0)
        c->context = (int64_t)ceil((double)c->context * factor);
    else if (ctx > c->context)
        c->context = ctx;
    return 0;
}
