/* ranks/watch.h - a thread that knows whether the other ranks live, and ends this one if not. */
#ifndef RANKS_WATCH_H
#define RANKS_WATCH_H
#include "base/err.h"
#include "ranks/rendezvous.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * Each rank has a connection to rank 0 for this alone. A beat goes over it several times within
 * timeout_s, from a thread, so also while the main thread computes for minutes. When a connection
 * ends without a goodbye its rank has died; when nothing comes for timeout_s it hangs, or the link
 * is cut. Rank 0 then tells all others who it was: the verdict. It is final. A process that ends
 * with a failure says so first, and its message is the verdict.
 *
 * From the verdict on watch_check fails, whoever waits for a peer ends its wait (watch_fd), and
 * the main thread has WATCH_GRACE_S to leave by itself; then the thread prints the verdict and
 * ends the process with its code. So all are gone soon, whatever they are stuck in. Of a verdict
 * that rank 0 lives to print, the other ranks print nothing.
 *
 * One watch a process.
 */
#define WATCH_GRACE_S 2.0

/* Takes over m's connections. E_SYS. */
int watch_open(struct rendezvous *m, double timeout_s, struct err *e);
/* Goodbye, with how this rank ends: 0, or a failure (negative) and its message. agreed: all know
 * of the failure, and end by themselves. Then the thread is gone. False: rank 0 prints what there
 * is to say, this rank need not. */
bool watch_close(int code, const char *msg, bool agreed);

/* 0, or the verdict. Any thread, any time, without a wait. */
int watch_check(struct err *e);
/* Readable from the verdict on; -1: there is no watch. */
int watch_fd(void);
/* The connection to a rank has failed: the verdict, which is waited for for a moment as it may
 * know more; else that this link is lost. Always < 0. */
int watch_lost(int rank, const char *why, struct err *e);

/* This rank has come to one more call of the group. Rank 0 says who is late, if a step takes
 * WATCH_LATE times as long as was expected: watch_step, expected_s 0: no step is under way. */
void watch_call(void);
enum { WATCH_LATE = 3 };
void watch_step(double expected_s);

C_END
#endif
