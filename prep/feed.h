/* prep/feed.h - one document after another, out of all operands: reading and parsing. */
#ifndef PREP_FEED_H
#define PREP_FEED_H
#include "base/err.h"
#include "formats/records.h"
#include "formats/source.h"
#include "prep/doc.h"
C_BEGIN

/* What the user may be told on the way; called from the thread that calls feed_next. */
typedef void feed_note_fn(void *ctx, bool warning, const char *text);

struct feed_opts {
    const char *const *include;
    int n_include;
    enum record_mode mode; /* RECORDS_AUTO: by the file's name, or its first bytes */
    struct doc_opts doc;
    size_t max_record_bytes;
    int64_t min_chars, max_docs; /* max_docs 0: all */
    bool skip_errors;            /* bad rows and files are counted and left out */
    feed_note_fn *note;          /* may be NULL */
    void *note_ctx;
};

/* What was left out, and why. */
struct feed_counts {
    int64_t empty, too_short, bad_docs, bad_files;
};

struct feed;
/* The strings must outlive the feed. E_NOINPUT, E_SYS. */
int feed_open(struct feed **f, const char *const *operands, int n, const struct feed_opts *o,
              struct err *e);
void feed_close(struct feed *f);

/* 1 and the next document that is not empty and not too short, 0 at the end, or an error, after
 * which there is no going on. Notes tell, once a file, which schemas its documents had. */
int feed_next(struct feed *f, struct doc *d, struct err *e);
const struct feed_counts *feed_counts(const struct feed *f);
/* May be called by another thread. */
void feed_progress(const struct feed *f, struct source_progress *p);

C_END
#endif
