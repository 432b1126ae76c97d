/* probes/fit.c - see fit.h. */
#include "probes/fit.h"

#include <inttypes.h>
#include <math.h>

enum { FEW = 2, SOME = 26, TRIES = 8 };

int probe_fit(int64_t *n, int64_t room, probe_make_fn *make, void *state, struct err *e)
{
    struct probe p = { .n = 0 };
    double each = 0;
    int64_t few;
    int rc = make(state, FEW, &p, e);

    few = p.tokens;
    *n = 0;
    if (rc == 0 && few <= room && (rc = make(state, SOME, &p, e)) == 0) {
        each = fmax((double)(p.tokens - few) / (SOME - FEW), 1);
        *n = FEW + (int64_t)((double)(room - few) / each);
    }
    for (int i = 0; rc == 0 && *n > FEW && i < TRIES; i++) {
        double left;

        if ((rc = make(state, *n, &p, e)) < 0)
            break;
        each = fmax((double)(p.tokens - few) / (double)(*n - FEW), 1);
        left = floor((double)(room - p.tokens) / each);
        if (left == 0)
            break;
        /* late tries only take away, so that the last one fits */
        *n += (int64_t)(i < TRIES / 2 || left < 0 ? left : 0);
        if (i >= TRIES / 2 && left > 0)
            break;
    }
    if (*n > 0 && *n < FEW)
        *n = FEW;
    probe_free(&p);
    return rc;
}

int probe_too_short(const struct probe_ask *a, int64_t needed, struct err *e)
{
    err_set(e, E_USAGE, "a length of %" PRId64 " tokens is too short", a->length);
    return err_hint(e, "the shortest that will do has about %" PRId64, needed);
}

int probe_too_few(const struct probe_ask *a, int64_t n, int64_t spare, probe_make_fn *make, void *state,
                  struct err *e)
{
    struct probe p = { .n = 0 };
    int rc = make(state, n, &p, e);

    if (rc == 0)
        rc = probe_too_short(a, p.tokens + spare, e);
    probe_free(&p);
    return rc;
}

int probe_make_fitting(struct probe *p, const struct probe_items *k, const struct probe_ask *a, int64_t n,
                       struct python_random *random, probe_make_fn *make, void *state, struct err *e)
{
    struct python_random began;
    int rc;

    if (random)
        began = *random;
    rc = make(state, n, p, e);
    while (rc == 0 && p->tokens > a->length - k->reply) {
        n -= k->step + (k->per > 0 ? n / k->per : 0);
        if (n < k->least)
            return probe_too_few(a, k->least, k->reply + k->spare, make, state, e);
        if (random)
            *random = began;
        rc = make(state, n, p, e);
    }
    return rc;
}
