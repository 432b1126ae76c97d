/* formats/weights/config_rope.h - the part of config.json that says how RoPE is scaled. */
#ifndef FORMATS_WEIGHTS_CONFIG_ROPE_H
#define FORMATS_WEIGHTS_CONFIG_ROPE_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

#define CONFIG_MAX_CONTEXT ((int64_t)1 << 31)

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_DYNAMIC, ROPE_YARN, ROPE_LONGROPE };
enum { ROPE_PAIRS = 128 }; /* most pairs of channels that longrope has factors for */

/* What each means is in model/rope.h. */
struct rope_config {
    enum rope_type type;
    double theta;  /* base, 10000 */
    double factor; /* > 0, of all but default */
    double low_freq_factor, high_freq_factor; /* llama3 */
    int64_t original_context; /* before the scaling: llama3, yarn, longrope; of dynamic the
                                 configuration's context, which stays that */
    double attention_factor;  /* yarn, longrope: cos and sin are multiplied by it; 0: by what
                                 follows from factor, see config_rope_scale */
    double beta_fast, beta_slow, mscale, mscale_all_dim; /* yarn; an mscale of 0: not given */
    bool smooth;              /* yarn: "truncate" is false */
    int64_t pairs;            /* longrope: of the two lists */
    double short_factor[ROPE_PAIRS], long_factor[ROPE_PAIRS];
};

/* What the reader has to know of the rest of the file. */
struct js;
struct rope_sizes {
    int64_t context, head_dim;
    double share; /* of a head that the family turns where the file does not say; 0: all, and
                     another share is refused */
    double theta; /* its base where the file does not say; 0: 10000 */
    const char *theta_key, *share_key; /* of the two at the top */
    bool local;   /* rope_parameters has an object for each kind of layer, full_attention the one that is
                     meant */
};
/* Fills in r from o, the top of config.json, and the channels of a head that RoPE turns; 0: all.
 * E_DATA, E_CONFIG naming the field. */
int config_read_rope(struct rope_config *r, int64_t *rotary, const struct js *o,
                     const struct rope_sizes *z, struct err *e);

/* The base of RoPE in layers with a window, of a family where it is another. E_CONFIG where it is scaled. */
int config_read_local(double *theta, const struct js *o, struct err *e);

/* "short_factor" and "long_factor" of s, and where they are there "attention_factor" and "factor"
 * (else 0): the lists have as many numbers as there are pairs. E_DATA, E_CONFIG. */
int config_read_lists(struct rope_config *r, const struct js *s, int64_t pairs, struct err *e);

const char *config_rope_name(enum rope_type t); /* as in config.json: "default", "linear", ... */
/* The tokens that a model of this max_position_embeddings is made for: that, or of dynamic and yarn
 * the original context times the factor where it is more, as files have either. */
int64_t config_rope_reach(const struct rope_config *r, int64_t context);
/* What cos and sin are multiplied by, as transformers has it: attention_factor, or what follows from
 * factor; 1 but for yarn and longrope. */
double config_rope_scale(const struct rope_config *r);
bool config_rope_same(const struct rope_config *a, const struct rope_config *b);

C_END
#endif
