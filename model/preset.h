/* model/preset.h - to measure a model without weights or data: named sizes, random ids. */
#ifndef MODEL_PRESET_H
#define MODEL_PRESET_H
#include "model/model.h"
C_BEGIN

/* The names of --shape; preset_config takes their places. */
#define SHAPES "llama-2-7b|llama-2-13b|llama-2-70b|llama-3-8b|llama-3-70b|qwen3-8b|" \
    "gemma-2-2b|gemma-2-9b|gemma-3-4b"
void preset_config(struct llama_config *c, int shape);

/* n_seqs rows of ctx random ids below vocab, each to be followed by the next, over seg, which
 * the caller builds. malloc'ed; preset_batch_free takes any state of a zeroed batch. E_SYS. */
int preset_batch(struct batch *b, int64_t n_seqs, int64_t ctx, int64_t vocab,
                const struct segments *seg, struct err *e);
void preset_batch_free(struct batch *b);

/* Sorts n seconds: [n / 2] is the median, the ends are the fastest and the slowest. */
void preset_sort(double *seconds, int64_t n);

C_END
#endif
