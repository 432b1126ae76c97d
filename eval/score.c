/* eval/score.c - see score.h. */
#include "eval/score.h"

#include "base/bytes.h"
#include "base/log.h"
#include "kernels/group.h"
#include "model/rope.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One stretch a document, or one for all. */
static int stretches(struct corpus *c, bool one, struct stretch **out, int64_t *n,
                     int64_t *longest, struct err *e)
{
    struct stretch *s;
    struct corpus_doc d;
    size_t bytes;
    int rc;

    *n = one ? 1 : corpus_docs(c);
    *longest = 0;
    /* One element more, so that s[0] exists where there is no document. */
    if (!mul_ok((size_t)*n + 1, sizeof *s, &bytes) || !(s = malloc(bytes)))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " documents", *n);
    s[0] = (struct stretch){ 0, corpus_tokens(c) };
    for (int64_t i = 0; i < *n; i++) {
        if (!one) {
            if ((rc = corpus_doc(c, i, &d, e)) < 0) {
                free(s);
                return rc;
            }
            s[i] = (struct stretch){ d.start, d.n };
        }
        if (s[i].n > *longest)
            *longest = s[i].n;
    }
    *out = s;
    return 0;
}

int score_windows(struct window_list *l, struct corpus *c, const struct window_spec *spec,
                  bool join, int64_t *longest, struct err *e)
{
    struct stretch *s = NULL;
    int64_t n;
    /* The LongLoRA protocol always treats the data as one stream, as its reference does. */
    int rc = stretches(c, join || spec->protocol == PROTO_LONGLORA, &s, &n, longest, e);

    memset(l, 0, sizeof *l);
    if (rc < 0)
        return rc;
    rc = windows_build(l, spec, s, n, e);
    free(s);
    if (rc < 0 || l->n > 0)
        return rc;
    /* No window at all: the rest says why. */
    if (corpus_tokens(c) < 2) {
        err_set(e, E_DATA, "%" PRId64 " tokens: nothing to predict", corpus_tokens(c));
        return err_hint(e, "give more text, or another --split");
    }
    if (spec->protocol != PROTO_LONGLORA)
        return err_set(e, E_DATA, "no document has two tokens: nothing to predict");
    err_set(e, E_DATA, "%" PRId64 " tokens are fewer than one window of %" PRId64,
            corpus_tokens(c), spec->ctx);
    return err_hint(e, "give more data, a --ctx up to %" PRId64 ", or --protocol nonoverlap",
                    corpus_tokens(c));
}

struct scoring {
    struct score *s;
    struct score_docs *docs; /* or NULL */
    struct session *m;
    struct corpus *c;
    const struct window_spec *spec;
    int32_t *ids, *targets;
    float *nll, *all;        /* this rank's losses; those of every rank, one after the other */
    uint8_t *mask;           /* of a window; NULL: no token has one */
    double batch_sum, mean_sum; /* of means: windows of the batch, batches before it */
    int64_t in_batch, batches;
    int64_t last_doc;        /* documents are counted as windows ascend */
    int64_t text, whole;     /* tokens with text: scored; all those of the documents counted */
    bool unknown;            /* some document does not know its text */
};

/* Puts windows w[0 .. n) into the batch, each padded to len. Position i predicts token
 * i + 1; it counts only if that token is one that the window scores. */
static int fill_batch(struct scoring *r, const struct window *w, int64_t n, int64_t len,
                      struct err *e)
{
    for (int64_t q = 0; q < n; q++) {
        int32_t *ids = r->ids + q * len, *t = r->targets + q * len;
        int rc = corpus_read(r->c, w[q].start, w[q].len, ids, r->mask, e);

        if (rc < 0)
            return rc;
        for (int64_t i = w[q].len; i < len; i++)
            ids[i] = 0;
        for (int64_t i = 0; i < len; i++)
            t[i] = i + 1 >= w[q].from && i + 1 < w[q].len && !(r->mask && r->mask[i + 1])
                       ? ids[i + 1] : -1;
    }
    return 0;
}

/* The text behind the window's scored tokens, document by document: its bytes and words are
 * shared out evenly over its tokens. Documents begin no earlier than those counted before. */
static int add_text(struct scoring *r, const struct window *w, const float *nll, struct err *e)
{
    int64_t from = w->start + w->from, to = w->start + w->len;
    struct score *s = r->s;
    struct corpus_doc d;
    int rc;

    for (int64_t i = r->last_doc; i < corpus_docs(r->c); i++) {
        int64_t text, n = 0;

        if ((rc = corpus_doc(r->c, i, &d, e)) < 0)
            return rc;
        if (d.start >= to)
            break;
        if (d.start + d.n <= from)
            continue;
        text = d.whole - d.bos - d.eos;
        /* The same document may go on through many windows: it is counted once. */
        if (i > r->last_doc || s->docs == 0) {
            s->docs++;
            r->whole += text;
        }
        r->last_doc = i;
        for (int64_t k = d.start + d.bos > from ? d.start + d.bos : from;
             k < to && k < d.start + d.whole - d.eos; k++) {
            if (r->mask && r->mask[k - w->start])
                continue;
            s->text_nll += (double)nll[k - w->start - 1];
            n++;
        }
        r->text += n;
        s->bytes += text > 0 ? (double)n / (double)text * (double)d.bytes : 0;
        s->words += text > 0 ? (double)n / (double)text * (double)d.words : 0;
        /* One document of unknown size makes the whole sum unknown. */
        r->unknown |= d.bytes <= 0 && text > 0;
    }
    return 0;
}

/* The mean of a window of n predictions goes to that of its batch. */
static void add_mean(struct scoring *r, double sum, int64_t n)
{
    struct score *s = r->s;

    if (n > 0) {
        r->batch_sum += sum / (double)n;
        r->in_batch++;
    }
    if (r->in_batch >= (r->spec->mean_of > 0 ? r->spec->mean_of : 1)) {
        r->mean_sum += r->batch_sum / (double)r->in_batch;
        r->batches++;
        r->batch_sum = 0, r->in_batch = 0;
    }
    /* The LongLoRA protocol takes the mean of the batches' means, the others the mean over
     * tokens. */
    if (s->tokens == 0)
        s->loss = 0;
    else if (r->spec->protocol != PROTO_LONGLORA)
        s->loss = s->nll / (double)s->tokens;
    else if (r->in_batch == 0)
        s->loss = r->mean_sum / (double)r->batches;
    else
        s->loss = (r->mean_sum + r->batch_sum / (double)r->in_batch) / (double)(r->batches + 1);
}

void score_docs_free(struct score_docs *d)
{
    free(d->v);
    *d = (struct score_docs){ 0 };
}

/* The sums of document doc: windows ascend, so it is the last one or a new one. */
static int doc_sums(struct score_docs *d, int64_t doc, struct score_doc **out, struct err *e)
{
    if (d->n == 0 || d->v[d->n - 1].doc != doc) {
        if (array_grow(&d->v, &d->cap, (size_t)d->n, sizeof *d->v, 64, "documents", e) < 0)
            return E_SYS;
        d->v[d->n++] = (struct score_doc){ .doc = doc };
    }
    *out = &d->v[d->n - 1];
    return 0;
}

/* Adds a window's losses to its document. */
static int add_document(struct scoring *r, const struct window *w, const float *nll, struct err *e)
{
    int64_t far = r->spec->ctx - r->spec->ctx / 4;
    struct score_doc *d = NULL;
    int rc = doc_sums(r->docs, corpus_doc_at(r->c, w->start), &d, e);

    for (int64_t i = w->from; i < w->len && rc == 0; i++) {
        if (r->mask && r->mask[i])
            continue;
        d->all.nll += (double)nll[i - 1];
        d->all.n++;
        d->far.nll += i >= far ? (double)nll[i - 1] : 0;
        d->far.n += i >= far;
    }
    return rc;
}

/* Adds one scored window: nll has its rows. Its ids have been used, and are read again for their
 * masks. */
static int add_window(struct scoring *r, const struct window *w, const float *nll, struct err *e)
{
    struct score *s = r->s;
    double sum = 0;
    int64_t n = 0;
    int rc;

    if (r->mask && (rc = corpus_read(r->c, w->start, w->len, r->ids, r->mask, e)) < 0)
        return rc;
    /* nll[i - 1] is the loss of token i, which has i tokens before it. Its bucket is the
     * number of the highest bit: 5 tokens before are in bucket 2, for 4 to 7. */
    for (int64_t i = w->from; i < w->len; i++) {
        struct score_bucket *b = &s->bucket[63 - __builtin_clzll((uint64_t)i)];

        if (r->mask && r->mask[i])
            continue;
        sum += (double)nll[i - 1];
        b->nll += (double)nll[i - 1];
        b->n++;
        n++;
    }
    if (!isfinite(sum)) {
        err_set(e, E_DATA, "the loss of the window at token %" PRId64 " is not finite",
                w->start);
        return err_hint(e, "the weights hold NaN or infinity, or overflow ('linfo --verify' "
                           "checks them)");
    }
    s->nll += sum;
    s->tokens += n;
    s->masked += w->len - w->from - n;
    s->read += w->len;
    s->windows++;
    add_mean(r, sum, n);
    if (r->docs && (rc = add_document(r, w, nll, e)) < 0)
        return rc;
    return add_text(r, w, nll, e);
}

/* Rounds len up so that few shapes occur. The step is between 1/16 and 1/8 of len, and at
 * least 64: 1000 becomes 1024, and 5000 becomes 5120. */
int64_t score_length(int64_t len, int64_t longest)
{
    int64_t step = 64;

    while (step * 16 <= len)
        step *= 2;
    len = (len + step - 1) / step * step;
    return len < longest ? len : longest;
}

/* The length that a window is computed at. On a GPU, which makes a plan for every shape, it is
 * rounded, unless RoPE would have other frequencies then. */
static int64_t padded(const struct scoring *r, int64_t len, int64_t longest)
{
    const struct rope_config *rope = &r->m->config.rope;
    int64_t n = r->m->device.own_memory ? score_length(len, longest) : len;

    return rope_length(rope, n) == rope_length(rope, len) ? n : len;
}

/* How many of the n windows at w go together: their longest sets the length of each. */
static int64_t together(const struct scoring *r, const struct window *w, int64_t n, int64_t longest,
                        int64_t rows, int64_t *len)
{
    int64_t k = 0, cp = r->m->options.cp > 1 ? r->m->options.cp : 1;

    *len = 0;
    while (k < n && (cp == 1 || k == 0)) {
        const struct rope_config *rope = &r->m->config.rope;
        int64_t its = padded(r, w[k].len, longest), most = its > *len ? its : *len;

        /* (k + 1) windows of this length must fit into rows. A division cannot overflow. */
        if (k > 0 && (most > rows / (k + 1) ||
                      rope_length(rope, w[k].len) != rope_length(rope, w->len)))
            break;
        *len = most;
        k++;
    }
    *len = *len < cp ? cp : *len; /* each of the ranks that share it has a token */
    return k;
}

/* Windows that are computed together, as n sequences of len tokens. */
struct piece {
    const struct window *w;
    int64_t n, len;
};

static struct piece next_piece(const struct scoring *r, const struct window_list *l, int64_t rows,
                               int64_t *at)
{
    struct piece p = { .w = l->v + *at };

    p.n = together(r, p.w, l->n - *at, l->longest, rows, &p.len);
    *at += p.n;
    return p;
}

static int compute(struct scoring *r, const struct piece *p, struct err *e)
{
    double sum;
    int64_t scored;
    int rc = fill_batch(r, p->w, p->n, p->len, e);

    if (r->m->line) /* each fills in its part */
        rc = group_meet(r->m->line, rc, NULL, e);
    return rc < 0 ? rc : session_losses(r->m, p->n, p->len, r->ids, r->targets, r->nll, &sum,
                                        &scored, e);
}

/* The next pieces, one for each rank of the device's group, or for each line of ranks that share a
 * window: every rank computes its own, or its part of it, then
 * all have all losses, and add them in the order of the windows: so the sums are those of one
 * rank. */
static int score_round(struct scoring *r, const struct window_list *l, int64_t rows, int64_t *at,
                       struct err *e)
{
    struct group *g = r->m->device.group;
    int64_t next = *at;
    int cp = r->m->line ? r->m->line->size : 1, rc = 0;

    if (cp > 1)
        memset(r->nll, 0, (size_t)rows * sizeof *r->nll);

    /* Every rank goes through the pieces before its own, as that is how it finds where they
     * end. */
    for (int k = 0; k <= g->rank / cp && next < l->n && rc == 0; k++) {
        struct piece p = next_piece(r, l, rows, &next);
        if (k == g->rank / cp)
            rc = compute(r, &p, e);
    }
    if ((rc = group_meet(g, rc, NULL, e)) == 0)
        rc = g->gather(g, r->nll, r->all, (size_t)rows * sizeof *r->nll, e);
    /* Now all go through the same pieces once more, with the losses of all ranks. *at moves
     * on. */
    for (int k = 0; k < g->size && *at < l->n && rc == 0; k += cp) {
        struct piece p = next_piece(r, l, rows, at);

        for (int64_t i = rows; i < cp * rows; i++) /* the parts of others are 0 */
            r->all[k * rows + i % rows] += r->all[k * rows + i];
        for (int64_t q = 0; q < p.n && rc == 0; q++)
            rc = add_window(r, &p.w[q], r->all + k * rows + q * p.len, e);
    }
    return rc;
}

/* With one rank, 'all' is the same buffer as 'nll', and is freed only once. */
static int open_run(struct scoring *r, int64_t rows, struct err *e)
{
    int ranks = r->m->device.group->size;
    size_t n, all;

    if (rows < 1 || !mul_ok((size_t)rows, sizeof *r->nll, &n) ||
        !mul_ok(n, (size_t)ranks, &all) || !(r->ids = malloc(n)) || !(r->targets = malloc(n)) ||
        !(r->nll = malloc(n)) || !(r->all = ranks == 1 ? r->nll : malloc(all)) ||
        (corpus_masks(r->c) && !(r->mask = malloc((size_t)rows))))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " tokens at once", rows);
    return 0;
}

/* What is known of the text: exact only where every token with text of every document counted was
 * scored, once. Instructions have tokens of a template that no text stands behind. Whole documents have whole words: the shares' rounding goes. */
static void finish(struct scoring *r)
{
    struct score *s = r->s;

    if (r->unknown)
        s->bytes = s->words = 0;
    s->text_exact = s->bytes > 0 && r->spec->protocol != PROTO_LONGLORA && r->text == r->whole &&
                    corpus_masked(r->c) == 0;
    if (s->text_exact)
        s->bytes = round(s->bytes), s->words = round(s->words);
}

int score_run(struct score *s, struct score_docs *docs, struct session *m, int64_t rows,
              struct corpus *c, const struct window_spec *spec, const struct window_list *l,
              score_progress *progress, void *arg, struct err *e)
{
    struct scoring r = { .s = s, .docs = docs, .m = m, .c = c, .spec = spec };
    double start = now_s();
    int rc;

    /* The sums start at 0 and grow window by window. */
    *s = (struct score){ .ctx = spec->ctx, .windows_all = l->all, .by_doc = docs,
                         .step = spec->step ? spec->step
                                            : windows_default_step(spec->protocol, spec->ctx) };
    if (l->longest > rows)
        return err_set(e, E_BUG, "a window of %" PRId64 " tokens is longer than the buffer of "
                                 "%" PRId64,
                       l->longest, rows);
    rc = group_meet(m->device.group, open_run(&r, rows, e), NULL, e);
    for (int64_t i = 0; i < l->n && rc == 0;) {
        rc = score_round(&r, l, rows, &i, e);
        s->seconds = now_s() - start;
        if (progress && rc == 0)
            progress(arg, s);
    }
    if (rc == 0 && s->tokens == 0) {
        rc = err_set(e, E_DATA, "all tokens of the windows are masked: nothing is scored");
        err_hint(e, "--all-tokens scores them");
    }
    finish(&r);
    free(r.mask);
    free(r.ids);
    free(r.targets);
    if (r.all != r.nll)
        free(r.all);
    free(r.nll);
    return rc;
}
