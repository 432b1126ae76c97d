/* eval/ppl_task.c - leval's --ppl and --table: their options, and how results are shown. */
#include "eval/ppl.h"

#include "base/log.h"
#include "base/plot.h"
#include "eval/probed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ppl.c has one row for each context of --ctx. */
_Static_assert((int)RESULT_ROWS >= (int)OPT_MOST_COUNTS, "a row for every context");

/* Both tasks write their options into this; there is one command line in a process. */
static struct ppl_options asked;
static int form; /* enum corpus_form */

static const struct opt ppl_rows[] = {
    { 0, "ppl", "FILE", OPT_STR, &asked.data.path, 0, 0,
      "shards, raw u16 ids, or text; - is text" },
    { 0, "protocol", "longlora|stride|nonoverlap", OPT_ENUM, &asked.protocol, 0, 0,
      "how windows are placed and averaged [longlora]" },
    { 0, "step", "N", OPT_TOKENS, &asked.step, 1, 0x1p31, "tokens from window to window [256]" },
    { 0, "mean-of", "N", OPT_I64, &asked.mean_of, 1, 0x1p31,
      "longlora: average windows in batches of N first (eval.py: 32) [1]" },
    { 0, "max-windows", "N", OPT_I64, &asked.max_windows, 0, 0x1p52,
      "only so many, spread evenly; 0: all [0]" },
    { 0, "max-tokens", "N", OPT_TOKENS, &asked.data.max_tokens, 0, 0x1p52,
      "only so many from the start of the data; 0: all [0]" },
    { 0, "join", NULL, OPT_FLAG, &asked.join, 0, 0,
      "let windows cross documents (longlora always does)" },
    { 0, "all-tokens", NULL, OPT_FLAG, &asked.data.all_tokens, 0, 0,
      "score masked tokens too (prompts), which are else left out" },
    { 0, "form", "auto|shards|raw|text", OPT_ENUM, &form, 0, 0,
      "what FILE is, if its bytes do not tell [auto]" },
    { 0, "split", "NAME", OPT_STR, &asked.data.split, 0, 0,
      "split of a shards folder [validation, else train]" },
    { 't', "tokenizer", "FILE", OPT_STR, &asked.data.tokenizer, 0, 0,
      "tokenizer for text [the model folder's]" },
    { 0, "add-bos", NULL, OPT_FLAG, &asked.data.add_bos, 0, 0, "put a BOS before text" },
    { 'l', "label", "NAME", OPT_STR, &asked.label, 0, 0,
      "name in tables and plots [the folder's]" },
    { 0, "by-position", NULL, OPT_FLAG, &asked.by_position, 0, 0,
      "also perplexity by position in the window" },
    { 0, "by-document", NULL, OPT_FLAG, &asked.by_document, 0, 0,
      "with --json: also the loss of each document, for a bootstrap" },
    OPT_END
};

static const struct opt table_rows[] = {
    { 0, "table", NULL, OPT_FLAG, &asked.table, 0, 0,
      "compare results: operands are files written by --json" },
    { 0, "chart", NULL, OPT_FLAG, &asked.chart, 0, 0, "draw a chart below the table" },
    { 0, "plot", "FILE", OPT_STR, &asked.plot, 0, 0, "draw to .png, .svg or .pdf by gnuplot" },
    { 0, "title", "TEXT", OPT_STR, &asked.title, 0, 0, "title of chart and plot [perplexity]" },
    OPT_END
};

const struct ppl_options *ppl_asked(void) { return &asked; }

/* The options stand in 'asked'; what all tasks share is not needed here. */
static bool ppl_is_asked(const struct eval_options *o)
{
    (void)o;
    return asked.data.path;
}

static bool table_is_asked(const struct eval_options *o)
{
    (void)o;
    return asked.table;
}

int ppl_fill_asked(struct eval_options *o, struct err *e) 
{
    /* Options write an int; the field is an enum. */
    asked.data.form = (enum corpus_form)form;
    return ppl_fill(o, &asked, e);
}

int eval_check_plot(const struct eval_options *o, struct err *e)
{
    const char *end = asked.plot ? strrchr(asked.plot, '.') : NULL;
    int rc;

    if (!asked.plot)
        return 0;
    if (!end || (strcasecmp(end, ".png") != 0 && strcasecmp(end, ".svg") != 0 &&
                 strcasecmp(end, ".pdf") != 0))
        return err_set(e, E_USAGE, "--plot '%s' does not end in .png, .svg or .pdf", asked.plot);
    rc = eval_check_output(asked.plot, o->force, e);
    return rc < 0 ? rc : plot_check(e);
}

/* Runs before anything is opened. */
static int ppl_check(const struct eval_options *o, struct err *e)
{
    if (!asked.data.path || !o->model) {
        err_set(e, E_USAGE, "no %s given", asked.data.path ? "--model DIR" : "--ppl FILE");
        return err_hint(e, "leval --help shows examples");
    }
    if (o->n_operands)
        return err_set(e, E_USAGE, "--ppl takes one file; only --table takes more");
    if (asked.by_document && (!o->json || asked.join || asked.protocol == PROTO_LONGLORA)) {
        err_set(e, E_USAGE, "--by-document needs --json, and windows that do not cross documents");
        return err_hint(e, "add --json --protocol nonoverlap");
    }
    if (asked.mean_of > 1 && asked.protocol != PROTO_LONGLORA)
        return err_set(e, E_USAGE, "--mean-of works only with --protocol longlora");
    return eval_check_plot(o, e);
}

/* Refuses options that --table would ignore. */
static int table_check(const struct eval_options *o, struct err *e)
{
    if (o->n_operands == 0)
        return err_set(e, E_USAGE, "--table compares files that --json wrote: name at least one");
    if (asked.data.path || o->model)
        return err_set(e, E_USAGE, "--table reads result files: leave out --ppl and --model");
    if (asked.by_position || asked.by_document)
        return err_set(e, E_USAGE, "--by-%s works only with --ppl",
                       asked.by_position ? "position" : "document");
    return eval_check_plot(o, e);
}

int eval_columns(void)
{
    struct winsize w;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        return w.ws_col < 100 ? w.ws_col : 100;
    return 80;
}

/* Table or JSON, with a chart below where one was asked for, then the plot: what took hours to
 * measure is out before anything to do with drawing can fail. */
static int put_results(const struct eval_options *o, struct buf *out, const struct result *r, int64_t n,
                       bool text, struct err *e)
{
    struct result_chart h = { asked.title, asked.by_position, plot_utf8(),
                              !o->out && log_colour(STDOUT_FILENO), eval_columns() };
    struct err why = { 0 };
    int rc = 0;

    if (text && (rc = buf_add(out, "\n", 1, &why)) == 0)
        rc = results_chart(out, NULL, &h, r, n, &why);
    if (rc == E_DATA) { /* perplexities that are all infinite leave nothing to draw */
        if (asked.chart)
            log_warn("%s", why.msg);
    } else if (rc < 0) {
        *e = why;
        return rc;
    }
    if ((rc = eval_deliver(o, out, e)) == 0 && asked.plot &&
        (rc = results_chart(NULL, asked.plot, &h, r, n, e)) == 0)
        log_info("plot written to '%s'", asked.plot);
    return rc;
}

/* A chart is text, so it is left out where the output is JSON. */
static int ppl_show(struct eval *v, struct err *e)
{
    const struct result *r = ppl_result(v);
    struct buf out = { 0 };
    int rc = v->o->json ? result_json(&out, r, e)
                        : result_table(&out, r, asked.by_position, e);

    if (rc == 0)
        rc = put_results(v->o, &out, r, 1, asked.chart && !v->o->json, e);
    buf_free(&out);
    return rc;
}

/* Reads result files, and warns of each that was not measured as the first was. */
static int read_results(struct result *r, char **file, int n, struct err *e)
{
    int rc = 0;

    for (int k = 0; k < n && rc == 0; k++) {
        const char *differs;

        if ((rc = result_read(&r[k], file[k], e)) < 0)
            break;
        /* Without a label the file name tells the rows apart. */
        if (!r[k].of.label[0])
            snprintf(r[k].of.label, sizeof r[k].of.label, "%s", file[k]);
        if ((differs = results_differ(r, k)))
            log_warn("do not compare: '%s' was measured with %s than '%s'", file[k], differs,
                     file[0]);
    }
    return rc;
}

static int compare_ppl(const struct eval_options *o, int n, struct err *e)
{
    struct result *r = calloc((size_t)n, sizeof *r);
    struct buf out = { 0 };
    int rc = r ? read_results(r, o->operand, n, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0)
        rc = o->json ? results_json(&out, r, n, e) : results_table(&out, r, n, e);
    if (rc == 0)
        rc = put_results(o, &out, r, n, !o->json && !o->quiet, e);
    buf_free(&out);
    free(r);
    return rc;
}

/* The same of results of --tasks, whose prompts should be the same. */
static int compare_probes(const struct eval_options *o, int n, struct err *e)
{
    struct probed_how how = { eval_columns(), plot_utf8(), !o->out && log_colour(STDOUT_FILENO) };
    struct probed *r = calloc((size_t)n, sizeof *r);
    struct buf out = { 0 };
    int rc = r ? 0 : err_set(e, E_SYS, "out of memory");

    for (int k = 0; k < n && rc == 0; k++)
        rc = probed_read(&r[k], o->operand[k], e);
    if (rc == 0)
        rc = o->json ? probed_compare_json(&out, r, n, e)
             : n > 1 ? probed_compare(&out, r, n, e) : probed_table(&out, r, &how, e);
    if (rc == 0 && (rc = eval_deliver(o, &out, e)) == 0 && asked.plot &&
        (rc = probed_plot(r, n, asked.title, asked.plot, e)) == 0)
        log_info("plot written to '%s'", asked.plot);
    for (int k = 0; r && k < n; k++)
        probed_free(&r[k]);
    buf_free(&out);
    free(r);
    return rc;
}

/* --table needs no model: eval_run calls it once and does nothing else. */
static int table_run(struct eval *v, int64_t i, int64_t unused, struct err *e)
{
    const struct eval_options *o = v->o;
    int n = o->n_operands;

    (void)i, (void)unused;
    return probed_is(o->operand[0]) ? compare_probes(o, n, e) : compare_ppl(o, n, e);
}

const struct task task_ppl = {
    .name = "ppl", .help = "perplexity", .rows = ppl_rows, .asked = &asked,
    .needs = NEEDS_MODEL, .is_asked = ppl_is_asked, .fill = ppl_fill_asked, .check = ppl_check, .prepare = ppl_prepare,
    .run = ppl_score, .show = ppl_show, .close = ppl_close,
};
const struct task task_table = {
    .name = "table", .help = "tables of results", .rows = table_rows, .asked = &asked,
    .needs = NEEDS_NOTHING, .is_asked = table_is_asked, .check = table_check, .run = table_run,
};
