/* kernels/collective.h - sums and broadcasts over the processes of a run, in host memory. */
#ifndef KERNELS_COLLECTIVE_H
#define KERNELS_COLLECTIVE_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * The CPU device's group. Today a run is one process, a group of one, and both return 0 at
 * once; a larger size is E_BUG, because nothing can have made one. MPI will stand behind these
 * two functions; CUDA's device has NCCL behind its own entries of the op table.
 */

/* x[i] becomes its sum over the ranks, added in rank order. */
int collective_sum(int rank, int size, float *x, int64_t n, struct err *e);
/* Rank 0's nbytes at x reach all. */
int collective_broadcast(int rank, int size, void *x, size_t nbytes, struct err *e);

C_END
#endif
