/* eval/bootstrap.c - see bootstrap.h. */
#include "eval/bootstrap.h"

#include "base/perm.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* A mean of as many values as there are, drawn from among them. */
static double drawn(const struct stratum *s, uint64_t *number)
{
    double sum = 0;

    for (int64_t i = 0; i < s->n; i++) {
        uint64_t bits = mix64(((uint64_t)BOOTSTRAP_SEED << 56) + (*number)++);

        sum += s->x[(bits >> 32) * (uint64_t)s->n >> 32]; /* n is below 2^32 */
    }
    return sum / (double)s->n;
}

static double mean_of(const struct stratum *s)
{
    double sum = 0;

    for (int64_t i = 0; i < s->n; i++)
        sum += s->x[i];
    return sum / (double)s->n;
}

/* Of sorted values, between two neighbours in proportion, as numpy's percentile. */
static double quantile(const double *v, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;

    return i + 1 < n ? v[i] + (at - (double)i) * (v[i + 1] - v[i]) : v[n - 1];
}

int bootstrap(struct interval *out, const struct stratum *s, int64_t n, struct err *e)
{
    double *v = malloc(BOOTSTRAP_RESAMPLES * sizeof *v), tail = (1 - BOOTSTRAP_CONFIDENCE) / 2;
    uint64_t number = 0;

    if (!v)
        return err_set(e, E_SYS, "out of memory");
    out->mean = 0;
    for (int64_t k = 0; k < n; k++)
        out->mean += mean_of(&s[k]) / (double)n;
    for (int r = 0; r < BOOTSTRAP_RESAMPLES; r++) {
        v[r] = 0;
        for (int64_t k = 0; k < n; k++)
            v[r] += drawn(&s[k], &number) / (double)n;
    }
    qsort(v, BOOTSTRAP_RESAMPLES, sizeof *v, ascending);
    out->low = quantile(v, BOOTSTRAP_RESAMPLES, tail);
    out->high = quantile(v, BOOTSTRAP_RESAMPLES, 1 - tail);
    free(v);
    return 0;
}
