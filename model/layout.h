/* model/layout.h - what the two halves of a model's layout share: places in arenas. */
#ifndef MODEL_LAYOUT_H
#define MODEL_LAYOUT_H
#include "model/inside.h"

/* n elements at the next place of an arena; NULL while it is measured. A size that overflows marks it
 * as failed. lay_take: of one class of the model's memory; lay_act: rows x cols activations of it. */
void *lay_from(struct arena *a, int64_t n, size_t elem_bytes);
void *lay_take(struct model *m, int class, int64_t n, size_t elem_bytes);
void *lay_act(struct model *m, int class, int64_t rows, int64_t cols);

/* layout_weights.c: weights, pairs, and the flat arrays of what is trained. */
void lay_weights(struct model *m);
/* The ranks of the pairs of the matrices that read r's input, in one layer. */
int64_t lay_ranks(const struct model *m, enum role r, int64_t layer);

static inline bool lay_lora(const struct model_options *o)
{
    return o->mode == TRAIN_LORA || o->mode == TRAIN_LORA_PLUS;
}

#endif
