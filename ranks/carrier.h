/* ranks/carrier.h - what moves bytes between neighbours in a ring of ranks: TCP or MPI. */
#ifndef RANKS_CARRIER_H
#define RANKS_CARRIER_H
#include "base/err.h"
#include "ranks/rendezvous.h"
#include <stddef.h>
C_BEGIN

/* exchange: each rank sends to the next one and receives from the one before; the last one's next is
 * rank 0. back: the other way round. Both at once, and what arrives first is what was sent first. A wait ends when the watch
 * (watch.h) has a verdict: E_DEVICE or its code. 0 bytes are not sent. */
struct carrier {
    int rank, size;
    void *state;
    int (*exchange)(struct carrier *c, const void *out, size_t n_out, void *in, size_t n_in,
                    struct err *e);
    int (*back)(struct carrier *c, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e);
    /* Rank from's n bytes at x reach rank 0; the two of them call it, and nobody else. */
    int (*bring)(struct carrier *c, int from, void *x, size_t n, struct err *e);
    void (*close)(struct carrier *c, int code); /* 0: all ranks come to it */
};

/* TCP, over the doors of m, after watch_open. E_DEVICE. */
int carrier_tcp(struct carrier *c, const struct rendezvous *m, double timeout_s, struct err *e);

C_END
#endif
