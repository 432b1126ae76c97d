/* kernels/exchange.h - arrays in the memory of the ranks' devices, added and shared. */
#ifndef KERNELS_EXCHANGE_H
#define KERNELS_EXCHANGE_H
#include "base/err.h"
#include "kernels/kernels.h"
C_BEGIN

/* Calls that every rank of d's group makes together, after a meeting (group.h). */

/* Opens d's own links to the devices of the other ranks (device.link), where every rank has
 * some. rc: of opening the devices; every rank brings it, and all leave with the same. */
int group_link(struct device *d, int rc, struct err *e);

/* x, float32 in the device's memory, becomes its sum over the ranks of d's group. What fails on
 * one rank fails on all. Over d's links where it has some (then the order of adding is theirs,
 * the same in every run where d is deterministic), else by way of the host's memory. */
int group_sum(struct device *d, float *x, int64_t n, struct err *e);
/* The same in two halves, with something in between that each rank does to its part alone: of
 * every part a rank holds the sum; every part reaches all. n is a multiple of the group's size. */
int group_sum_parts(struct device *d, float *x, int64_t n, struct err *e);
int group_share_parts(struct device *d, float *x, int64_t n, struct err *e);

/* The halves without waiting, over d's links (d->links is not NULL): queued behind the ops queued
 * so far, while others go on. Every rank queues the same in the same order; then all meet, each
 * with what its queueing came to, and where that went well all wait. Nothing waits for it before
 * that (device.sync does not), as a rank that failed may have queued less. what: for a message,
 * "add" or "share". Return the device's code; a rank whose wait fails leaves (group_leave). */
int group_queue_sum(struct device *d, float *x, int64_t n);
int group_queue_share(struct device *d, float *x, int64_t n);
int group_wait_queued(struct device *d, const char *what, struct err *e);

C_END
#endif
