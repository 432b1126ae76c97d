/* train/mix.c - see mix.h. */
#include "train/mix.h"

#include <math.h>

/* The first of the dense steps at the end; steps + 1 where there are none. A product such as
 * 0.07 * 100 may lie a little above the 7 that is meant: what is that close does not round up. */
static int64_t end_begins(const struct mix *m)
{
    double n = ceil((double)m->steps * m->last * (1 - 1e-12));

    return m->steps - (int64_t)n + 1;
}

bool mix_dense(const struct mix *m, int64_t step)
{
    return (m->every > 0 && step % m->every == 0) || step >= end_begins(m);
}

int64_t mix_count(const struct mix *m, int64_t from, int64_t to)
{
    int64_t end = end_begins(m), before = end - 1 < to ? end - 1 : to, n;

    if (to <= from)
        return 0;
    if (from >= before) /* all of them belong to the end */
        return to - from;
    n = to - before;
    return m->every > 0 ? n + before / m->every - from / m->every : n;
}

double mix_share(const struct mix *m)
{
    if (m->steps > 0)
        return (double)mix_count(m, 0, m->steps) / (double)m->steps;
    return m->last + (m->every > 0 ? (1 - m->last) / (double)m->every : 0);
}

void mix_times(const struct memory_plan *p, double share, double *sparse, double *dense)
{
    double ratio = p->dense_ratio > 0 ? p->dense_ratio : 1;

    *sparse = p->step_s / (1 - share + share * ratio);
    *dense = p->dense_ratio > 0 ? *sparse * ratio : 0;
}
