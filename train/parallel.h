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

/* This rank as one of the lines: its part of rows is group_part of it. */
struct group parallel_rows(const struct group *g, int64_t cp);

C_END
#endif
