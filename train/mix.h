/* train/mix.h - which steps of a run have dense attention, where the others have S2-Attn. */
#ifndef TRAIN_MIX_H
#define TRAIN_MIX_H
#include "base/err.h"
#include "model/model.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * Step k, counted from 1, is dense where 'every' divides k, or where k is one of the last
 * ceil(last * steps) steps. A pure function of k: the same after a restart, and on every rank.
 *
 *     every 4, last 0.1, steps 20:   4 8 12 16 19 20
 */
struct mix {
    int64_t every; /* 0: none by number */
    double last;   /* share of the steps, [0, 1) */
    int64_t steps; /* of the run; 0: not known, mix_share then is that of an endless run */
};

static inline bool mix_any(const struct mix *m) { return m->every > 0 || m->last > 0; }
bool mix_dense(const struct mix *m, int64_t step);
/* How many of the steps from + 1 .. to are dense. */
int64_t mix_count(const struct mix *m, int64_t from, int64_t to);
/* Dense steps as a share of all, in [0, 1]. */
double mix_share(const struct mix *m);

/* Seconds of each kind of step, of what a plan predicts on the average for both; *dense is 0
 * where the plan knows of no dense ones. */
void mix_times(const struct memory_plan *p, double share, double *sparse, double *dense);

C_END
#endif
