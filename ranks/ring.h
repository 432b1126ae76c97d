/* ranks/ring.h - gather, sum and broadcast in a ring of ranks: the same bits over any carrier. */
#ifndef RANKS_RING_H
#define RANKS_RING_H
#include "kernels/group.h"
#include "ranks/carrier.h"
C_BEGIN

/*
 * Every call begins with RING_HEAD bytes to the next rank that say what it is: ranks that call
 * different things fail (E_BUG) instead of waiting or mixing up their data. Then, of size S,
 *
 *     gather      S - 1 times nbytes from each rank (0 bytes: 1)
 *     sum         2 (S - 1) parts of group_part, one of each twice but for one: with n a multiple of S,
 *                 8 n (S - 1) / S bytes from each rank
 *     sum_parts, share_parts   its two halves, 4 n (S - 1) / S bytes each
 *     pass        RING_HEAD and nbytes to the neighbour, if there are any
 *     broadcast   nbytes from each rank but the one before the root
 *     bring       nbytes from one rank straight to rank 0, and no head
 *
 * and as much to it; g->sent and g->received count them, heads included.
 *
 * sum adds part p in the order of ranks p + 1, p + 2, ... round the ring to p, in float32. Every
 * is made by one rank and copied to the others: all have the same bits, and by the same
 * size and n the same in every run.
 */
enum { RING_HEAD = 24 };

/* *g takes over the carrier, which it closes. host: for messages; kept. E_SYS: the carrier is the
 * caller's still. */
int ring_open(struct group **g, const struct carrier *c, const char *host, struct err *e);
/* Closes with code; 0: all ranks do. */
void ring_close(struct group *g, int code);

C_END
#endif
