/* train/schedule.c - see schedule.h. */
#include "train/schedule.h"

#include <math.h>

double schedule_lr(const struct schedule *s, int64_t step)
{
    double done;

    if (step <= s->warmup)
        return s->lr * (double)step / (double)s->warmup;
    if (s->kind == SCHEDULE_CONSTANT)
        return s->lr;
    if (step >= s->steps)
        return s->min_lr;
    done = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    return s->min_lr + (s->lr - s->min_lr) * 0.5 * (1.0 + cos(M_PI * done));
}
