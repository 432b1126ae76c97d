/* gen/sampler.h - the next token, from logits. */
#ifndef GEN_SAMPLER_H
#define GEN_SAMPLER_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/* In the order in which they are applied, which is transformers'. */
struct sampling {
    double repetition;  /* logits of tokens that were there: divided by it where positive, else
                           multiplied (Keskar et al. 2019, arXiv:1909.05858); 1: as they are */
    double temperature; /* logits are divided by it; 0: the largest is taken, and nothing below counts */
    int64_t top_k;      /* only the k largest; 0: all */
    double top_p;       /* only the largest that together have p (Holtzman et al. 2019,
                           arXiv:1904.09751); 1: all */
    double min_p;       /* only those with p times the largest's probability; 0: all */
    uint64_t seed;
};
void sampling_defaults(struct sampling *o); /* temperature 0 */
int sampling_check(const struct sampling *o, struct err *e); /* E_USAGE */

/* One text's. Its n-th choice depends on the seed, text and n, and on logits and tokens seen: texts
 * may be computed in any company. E_SYS. */
struct sampler;
int sampler_open(struct sampler **s, const struct sampling *o, int64_t vocab, uint64_t text,
                 struct err *e);
void sampler_close(struct sampler *s);
void sampler_saw(struct sampler *s, int32_t id); /* of the prompt, or chosen */
/* Of equal logits the one of the smaller id. logits float32 [vocab] are overwritten. *logprob, unless
 * NULL: of the choice in the model's own distribution, as the logits came. E_DATA: none is a
 * number. */
int sampler_pick(struct sampler *s, float *logits, int32_t *id, double *logprob, struct err *e);

C_END
#endif
