/* kernels/line.h - a sequence's ranks: what their devices hand to each other during a step. */
#ifndef KERNELS_LINE_H
#define KERNELS_LINE_H
#include "kernels/kernels.h"
C_BEGIN

/*
 * The ranks of a group (subgroup.h), each with a device, compute parts of one sequence. Between their
 * ops they exchange arrays of the devices' memory: over the devices' links where there are some,
 * queued behind the ops so far and before those that follow; else by way of the host.
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
    double seconds;          /* spent here, of exchanges by way of the host */
};

void line_open(struct line *l, struct device *d, struct group *g);
void line_close(struct line *l);

/* As group.pass, of the device's memory. */
int line_pass(struct line *l, bool ok, int step, const void *out, size_t n_out, void *in,
              size_t n_in);

/* Every rank has a block for each: out[j] goes to rank j, in[i] comes from rank i, one's own is
 * copied. n[i * size + j] bytes go from i to j, the same array on all ranks. Without links blocks
 * are passed on from neighbour to neighbour. */
int line_turn(struct line *l, bool ok, const void *const out[], void *const in[],
              const size_t *n);

/* all[r] becomes rank r's mine, n bytes each. Over links nothing is ordered: it is the caller who marks
 * and awaits QUEUE_LINK, but for one's own part, which ops copy. */
int line_share(struct line *l, bool ok, const void *mine, void *all, size_t n);

/* The code of what failed and, unless NULL, its words; 0: nothing has. */
int line_failed(const struct line *l, struct err *e);

C_END
#endif
