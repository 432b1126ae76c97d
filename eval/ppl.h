/* eval/ppl.h - perplexity: the first task of leval, and the tables of its results. */
#ifndef EVAL_PPL_H
#define EVAL_PPL_H
#include "base/err.h"
#include "eval/corpus.h"
#include "eval/result.h"
#include "eval/task.h"
#include "eval/windows.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

struct ppl_options {
    const char *label;           /* NULL: the last name of adapter or model */
    struct corpus_options data;  /* vocab is filled in here, and tokenizer where NULL */
    int protocol;                /* enum protocol */
    int64_t step, mean_of, max_windows; /* as struct window_spec */
    bool join;
    /* How results are shown, those that --table reads too. */
    bool by_document;            /* with json: the sums of each document too */
    bool table, by_position, chart;
    const char *plot, *title;
};

/* --ppl FILE; asked is a struct ppl_options. */
extern const struct task task_ppl;
/* --table FILE ...: results beside each other; the same options. */
extern const struct task task_table;
/* ppl_fill.c: the model that the data remembers, the base and data that an adapter does. Without
 * both, ltrain's own folder "adapter" is taken where it is of that model. */
int ppl_fill(struct eval_options *o, struct ppl_options *p, struct err *e);
/* The same of what was asked for. */
int ppl_fill_asked(struct eval_options *o, struct err *e);
/* What was given to both on the command line; plot, title, label and the tokenizer count for other tasks too. */
const struct ppl_options *ppl_asked(void);
/* Before hours of measuring: the plot's ending, that it can be written, and that gnuplot is there. E_USAGE,
 * E_CREATE, E_SYS. */
int eval_check_plot(const struct eval_options *o, struct err *e);
/* Width of the terminal, at most 100; 80 where the output is no terminal. */
int eval_columns(void);

/* ppl.c: the data that o names; and all of a result but its protocol and scores. */
int ppl_open_data(struct corpus **c, const struct ppl_options *o, const struct eval *v, struct err *e);
void ppl_describe(struct result *r, const struct ppl_options *o, const struct eval *v,
                  const struct corpus *data);
/* ppl.c: the parts of task_ppl that measure. Zero v->state before. */
int ppl_prepare(struct eval *v, struct err *e);
int ppl_score(struct eval *v, int64_t i, int64_t n, struct err *e);
/* After the last ppl_score; v's, until ppl_close. */
const struct result *ppl_result(struct eval *v);
void ppl_close(struct eval *v);

C_END
#endif
