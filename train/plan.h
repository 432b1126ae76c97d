/* train/plan.h - ltrain --plan: does it fit, how fast, and what would fit. */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H
#include "train/run.h"
#include <stdio.h>
C_BEGIN

/* Opens the device of a run. Of a plan for a GPU, where there is none here or --gpu names one, a device
 * that is only planned for (kernels/planned.h): it takes that card, else an H200's rates. */
int plan_device(struct session *open, const struct settings *s, struct group *g, struct err *e);

/* The plan for every context of s, as a table or, with --json, an object. On a device with memory
 * of its own E_CONFIG for the first that does not fit, with the longest context that does. Those
 * of run_open. */
int plan_run(const struct settings *s, FILE *f, struct err *e);

C_END
#endif
