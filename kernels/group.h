/* kernels/group.h - the processes of one run: who they are, what they decide and add together. */
#ifndef KERNELS_GROUP_H
#define KERNELS_GROUP_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * A run is one process or several, each with a device of its own. Process number 'rank' of
 * 'size' computes a part of every batch; the gradients are summed; all take the same step. What
 * they do together is a call that every rank makes, in the same order and with the same sizes.
 * A rank that returned early on a failure of its own would leave the others waiting, so a
 * failure is brought to group_meet first, and either all go on or none does:
 *
 *     rc = load_rows(...);                  fails here, say, and not there
 *     rc = group_meet(g, rc, NULL, e);      fails on every rank, or on none
 *     if (rc == 0)
 *         rc = group_sum(d, grad, n, e);    all are here, or nobody is (exchange.h)
 *
 * A failure that was met ends the group: every later group_meet returns it at once, without a
 * word to the others, so a rank that failed may skip what the others still begin, as long as
 * that begins with a meeting too. gather, sum and broadcast therefore stand right behind one
 * that went well.
 *
 * Every rank gets the same bits, so whatever is decided by them (to skip a step that is not
 * finite, to stop) is decided alike everywhere. Nothing here waits for ever: where a rank has
 * left or died, each call of the others fails, now and later (E_DEVICE). One thread of a
 * process calls at a time.
 */
struct group_note {
    int32_t code;           /* group_meet's own */
    int32_t flag;           /* the first that is not 0, by rank, reaches all */
    int32_t most_rank;      /* whose 'most' is the largest; the first of them */
    double most;
    double sum[4];          /* each added over the ranks, in rank order */
};

/* What a transport has to do. All memory is the host's. */
struct group {
    int rank, size;         /* 0 <= rank < size */
    int first;              /* which rank of the whole run is rank 0 here (subgroup.h) */
    const char *host;       /* for messages: where this rank runs; "" not known */
    struct group_note *notes; /* [size] for group_meet; NULL where size is 1 */
    int over;               /* the failure that was met; 0: none */
    bool untold;            /* it was not: the others do not know of it yet */
    int64_t sent, received; /* bytes, by this rank, so far */
    void *state;
    /* all[r] becomes rank r's mine, nbytes each (0: a barrier). */
    int (*gather)(struct group *g, const void *mine, void *all, size_t nbytes, struct err *e);
    /* x[i] becomes its sum over the ranks. The order of adding is the transport's: fixed by
     * size, n and i, the same in every run, but not rank order unless the transport says so. */
    int (*sum)(struct group *g, float *x, int64_t n, struct err *e);
    /* Root's nbytes at x reach all. */
    int (*broadcast)(struct group *g, int root, void *x, size_t nbytes, struct err *e);
    void (*close)(struct group *g);

    /* What a transport may leave out (NULL). */

    /* Of x, float32 in group_part's parts: its part becomes the sum over the ranks, the others
     * anything; then every rank's part reaches all. Left out, they are made of sum and gather. */
    int (*sum_parts)(struct group *g, float *x, int64_t n, struct err *e);
    int (*share_parts)(struct group *g, float *x, int64_t n, struct err *e);
    /* Between rank 'from' and rank 0 alone, neither of them the other: its nbytes at x reach it. Left
     * out, they are broadcast. */
    int (*bring)(struct group *g, int from, void *x, size_t nbytes, struct err *e);
    /* Between neighbours, and nobody else: out goes to rank + step, in comes from rank - step,
     * which sends as much; step is 1 or -1. 0 bytes are not sent, so that two ranks may
     * exchange while others do something else; nothing goes round from the last to the first. */
    int (*pass)(struct group *g, int step, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e);
    /* 0 while every rank is there; E_DEVICE, naming one, from when it is known to have left or
     * died. Returns at once, sends nothing, and may be asked from any thread at any time: also
     * while the ranks' devices move data among each other, where nothing else would tell. */
    int (*check)(struct group *g, struct err *e);
};

/* The group of one process, where every call returns at once; not to be closed. */
struct group *group_alone(void);

/* This rank's process is the one that writes files. */
bool group_writes(const struct group *g);
/* Rank's part [*from, *to) of n things in order: whole numbers that differ by one at most. */
void group_part(const struct group *g, int64_t n, int64_t *from, int64_t *to);

/* Every rank brings rc and a note (NULL: nothing to say); all get the same rc and the same
 * note. Where some bring a failure, it is the first of them by rank, and a rank that had none
 * gets that one's message in e, with its rank and host; the notes are then not changed. */
int group_meet(struct group *g, int rc, struct group_note *n, struct err *e);

/* Rank from's nbytes at x reach the one that writes. Every rank calls it; only these two take part. */
int group_bring(struct group *g, int from, void *x, size_t nbytes, struct err *e);

/* A failure between two meetings, after which this rank cannot come to another: no later one waits,
 * and the others learn of it when this rank closes the group. Returns code. */
static inline int group_leave(struct group *g, int code)
{
    g->untold = g->untold || g->over == 0;
    return g->over = code;
}

C_END
#endif
