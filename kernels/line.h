/* kernels/line.h - a sequence's ranks: what their devices hand to each other during a step. */
#ifndef KERNELS_LINE_H
#define KERNELS_LINE_H
#include "kernels/kernels.h"
C_BEGIN

/*
 * The ranks of a group (subgroup.h), each with a device, compute parts of one sequence. Between their
 * ops they exchange arrays of the devices' memory: over the devices' links where there are some, else
 * by way of the host. Over links an exchange is only begun: it goes behind the ops queued so far, and
 * those that follow run beside it, until line_wait. Till then what is sent must not be written to,
 * and what comes not be touched. By way of the host it is through when the call returns.
 *
 * One order. All that goes over a device's links stands in one queue (QUEUE_LINK), and every rank has
 * to put the same into it in the same order: exchanges of lines, gathers of weights (line_share) and
 * chunks of the gradient (exchange.h) alike, since NCCL matches what two ranks do by its order alone.
 * So whether something is queued never depends on what a rank has by itself, or on whether its ops
 * went well; it follows from the plan and the batch, which all have alike. What is long (weights) is
 * queued behind what is soon waited for, not before it: the queue overtakes nothing. Sums over ranks
 * that are not of this line must not stand in the queue while its exchanges are still to come, as
 * those ranks may have failed, and never queue theirs.
 *
 * No rank may leave the others waiting. All of them call the same functions in the same order in a
 * step; one whose ops have failed (ok false) goes on calling, with whatever is in its arrays, until all
 * meet. What an exchange fails of stays in the line: all that follow fail too, and send nothing. It
 * is told once, to the err of line_failed.
 */
struct line {
    struct device *d;
    struct group *g;
    struct err why;          /* code 0: nothing failed */
    unsigned char *stage;    /* of the host */
    size_t stage_bytes;
    int64_t bytes;           /* that this rank has sent, without heads */
    int64_t begun, waited;   /* exchanges, over links */
    double seconds;          /* spent here, of exchanges by way of the host */
};

void line_open(struct line *l, struct device *d, struct group *g);
void line_close(struct line *l);

/* As group.pass, of the device's memory. */
int line_pass(struct line *l, bool ok, int step, const void *out, size_t n_out, void *in,
              size_t n_in);

/* The ops that follow wait for exchange number n, as counted by 'begun' after the call that began it,
 * and for all before it. FENCES_LINE at most may be under way. */
int line_wait(struct line *l, int64_t n);

/* Every rank has a block for each: out[j] goes to rank j, in[i] comes from rank i, one's own is
 * copied. n[i * size + j] bytes go from i to j, the same array on all ranks. Without links blocks
 * are passed on from neighbour to neighbour. */
int line_turn(struct line *l, bool ok, const void *const out[], void *const in[],
              const size_t *n);

/* all[r] becomes rank r's mine, n bytes each. Over links nothing is ordered: it is the caller who marks
 * and awaits QUEUE_LINK. */
int line_share(struct line *l, bool ok, const void *mine, void *all, size_t n);

/* The code of what failed and, unless NULL, its words; 0: nothing has. */
int line_failed(const struct line *l, struct err *e);

C_END
#endif
