/* train/plan.h - ltrain --plan: does it fit, how fast, and what would fit. */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H
#include "train/run.h"
#include <stdio.h>
C_BEGIN

/* The device of a run. Of a plan for a GPU, where there is none here or --gpu names one, a device
 * that is only planned for (kernels/planned.h): it takes that card, else an H200's rates. */
int plan_device(struct device *d, const struct settings *s, struct err *e);

/* The largest multiple of 4096 tokens, up to 2^30, that one sequence of r's model may have in
 * the memory there is; 0: none. *host: the host's memory is what stands in the way of more. */
int plan_longest(struct run *r, int64_t *ctx, bool *host, struct err *e);

/* The plan of r (run_open has made it) as a table or, with --json, an object. On a device with
 * memory of its own E_CONFIG where it does not fit, with the longest context that does. */
int plan_print(struct run *r, FILE *f, struct err *e);

C_END
#endif
