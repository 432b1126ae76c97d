/* kernels/cuda/runs.h - a list of segments as runs of equal, evenly spaced ones. */
#ifndef KERNELS_CUDA_RUNS_H
#define KERNELS_CUDA_RUNS_H
#include "kernels/kernels.h"
C_BEGIN

/* n segments of len rows each, starting at first, first + step, ...: one strided call. */
struct run {
    int64_t first, n, step, len;
};

/* Splits a list (empty segments left out) into at most cap runs, each as long as can be found.
 * Returns their number, or -1 where more are needed or the list is longer than 4096. S2's lists
 * over n sequences take 1 and, shifted, 2 (n == 1) to 5 runs. */
int runs_find(const struct op_segments *s, struct run *runs, int cap);

/* Whether lists are those of dense attention, of sequences of one length, or S2's, of one group: no
 * documents. There are few such shapes in a run, each of which is worth a plan of its own, which
 * lists of documents, new in every row, are not. */
bool runs_steady(const struct op_segments half[2]);

C_END
#endif
