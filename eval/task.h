/* eval/task.h - what leval can do: tasks, each a row of leval.c's table, over an opened session. */
#ifndef EVAL_TASK_H
#define EVAL_TASK_H
#include "base/bytes.h"
#include "base/err.h"
#include "base/opt.h"
#include "model/rope.h"
#include "model/session.h"
#include "ranks/open.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* What all tasks share. */
struct eval_options {
    const char *model, *adapter; /* folders; adapter may be NULL */
    int shape;                   /* of SHAPES; -1: none */
    struct opt_counts ctx;       /* none: the model's own */
    struct rope_ask rope;        /* no kind and a factor of 0: the model's RoPE as it is */
    int64_t batch_tokens;        /* tokens computed at once, where a sequence is not longer */
    struct machine machine;
    struct ranks_options ranks;
    int64_t cp;         /* ranks that share a window; 0, 1: none do */
    const char *out;             /* file of the result; NULL: standard output */
    bool json, force, quiet, verbose;
    char **operand;
    int n_operands;
};

/* An evaluation under way. Zero it, set o and asked. */
struct eval {
    const struct eval_options *o;
    const void *asked;           /* the task's own options */
    void *state;                 /* the task's own, for its close */
    struct session s;
    int64_t n, ctx[OPT_MOST_COUNTS];
    double theta;                /* the base of the model's own RoPE */
    struct llama_config config[OPT_MOST_COUNTS]; /* for each context, its RoPE extended */
    int64_t longest[OPT_MOST_COUNTS]; /* tokens of the longest sequence of each; prepare may
                                         make it less than the context */
    double matrix_rate;          /* of the device, operations a second */
    size_t had;                  /* free on it before the model took any */
    bool known;                  /* prepare has found the result: nothing is computed */
};

enum task_needs {
    NEEDS_MODEL,  /* weights; one opened for all contexts whose RoPE is the same */
    NEEDS_SIZES,  /* random weights of the sizes of --shape or --model, anew for each context */
    NEEDS_NOTHING /* run is called with no session */
};

/* NULL for what a task has no use for. */
struct task {
    const char *name;       /* for messages */
    const char *help;       /* over its rows in --help */
    const struct opt *rows; /* its options, which fill in asked */
    const void *asked;
    enum task_needs needs;
    bool within;            /* past the model's context its result says little: a warning, not a remark */
    bool (*is_asked)(const struct eval_options *o); /* by its options */
    /* Fills in what is left out and remembered somewhere, before check; says what. E_USAGE,
     * E_NOINPUT, and those of opening the data. */
    int (*fill)(struct eval_options *o, struct err *e);
    /* What options do not go together. E_USAGE, E_CREATE. */
    int (*check)(const struct eval_options *o, struct err *e);
    /* Opens the data, before the device and the weights: s has the files, n and ctx are known. */
    int (*prepare)(struct eval *v, struct err *e);
    /* The memory of s, for sequences of up to longest tokens; NULL: that of windows. */
    int (*plan)(struct eval *v, int64_t longest, struct err *e);
    /* Contexts i to i + n - 1, with the model loaded for them. */
    int (*run)(struct eval *v, int64_t i, int64_t n, struct err *e);
    int (*show)(struct eval *v, struct err *e); /* the result, at the end */
    void (*close)(struct eval *v);
};

/* prepare, and run for every context, so that everything that can be refused is, before the
 * weights are loaded. Progress and what was resolved go to base/log. eval_close in any state. */
int eval_run(const struct task *t, struct eval *v, struct err *e);
void eval_close(const struct task *t, struct eval *v);

/* Bytes of the device's memory taken since the model was opened; 0: it has none of its own. */
size_t eval_taken(struct eval *v);
/* An output file (NULL: none) must be new, or with force a regular file. E_CREATE. */
int eval_check_output(const char *path, bool force, struct err *e);
/* Where a result goes. E_IO, E_CREATE. */
int eval_deliver(const struct eval_options *o, const struct buf *out, struct err *e);

C_END
#endif
