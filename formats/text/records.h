/* formats/text/records.h - cuts a stream of bytes into records: a text, JSON lines, array rows. */
#ifndef FORMATS_TEXT_RECORDS_H
#define FORMATS_TEXT_RECORDS_H
#include "base/bytes.h"
#include "base/err.h"
#include "base/jsonscan.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

enum record_mode {
    RECORDS_AUTO,   /* look at the first bytes: JSON objects, an array of them, else text */
    RECORDS_TEXT,   /* all bytes are one record */
    RECORDS_JSON,   /* '[': an array, a row each; '{': lines, or objects of several lines */
    RECORDS_LINES,  /* one object a line, blank lines passed over; or an array after all */
    RECORDS_VALUES  /* array or objects, cut by their braces; JSON and AUTO may become this */
};

struct record {
    const char *p; /* valid until the next call */
    size_t n;
    int64_t line;   /* of its first byte, from 1 */
    int64_t offset; /* of its first byte in the stream */
};

/* Up to cap bytes: how many, 0 at the end, or an error. */
typedef int64_t record_read_fn(void *ctx, void *buf, size_t cap, struct err *e);

/* Zero it before the first records_start; one struct and its buffer serve many streams. */
struct records {
    const char *longer; /* what the message on a record over max_bytes advises: "raise --max-record"; NULL:
                         * nothing. The caller's, kept from stream to stream */
    struct buf b;
    size_t at, seen;  /* first byte not handed out; first byte not looked at */
    size_t max_bytes; /* of a record */
    int64_t line, offset;
    bool eof, in_array, after_row, done;
    enum record_mode mode;
    record_read_fn *read;
    void *ctx;
};

void records_start(struct records *r, enum record_mode mode, size_t max_bytes,
                   record_read_fn *read, void *ctx);
/* 1 and the next record, 0 at the end; E_DATA with line and offset for a record over
 * max_bytes, an array that is cut short or holds anything but objects; what read gave. Memory:
 * the longest record and one block; it grows only as bytes arrive. After an error the stream
 * cannot go on. */
int records_next(struct records *r, struct record *rec, struct err *e);
/* Trades buffers once the one record of a text (RECORDS_TEXT) has been handed out: the whole
 * text is then b's, and b's memory serves the next stream. */
void records_swap(struct records *r, struct buf *b);
/* What AUTO and JSON turned out to be, once records_next has been called. */
enum record_mode records_mode(const struct records *r);
void records_free(struct records *r);

C_END
#endif
