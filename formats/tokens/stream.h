/* formats/tokens/stream.h - the token stream: what lprep writes to a pipe and lpack reads. */
#ifndef FORMATS_TOKENS_STREAM_H
#define FORMATS_TOKENS_STREAM_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokens/document.h"
#include "formats/tokens/mark.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
C_BEGIN

/* Layout: formats/tokens/stream.md and stream(5). Every frame has a length and a CRC32C. A stream
 * that stops without an END frame was cut: stream_read then fails, never returns the end. */

#define STREAM_MAGIC "LLSTREAM"
#define STREAM_VERSION 3 /* 1 and 2 are read too, see stream.md */
#define STREAM_HEADER_BYTES 332
#define STREAM_PREFIX_BYTES 16 /* before a frame's payload; 4 of checksum follow it */
#define STREAM_END_BYTES 24

struct stream_writer;
/* fd stays the caller's; the header is written at once. info: width is 2 where vocab <= 65536
 * and 4 above (token_width in formats/tokens/document.h), or E_DATA. E_IO, E_SYS. */
int stream_create(struct stream_writer **w, int fd, const char *name,
                  const struct token_info *info, struct err *e);
/* E_DATA for a document that breaks a rule of stream.md: nothing was written then, and the
 * stream may go on. E_IO. */
int stream_write(struct stream_writer *w, const struct token_doc *doc, struct err *e);
/* stream_write in two steps, of which the first may run in many threads at once: appends a
 * document's frame to out; then such frames go into a stream of the same info. E_DATA, E_SYS;
 * E_IO. */
int stream_frame(const struct token_info *info, const struct token_doc *doc, struct buf *out,
                 struct err *e);
int stream_add(struct stream_writer *w, const void *frames, size_t nbytes, int64_t docs,
               int64_t tokens, struct err *e);
/* RUN, before anything else, and MARK. Errors as stream_write. */
int stream_run(struct stream_writer *w, const struct stream_run *run, struct err *e);
int stream_mark(struct stream_writer *w, const struct stream_mark *mark, struct err *e);
int stream_mark_frame(const struct stream_mark *mark, struct buf *out, struct err *e);
int64_t stream_written(const struct stream_writer *w); /* bytes so far */
int stream_flush(struct stream_writer *w, struct err *e); /* all of them to fd, now */
/* Writes END (documents, tokens, hash) and frees. Without it readers refuse the stream. */
int stream_finish(struct stream_writer *w, struct err *e);
/* Frees without END. */
void stream_abandon(struct stream_writer *w);
struct stream_reader;
/* Reads and checks the header. name is for messages. E_DATA, E_IO. */
int stream_open(struct stream_reader **r, int fd, const char *name, struct err *e);
const struct token_info *stream_info(const struct stream_reader *r);
int stream_version(const struct stream_reader *r);
/* STREAM_DOC and the next document, STREAM_MARK or STREAM_RUN and what it says (all valid until
 * the next call); 0 after a good END; or E_DATA with the offset when the stream is cut, damaged
 * or goes on after END; E_IO. */
enum { STREAM_END, STREAM_DOC, STREAM_MARK, STREAM_RUN };
struct stream_item {
    struct token_doc doc;
    struct stream_mark mark;
    struct stream_run run;
};
int stream_next(struct stream_reader *r, struct stream_item *it, struct err *e);
/* The same for those who want documents alone: 1 and the next one, 0 or an error. */
int stream_read(struct stream_reader *r, struct token_doc *doc, struct err *e);
/* After E_DATA: there is no more of it, and what came was good, as of a journal. */
bool stream_cut(const struct stream_reader *r);
/* The sum of the marks that came so far. */
const struct tally *stream_tally(const struct stream_reader *r);
/* Bytes of the stream that were read: the next frame's offset. */
int64_t stream_offset(const struct stream_reader *r);
double stream_waited_s(const struct stream_reader *r); /* inside read, so far */
void stream_close(struct stream_reader *r);

C_END
#endif
