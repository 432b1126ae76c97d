/* train/row_sums.h - gradients of single rows, added by a tree that knows no ranks. */
#ifndef TRAIN_ROW_SUMS_H
#define TRAIN_ROW_SUMS_H
#include "base/err.h"
#include "kernels/kernels.h"
#include <stdint.h>
C_BEGIN

/*
 * Float32 sums depend on who is added to whom first, and so on which rows a rank has. Here the
 * rows of a batch are the leaves of one tree, whatever the number of ranks: a node of 2^k rows
 * begins at a multiple of 2^k and is the sum of its two halves, or of the one there is. A batch
 * of 7 is ((0+1)+(2+3)) + ((4+5)+6). A rank adds up the whole nodes among its rows; then all
 * bring theirs together and every rank adds the rest by the same tree: three ranks bring
 *
 *     rows 0 to 2: 0+1, 2     rows 3, 4: 3, 4     rows 5, 6: 5, 6
 *
 * Of a rank's rows there are up to 2 log2(rows) nodes at a time, each an array of the host's
 * memory as large as the gradient; all of them travel to all ranks.
 */
enum { ROW_SUMS_MOST = 64 };
struct row_node {
    int64_t first;   /* row */
    int level;       /* of 2^level rows */
    float *x;
};
struct row_sums {
    int64_t n;       /* floats of a gradient */
    int nodes, buffers; /* in use, taken: those beyond nodes are spare */
    struct row_node node[ROW_SUMS_MOST];
    double *number;  /* a loss for each of this rank's rows; NULL: not open */
};

/* For gradients of n values, and no more than 'rows' rows on this rank. Zero it before. E_SYS. */
int row_sums_open(struct row_sums *s, int64_t n, int64_t rows, struct err *e);
/* A step begins: no rows. */
void row_sums_begin(struct row_sums *s);
/* The gradient of the next row of this rank, in d's memory. E_SYS, E_DEVICE. */
int row_sums_add(struct row_sums *s, struct device *d, int64_t row, const float *grad,
                 struct err *e);
/* grad becomes the sum of all rows of the batch. Every rank calls it, with its part of them
 * (group_part) added; all meet at its end. E_SYS, E_DEVICE. */
int row_sums_finish(struct row_sums *s, struct device *d, int64_t batch, float *grad,
                    struct err *e);
void row_sums_close(struct row_sums *s);

/* *sum: of the numbers of all n rows in their order; number[0] is that of this rank's first row.
 * Every rank calls it. E_SYS, E_DEVICE. */
int row_sums_numbers(const struct row_sums *s, struct group *g, int64_t n, double *sum,
                     struct err *e);

C_END
#endif
