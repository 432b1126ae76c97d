/* train/schedule.h - the learning rate of each step. */
#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_COSINE };

/*
 * step counts from 1. Up to warmup: lr * step / warmup, so that step 'warmup' has the whole
 * rate (the reference, by transformers, is one step behind: its first step has rate 0).
 * After it constant: lr. Cosine: from lr to min_lr at the last step, half a period.
 */
struct schedule {
    enum schedule_kind kind;
    double lr, min_lr;
    int64_t warmup, steps;
};
double schedule_lr(const struct schedule *s, int64_t step);

C_END
#endif
