/* eval/bench_eval.h - how fast a machine scores: windows of random ids through random weights. */
#ifndef EVAL_BENCH_EVAL_H
#define EVAL_BENCH_EVAL_H
#include "eval/ppl.h"
#include <stdio.h>
C_BEGIN

#define BENCH_WINDOWS 5 /* times that are measured, after two that are not */

/* For every context of o: opens a model of the sizes of shape (of SHAPES, preset.h) or, where that
 * is negative, of o->model's config.json, scores as many windows at once as o->batch_tokens hold,
 * and writes a paragraph to f (json: a line of JSON): tokens a second of the median, operations,
 * memory. Needs no other file. Those of config_read, E_DEVICE, E_SYS. */
int bench_eval(const struct ppl_options *o, int shape, bool json, FILE *f, struct err *e);

C_END
#endif
