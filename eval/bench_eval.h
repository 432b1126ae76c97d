/* eval/bench_eval.h - how fast a machine scores: windows of random ids through random weights. */
#ifndef EVAL_BENCH_EVAL_H
#define EVAL_BENCH_EVAL_H
#include "eval/task.h"
C_BEGIN

#define BENCH_WINDOWS 5 /* times that are measured, after two that are not */

/* --bench: for every context scores as many windows at once as --batch-tokens hold, and writes a
 * paragraph to standard output (--json: a line of JSON): tokens a second of the median, operations,
 * memory. Needs no file but the config.json of --model, where no --shape is given. */
extern const struct task task_bench;

C_END
#endif
