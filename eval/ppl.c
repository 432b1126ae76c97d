/* eval/ppl.c - perplexity over an opened session; see ppl.h. */
#include "eval/ppl.h"

#include "base/log.h"
#include "eval/identity.h"
#include "model/flops.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a perplexity task keeps from prepare to close: the data, and the windows per context. */
struct ppl_job {
    const struct ppl_options *o;
    struct result r;
    struct corpus *data;
    struct window_spec spec[RESULT_ROWS];
    struct window_list list[RESULT_ROWS];
    struct score_docs docs[RESULT_ROWS];
};

/* Opens the data with the tokenizer that was given, or else the model folder's own. */
int ppl_open_data(struct corpus **c, const struct ppl_options *o, const struct eval *v, struct err *e)
{
    struct corpus_options d = o->data;
    char *own = d.tokenizer ? NULL : weights_tokenizer_path(v->o->model);
    int rc;

    if (!d.tokenizer)
        d.tokenizer = own;
    d.force = v->o->force;
    d.model = v->o->model;
    d.vocab = v->s.config.vocab;
    rc = corpus_open(c, &d, e);
    if (rc == 0 && *corpus_warning(*c))
        log_warn("%s", corpus_warning(*c));
    if (rc == 0)
        log_info("data '%s': %s%s%s, %" PRId64 " tokens in %" PRId64 " document%s", d.path,
                 corpus_form(*c), *corpus_split(*c) ? ", split " : "",
                 corpus_split(*c), corpus_tokens(*c), corpus_docs(*c),
                 corpus_docs(*c) == 1 ? "" : "s");
    free(own);
    return rc;
}

/* Chooses the windows of every context before the model is loaded: wrong options or short
 * data are told at once, and the longest window decides the memory to plan. */
static int list_windows(struct ppl_job *j, struct eval *v, struct err *e)
{
    for (int64_t i = 0; i < v->n; i++) {
        int64_t longest;
        int rc;

        j->spec[i] = (struct window_spec){ .protocol = (enum protocol)j->o->protocol,
                                           .ctx = v->ctx[i], .step = j->o->step,
                                           .mean_of = j->o->mean_of,
                                           .max_windows = j->o->max_windows };
        if ((rc = score_windows(&j->list[i], j->data, &j->spec[i], j->o->join, &longest, e)) < 0)
            return rc;
        if (longest < j->spec[i].ctx)
            log_warn("ctx %" PRId64 ": the longest document has only %" PRId64 " tokens%s",
                     j->spec[i].ctx, longest,
                     corpus_docs(j->data) > 1 ? "; --join lets windows cross documents" : "");
        /* For the memory plan: windows of short data are shorter than ctx. */
        v->longest[i] = j->list[i].longest;
    }
    return 0;
}

int ppl_prepare(struct eval *v, struct err *e)
{
    struct ppl_job *j = v->state = calloc(1, sizeof *j);
    int rc;

    if (!j)
        return err_set(e, E_SYS, "out of memory");
    j->o = v->asked;
    j->r.n = v->n;
    rc = ppl_open_data(&j->data, j->o, v, e);
    return rc < 0 ? rc : list_windows(j, v, e);
}

/* What 'tell' needs: it is called after every batch. */
struct told {
    struct eval *v;
    const struct window_list *l;
    double start;
};

/* "  mfu 61%  14.9 GiB": share of the device's matrix rate, memory the model took. */
static void tell_device(struct eval *v, int64_t ctx, double rate, char *out, size_t cap)
{
    /* One window of ctx tokens as one segment: its operations per token, times the tokens a
     * second, are the operations a second. */
    int64_t cu[2] = { 0, ctx };
    struct segments window = { .half = { { 1, cu }, { 1, cu } } };
    double flop = model_flops(&v->s.config, TRAIN_NONE, &window) / (double)ctx;
    size_t taken = eval_taken(v);
    char mem[16];

    snprintf(out, cap, "mfu %.0f%%  %s",
             v->matrix_rate > 0 ? 100 * rate * flop / v->matrix_rate : 0,
             fmt_bytes((double)(taken ? taken : v->s.plan.total), mem, sizeof mem));
}

/* The progress line: windows done, perplexity so far, speed, time left. */
static void tell(void *arg, const struct score *s)
{
    const struct told *t = arg;
    double spent, left, rate;
    char eta[24], device[64];

    if (!log_progress_due())
        return;
    spent = now_s() - t->start;
    left = s->windows ? spent * (double)(t->l->n - s->windows) / (double)s->windows : 0;
    rate = spent > 0 ? (double)s->read / spent : 0;
    tell_device(t->v, s->ctx, rate, device, sizeof device);
    log_progress("ctx %" PRId64 "  window %" PRId64 "/%" PRId64 "  ppl %.4f  %.0f tokens/s  "
                 "%s  ETA %s", s->ctx, s->windows, t->l->n, score_ppl(s), rate, device,
                 fmt_duration(left, eta, sizeof eta));
}

/* Scores the contexts first .. first + n - 1, which share one loaded model. */
int ppl_score(struct eval *v, int64_t first, int64_t n, struct err *e)
{
    struct ppl_job *j = v->state;
    int64_t most = v->s.options.ctx * v->s.options.seqs;
    const char *notes;
    int rc = 0;

    for (int64_t i = first; i < first + n && rc == 0; i++) {
        const struct window_list *l = &j->list[i];
        /* Time starts anew for every context, as the estimate is for its windows. */
        struct told t = { v, l, now_s() };
        /* A window must fit whole; beyond that, the model was planned for 'most' tokens at
         * once. */
        int64_t rows = l->longest > v->o->batch_tokens ? l->longest : v->o->batch_tokens;

        log_info("ctx %" PRId64 ": windows %" PRId64 " of %" PRId64 ", predictions %" PRId64 "%s",
                 j->spec[i].ctx, l->n, l->all, l->scored,
                 corpus_masks(j->data) ? " less those of masked tokens" : "");
        rc = score_run(&j->r.row[i], j->o->by_document ? &j->docs[i] : NULL, &v->s,
                       rows < most ? rows : most, j->data, &j->spec[i], l,
                       tell, &t, e);
        if ((notes = device_notes(&v->s.device)))
            log_warn("%s", notes);
        /* The state at the end, if it is time for another line. */
        if (rc == 0 && log_progress_due())
            tell(&t, &j->r.row[i]);
        log_progress_end();
    }
    if (rc < 0 && *e->msg != '\'') /* the data name themselves, the arithmetic does not */
        err_within(e, "'%s'", j->o->data.path);
    return rc;
}

void ppl_describe(struct result *r, const struct ppl_options *o, const struct eval *v,
                  const struct corpus *data)
{
    measured_fill(&r->of, v, o->label);
    measured_device(&r->of, v);
    snprintf(r->data, sizeof r->data, "%s", o->data.path);
    snprintf(r->form, sizeof r->form, "%s", corpus_form(data));
    snprintf(r->split, sizeof r->split, "%s", corpus_split(data));
    r->data_tokens = corpus_tokens(data);
    r->data_docs = corpus_docs(data);
    r->data_hash = corpus_hash(data);
    snprintf(r->masks, sizeof r->masks, "%s", corpus_masks(data) ? "left out"
                                              : corpus_masked(data) ? "scored" : "");
}

/* Fills in what was measured and how, around the scores. */
const struct result *ppl_result(struct eval *v)
{
    struct ppl_job *j = v->state;
    const struct ppl_options *o = j->o;
    struct result *r = &j->r;

    ppl_describe(r, o, v, j->data);
    snprintf(r->protocol, sizeof r->protocol, "%s", protocol_name((enum protocol)o->protocol));
    r->mean_of = o->mean_of > 0 ? o->mean_of : 1;
    r->joined = o->join || o->protocol == PROTO_LONGLORA;
    return r;
}

void ppl_close(struct eval *v)
{
    struct ppl_job *j = v->state;

    for (int i = 0; i < RESULT_ROWS; i++)
        windows_free(&j->list[i]), score_docs_free(&j->docs[i]);
    corpus_close(j->data);
    free(j);
}
