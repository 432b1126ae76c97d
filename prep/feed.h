/* prep/feed.h - records out of all operands, in batches; documents out of records. */
#ifndef PREP_FEED_H
#define PREP_FEED_H
#include "base/err.h"
#include "formats/text/records.h"
#include "formats/text/source.h"
#include "prep/doc.h"
#include "prep/filter.h"
C_BEGIN

/* What the user may be told on the way. < 0 ends the run. */
typedef int feed_note_fn(void *ctx, bool warning, const char *text, struct err *e);

struct feed_opts {
    const char *const *include;
    int n_include;
    enum record_mode mode; /* RECORDS_AUTO: by the file's name, or its first bytes */
    struct doc_opts doc;
    size_t max_record_bytes;
    struct filter filter;
    int64_t max_docs;            /* 0: all */
    bool skip_errors;            /* bad rows and files are counted and left out */
    feed_note_fn *note;          /* may be NULL */
    void *note_ctx;
};

/* Records of one member that follow each other, as they stand in it. */
enum { FEED_ROWS = 64 };
struct feed_row {
    size_t at, n; /* in raw */
    int64_t line, offset;
};
struct feed_batch {
    char *file, *name; /* of the member; as in struct source_member */
    int64_t at;        /* the number of the file: those before it are done with */
    bool text, plain;  /* a text file, not JSON; and no archive's member */
    int n;
    struct feed_row row[FEED_ROWS];
    struct buf raw;
    struct buf notes;  /* lines on what was not read before these rows; n may be 0 then */
    int rc; /* < 0: after these rows the member, or everything, could not be read on */
    struct err err;
};
void feed_batch_free(struct feed_batch *b);

struct feed;
/* The strings must outlive the feed. E_NOINPUT, E_SYS. */
int feed_open(struct feed **f, const char *const *operands, int n, const struct feed_opts *o,
              struct err *e);
void feed_close(struct feed *f);
/* What the operands are; its list does not change, and source_skip may be called before
 * feed_read is. */
struct source *feed_source(struct feed *f);

/*
 * Three steps, each by a thread of its own kind.
 * feed_read, by one thread: 1 and the next batch, 0 at the end; b->rc < 0 as well when there is
 * no going on. With skip_errors a lost file is left in b->err and reading goes on behind it.
 * feed_parse, by any: row i of a batch as a document, KEPT or what else; or E_DATA, E_SYS.
 * The feed's notes, by one thread, in the order of the input.
 */
int feed_read(struct feed *f, struct feed_batch *b);
int feed_parse(const struct feed_opts *o, struct feed_batch *b, int i, struct doc *d,
               struct err *e);
/* All documents of the operands, one after another; stops at the first failure, also fn's. */
typedef int feed_doc_fn(void *ctx, const struct doc *d, struct err *e);
int feed_each(const char *const *operands, int n, const struct feed_opts *o, feed_doc_fn *fn,
              void *ctx, struct err *e);
/* A batch's turn has come; a document of it is kept (lost: doc.h); a file was lost; the end.
 * Notes tell, once a file, which schemas its documents had. */
int feed_begin(struct feed *f, const struct feed_batch *b, struct err *e);
void feed_kept(struct feed *f, enum schema schema, const char *source, bool lost);
int feed_warn(struct feed *f, const char *text, struct err *e);
int feed_end(struct feed *f, struct err *e);
/* May be called by another thread. */
void feed_progress(const struct feed *f, struct source_progress *p);

C_END
#endif
