/* prep/feed.c - see feed.h. */
#include "prep/feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct feed {
    struct feed_opts o;
    struct source *source;
    struct source_member member;
    struct records records;
    bool in_member, member_failed;
    int64_t docs;
    struct feed_counts counts;
    char *file;              /* that seen[] is of; plain text files in a row count as one */
    int64_t seen[SCHEMAS], seen_files;
    char sources[160];       /* of that file, as far as they fit */
    bool plain;
};

int feed_open(struct feed **out, const char *const *operands, int n, const struct feed_opts *o,
              struct err *e)
{
    struct feed *f = calloc(1, sizeof *f);
    int rc;

    *out = NULL;
    if (!f)
        return err_set(e, E_SYS, "out of memory");
    f->o = *o;
    rc = source_open(&f->source, operands, n, o->include, o->n_include, e);
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

const struct feed_counts *feed_counts(const struct feed *f) { return &f->counts; }

void feed_progress(const struct feed *f, struct source_progress *p)
{
    source_progress(f->source, p);
}

static void note(struct feed *f, bool warning, const char *text)
{
    if (f->o.note)
        f->o.note(f->o.note_ctx, warning, text);
}

/* Says which schemas the file had whose turn is over. */
static void note_schemas(struct feed *f)
{
    char text[1024];
    int64_t docs = 0;
    int n;

    for (int s = 0; s < SCHEMAS; s++)
        docs += f->seen[s];
    if (docs && f->plain && f->seen_files > 1)
        n = snprintf(text, sizeof text, "%lld text files, the last '%.400s':",
                     (long long)f->seen_files, f->file);
    else
        n = snprintf(text, sizeof text, "'%.400s': %lld document%s,", f->file ? f->file : "",
                     (long long)docs, docs == 1 ? "" : "s");
    for (int s = 0, first = 1; s < SCHEMAS && n < (int)sizeof text; s++)
        if (f->seen[s]) {
            n += snprintf(text + n, sizeof text - (size_t)n, "%s %s", first ? "" : " and",
                          schema_name((enum schema)s));
            first = 0;
        }
    if (docs && n < (int)sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, " (source %s)", f->sources);
    if (docs)
        note(f, false, text);
    memset(f->seen, 0, sizeof f->seen);
    f->seen_files = 0;
    f->sources[0] = '\0';
}

static void see(struct feed *f, const struct doc *d)
{
    size_t used = strlen(f->sources), n = strlen(d->source);
    const char *at = strstr(f->sources, d->source);

    f->seen[d->schema]++;
    if (at && (at == f->sources || at[-1] == ' ') && (at[n] == '\0' || at[n] == ','))
        return;
    if (used + n + 8 < sizeof f->sources)
        snprintf(f->sources + used, sizeof f->sources - used, "%s%s", used ? ", " : "",
                 d->source);
    else if (used && f->sources[used - 1] != '.' && used + 6 < sizeof f->sources)
        memcpy(f->sources + used, ", ...", 6);
}

/* Keeps count of files: one note a file, but one for many plain text files. */
static int begin_member(struct feed *f, struct err *e)
{
    const struct source_member *m = &f->member;
    bool plain = !m->archived && m->kind == SOURCE_TEXT, same;

    same = f->file && strcmp(f->file, m->file) == 0;
    if (f->file && !same && !(plain && f->plain))
        note_schemas(f);
    if (!same) {
        free(f->file);
        if (!(f->file = strdup(m->file)))
            return err_set(e, E_SYS, "out of memory");
        f->seen_files++;
    }
    f->plain = plain;
    return 0;
}

static int64_t read_member(void *ctx, void *buf, size_t cap, struct err *e)
{
    struct feed *f = ctx;
    int64_t n = source_read(f->source, buf, cap, e);

    f->member_failed = n < 0; /* the message names the member already */
    return n;
}

/* A file that cannot be read on: 0 to go on with the next one, or the error. */
static int lose_file(struct feed *f, int rc, struct err *e)
{
    f->in_member = false;
    if (!f->o.skip_errors || rc == E_SYS)
        return rc;
    f->counts.bad_files++;
    note(f, true, e->msg);
    *e = (struct err){ 0 };
    return 0;
}

static int next_member(struct feed *f, struct err *e)
{
    static const enum record_mode by_kind[] = { [SOURCE_UNKNOWN] = RECORDS_AUTO,
                                                [SOURCE_TEXT] = RECORDS_TEXT,
                                                [SOURCE_JSON] = RECORDS_JSON,
                                                [SOURCE_LINES] = RECORDS_LINES };
    int rc;

    for (;;) {
        if ((rc = source_next(f->source, &f->member, e)) >= 0)
            break;
        if ((rc = lose_file(f, rc, e)) < 0)
            return rc;
    }
    if (rc == 0) {
        note_schemas(f);
        return 0;
    }
    if ((rc = begin_member(f, e)) < 0)
        return rc;
    f->in_member = true;
    f->member_failed = false;
    records_start(&f->records,
                  f->o.mode == RECORDS_AUTO ? by_kind[f->member.kind] : f->o.mode,
                  f->o.max_record_bytes, read_member, f);
    return 1;
}

static int parse(struct feed *f, struct doc *d, const struct record *r, struct err *e)
{
    bool text = records_mode(&f->records) == RECORDS_TEXT;
    struct doc_place at = { f->member.name, text ? 0 : r->line, r->offset };

    return text ? doc_from_text(d, &at, r->p, r->n, &f->o.doc, e)
                : doc_from_json(d, &at, r->p, r->n, &f->o.doc, e);
}

/* True for a document to hand on; counts it otherwise. */
static bool keep(struct feed *f, const struct doc *d)
{
    if (d->text.len == 0 && (!d->instruct || d->output.len == 0)) {
        f->counts.empty++;
        return false;
    }
    if (f->o.min_chars > 0 && text_chars(d->text.p, d->text.len) +
                                      text_chars(d->input.p, d->input.len) +
                                      text_chars(d->output.p, d->output.len) < f->o.min_chars) {
        f->counts.too_short++;
        return false;
    }
    return true;
}

static int skip_doc(struct feed *f, int rc, struct err *e)
{
    if (!f->o.skip_errors || rc != E_DATA)
        return rc;
    f->counts.bad_docs++;
    note(f, true, e->msg);
    *e = (struct err){ 0 };
    return 0;
}

int feed_next(struct feed *f, struct doc *d, struct err *e)
{
    struct record r;
    int rc;

    if (f->o.max_docs && f->docs == f->o.max_docs) {
        note_schemas(f);
        return 0;
    }
    for (;;) {
        if (!f->in_member && (rc = next_member(f, e)) <= 0)
            return rc;
        if ((rc = records_next(&f->records, &r, e)) == 0) {
            f->in_member = false;
            continue;
        }
        if (rc < 0) {
            if (!f->member_failed)
                err_within(e, "'%s'", f->member.name);
            if ((rc = lose_file(f, rc, e)) < 0)
                return rc;
            continue;
        }
        rc = parse(f, d, &r, e);
        if (rc == 0 && keep(f, d))
            break;
        if (rc < 0 && (rc = skip_doc(f, rc, e)) < 0)
            return rc;
    }
    see(f, d);
    f->docs++;
    return 1;
}
