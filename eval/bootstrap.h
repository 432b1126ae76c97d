/* eval/bootstrap.h - how far a mean of scores may be off: intervals by resampling. */
#ifndef EVAL_BOOTSTRAP_H
#define EVAL_BOOTSTRAP_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

enum { BOOTSTRAP_RESAMPLES = 10000, BOOTSTRAP_SEED = 1 };
#define BOOTSTRAP_CONFIDENCE 0.95

/* Values that are drawn from among themselves: the scores of one task, or the differences of two
 * models' scores of the same prompts, which makes it a paired bootstrap. */
struct stratum {
    const double *x;
    int64_t n; /* at least 1 */
};
struct interval {
    double mean, low, high;
};

/* The mean over strata of their means; low and high: percentiles (1 -+ BOOTSTRAP_CONFIDENCE) / 2 of its
 * values in BOOTSTRAP_RESAMPLES resamples, each stratum resampled by itself with replacement (Efron
 * 1979). The same figures everywhere. E_SYS. */
int bootstrap(struct interval *out, const struct stratum *s, int64_t n, struct err *e);

C_END
#endif
