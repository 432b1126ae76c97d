/* prep/feed.c - see feed.h.
 *
 * An operand has files, a file has members (one, or those of an archive), a member has records:
 * the whole text, or rows of JSON. feed_read gathers the records of one member to batches.
 */
#include "prep/feed.h"

#include "base/magic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_BYTES ((size_t)64 << 10) /* of records go to a thread at once */

struct feed {
    struct feed_opts o;
    struct source *source;
    struct source_member member;
    struct records records;
    bool in_member, member_failed, begun;
    int64_t at; /* the member's file */
    /* Below: of the thread that takes the notes. */
    char *file;              /* that seen[] is of; plain text files in a row count as one */
    int64_t seen[SCHEMAS], seen_files;
    char sources[160];       /* of that file, as far as they fit */
    int64_t lost;            /* its rows that have what no prompt has a place for */
    bool plain;
};

/* What would end the run at its turn ends it at once. */
static int check_files(const struct source *s, struct err *e)
{
    for (int64_t i = 0; i < source_files(s); i++)
        if ((errno = source_file(s, i)->error) != 0) {
            err_sys(e, E_NOINPUT, "cannot open '%s'", source_file(s, i)->path);
            return err_hint(e, "repair or remove it, or leave it out with --on-error skip");
        }
    return 0;
}

int feed_open(struct feed **out, const char *const *operands, int n, const struct feed_opts *o,
              struct err *e)
{
    static const struct source_advice advice = { "leave it out with --on-error skip", "--include GLOB takes others" };
    struct feed *f = calloc(1, sizeof *f);
    int rc;

    *out = NULL;
    if (!f)
        return err_set(e, E_SYS, "out of memory");
    f->o = *o;
    f->records.longer = "raise --max-record";
    rc = source_open(&f->source, operands, n, o->include, o->n_include, &advice, e);
    if (rc == 0 && !o->skip_errors)
        rc = check_files(f->source, e);
    if (rc < 0) {
        feed_close(f);
        return rc;
    }
    *out = f;
    return 0;
}

void feed_close(struct feed *f)
{
    if (!f)
        return;
    source_close(f->source);
    records_free(&f->records);
    free(f->file);
    free(f);
}

struct source *feed_source(struct feed *f) { return f->source; }

void feed_progress(const struct feed *f, struct source_progress *p)
{
    source_progress(f->source, p);
}

static int note(struct feed *f, bool warning, const char *text, struct err *e)
{
    return f->o.note ? f->o.note(f->o.note_ctx, warning, text, e) : 0;
}

int feed_warn(struct feed *f, const char *text, struct err *e) { return note(f, true, text, e); }

/* Says which schemas the file had whose turn is over. */
static int note_schemas(struct feed *f, struct err *e)
{
    char text[1024];
    int64_t docs = 0;
    int n, rc = 0;

    for (int s = 0; s < SCHEMAS; s++)
        docs += f->seen[s];
    if (docs && f->plain && f->seen_files > 1)
        n = snprintf(text, sizeof text, "%lld text files, the last '%.400s':",
                     (long long)f->seen_files, f->file);
    else
        n = snprintf(text, sizeof text, "'%.400s': %lld document%s,", f->file ? f->file : "",
                     (long long)docs, docs == 1 ? "" : "s");
    /* snprintf returns the length the text would have: from sizeof text on it was cut. */
    for (int s = 0, first = 1; s < SCHEMAS && n < (int)sizeof text; s++)
        if (f->seen[s]) {
            n += snprintf(text + n, sizeof text - (size_t)n, "%s %s", first ? "" : " and",
                          schema_name((enum schema)s));
            first = 0;
        }
    if (docs && n < (int)sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, " (source %s)", f->sources);
    if (docs)
        rc = note(f, false, text, e);
    if (f->lost && rc == 0) {
        snprintf(text, sizeof text, "'system' and 'history' of %lld row%s of '%.400s', which the "
                 "prompt has no place for", (long long)f->lost, f->lost == 1 ? "" : "s", f->file);
        rc = note(f, true, text, e);
    }
    f->lost = 0;
    memset(f->seen, 0, sizeof f->seen);
    f->seen_files = 0;
    f->sources[0] = '\0';
    return rc;
}

/* Counts a document that is kept, and adds its source to the list unless it is there. A list
 * that is full ends with "...". */
void feed_kept(struct feed *f, enum schema schema, const char *source, bool lost)
{
    size_t used = strlen(f->sources), n = strlen(source);
    const char *at = strstr(f->sources, source);

    f->seen[schema]++;
    f->lost += lost;
    /* A whole entry of the list, not a part of another: "c4" also stands in "c4-en". */
    if (at && (at == f->sources || at[-1] == ' ') && (at[n] == '\0' || at[n] == ','))
        return;
    if (used + n + 8 < sizeof f->sources)
        snprintf(f->sources + used, sizeof f->sources - used, "%s%s", used ? ", " : "",
                 source);
    else if (used && f->sources[used - 1] != '.' && used + 6 < sizeof f->sources)
        memcpy(f->sources + used, ", ...", 6);
}

/* Keeps count of files: one note a file, but one for many plain text files. */
int feed_begin(struct feed *f, const struct feed_batch *b, struct err *e)
{
    bool same = f->file && b->file && strcmp(f->file, b->file) == 0;
    int rc = 0;

    for (size_t at = 0, n; at < b->notes.len && rc == 0; at += n + 1) {
        n = strcspn(b->notes.p + at, "\n");
        b->notes.p[at + n] = '\0';
        rc = note(f, true, b->notes.p + at, e);
    }
    if (b->n == 0 || rc < 0)
        return rc;

    /* The notes on a file come when the next one begins. */
    if (f->file && !same && !(b->plain && f->plain) && (rc = note_schemas(f, e)) < 0)
        return rc;
    if (!same) {
        free(f->file);
        if (!(f->file = strdup(b->file)))
            return err_set(e, E_SYS, "out of memory");
        f->seen_files++;
    }
    f->plain = b->plain;
    return 0;
}

int feed_end(struct feed *f, struct err *e) { return note_schemas(f, e); }

/* E_DATA for what begins a member that is no text, or none as it stands. */
static int check_form(const struct feed *f, const void *p, size_t n, struct err *e)
{
    const struct magic_form *m = magic_of(p, n, false);

    /* Forms that are text all the same, and may be meant as such. */
    if (m && (m->form == MAGIC_TIKTOKEN || m->form == MAGIC_TOKENIZER_JSON ||
              (m->form == MAGIC_MARKUP && f->o.mode == RECORDS_TEXT)))
        m = NULL;
    if (!m && !magic_binary(p, n))
        return 0;
    err_set(e, E_DATA, "'%s' is %s, not text", f->member.name, m ? m->name : "binary data");
    return err_hint(e, "%s", m ? m->remedy : "leave it out, or use --on-error skip");
}

/* What records_next reads through. The first bytes
 * of a member tell whether it is text at all. */
static int64_t read_member(void *ctx, void *buf, size_t cap, struct err *e)
{
    struct feed *f = ctx;
    int64_t n = source_read(f->source, buf, cap, e);
    int rc = n > 0 && !f->begun ? check_form(f, buf, (size_t)n, e) : 0;

    n = rc < 0 ? rc : n;
    f->begun = true;
    f->member_failed = n < 0; /* the message names the member already */
    return n;
}

/* Opens the next file, or member of an archive: 1, or 0 at the end. How records are found in
 * it follows from --format, else from its name. */
static int next_member(struct feed *f, struct err *e)
{
    static const enum record_mode by_kind[] = { [SOURCE_UNKNOWN] = RECORDS_AUTO,
                                                [SOURCE_TEXT] = RECORDS_TEXT,
                                                [SOURCE_JSON] = RECORDS_JSON,
                                                [SOURCE_LINES] = RECORDS_LINES,
                                                [SOURCE_TABLE] = RECORDS_AUTO };
    const char *what;
    int rc = source_next(f->source, &f->member, e);

    if (rc <= 0)
        return rc;
    if (f->o.mode == RECORDS_AUTO && (what = source_no_text(f->member.name))) {
        err_set(e, E_DATA, "'%s' is %s, not text", f->member.name, what);
        return err_hint(e, "convert it to text or JSON lines first, or give --format text to "
                           "read it as it is");
    }
    f->in_member = true;
    f->at = source_at(f->source);
    f->member_failed = f->begun = false;
    records_start(&f->records,
                  f->o.mode == RECORDS_AUTO ? by_kind[f->member.kind] : f->o.mode,
                  f->o.max_record_bytes, read_member, f);
    return 1;
}

void feed_batch_free(struct feed_batch *b)
{
    buf_free(&b->raw);
    buf_free(&b->notes);
    free(b->file);
    free(b->name);
}

/* Says where the batch's rows come from. Names are
 * kept from batch to batch while they are the same. */
static int name_batch(struct feed_batch *b, const struct source_member *m, struct err *e)
{
    b->plain = !m->archived && m->kind == SOURCE_TEXT;
    if (b->name && strcmp(b->name, m->name) == 0 && strcmp(b->file, m->file) == 0)
        return 0;
    free(b->file);
    free(b->name);
    b->file = strdup(m->file);
    b->name = strdup(m->name);
    return b->file && b->name ? 0 : err_set(e, E_SYS, "out of memory");
}

/* Rows of the open member, until the batch is full: 1, or 0 at the member's end. */
static int fill_batch(struct feed *f, struct feed_batch *b, struct err *e)
{
    struct record r;
    int rc = 1;

    /* A batch may become longer than BATCH_BYTES by its last row. */
    while (b->n < FEED_ROWS && b->raw.len < BATCH_BYTES) {
        if ((rc = records_next(&f->records, &r, e)) != 1)
            break;
        b->text = records_mode(&f->records) == RECORDS_TEXT;
        b->row[b->n++] = (struct feed_row){ b->raw.len, r.n, r.line, r.offset };
        if (b->text) {
            records_swap(&f->records, &b->raw);
            break; /* by trade: the text is not copied */
        }
        if ((rc = buf_add(&b->raw, r.p, r.n, e)) < 0) {
            b->n--;
            break;
        }
        rc = 1;
    }
    if (rc < 0 && !f->member_failed)
        err_within(e, "'%s'", f->member.name);
    if (rc <= 0)
        f->in_member = false;
    return rc;
}

int feed_read(struct feed *f, struct feed_batch *b)
{
    int rc = 1;

    b->n = 0;
    b->raw.len = 0;
    b->rc = 0;
    b->err = (struct err){ 0 };
    /* An empty member makes no batch. */
    while (rc >= 0 && b->n == 0) {
        if (!f->in_member && (rc = next_member(f, &b->err)) <= 0)
            break;
        if ((rc = name_batch(b, &f->member, &b->err)) == 0)
            rc = fill_batch(f, b, &b->err);
    }
    b->at = f->at;
    b->rc = rc < 0 ? rc : 0;
    source_notes(f->source, &b->notes);
    /* An error that may be skipped is a batch (1) that says so in b->rc. */
    return rc < 0 && (!f->o.skip_errors || rc == E_SYS) ? rc
                                                        : rc < 0 || b->n > 0 || b->notes.len;
}

int feed_parse(const struct feed_opts *o, struct feed_batch *b, int i, struct doc *d,
               struct err *e)
{
    const struct feed_row *r = &b->row[i];
    struct doc_place at = { b->name, b->text ? 0 : r->line, r->offset };
    int rc = b->text ? doc_from_buf(d, &at, &b->raw, &o->doc, e)
                     : doc_from_json(d, &at, b->raw.p + r->at, r->n, &o->doc, e);

    return rc < 0 ? rc : filter_doc(&o->filter, d, b->text ? NULL : b->raw.p + r->at, r->n, e);
}

int feed_each(const char *const *operands, int n, const struct feed_opts *o, feed_doc_fn *fn,
              void *ctx, struct err *e)
{
    struct feed_batch *b = calloc(1, sizeof *b);
    struct doc d = { 0 };
    struct feed *f = NULL;
    int rc = b ? feed_open(&f, operands, n, o, e) : err_set(e, E_SYS, "out of memory");

    while (rc == 0 && (rc = feed_read(f, b)) != 0) {
        int failed = 0;
        for (int i = 0; i < b->n && failed == 0; i++)
            if ((failed = feed_parse(o, b, i, &d, e)) == KEPT)
                failed = fn(ctx, &d, e);
            else if (failed > 0) /* left out by a filter: no failure */
                failed = 0;
        /* The rows before the error have been handed out; now it ends all. */
        if (failed == 0 && b->rc < 0) {
            failed = b->rc;
            *e = b->err;
        }
        rc = failed;
    }
    feed_close(f);
    doc_free(&d);
    if (b)
        feed_batch_free(b);
    free(b);
    return rc;
}
