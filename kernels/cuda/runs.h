/* kernels/cuda/runs.h - a list of segments as runs of equal, evenly spaced ones. */
#ifndef KERNELS_CUDA_RUNS_H
#define KERNELS_CUDA_RUNS_H
#include "kernels/kernels.h"
C_BEGIN

/* n segments of len rows of queries each, starting at first, first + step, ...: one strided call.
 * Each has so many keys, in rows from keys_first, keys_first + step, ... on, the last of which is its
 * last query's own. */
struct run {
    int64_t first, n, step, len, keys_first, keys;
};

/* Splits a list (empty segments left out) into at most cap runs, each as long as can be found.
 * Returns their number, or -1 where more are needed, the list is longer than 4096, or queries stand
 * elsewhere than at the end of their keys. S2's lists
 * over n sequences take 1 and, shifted, 2 (n == 1) to 5 runs. */
int runs_find(const struct op_segments *s, struct run *runs, int cap);

/* Whether lists are those of dense attention, of sequences of one length, or S2's, of one group: no
 * documents; or of a rank's part of such a sequence. There are few such shapes in a run, each of which is worth a plan of its own, which
 * lists of documents, new in every row, are not. */
bool runs_steady(const struct op_segments half[2]);

C_END
#endif
