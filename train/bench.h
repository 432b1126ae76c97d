/* train/bench.h - what a machine can do: training steps of random weights and ids. */
#ifndef TRAIN_BENCH_H
#define TRAIN_BENCH_H
#include "base/err.h"
#include "model/preset.h"
#include "train/settings.h"
#include <stdio.h>
C_BEGIN

#define BENCH_STEPS 5 /* measured, unless --steps says otherwise; two before them are not
                         (of a mix's dense ones: one), where a step takes less than
                         half a minute */

/* The configuration of --shape or else --init. E_USAGE, and those of config_read. */
int bench_config(const struct settings *s, struct llama_config *c, struct err *e);

/* For every context of s: opens the model of s->shape or s->init, trains --steps steps of one
 * micro-batch, and writes a paragraph (a line of JSON with --json) to f: tokens a second of the
 * median step, operations, memory, and what each kind of op took where the device says. Of a mix
 * each kind of step has its own, written as soon as it is measured, and then comes the rate of
 * both together. Needs
 * no data, writes no file. Of several ranks (s->machine.group) each takes such a micro-batch a
 * step; the tokens are those of all, and one writes. E_CONFIG, E_DEVICE, E_SYS. */
int bench_run(const struct settings *s, FILE *f, struct err *e);

C_END
#endif
