/* train/parallel.h - how the ranks of a run share its work: rows of a batch, parts of a sequence. */
#ifndef TRAIN_PARALLEL_H
#define TRAIN_PARALLEL_H
#include "train/settings.h"
C_BEGIN

/*
 * Of n ranks, cp that lie side by side compute one sequence together (model/spread.h), and n / cp
 * such lines share the rows of a batch. Everything else is all ranks': gradients are summed over
 * them, and each holds its part of AdamW's state.
 */

/* s->cp by --cp and --dp, of so many ranks; 0 where it is auto. E_USAGE: they do not make up the
 * number of ranks. */
int parallel_resolve(struct settings *s, int64_t ranks, struct err *e);

/* Bytes a second between the ranks of a line of cp, by --link, or by what the card usually has; 0:
 * not known. */
double parallel_link(const struct settings *s, const struct device *d, int64_t cp);

/* --cp auto: of all ways to divide so many ranks the one whose plan fits and foretells the least time
 * for a batch; without a forecast the fewest ranks that fit. s->cp and what follows from it, in s
 * and o; the same on all ranks of g. E_CONFIG, E_DEVICE. */
int parallel_choose(struct settings *s, const struct session *open, struct model_options *o,
                    int64_t ranks, struct group *g, struct err *e);

/* This rank as one of the lines: its part of rows is group_part of it. */
struct group parallel_rows(const struct group *g, int64_t cp);

C_END
#endif
