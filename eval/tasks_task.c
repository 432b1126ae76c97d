/* eval/tasks_task.c - leval's --tasks: options, the list, and how results are shown. */
#include "eval/tasks.h"

#include "base/log.h"
#include "base/plot.h"
#include "eval/ppl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct tasks_options asked = { .samples = 10, .seed = -1 };

static const struct opt tasks_rows[] = {
    { 0, "tasks", "LIST", OPT_STR, &asked.list, 0, 0,
      "passkey,niah,...: all, or 'list' shows what there is" },
    { 0, "lengths", "LIST", OPT_COUNTS, &asked.lengths, 16, 0x1p31,
      "tokens of prompt and reply, 4k,8k,16k [--ctx]" },
    { 0, "samples", "N", OPT_I64, &asked.samples, 1, 1000000, "prompts of each task, length and depth [10]" },
    { 0, "depths", "N", OPT_I64, &asked.depths, 0, PROBED_DEPTHS,
      "hide the answer at N depths, for a map; 0: as the task does [0]" },
    { 0, "seed", "N", OPT_I64, &asked.seed, 0, 0x1p31, "of the prompts [that of each original]" },
    { 0, "haystack", "FILE", OPT_LIST, &asked.haystack, 0, 0,
      "text to hide answers in: a file, folder or archive; may be repeated" },
    { 0, "words", "FOLDER", OPT_STR, &asked.words, 0, 0,
      "word lists of wonderwords, for RULER's own words [our own]" },
    { 0, "prompts", "FILE", OPT_STR, &asked.prompts, 0, 0,
      "write the prompts and their answers there, and compute nothing" },
    { 0, "journal", "FILE", OPT_STR, &asked.journal, 0, 0,
      "keep every answer there, and go on from those it has" },
    OPT_END
};
static const struct opt no_rows[] = { OPT_END };

const struct tasks_options *tasks_asked(void) { return &asked; }

static bool is_list(void) { return asked.list && strcmp(asked.list, "list") == 0; }
static bool tasks_is_asked(const struct eval_options *o)
{
    (void)o;
    return asked.list;
}
static bool prompts_is_asked(const struct eval_options *o)
{
    (void)o;
    return asked.list && asked.prompts && !is_list();
}
static bool list_is_asked(const struct eval_options *o)
{
    (void)o;
    return is_list();
}

/* The base of an adapter's run; lengths are contexts. */
static int fill(struct eval_options *o, struct err *e)
{
    struct ppl_options none = { .data = { .path = "-" } };

    if (asked.lengths.n && o->ctx.n)
        return err_set(e, E_USAGE, "--lengths and --ctx say the same here: leave one out");
    if (asked.lengths.n)
        o->ctx = asked.lengths;
    return o->adapter && !o->model ? ppl_fill(o, &none, e) : 0;
}

static int check_shared(const struct eval_options *o, struct err *e)
{
    const struct ppl_options *p = ppl_asked();

    if (p->data.path || p->table || o->n_operands)
        return err_set(e, E_USAGE, "--tasks asks questions of its own: leave out %s",
                       p->data.path ? "--ppl" : p->table ? "--table" : "the operands");
    if (o->cp > 1)
        return err_set(e, E_USAGE, "--cp shares windows: it works only with --ppl");
    return 0;
}

static int tasks_check(const struct eval_options *o, struct err *e)
{
    int rc = check_shared(o, e);

    if (rc == 0 && !o->model) {
        err_set(e, E_USAGE, "no --model DIR given");
        return err_hint(e, "leval --help shows examples");
    }
    return rc < 0 ? rc : eval_check_plot(o, e);
}

static int prompts_check(const struct eval_options *o, struct err *e)
{
    int rc = check_shared(o, e);

    if (rc == 0 && o->ctx.n == 0)
        return err_set(e, E_USAGE, "--prompts needs --lengths");
    return rc;
}

static int list_check(const struct eval_options *o, struct err *e) { return check_shared(o, e); }

/* Fields of the list: name, reply, what it asks, whose it is. */
static int list_run(struct eval *v, int64_t i, int64_t unused, struct err *e)
{
    struct buf out = { 0 };
    int rc = 0;

    (void)i, (void)unused;
    for (int k = 0; k < N_PROBE_KINDS && rc == 0; k++) {
        const struct probe_kind *p = PROBE_KINDS[k];

        rc = buf_printf(&out, e, "%-16s %s%s%s\n%-16s   %s\n", p->name, p->what,
                        p->needs_text ? "; in --haystack" : "", p->deep ? "; --depths" : "", "", p->origin);
    }
    if (rc == 0)
        rc = eval_deliver(v->o, &out, e);
    buf_free(&out);
    return rc;
}

static int prompts_run(struct eval *v, int64_t i, int64_t unused, struct err *e)
{
    const struct eval_options *o = v->o;
    struct prompts p = { .o = NULL };
    int rc = prompts_kinds(&p, &asked, e);

    (void)i, (void)unused;
    if (rc == 0 && (rc = prompts_open(&p, o->model, ppl_asked()->data.tokenizer, o->ctx.v, o->ctx.n, e)) == 0)
        rc = prompts_write(&p, asked.prompts, o->force, e);
    if (rc == 0)
        log_info("%" PRId64 " prompts written to '%s'", p.r.n * asked.samples, asked.prompts);
    prompts_close(&p);
    return rc;
}

static int tasks_show(struct eval *v, struct err *e)
{
    const struct probed *r = tasks_result(v);
    struct probed_how how = { eval_columns(), plot_utf8(), !v->o->out && log_colour(STDOUT_FILENO) };
    const char *plot = ppl_asked()->plot;
    struct buf out = { 0 };
    int rc = v->o->json ? probed_json(&out, r, e) : probed_table(&out, r, &how, e);

    if (rc == 0 && (rc = eval_deliver(v->o, &out, e)) == 0 && plot &&
        (rc = probed_plot(r, 1, ppl_asked()->title, plot, e)) == 0)
        log_info("plot written to '%s'", plot);
    buf_free(&out);
    return rc;
}

const struct task task_tasks = {
    .name = "tasks", .help = "retrieval", .rows = tasks_rows, .asked = &asked, .needs = NEEDS_MODEL,
    .within = true, .is_asked = tasks_is_asked, .fill = fill, .check = tasks_check, .prepare = tasks_prepare,
    .plan = tasks_plan, .run = tasks_run, .show = tasks_show, .close = tasks_close,
};
const struct task task_prompts = {
    .name = "prompts", .rows = no_rows, .asked = &asked, .needs = NEEDS_NOTHING,
    .is_asked = prompts_is_asked, .fill = fill, .check = prompts_check, .run = prompts_run,
};
const struct task task_list = {
    .name = "list", .rows = no_rows, .asked = &asked, .needs = NEEDS_NOTHING, .is_asked = list_is_asked,
    .check = list_check, .run = list_run,
};
