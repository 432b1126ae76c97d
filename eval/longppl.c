/* eval/longppl.c - see longppl.h. */
#include "eval/longppl.h"

#include "base/file.h"
#include "base/log.h"
#include "base/plot.h"
#include "eval/keys.h"
#include "eval/ppl.h"
#include "kernels/group.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct longppl_options {
    bool asked;
    int64_t short_ctx, slide;
    const char *keys;
} asked = { .short_ctx = 4096, .slide = 1024 };

static const struct opt rows[] = {
    { 0, "longppl", NULL, OPT_FLAG, &asked.asked, 0, 0,
      "with --ppl: perplexity of the tokens that need a long context" },
    { 0, "short", "N", OPT_TOKENS, &asked.short_ctx, 1, 0x1p31, "the short context [4k]" },
    { 0, "slide", "N", OPT_TOKENS, &asked.slide, 1, 0x1p31, "tokens that share a short context [1k]" },
    { 0, "key-tokens", "FILE", OPT_STR, &asked.keys, 0, 0,
      "another model's key tokens; if not there, write this model's" },
    OPT_END
};

/* What is measured, from prepare to close. */
struct job {
    const struct ppl_options *p;
    struct result r;
    struct corpus *data;
    struct score_docs docs[RESULT_ROWS];
    struct keys keys;
    bool given;        /* they were read */
    int64_t rows;      /* tokens at once */
    int32_t *ids, *targets;
    uint8_t *mask;
    float *full, *some; /* [longest] losses of the document's tokens: in full, in short windows */
    float *mine, *all;  /* of a piece, this rank's and everybody's: [rows], [ranks][rows] */
    int64_t *at;        /* key tokens of a document */
};

/* n windows of len tokens, from token 'start' of the document, each 'step' behind the one before. */
struct piece_of {
    int64_t start, len, n, step;
};

static bool is_asked(const struct eval_options *o)
{
    (void)o;
    return asked.asked;
}

static int check(const struct eval_options *o, struct err *e)
{
    const struct ppl_options *p = ppl_asked();

    if (!p->data.path || !o->model) {
        err_set(e, E_USAGE, "no %s given", p->data.path ? "--model DIR" : "--ppl FILE");
        return err_hint(e, "leval --help shows examples");
    }
    if (o->n_operands)
        return err_set(e, E_USAGE, "--ppl takes one file; only --table takes more");
    if (p->join || p->by_position || p->protocol != PROTO_LONGLORA || p->step || p->max_windows || o->cp > 1)
        return err_set(e, E_USAGE, "--longppl has windows of its own: leave out --%s",
                       p->join ? "join" : p->by_position ? "by-position" : p->step ? "step"
                       : p->max_windows ? "max-windows" : o->cp > 1 ? "cp" : "protocol");
    if (p->by_document && !o->json)
        return err_set(e, E_USAGE, "--by-document needs --json");
    return eval_check_plot(o, e);
}

/* Key tokens that were found before must be of this data and these windows. */
static int take_keys(struct job *j, struct err *e)
{
    struct keys *k = &j->keys;
    int rc = 0;

    if (asked.keys && path_exists(asked.keys) && (rc = keys_read(k, asked.keys, e)) == 0) {
        j->given = true;
        if (k->data_hash != corpus_hash(j->data) || k->short_ctx != asked.short_ctx || k->slide != asked.slide)
            return err_set(e, E_CONFIG, "'%s' has the key tokens of other data, or of --short %" PRId64
                           " --slide %" PRId64, asked.keys, k->short_ctx, k->slide);
    }
    k->data_hash = corpus_hash(j->data);
    k->short_ctx = asked.short_ctx;
    k->slide = asked.slide;
    return rc;
}

/* The document's tokens that are used; 0: too few. */
static int64_t used(const struct corpus_doc *d, int64_t ctx)
{
    int64_t n = d->n < ctx ? d->n : ctx;

    return n > asked.short_ctx ? n : 0;
}

/* The longest document at each context, and whether the keys that were given are of it. */
static int look_at_docs(struct job *j, struct eval *v, struct err *e)
{
    for (int64_t i = 0; i < v->n; i++) {
        int64_t longest = 0, n;
        struct corpus_doc d;
        int rc;

        for (int64_t k = 0; k < corpus_docs(j->data); k++) {
            if ((rc = corpus_doc(j->data, k, &d, e)) < 0)
                return rc;
            n = used(&d, v->ctx[i]);
            longest = n > longest ? n : longest;
            if (n && j->given && !keys_find(&j->keys, v->ctx[i], k))
                return err_set(e, E_CONFIG, "'%s' has no key tokens for --ctx %" PRId64, asked.keys, v->ctx[i]);
        }
        if (longest == 0) {
            err_set(e, E_DATA, "no document has more than %" PRId64 " tokens within --ctx %" PRId64,
                    asked.short_ctx, v->ctx[i]);
            return err_hint(e, "raise --ctx, or lower --short");
        }
        v->longest[i] = longest;
    }
    return 0;
}

static int prepare(struct eval *v, struct err *e)
{
    struct job *j = v->state = calloc(1, sizeof *j);
    int rc;

    if (!j)
        return err_set(e, E_SYS, "out of memory");
    j->p = ppl_asked();
    j->r.n = v->n;
    if ((rc = ppl_open_data(&j->data, j->p, v, e)) == 0 && (rc = take_keys(j, e)) == 0)
        rc = look_at_docs(j, v, e);
    return rc;
}

static int open_run(struct job *j, const struct eval *v, struct err *e)
{
    const struct model_options *o = &v->s.options;
    size_t n = (size_t)o->ctx, ranks = (size_t)v->s.device.group->size;

    j->rows = o->ctx * o->seqs;
    j->ids = malloc(n * sizeof *j->ids);
    j->targets = malloc((size_t)j->rows * 2 * sizeof *j->targets);
    j->mask = malloc(n);
    j->full = malloc(n * sizeof *j->full);
    j->some = malloc(n * sizeof *j->some);
    j->mine = calloc((size_t)j->rows, sizeof *j->mine);
    j->all = malloc((size_t)j->rows * ranks * sizeof *j->all);
    j->at = malloc(n * sizeof *j->at);
    if (j->ids && j->targets && j->mask && j->full && j->some && j->mine && j->all && j->at)
        return 0;
    return err_set(e, E_SYS, "out of memory for %" PRId64 " tokens at once", j->rows);
}

static void close_run(struct job *j)
{
    free(j->ids);
    free(j->targets);
    free(j->mask);
    free(j->full);
    free(j->some);
    free(j->mine);
    free(j->all);
    free(j->at);
    j->ids = j->targets = NULL, j->mask = NULL;
    j->full = j->some = j->mine = j->all = NULL, j->at = NULL;
}

/* The document's pieces in order: all of it, then short windows, as many together as there is room for; the
 * last window may be shorter. false: there is none after the first 'number'. */
static bool piece_at(const struct job *j, int64_t n, int64_t number, struct piece_of *p)
{
    int64_t len = asked.short_ctx + asked.slide, whole = (n - asked.short_ctx) / asked.slide, each, first;

    if (number == 0) {
        *p = (struct piece_of){ 0, n, 1, 0 };
        return true;
    }
    each = j->rows / len > 0 ? j->rows / len : 1;
    first = (number - 1) * each;
    if (first < whole) {
        *p = (struct piece_of){ first * asked.slide, len, whole - first < each ? whole - first : each, asked.slide };
        return true;
    }
    *p = (struct piece_of){ whole * asked.slide, n - whole * asked.slide, 1, 0 };
    return number - 1 == (whole + each - 1) / each && p->len > asked.short_ctx;
}

/* Losses of a piece into mine: position i of a window has that of the next token. */
static int compute(struct job *j, struct eval *v, const struct piece_of *p, struct err *e)
{
    int32_t *ids = j->targets + j->rows;
    double sum;
    int64_t scored;

    for (int64_t w = 0; w < p->n; w++) {
        const int32_t *from = j->ids + p->start + w * p->step;

        memcpy(ids + w * p->len, from, (size_t)p->len * sizeof *ids);
        memcpy(j->targets + w * p->len, from + 1, (size_t)(p->len - 1) * sizeof *ids);
        j->targets[w * p->len + p->len - 1] = -1;
    }
    return session_losses(&v->s, p->n, p->len, ids, j->targets, j->mine, &sum, &scored, e);
}

/* Where the losses of a piece belong: full ones of tokens 1 .., short ones of a window's last. */
static void keep(struct job *j, const struct piece_of *p, bool full, const float *nll)
{
    for (int64_t w = 0; w < p->n; w++)
        for (int64_t i = full ? 1 : asked.short_ctx; i < p->len; i++)
            (full ? j->full : j->some)[p->start + w * p->step + i] = nll[w * p->len + i - 1];
}

/* All losses of a document, its pieces dealt over the ranks. Of given keys the full ones are enough. */
static int losses(struct job *j, struct eval *v, int64_t n, struct err *e)
{
    struct group *g = v->s.device.group;
    struct piece_of p;
    int rc = 0;

    for (int64_t from = 0; rc == 0 && piece_at(j, n, from, &p) && !(j->given && from > 0); from += g->size) {
        int64_t mine = from + g->rank;

        if (piece_at(j, n, mine, &p) && !(j->given && mine > 0))
            rc = compute(j, v, &p, e);
        if ((rc = group_meet(g, rc, NULL, e)) == 0)
            rc = g->gather(g, j->mine, j->all, (size_t)j->rows * sizeof *j->all, e);
        for (int64_t k = from; k < from + g->size && rc == 0 && piece_at(j, n, k, &p); k++)
            if (!(j->given && k > 0))
                keep(j, &p, k == 0, j->all + (k - from) * j->rows);
    }
    return rc;
}

static int add_doc(struct job *j, struct score *s, struct score_docs *docs, int64_t ctx, int64_t doc, int64_t n,
                   struct err *e)
{
    const struct key_list *known = j->given ? keys_find(&j->keys, ctx, doc) : NULL;
    size_t cap = (size_t)docs->cap;
    struct score_doc *d;
    int64_t count = 0, k = 0;
    int rc = array_grow(&docs->v, &cap, (size_t)docs->n, sizeof *docs->v, 64, "documents", e);

    docs->cap = (int64_t)cap;
    if (rc < 0)
        return rc;
    d = &docs->v[docs->n++];
    *d = (struct score_doc){ .doc = doc };
    for (int64_t t = 1; t < n; t++) {
        bool key = known ? k < known->n && known->at[k] == t
                         : t >= asked.short_ctx && key_token(j->some[t], j->full[t]);

        k += known && key;
        if (j->mask[t])
            continue;
        d->all.nll += (double)j->full[t], d->all.n++;
        if (key) {
            d->far.nll += (double)j->full[t], d->far.n++;
            j->at[count++] = t;
        }
    }
    if (!isfinite(d->all.nll))
        return err_set(e, E_DATA, "the loss of document %" PRId64 " is not finite", doc);
    s->all_nll += d->all.nll, s->all_tokens += d->all.n;
    s->nll += d->far.nll, s->tokens += d->far.n;
    s->loss = s->tokens ? s->nll / (double)s->tokens : NAN;
    s->read += n;
    s->docs++;
    s->windows++;
    return j->given ? 0 : keys_add(&j->keys, ctx, doc, j->at, count, e);
}

static int score_ctx(struct job *j, struct eval *v, int64_t i, struct err *e)
{
    struct score *s = &j->r.row[i];
    double start = now_s();
    struct corpus_doc d;
    int rc = 0;

    *s = (struct score){ .ctx = v->ctx[i], .step = asked.slide };
    for (int64_t k = 0; k < corpus_docs(j->data) && rc == 0; k++) {
        int64_t n;

        if ((rc = corpus_doc(j->data, k, &d, e)) < 0 || (n = used(&d, v->ctx[i])) == 0)
            continue;
        memset(j->mask, 0, (size_t)n);
        if ((rc = corpus_read(j->data, d.start, n, j->ids, corpus_masks(j->data) ? j->mask : NULL, e)) == 0 &&
            (rc = losses(j, v, n, e)) == 0)
            rc = add_doc(j, s, &j->docs[i], v->ctx[i], k, n, e);
        s->seconds = now_s() - start;
        log_progress("ctx %" PRId64 "  document %" PRId64 "/%" PRId64 "  key tokens %" PRId64 "  LongPPL %.4f",
                     s->ctx, k + 1, corpus_docs(j->data), s->tokens, score_ppl(s));
    }
    log_progress_end();
    s->windows_all = s->windows;
    s->by_doc = j->p->by_document ? &j->docs[i] : NULL;
    if (rc == 0 && s->tokens == 0)
        log_warn("ctx %" PRId64 ": there are no key tokens, and so no LongPPL", s->ctx);
    return rc;
}

static int run(struct eval *v, int64_t first, int64_t n, struct err *e)
{
    struct job *j = v->state;
    int rc = group_meet(v->s.device.group, open_run(j, v, e), NULL, e);

    for (int64_t i = first; i < first + n && rc == 0; i++)
        rc = score_ctx(j, v, i, e);
    close_run(j);
    return rc;
}

static int put_table(struct buf *b, const struct result *r, struct err *e)
{
    char text[1400];
    int rc;

    if ((rc = measured_line(b, &r->of, e)) == 0)
        rc = buf_printf(b, e, "data      ");
    snprintf(text, sizeof text, "%s (%s, %" PRId64 " documents)", r->data, r->form, r->data_docs);
    if (rc == 0 && (rc = buf_add_clean(b, text, e)) == 0)
        rc = buf_printf(b, e, "\nkeys      of ");
    if (rc == 0 && (rc = buf_add_clean(b, r->keys, e)) == 0)
        rc = buf_printf(b, e, ": short context %" PRId64 ", slide %" PRId64 "\n%10s  %10s  %10s  %10s  %10s  %5s  "
                        "%8s\n", asked.short_ctx, asked.slide, "ctx", "LongPPL", "key tokens", "ppl", "tokens",
                        "docs", "tokens/s");
    for (int64_t i = 0; i < r->n && rc == 0; i++) {
        const struct score *s = &r->row[i];
        char ppl[32] = "-";

        if (s->tokens)
            snprintf(ppl, sizeof ppl, "%.4f", score_ppl(s));
        rc = buf_printf(b, e, "%10" PRId64 "  %10s  %10" PRId64 "  %10.4f  %10" PRId64 "  %5" PRId64 "  %8.0f\n",
                        s->ctx, ppl, s->tokens, exp(s->all_nll / (double)s->all_tokens), s->all_tokens,
                        s->docs, s->seconds > 0 ? (double)s->read / s->seconds : 0);
    }
    return rc;
}

/* The keys go out with the result, by the rank that shows it. */
static int show(struct eval *v, struct err *e)
{
    struct job *j = v->state;
    struct result *r = &j->r;
    struct buf out = { 0 };
    int rc;

    ppl_describe(r, j->p, v, j->data);
    snprintf(r->protocol, sizeof r->protocol, "longppl %" PRId64, asked.short_ctx);
    if (!j->given)
        snprintf(j->keys.by, sizeof j->keys.by, "%s", r->of.label);
    snprintf(r->keys, sizeof r->keys, "%s", asked.keys ? j->keys.by : "itself"); /* in the file, written or read, they have a name */
    r->mean_of = 1;
    rc = v->o->json ? result_json(&out, r, e) : put_table(&out, r, e);
    if (rc == 0)
        rc = eval_deliver(v->o, &out, e);
    if (rc == 0 && asked.keys && !j->given && (rc = keys_write(&j->keys, asked.keys, e)) == 0)
        log_info("key tokens written to '%s'", asked.keys);
    buf_free(&out);
    return rc;
}

static void close_job(struct eval *v)
{
    struct job *j = v->state;

    for (int i = 0; i < RESULT_ROWS; i++)
        score_docs_free(&j->docs[i]);
    keys_free(&j->keys);
    corpus_close(j->data);
    free(j);
}

const struct task task_longppl = {
    .name = "longppl", .help = "LongPPL", .rows = rows, .needs = NEEDS_MODEL, .is_asked = is_asked, .fill = ppl_fill_asked,
    .check = check, .prepare = prepare, .run = run, .show = show, .close = close_job,
};
