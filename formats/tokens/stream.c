/* formats/tokens/stream.c - writing a token stream; see stream.h. The layout stands in
 * stream.md.
 *
 * A stream goes through a pipe, front to back: a header, frames, END. Every frame has a prefix
 * (kind, length, checksum of both), a payload and the payload's checksum. Frames are gathered
 * in memory and written about a MiB at a time. A hash goes over all bytes before END, which
 * carries it. */
#include "formats/tokens/stream.h"
#include "base/file.h"
#include "formats/tokens/document.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Frames are gathered to about 1 MiB before they are written. */
#define IO_BYTES ((size_t)1 << 20)

struct stream_writer {
    int fd;
    char *name;
    struct token_info info;
    struct buf out; /* frames not yet written */
    XXH3_state_t *hash;
    uint64_t docs, tokens;
    int64_t written; /* bytes, those in out too */
};

int stream_flush(struct stream_writer *w, struct err *e)
{
    int rc = file_write_all(w->fd, w->out.p, w->out.len, w->name, e);

    w->out.len = 0;
    return rc;
}

/* Frames at w->out from 'at' on are complete. */
static int added(struct stream_writer *w, size_t at, struct err *e)
{
    XXH3_64bits_update(w->hash, w->out.p + at, w->out.len - at);
    w->written += (int64_t)(w->out.len - at);
    return w->out.len >= IO_BYTES ? stream_flush(w, e) : 0;
}

int stream_create(struct stream_writer **out, int fd, const char *name,
                  const struct token_info *info, struct err *e)
{
    struct stream_writer *w = calloc(1, sizeof *w);
    unsigned char h[STREAM_HEADER_BYTES] = STREAM_MAGIC;
    int rc = 0;

    *out = NULL;
    if (!w || !(w->name = strdup(name)) || !(w->hash = XXH3_createState())) {
        stream_abandon(w);
        return err_set(e, E_SYS, "out of memory");
    }
    w->fd = fd;
    w->info = *info;
    /* The name of a file need not be UTF-8, but a label in the header must be. */
    label_clean(w->info.tokenizer, sizeof w->info.tokenizer - 1, info->tokenizer);
    XXH3_64bits_reset(w->hash);
    /* A larger pipe means fewer switches between the two; no matter if refused. */
    (void)fcntl(fd, F_SETPIPE_SZ, (int)IO_BYTES);
    put_le(h + 8, STREAM_VERSION, 4);
    put_le(h + 12, STREAM_HEADER_BYTES, 4);
    info_encode(&w->info, h + 16);
    put_le(h + 328, crc32c(0, h, 328), 4);
    /* The header goes out at once, so that the reader can check it while text is still read. */
    if ((rc = info_check(&w->info, e)) == 0 && (rc = buf_add(&w->out, h, sizeof h, e)) == 0 &&
        (rc = added(w, 0, e)) == 0)
        rc = stream_flush(w, e);
    if (rc < 0) {
        stream_abandon(w);
        return rc;
    }
    *out = w;
    return 0;
}

int64_t stream_written(const struct stream_writer *w) { return w->written; }

/* The frame whose payload stands at out->p + at + STREAM_PREFIX_BYTES, to the end of out. */
static int seal_frame(struct buf *out, size_t at, const char *kind, struct err *e)
{
    unsigned char crc[4], *p;
    size_t n = out->len - at - STREAM_PREFIX_BYTES;
    int rc;

    put_le(crc, crc32c(0, out->p + at + STREAM_PREFIX_BYTES, n), 4);
    if ((rc = buf_add(out, crc, 4, e)) < 0)
        return rc;
    /* Only now, since adding the checksum may have moved the buffer. */
    p = (unsigned char *)out->p + at;
    memcpy(p, kind, 4);
    put_le(p + 4, n, 8);
    put_le(p + 12, crc32c(0, p, 12), 4);
    return 0;
}

/* The prefix is left blank at first: the payload's length is known only when it is there. */
int stream_frame(const struct token_info *info, const struct token_doc *doc, struct buf *out,
                 struct err *e)
{
    static const char blank[STREAM_PREFIX_BYTES];
    size_t at = out->len;
    int rc = buf_add(out, blank, sizeof blank, e);

    if (rc == 0 && (rc = doc_encode(out, doc, info, e)) == 0)
        rc = seal_frame(out, at, "DOC ", e);
    if (rc < 0)
        out->len = at; /* the stream goes on as if this document had not been given */
    return rc;
}

/* Frames that were made elsewhere, in other threads for example, are complete and go in as they
 * are. */
int stream_add(struct stream_writer *w, const void *frames, size_t nbytes, int64_t docs,
               int64_t tokens, struct err *e)
{
    int rc;

    w->docs += (uint64_t)docs;
    w->tokens += (uint64_t)tokens;
    /* Frames that wait in out come first, to keep the order. */
    if (nbytes >= IO_BYTES / 4) { /* not worth a copy */
        XXH3_64bits_update(w->hash, frames, nbytes);
        w->written += (int64_t)nbytes;
        rc = stream_flush(w, e);
        return rc < 0 ? rc : file_write_all(w->fd, frames, nbytes, w->name, e);
    }
    rc = buf_add(&w->out, frames, nbytes, e);
    return rc == 0 ? added(w, w->out.len - nbytes, e) : rc;
}

int stream_write(struct stream_writer *w, const struct token_doc *doc, struct err *e)
{
    size_t at = w->out.len;
    int rc = stream_frame(&w->info, doc, &w->out, e);

    if (rc < 0)
        return rc;
    w->docs++;
    w->tokens += (uint64_t)doc->n_ids;
    return added(w, at, e);
}

/* A frame of 'kind' behind what out holds; exactly one of run and mark is its payload. */
static int other_frame(struct buf *out, const char *kind, const struct stream_run *run,
                       const struct stream_mark *mark, struct err *e)
{
    static const char blank[STREAM_PREFIX_BYTES];
    size_t at = out->len;
    int rc = buf_add(out, blank, sizeof blank, e);

    if (rc == 0 && (rc = run ? run_encode(out, run, e) : mark_encode(out, mark, e)) == 0)
        rc = seal_frame(out, at, kind, e);
    if (rc < 0)
        out->len = at;
    return rc;
}

int stream_mark_frame(const struct stream_mark *mark, struct buf *out, struct err *e)
{
    return other_frame(out, "MARK", NULL, mark, e);
}

int stream_run(struct stream_writer *w, const struct stream_run *run, struct err *e)
{
    size_t at = w->out.len;
    int rc = other_frame(&w->out, "RUN ", run, NULL, e);

    return rc < 0 ? rc : added(w, at, e);
}

int stream_mark(struct stream_writer *w, const struct stream_mark *mark, struct err *e)
{
    size_t at = w->out.len;
    int rc = stream_mark_frame(mark, &w->out, e);

    return rc < 0 ? rc : added(w, at, e);
}

/* END is not part of the hash that it carries. The writer is freed on failure too. */
int stream_finish(struct stream_writer *w, struct err *e)
{
    unsigned char b[STREAM_PREFIX_BYTES + STREAM_END_BYTES] = {0};
    size_t at = w->out.len;
    int rc;

    put_le(b + STREAM_PREFIX_BYTES, w->docs, 8);
    put_le(b + STREAM_PREFIX_BYTES + 8, w->tokens, 8);
    put_le(b + STREAM_PREFIX_BYTES + 16, XXH3_64bits_digest(w->hash), 8);
    if ((rc = buf_add(&w->out, b, sizeof b, e)) == 0 &&
        (rc = seal_frame(&w->out, at, "END ", e)) == 0)
        rc = stream_flush(w, e);
    stream_abandon(w);
    return rc;
}

void stream_abandon(struct stream_writer *w)
{
    if (!w)
        return;
    XXH3_freeState(w->hash);
    buf_free(&w->out);
    free(w->name);
    free(w);
}
