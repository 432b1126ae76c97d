/* probes/fit.h - how many items of a prompt fill a length. */
#ifndef PROBES_FIT_H
#define PROBES_FIT_H
#include "probes/probe.h"
#include "probes/python_random.h"
C_BEGIN

/* A prompt of n items into p, its tokens counted. */
typedef int probe_make_fn(void *state, int64_t n, struct probe *p, struct err *e);

/* *n: the most items, to about one, whose prompt has no more than room tokens; 0 where the fewest, 2,
 * have more. By the mean tokens of an item, which is learnt by trying; prompts whose items have other
 * tokens may come out longer, so leave a margin in room. */
int probe_fit(int64_t *n, int64_t room, probe_make_fn *make, void *state, struct err *e);

/* Length too short: E_USAGE, with the length that will do, needed. */
int probe_too_short(const struct probe_ask *a, int64_t needed, struct err *e);
/* The same for a prompt of n items, the fewest, which is made to tell: its tokens and spare ones. */
int probe_too_few(const struct probe_ask *a, int64_t n, int64_t spare, probe_make_fn *make, void *state,
                  struct err *e);

/* What a kind says of its items: no prompt has fewer than least; one that has too many tokens is made
 * anew with step fewer, and, where per is not 0, a per-th part of them fewer besides. */
struct probe_items {
    int64_t least, step, per;
    int64_t reply, spare; /* tokens: the reply has, at most; a prompt may have more than another */
};
/* A prompt of n items or, where that leaves no room for the reply, of as many as do: each time from the
 * random numbers as they were (random NULL: make begins them itself). Fewer than the fewest: as
 * probe_too_few. */
int probe_make_fitting(struct probe *p, const struct probe_items *k, const struct probe_ask *a, int64_t n,
                       struct python_random *random, probe_make_fn *make, void *state, struct err *e);

C_END
#endif
