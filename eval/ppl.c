/* eval/ppl.c - see ppl.h. */
#include "eval/ppl.h"

#include "base/log.h"
#include "kernels/group.h"
#include "kernels/rate.h"
#include "model/flops.h"
#include "model/rope.h"
#include "model/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct ppl_options *o;
    struct result *r;
    struct session s;
    struct corpus *data;
    int64_t rows; /* the model was opened for */
    double matrix_rate; /* of the device, operations a second */
    struct window_spec spec[RESULT_ROWS];
    struct window_list list[RESULT_ROWS];
};

/* The last name of a path, without slashes at its end. */
static void last_name(const char *path, char *out, size_t cap)
{
    size_t n = strlen(path), from;

    while (n > 1 && path[n - 1] == '/')
        n--;
    for (from = n; from > 0 && path[from - 1] != '/';)
        from--;
    snprintf(out, cap, "%.*s", (int)(n - from), path + from);
}

static void describe_rope(const struct rope_config *p, char *out, size_t cap)
{
    if (p->type == ROPE_DEFAULT)
        snprintf(out, cap, "default");
    else
        snprintf(out, cap, "%s %g", p->type == ROPE_LINEAR ? "linear" : "llama3", p->factor);
}

/* Contexts, and the RoPE they are measured with. */
static int settle_context(struct job *j, struct err *e)
{
    const struct ppl_options *o = j->o;
    struct llama_config *c = &j->s.config;
    int64_t longest = 0, had = c->context;
    int rc;

    j->r->n = o->n_ctx ? o->n_ctx : 1;
    for (int64_t i = 0; i < j->r->n; i++) {
        int64_t ctx = o->n_ctx ? o->ctx[i] : c->context;

        j->spec[i] = (struct window_spec){ o->protocol, ctx, o->step, o->max_windows };
        longest = ctx > longest ? ctx : longest;
    }
    if (o->rope_factor > 0 && j->s.adapter && c->rope.type != ROPE_DEFAULT)
        log_warn("the adapter's own RoPE scaling is multiplied by --rope-factor %g",
                 o->rope_factor);
    if (o->rope_factor != 0) {
        rc = rope_extend(c, longest, o->rope_factor > 0 ? o->rope_factor : 0, e);
        if (rc < 0)
            return rc;
    }
    if (longest > c->context)
        log_info("contexts above the model's %" PRId64 " are computed as they are, without "
                 "further scaling", c->context);
    else if (c->context != had)
        log_info("RoPE scaled: context %" PRId64 " becomes %" PRId64, had, c->context);
    return 0;
}

static int open_data(struct job *j, struct err *e)
{
    struct corpus_options d = j->o->data;
    char *own = d.tokenizer ? NULL : weights_tokenizer_path(j->o->model);
    int rc;

    if (!d.tokenizer)
        d.tokenizer = own;
    d.model = j->o->model;
    d.vocab = j->s.config.vocab;
    rc = corpus_open(&j->data, &d, e);
    if (rc == 0 && *corpus_warning(j->data))
        log_warn("%s", corpus_warning(j->data));
    if (rc == 0)
        log_info("data '%s': %s%s%s, %" PRId64 " tokens in %" PRId64 " document%s", d.path,
                 corpus_form(j->data), *corpus_split(j->data) ? ", split " : "",
                 corpus_split(j->data), corpus_tokens(j->data), corpus_docs(j->data),
                 corpus_docs(j->data) == 1 ? "" : "s");
    free(own);
    return rc;
}

static int list_windows(struct job *j, struct err *e)
{
    for (int64_t i = 0; i < j->r->n; i++) {
        int64_t longest;
        int rc = score_windows(&j->list[i], j->data, &j->spec[i], j->o->join, &longest, e);

        if (rc < 0)
            return rc;
        if (longest < j->spec[i].ctx)
            log_warn("ctx %" PRId64 ": the longest document has only %" PRId64 " tokens%s",
                     j->spec[i].ctx, longest,
                     corpus_docs(j->data) > 1 ? "; --join makes one stream of all" : "");
    }
    return 0;
}

static int open_model(struct job *j, const struct session_options *so, struct err *e)
{
    struct model_options mo;
    struct session *s = &j->s;
    struct err why = { 0 };
    int64_t longest = 1;
    char size[24];
    int rc;

    for (int64_t i = 0; i < j->r->n; i++)
        longest = j->list[i].longest > longest ? j->list[i].longest : longest;
    if ((rc = session_device(s, &so->machine, e)) < 0)
        return rc;
    log_info("device %s: %s", s->device.name, s->device.detail);
    if ((rc = rate_matrix(&s->device, s->free_bytes / 8, &j->matrix_rate, e)) < 0)
        return rc;
    model_defaults(&mo);
    mo.mode = TRAIN_NONE;
    mo.ctx = longest;
    mo.seqs = j->o->batch_tokens / longest > 1 ? j->o->batch_tokens / longest : 1;
    machine_plan(&so->machine, &mo);
    j->rows = mo.ctx * mo.seqs;
    if ((rc = session_plan(s, &mo, e)) < 0)
        return rc;
    if (model_fits(&s->device, &s->plan, &why) < 0) /* what is free is a guess: swap may do */
        log_warn("%s", why.msg);
    log_debug("memory: %s, %" PRId64 " tokens at once, weights of %" PRId64 " layers streamed",
              fmt_bytes((double)s->plan.total, size, sizeof size), j->rows,
              s->plan.placement.streamed);
    return session_load(s, so, e);
}

struct told {
    struct job *j;
    const struct window_list *l;
    double start;
};

/* "  mfu 61%  14.9 GiB": share of the device's matrix rate, memory the model took. */
static void tell_device(struct job *j, int64_t ctx, double rate, char *out, size_t cap)
{
    int64_t cu[2] = { 0, ctx };
    struct segments window = { .half = { { 1, cu }, { 1, cu } } };
    double flop = model_flops(&j->s.config, TRAIN_NONE, &window) / (double)ctx;
    struct device *d = &j->s.device;
    size_t left = d->own_memory ? d->free_bytes(d) : 0;
    size_t taken = d->own_memory && j->s.free_bytes > left ? j->s.free_bytes - left
                                                           : j->s.plan.total;
    char mem[16];

    snprintf(out, cap, "mfu %.0f%%  %s",
             j->matrix_rate > 0 ? 100 * rate * flop / j->matrix_rate : 0,
             fmt_bytes((double)taken, mem, sizeof mem));
}

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
    tell_device(t->j, s->ctx, rate, device, sizeof device);
    log_progress("ctx %" PRId64 "  window %" PRId64 "/%" PRId64 "  ppl %.4f  %.0f tokens/s  "
                 "%s  ETA %s", s->ctx, s->windows, t->l->n, score_ppl(s), rate, device,
                 fmt_duration(left, eta, sizeof eta));
}

static int score_all(struct job *j, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < j->r->n && rc == 0; i++) {
        const struct window_list *l = &j->list[i];
        struct told t = { j, l, now_s() };
        int64_t rows = l->longest > j->o->batch_tokens ? l->longest : j->o->batch_tokens;

        log_info("ctx %" PRId64 ": windows %" PRId64 " of %" PRId64 ", predictions %" PRId64,
                 j->spec[i].ctx, l->n, l->all, l->scored);
        rc = score_run(&j->r->row[i], &j->s, rows < j->rows ? rows : j->rows, j->data,
                       &j->spec[i], l, tell, &t, e);
        if (rc == 0 && log_progress_due())
            tell(&t, &j->r->row[i]);
        log_progress_end();
    }
    if (rc < 0 && *e->msg != '\'') /* the data name themselves, the arithmetic does not */
        err_within(e, "'%s'", j->o->data.path);
    return rc;
}

static void describe(struct job *j)
{
    const struct ppl_options *o = j->o;
    struct result *r = j->r;

    if (o->label)
        snprintf(r->label, sizeof r->label, "%s", o->label);
    else
        last_name(o->adapter ? o->adapter : o->model, r->label, sizeof r->label);
    snprintf(r->model, sizeof r->model, "%s", o->model);
    snprintf(r->adapter, sizeof r->adapter, "%s", o->adapter ? o->adapter : "");
    snprintf(r->data, sizeof r->data, "%s", o->data.path);
    snprintf(r->form, sizeof r->form, "%s", corpus_form(j->data));
    snprintf(r->split, sizeof r->split, "%s", corpus_split(j->data));
    snprintf(r->protocol, sizeof r->protocol, "%s", protocol_name(o->protocol));
    snprintf(r->device, sizeof r->device, "%s, %s", j->s.device.name, j->s.device.detail);
    describe_rope(&j->s.config.rope, r->rope, sizeof r->rope);
    r->context = j->s.config.context;
    r->data_tokens = corpus_tokens(j->data);
    r->data_docs = corpus_docs(j->data);
    r->data_hash = corpus_hash(j->data);
    r->joined = o->join || o->protocol == PROTO_LONGLORA;
}

int ppl_run(struct result *r, const struct ppl_options *o, struct err *e)
{
    struct session_options so = { .model = o->model, .adapter = o->adapter,
                                  .machine = o->machine };
    struct group *g = o->machine.group ? o->machine.group : group_alone();
    struct job *j = calloc(1, sizeof *j);
    int rc;

    memset(r, 0, sizeof *r);
    if (!j)
        return group_meet(g, err_set(e, E_SYS, "out of memory"), NULL, e);
    j->o = o;
    j->r = r;
    if ((rc = session_files(&j->s, &so, e)) == 0 && (rc = settle_context(j, e)) == 0 &&
        (rc = open_data(j, e)) == 0 && (rc = list_windows(j, e)) == 0)
        rc = open_model(j, &so, e);
    if ((rc = group_meet(g, rc, NULL, e)) == 0 && (rc = score_all(j, e)) == 0)
        describe(j);
    for (int i = 0; i < RESULT_ROWS; i++)
        windows_free(&j->list[i]);
    session_close(&j->s);
    corpus_close(j->data);
    free(j);
    return rc;
}
