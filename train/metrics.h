/* train/metrics.h - the JSON-lines log of a run; its fields stand in formats/metrics.md. */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* One rank's own, of a step; bytes since the run began. */
struct metrics_rank {
    double own_s, comm_s;
    int64_t mem_bytes, sent, received;
};

struct metrics_line {
    int64_t step, tokens, scored, skipped;
    double epoch, loss, grad_norm, lr, val_loss;
    bool has_val;
    const char *attention; /* "dense", "s2" */
    double step_s, tok_s, gemm_fraction; /* time fields */
    double model_flop_s, mfu; /* of the model's arithmetic (flops.h); over the matrix rate */
    int64_t mem_bytes;
    int ranks, slowest;       /* where they are several: the times of update.h's step_result */
    double comm_s, slowest_s, mean_s;
    const struct metrics_rank *rank; /* [ranks], or NULL */
};

struct metrics {
    int fd;
    const char *path; /* the caller's */
};
/* Opens path ("-": standard output), keeping the lines of steps up to step, in order, and cutting what
 * follows, a torn line too. *kept: how many there are. E_CREATE: cannot be opened, or holds
 * something else than such lines, which is then left alone. */
int metrics_open(struct metrics *m, const char *path, int64_t step, int64_t *kept,
                 struct err *e);
/* One line in one write. E_IO. */
int metrics_write(struct metrics *m, const struct metrics_line *l, struct err *e);
/* To the disk: called before a checkpoint that stands for these lines is published. */
int metrics_sync(struct metrics *m, struct err *e);
void metrics_close(struct metrics *m);

C_END
#endif
