/* model/rope.h - rotary frequencies for each kind of context extension, and how one is chosen. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H
#include "base/err.h"
#include "formats/weights/config.h"
C_BEGIN

/*
 * Pair i of the dim channels that RoPE turns moves by inv_freq[i] radians a token, i < dim/2; the
 * result is what cos and sin are multiplied by. With f = theta^(-2i/dim), s the factor, L the
 * original context, all as transformers' _compute_*_parameters (within 1e-6, tests/data/rope.json):
 *   linear    f / s: Position Interpolation, arXiv:2306.15595
 *   llama3    by parts, arXiv:2309.00071 section 3.2: f where a wave turns more than
 *             high_freq_factor times in L, f / s where less than low_freq_factor times, between
 *             them what lies between
 *   dynamic   f of the base theta (s len/L - s + 1)^(dim/(dim-2)) where len > L
 *   yarn      by parts too, in the number of the pair and not of the turns, from the pair that
 *             turns beta_fast times in L to that of beta_slow; and cos and sin are scaled
 *   longrope  f / long_factor[i] where len > L, else f / short_factor[i]; and the scale
 * len: tokens of the sequence, of which dynamic and longrope depend alone. As in a program that
 * has seen no longer one before: transformers keeps dynamic's frequencies until a short one.
 */
float rope_inv_freq(const struct rope_config *r, int64_t dim, int64_t len, float *inv_freq);
/* Equal for lengths that have the same frequencies. */
int64_t rope_length(const struct rope_config *r, int64_t len);

/* What a model is extended by; the words of --rope. parts and llama3 are one kind by two names,
 * that of the method and that of config.json; ntk is a theta that follows from the factor; auto is
 * the kind that the model has, pi where it has none. */
#define ROPE_KINDS "auto|pi|theta|parts|yarn|ntk|dynamic|llama3|longrope"
struct rope_ask {
    int kind;      /* of ROPE_KINDS */
    bool unscaled; /* the kind is not for a model that is scaled already: that goes on in its own */
    double factor; /* at most 0: what the context asks for */
    /* 0 (lists: NULL): not given. Only for the kinds that have it: */
    double theta;             /* theta: the new base, at least 1 */
    double low, high;         /* parts: low_freq_factor and high_freq_factor, 1 and 4 */
    double fast, slow;        /* yarn: beta_fast and beta_slow, 32 and 1 */
    double attention;         /* yarn, longrope: attention_factor, as transformers computes it */
    const char *lists;        /* longrope: a JSON file with short_factor and long_factor */
};

/* A parameter of another kind, a kind without what it needs, a factor where there is none.
 * E_USAGE naming the option. */
int rope_check(const struct rope_ask *a, struct err *e);

/*
 * Extends c to ctx tokens. Nothing changes where ctx fits (config_reach), unless a factor or a
 * theta is given. The factor that the context asks for is ctx / reach; of pi ceil(ctx / reach), the
 * rule of LongLoRA's fine-tune.py, by which c->context is multiplied. With a given factor
 * c->context becomes ctx where that is more, or factor * reach with a ctx of 0, where nobody says
 * it; of yarn at least the original context times the factor. Of dynamic it stays: transformers
 * computes with it.
 *
 * A model that is scaled already goes on in its own kind, with its own parameters: factors multiply
 * (yarn's and dynamic's context is then ctx, the last of longrope's lists is multiplied); or
 * in its base, by theta or ntk. All else is E_CONFIG, as no configuration could say it. So is pi
 * without a factor over pi: files in use put either the first or the scaled context into
 * max_position_embeddings. E_NOINPUT, E_DATA of the lists. After an error c is as it was.
 */
int rope_extend(struct llama_config *c, int64_t ctx, const struct rope_ask *a, struct err *e);

/* "linear 4", "yarn 8", "default theta 500000": for lines of progress and results. theta: the
 * model's own, which is not said. */
void rope_words(const struct rope_config *r, double theta, char *out, size_t cap);
/* What programs that read the model's folder would not do as here, in a sentence; "" where nothing
 * is to be said. */
void rope_advice(const struct llama_config *c, char *out, size_t cap);

C_END
#endif
