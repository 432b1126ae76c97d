/* train/update.h - one optimizer step: gradients of a batch, their norm, AdamW. */
#ifndef TRAIN_UPDATE_H
#define TRAIN_UPDATE_H
#include "base/err.h"
#include "formats/tokens/dataset.h"
#include "model/model.h"
#include "train/order.h"
#include "train/row_sums.h"
#include "train/rows.h"
#include "train/settings.h"
C_BEGIN

/* What steps share. Everything is the caller's; rows.cap sequences are computed at once. */
struct trainer {
    const struct settings *s;
    struct device *d;
    struct model *m;
    struct dataset *data;
    struct order order;
    struct pack_rows pack; /* order's rows are its, where pack.rows is not 0 */
    struct rows rows;
    struct segments seg;
    struct row_sums sums; /* open: the bits do not depend on the number of ranks */
    double comm_s; /* of this step, in exchanges that all ranks had come to */
    int chunks_left, link_rc; /* of its gradient's sum: those not queued yet, how it went so far */
};

/* Where a run stands; a checkpoint holds the same. */
struct progress {
    int64_t step, updates, skipped, streak;
};

struct step_result {
    double loss;      /* mean over scored tokens; not finite: nothing was changed */
    double grad_norm; /* before clipping */
    double lr;
    int64_t scored;
    /* Seconds: what the slowest rank took for its gradients, and which it is; what this rank
     * took, and all of them together; then those of exchanges, for which all were there, with
     * nothing else to do. Of exchanges over links, what they took behind other work is not in it
     * (device.link_s). */
    double slowest_s, own_s, all_s, comm_s;
    int slowest;
};

/* Step p->step + 1: the mean loss of 'batch' sequences, their gradient (summed over the
 * device's group, each rank a part of the batch), clipped to the norm --clip, AdamW. A loss or
 * gradient that is not finite leaves weights and moments as they are and counts in p->skipped
 * and p->streak; ranks have the same sums, and so decide alike. Decay is for matrices, not for
 * norms. E_DATA, E_DEVICE, E_SYS. */
int update_step(struct trainer *t, struct progress *p, struct step_result *r, struct err *e);

/* Before the first gradient of a step; then, for the batch that is its last on this rank: over links
 * (device.links) the chunks of its gradient are added while earlier layers go back. */
void update_begin_sums(struct trainer *t);
void update_sum_early(struct trainer *t, struct batch *b);

/* The middle of it. Every rank brings rc of its gradient, took_s that it took for it and nll, the
 * sum of its losses; where all are well nll becomes that of all ranks, and trained.grad the sum
 * of theirs, or where the moments are sharded this rank's part of it. Of r it fills the times. */
int update_sum(struct trainer *t, int rc, double took_s, double *nll, struct step_result *r,
               struct err *e);

/* The last part of it: trained.grad and nll, the sum of the losses of r->scored targets, are
 * there. */
int update_apply(struct trainer *t, struct progress *p, double nll, struct step_result *r,
                 struct err *e);

/* Mean loss of at most max_rows rows of d, one after the other, dense attention; in *loss. */
int update_validate(struct trainer *t, struct dataset *d, int64_t max_rows, double *loss,
                    struct err *e);

/* E_NO unless every trained value and moment is finite: asked before a checkpoint. */
int update_finite(struct trainer *t, struct err *e);

C_END
#endif
