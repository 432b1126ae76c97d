/* tools/info_sample.c - some documents or rows as text, their bounds and masks shown. */
#include "tools/info.h"

#include "base/perm.h"
#include "base/plot.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokens/dataset.h"

#include <stdlib.h>
#include <string.h>

/* A sample is a document or, with --ctx, a row as training would see it: N tokens in a line,
 * with the end of one document and the start of the next. */
struct sample {
    const struct info_options *o;
    struct dataset *set;
    struct tokenizer *tok;
    FILE *f;
    int64_t n, of; /* tokens in it; of how many documents or rows it was taken */
    int32_t *ids;
    uint8_t *mask;
    json_t *spans;
    bool line_ended;
};

/* Text of ids [at, end). A decoder takes the space off what it is given first, so that within
 * a document the token before goes with it, and what that gives is cut off again. */
static int decode(const struct sample *s, int64_t at, int64_t end, bool inside, char **text,
                  size_t *nbytes, struct err *e)
{
    char *before = NULL;
    size_t cut = 0;
    int rc = inside ? tokenizer_decode(s->tok, s->ids + at - 1, 1, &before, &cut, e) : 0;

    free(before);
    if (rc == 0)
        rc = tokenizer_decode(s->tok, s->ids + at - inside, end - at + inside, text, nbytes, e);
    if (rc == 0 && inside) {
        cut = cut < *nbytes ? cut : *nbytes;
        memmove(*text, *text + cut, *nbytes - cut + 1);
        *nbytes -= cut;
    }
    return rc;
}

/* For a terminal: control characters but line ends and tabs are not passed on. */
static int put_text(struct sample *s, const char *p, size_t n, bool masked, struct err *e)
{
    /* A terminal shows masked text in yellow; without colours it stands in brackets. */
    const char *on = s->o->colour ? "\033[33m" : "[masked: ";
    const char *off = s->o->colour ? "\033[0m" : "]";
    struct buf b = { 0 };
    int rc = buf_add(&b, masked ? on : "", masked ? strlen(on) : 0, e);

    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        char part[256];
        k = 1;
        /* The line end of Windows becomes one of Unix. */
        if (p[i] == '\r' && i + 1 < n && p[i + 1] == '\n')
            continue;
        if (p[i] == '\n' || p[i] == '\t') {
            rc = buf_add(&b, p + i, 1, e);
            continue;
        }
        while (k < sizeof part - 1 && i + k < n && !strchr("\r\n\t", p[i + k]))
            k++;
        /* No character is cut in two where the text goes on: at most 3 bytes of it go back. */
        for (int back = 0; back < 3 && k > 1 && i + k < n && (p[i + k] & 0xC0) == 0x80; back++)
            k--;
        for (size_t j = 0; j < k; j++) /* a NUL would end it for what cleans it */
            part[j] = p[i + j] ? p[i + j] : '?';
        part[k] = '\0';
        rc = buf_add_clean(&b, part, e);
    }
    if (rc == 0 && masked)
        rc = buf_add(&b, off, strlen(off), e);
    if (rc == 0)
        fwrite(b.p, 1, b.len, s->f);
    /* So that a bound begins a line of its own. */
    s->line_ended = n > 0 && p[n - 1] == '\n' && !masked;
    buf_free(&b);
    return rc;
}

/* A line of ours between texts; it begins with a line end where the text had none. */
static int put_line(struct sample *s, const char *colour, const char *text, struct err *e)
{
    struct buf b = { 0 };
    int rc = buf_add_clean(&b, text, e);

    if (rc == 0)
        fprintf(s->f, "%s%s%.*s%s\n", s->line_ended ? "" : "\n", s->o->colour ? colour : "",
                (int)b.len, b.len ? b.p : "", s->o->colour ? "\033[0m" : "");
    s->line_ended = true;
    buf_free(&b);
    return rc;
}

/* Tokens [at, end) of the sample, of one document and all masked or none. */
static int put_span(struct sample *s, int64_t doc, int64_t at, int64_t end, bool inside,
                    struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    int rc = decode(s, at, end, inside, &text, &n, e);
    json_t *j;

    if (rc == 0 && s->o->json) {
        if (!(j = json_stringn(text, n)))
            rc = err_set(e, E_DATA, "document %lld is not UTF-8 and cannot be JSON",
                         (long long)doc);
        else
            json_array_append_new(s->spans, json_pack("{sI sI sb so}", "doc", (json_int_t)doc,
                                  "tokens", (json_int_t)(end - at), "masked", s->mask[at],
                                  "text", j));
    } else if (rc == 0 && n > 0) {
        rc = put_text(s, text, n, s->mask[at], e);
    }
    free(text);
    return rc;
}

/* The line before a document. 'skipped' is how much of it lies before the row. */
static int put_bound(struct sample *s, int64_t i, const struct dataset_doc *d, int64_t skipped,
                     struct err *e)
{
    char line[2048], from[64] = "";

    if (s->o->json)
        return 0;
    if (skipped)
        snprintf(from, sizeof from, " from token %lld", (long long)skipped);
    snprintf(line, sizeof line, "--- document %lld%s of %lld tokens  %s  %s", (long long)i,
             from, (long long)d->n_ids, d->source, d->name);
    return put_line(s, "\033[36m", line, e);
}

/* Tokens [start, start + n) of the data set, document by document, span by span. */
static int put_tokens(struct sample *s, int64_t start, int64_t n, int64_t doc, struct err *e)
{
    struct dataset_doc d;
    int rc = dataset_read(s->set, start, n, s->ids, s->mask, e);

    /* Documents without tokens take no room and are passed over: end stays at 'at'. */
    for (int64_t at = 0, end; at < n && rc == 0; doc++, at = end) {
        end = at;
        if ((rc = dataset_doc(s->set, doc, &d, e)) < 0 || d.n_ids == 0)
            continue;
        /* Where the document ends, counted from start, or the end of the row. */
        end = d.start + d.n_ids - start < n ? d.start + d.n_ids - start : n;
        rc = put_bound(s, doc, &d, start + at - d.start, e);
        for (int64_t i = at, k; i < end && rc == 0; i = k) {
            /* k moves to the first token whose mask differs. */
            for (k = i + 1; k < end && s->mask[k] == s->mask[i];)
                k++;
            rc = put_span(s, doc, i, k, i > at, e);
        }
    }
    return rc;
}

/* Document or row number 'which', with its own buffers: documents differ much in length. */
static int put_one(struct sample *s, int64_t which, struct err *e)
{
    int64_t ctx = s->o->ctx, start = which * ctx, n = ctx, doc;
    struct dataset_doc d;
    char line[96], *text;
    json_t *j = NULL;
    int rc = 0;

    if (ctx == 0 && (rc = dataset_doc(s->set, doc = which, &d, e)) == 0) {
        start = d.start;
        n = d.n_ids;
    } else if (rc == 0) {
        /* A row may begin in the middle of a document. */
        doc = dataset_doc_at(s->set, start);
    }
    if (rc < 0)
        return rc;
    s->ids = malloc((size_t)n * sizeof *s->ids + 1);
    s->mask = malloc((size_t)n + 1);
    if (!s->ids || !s->mask)
        rc = err_set(e, E_SYS, "out of memory for %lld tokens", (long long)n);
    snprintf(line, sizeof line, "=== row %lld of %lld", (long long)which, (long long)s->of);
    if (rc == 0 && s->o->json)
        s->spans = json_array();
    else if (rc == 0 && ctx)
        rc = put_line(s, "\033[1;36m", line, e);
    if (rc == 0)
        rc = put_tokens(s, start, n, doc, e);
    if (rc == 0 && s->o->json) {
        j = json_pack("{sI sI sO}", ctx ? "row" : "doc", (json_int_t)which, "tokens",
                      (json_int_t)n, "spans", s->spans);
        if ((text = json_dumps(j, JSON_COMPACT | info_json_flags())))
            fprintf(s->f, "%s\n", text);
        free(text);
        json_decref(j);
    } else if (rc == 0 && !s->line_ended) {
        fputc('\n', s->f);
        s->line_ended = true;
    }
    json_decref(s->spans);
    free(s->ids);
    free(s->mask);
    s->spans = NULL;
    return rc;
}

int info_sample(const char *path, enum info_kind kind, const struct info_options *o, FILE *f,
                struct err *e)
{
    struct sample s = { .o = o, .f = f, .line_ended = true };
    char *folder = NULL;
    int rc = 0;

    if (kind > INFO_RAW || kind == INFO_STREAM) {
        err_set(e, E_USAGE, "'%s' has no documents to take samples of", path);
        return err_hint(e, "--sample is for shards; of a stream: lpack < STREAM > x.shard");
    }
    if (kind == INFO_SHARDS && !(path = folder = info_folder(path)))
        return err_set(e, E_SYS, "out of memory");
    rc = dataset_open_raw(&s.set, path, o->split, 0, e);
    if (rc == 0)
        rc = info_tokenizer(&s.tok, path, dataset_info(s.set), o->tokenizer, e);
    if (rc == 0) {
        /* What is left behind the last whole row is no row. */
        s.of = o->ctx ? dataset_tokens(s.set) / o->ctx : dataset_docs(s.set);
        s.n = o->sample < s.of ? o->sample : s.of;
        if (s.of == 0)
            rc = err_set(e, E_USAGE, "'%s' holds no %s", path,
                         o->ctx ? "row of that many tokens" : "documents at all");
    }
    for (int64_t i = 0; i < s.n && rc == 0; i++) {
        /* A permutation of all numbers: its first n are n different ones, the
         * same for a seed. */
        uint64_t at = perm_at((uint64_t)i, (uint64_t)s.of, (uint64_t)o->seed, 0);
        rc = put_one(&s, (int64_t)at, e);
        if (rc == 0 && ferror(f))
            rc = err_sys(e, E_IO, "cannot write the samples");
    }
    tokenizer_close(s.tok);
    dataset_close(s.set);
    free(folder);
    return rc;
}
