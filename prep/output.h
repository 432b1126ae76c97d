/* prep/output.h - what lprep writes: a token stream with its marks, or JSON lines. */
#ifndef PREP_OUTPUT_H
#define PREP_OUTPUT_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/text/source.h"
#include "formats/tokens/stream.h"
#include <stdbool.h>
#include <xxhash.h>
C_BEGIN

/* A mark stands before END always, and counts what the stream holds. In a stream that begins
 * with RUN there are marks at the ends of inputs too, where a killed run can go on: one for all
 * that ended since the last, once 64 KiB were written. Where they stand is a pure function of
 * the input. */
struct output {
    int fd;            /* the caller sets these four, and zeroes the rest */
    const char *name;  /* for messages */
    const struct source *source; /* whose files are the inputs */
    int64_t marked;    /* files that an earlier run has read */
    struct stream_writer *stream; /* NULL: JSON lines */
    bool resumable;
    int64_t done;      /* files that were read to their ends; those below marked are in a mark */
    int64_t marked_at; /* bytes of the stream before the last mark */
    struct tally since;         /* of what came after it; the caller counts */
    struct buf lines, keys, inputs;
};

/* info: NULL for JSON lines. run: NULL for a stream that cannot be gone on with. */
int output_open(struct output *out, const struct token_info *info, const struct stream_run *run,
                struct err *e);
/* Frames, or lines, of that many documents and tokens. */
int output_add(struct output *out, const void *p, size_t nbytes, int64_t docs, int64_t tokens,
               struct err *e);
/* The files before 'at' have been read to their ends, and what was in them is counted. */
int output_done(struct output *out, int64_t at, struct err *e);
/* A key was added to the set of --dedup. */
int output_key(struct output *out, XXH128_hash_t key, struct err *e);
/* What was added so far leaves now: a reader that is gone is found here, before the end. */
int output_flush(struct output *out, struct err *e);
/* rc 0: ends what is written well; all: every file was read to its end. Else the stream stays
 * without END. Frees; returns rc, or why ending failed. */
int output_close(struct output *out, bool all, int rc, struct err *e);

C_END
#endif
