/* eval/tasks.h - probes as a task of leval: which prompts, what a model answers, how it did. */
#ifndef EVAL_TASKS_H
#define EVAL_TASKS_H
#include "base/opt.h"
#include "eval/answered.h"
#include "eval/probed.h"
#include "eval/task.h"
#include "probes/probe.h"
#include "probes/word_lists.h"
C_BEGIN

struct tasks_options {
    const char *list;          /* names with commas, "all", "list" */
    struct opt_counts lengths; /* none: those of --ctx, or the model's own context */
    int64_t samples;           /* prompts of each task, length and depth */
    int64_t depths;            /* 0: as the tasks have it */
    int64_t seed;              /* -1: of each original */
    struct opt_list haystack;
    const char *words;         /* a folder of word lists; NULL: our own */
    const char *prompts;       /* write them there, and compute nothing */
    const char *journal;       /* keep answers there, and go on from it */
};

/* --tasks LIST; with list a table of them; with --prompts the prompts. asked is a struct tasks_options. */
extern const struct task task_tasks, task_prompts, task_list;
const struct tasks_options *tasks_asked(void);

/* prompts.c: what is asked for. Zero it, prompts_close in any state. */
struct prompts {
    const struct tasks_options *o;
    const struct probe_kind **kind; /* [n_kinds] */
    int n_kinds;
    struct tokenizer *tokenizer;
    struct word_lists words;        /* n 0: our own */
    struct buf text;                /* the haystack; empty: no task needs one */
    struct probed r;                /* cells, filled in but for their scores */
};
/* Kinds by o->list. E_USAGE: a name that is none. */
int prompts_kinds(struct prompts *p, const struct tasks_options *o, struct err *e);
/* Tokenizer (path NULL: the model folder's), haystack, and the cells of n lengths; the first prompt of
 * each is tried, so that what cannot be made is told. */
int prompts_open(struct prompts *p, const char *model, const char *tokenizer, const int64_t *length,
                 int64_t n, struct err *e);
void prompts_close(struct prompts *p);
/* The stream of a cell's prompts. */
int prompts_stream(const struct prompts *p, const struct probed_cell *c, struct probes **s,
                   struct err *e);
const struct probe_kind *prompts_kind(const struct probed_cell *c);
/* All of them to a file as NDJSON (formats/probes.md); "-": standard output. E_CREATE, E_IO. */
int prompts_write(struct prompts *p, const char *path, bool force, struct err *e);

/* tasks.c: the parts of task_tasks that measure. Zero v->state before. */
int tasks_prepare(struct eval *v, struct err *e);
int tasks_plan(struct eval *v, int64_t longest, struct err *e);
int tasks_run(struct eval *v, int64_t i, int64_t n, struct err *e);
const struct probed *tasks_result(struct eval *v);
void tasks_close(struct eval *v);

C_END
#endif
