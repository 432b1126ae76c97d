/* train/schedule.c - see schedule.h. */
#include "train/schedule.h"

#include <math.h>

double schedule_lr(const struct schedule *s, int64_t step)
{
    double done;

    /* Step 1 already has lr / warmup. With a warm-up of 0 this is never reached, as steps
     * start at 1. */
    if (step <= s->warmup)
        return s->lr * (double)step / (double)s->warmup;
    if (s->kind == SCHEDULE_CONSTANT)
        return s->lr;
    if (step >= s->steps)
        return s->min_lr;
    /* From 0 at the end of the warm-up to 1 at the last step: half a period of the cosine. */
    done = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    return s->min_lr + (s->lr - s->min_lr) * 0.5 * (1.0 + cos(M_PI * done));
}
