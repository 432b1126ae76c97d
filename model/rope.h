/* model/rope.h - rotary frequencies for each kind of context extension. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H
#include "base/err.h"
#include "formats/weights/config.h"
C_BEGIN

/* inv_freq[i], i < head_dim/2: theta^(-2i/head_dim), then
 *   linear  divided by factor (Position Interpolation, Chen et al. 2023, arXiv:2306.15595)
 *   llama3  by parts, as transformers' _compute_llama3_parameters */
void rope_inv_freq(const struct rope_config *r, int64_t head_dim, float *inv_freq);

/* The reference's rule (fine-tune.py): where ctx exceeds c->context, linear scaling by
 * ceil(ctx / context); c->context becomes factor * context. factor > 0 forces one: c->context
 * becomes ctx where that is more, or factor * context with a ctx of 0, where nobody says it.
 * Nothing changes where ctx fits. On a model that is scaled linearly already a given factor
 * multiplies; without one it is E_CONFIG, as files in use put either the first or the scaled
 * context into max_position_embeddings. E_CONFIG also for llama3 scaling that is exceeded. */
int rope_extend(struct llama_config *c, int64_t ctx, double factor, struct err *e);

C_END
#endif
