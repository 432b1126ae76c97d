/* formats/stream.c - see stream.h; the layout stands in stream.md. */
#include "formats/stream.h"
#include "base/file.h"
#include "formats/document.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define STREAM_MAGIC "LLSTREAM"
#define STREAM_VERSION 1
#define HEADER_BYTES 332
#define PREFIX_BYTES STREAM_PREFIX_BYTES
#define END_BYTES 24
#define IO_BYTES ((size_t)1 << 20)

struct stream_writer {
    int fd;
    char *name;
    struct token_info info;
    struct buf out; /* frames not yet written */
    XXH3_state_t *hash;
    uint64_t docs, tokens;
};

/* A larger pipe means fewer switches between producer and consumer; no matter if refused. */
static void widen_pipe(int fd)
{
    (void)fcntl(fd, F_SETPIPE_SZ, (int)IO_BYTES);
}

static int writer_flush(struct stream_writer *w, struct err *e)
{
    int rc = file_write_all(w->fd, w->out.p, w->out.len, w->name, e);

    w->out.len = 0;
    return rc;
}

int stream_create(struct stream_writer **out, int fd, const char *name,
                  const struct token_info *info, struct err *e)
{
    struct stream_writer *w = calloc(1, sizeof *w);
    unsigned char h[HEADER_BYTES] = STREAM_MAGIC;
    int rc = 0;

    *out = NULL;
    if (!w || !(w->name = strdup(name)) || !(w->hash = XXH3_createState())) {
        stream_abandon(w);
        return err_set(e, E_SYS, "out of memory");
    }
    w->fd = fd;
    w->info = *info;
    label_clean(w->info.tokenizer, sizeof w->info.tokenizer - 1, info->tokenizer);
    XXH3_64bits_reset(w->hash);
    widen_pipe(fd);
    put_le(h + 8, STREAM_VERSION, 4);
    put_le(h + 12, HEADER_BYTES, 4);
    info_encode(&w->info, h + 16);
    put_le(h + 328, crc32c(0, h, 328), 4);
    XXH3_64bits_update(w->hash, h, sizeof h);
    if ((rc = info_check(&w->info, e)) == 0 && (rc = buf_add(&w->out, h, sizeof h, e)) == 0)
        rc = writer_flush(w, e);
    if (rc < 0) {
        stream_abandon(w);
        return rc;
    }
    *out = w;
    return 0;
}

/* The frame whose payload stands at out->p + at + PREFIX_BYTES, to the end of out. */
static int seal_frame(struct buf *out, size_t at, const char *kind, struct err *e)
{
    unsigned char crc[4], *p;
    size_t n = out->len - at - PREFIX_BYTES;
    int rc;

    put_le(crc, crc32c(0, out->p + at + PREFIX_BYTES, n), 4);
    if ((rc = buf_add(out, crc, 4, e)) < 0)
        return rc;
    p = (unsigned char *)out->p + at;
    memcpy(p, kind, 4);
    put_le(p + 4, n, 8);
    put_le(p + 12, crc32c(0, p, 12), 4);
    return 0;
}

int stream_frame(const struct token_info *info, const struct token_doc *doc, struct buf *out,
                 struct err *e)
{
    static const char blank[PREFIX_BYTES];
    size_t at = out->len;
    int rc = buf_add(out, blank, sizeof blank, e);

    if (rc == 0 && (rc = doc_encode(out, doc, info, e)) == 0)
        rc = seal_frame(out, at, "DOC ", e);
    if (rc < 0)
        out->len = at; /* the stream goes on as if this document had not been given */
    return rc;
}

int stream_add(struct stream_writer *w, const void *frames, size_t nbytes, int64_t docs,
               int64_t tokens, struct err *e)
{
    int rc;

    XXH3_64bits_update(w->hash, frames, nbytes);
    w->docs += (uint64_t)docs;
    w->tokens += (uint64_t)tokens;
    if (nbytes >= IO_BYTES / 4) { /* not worth a copy */
        rc = writer_flush(w, e);
        return rc < 0 ? rc : file_write_all(w->fd, frames, nbytes, w->name, e);
    }
    rc = buf_add(&w->out, frames, nbytes, e);
    return rc == 0 && w->out.len >= IO_BYTES ? writer_flush(w, e) : rc;
}

int stream_write(struct stream_writer *w, const struct token_doc *doc, struct err *e)
{
    size_t at = w->out.len;
    int rc = stream_frame(&w->info, doc, &w->out, e);

    if (rc < 0)
        return rc;
    XXH3_64bits_update(w->hash, w->out.p + at, w->out.len - at);
    w->docs++;
    w->tokens += (uint64_t)doc->n_ids;
    return w->out.len >= IO_BYTES ? writer_flush(w, e) : 0;
}

int stream_finish(struct stream_writer *w, struct err *e)
{
    unsigned char b[PREFIX_BYTES + END_BYTES] = {0};
    size_t at = w->out.len;
    int rc;

    put_le(b + PREFIX_BYTES, w->docs, 8);
    put_le(b + PREFIX_BYTES + 8, w->tokens, 8);
    put_le(b + PREFIX_BYTES + 16, XXH3_64bits_digest(w->hash), 8);
    if ((rc = buf_add(&w->out, b, sizeof b, e)) == 0 &&
        (rc = seal_frame(&w->out, at, "END ", e)) == 0)
        rc = writer_flush(w, e);
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

struct stream_reader {
    int fd;
    char *name;
    struct token_info info;
    unsigned char *io; /* read ahead: io[pos .. len) */
    size_t pos, len;
    uint64_t offset; /* of io[pos] in the stream */
    struct buf payload;
    struct doc_space space;
    XXH3_state_t *hash;
    uint64_t docs, tokens;
    int state; /* 1 reading, 0 after END, or the code of the failure */
    struct err failure;
};

/* Bytes in io from pos, after at most one read; 0 at the end. E_IO. */
static int64_t fill(struct stream_reader *r, struct err *e)
{
    ssize_t k;

    if (r->pos < r->len)
        return (int64_t)(r->len - r->pos);
    do
        k = read(r->fd, r->io, IO_BYTES);
    while (k < 0 && errno == EINTR);
    if (k < 0)
        return err_sys(e, errno == EISDIR ? E_NOINPUT : E_IO, "cannot read '%s'", r->name);
    r->pos = 0;
    r->len = (size_t)k;
    return k;
}

/* The next n bytes to p; E_DATA when the stream ends within them. */
static int take(struct stream_reader *r, void *p, size_t n, struct err *e)
{
    unsigned char *to = p;

    while (n > 0) {
        int64_t have = fill(r, e);
        if (have < 0)
            return (int)have;
        if (have == 0) {
            err_set(e, E_DATA, "'%s': the token stream stops at byte %llu without END", r->name,
                    (unsigned long long)r->offset);
            return err_hint(e, "what wrote it failed or was killed: see its message, run it again");
        }
        if ((size_t)have > n)
            have = (int64_t)n;
        memcpy(to, r->io + r->pos, (size_t)have);
        r->pos += (size_t)have;
        r->offset += (uint64_t)have;
        to += have;
        n -= (size_t)have;
    }
    return 0;
}

/* "'name': frame at byte N: " before what was found. */
static int at_frame(struct stream_reader *r, uint64_t offset, struct err *e)
{
    return err_within(e, "'%s': frame at byte %llu", r->name, (unsigned long long)offset);
}

static int not_a_stream(struct stream_reader *r, const unsigned char *h, struct err *e)
{
    err_set(e, E_DATA, "'%s' is not a token stream", r->name);
    if (memcmp(h, "LLSHARD", 7) == 0)
        return err_hint(e, "it is a shard already: give it to ltrain or leval as it is");
    return err_hint(e, "lprep makes one: lprep FILE ... -t tokenizer.model | lpack -o shards/");
}

static int read_header(struct stream_reader *r, struct err *e)
{
    unsigned char h[HEADER_BYTES];
    int64_t have = fill(r, e);
    int rc;

    if (have < 0)
        return (int)have;
    if (have == 0) {
        err_set(e, E_DATA, "'%s': no token stream: not one byte came", r->name);
        return err_hint(e, "what should write it failed before it began: see its message");
    }
    if (have >= 8 && memcmp(r->io, STREAM_MAGIC, 8) != 0)
        return not_a_stream(r, r->io, e);
    if ((rc = take(r, h, 8, e)) < 0)
        return rc;
    if (memcmp(h, STREAM_MAGIC, 8) != 0)
        return not_a_stream(r, h, e);
    if ((rc = take(r, h + 8, 4, e)) < 0)
        return rc;
    if (get_le(h + 8, 4) != STREAM_VERSION)
        return err_set(e, E_DATA, "'%s': stream version %u, this reads %d", r->name,
                       (unsigned)get_le(h + 8, 4), STREAM_VERSION);
    if ((rc = take(r, h + 12, sizeof h - 12, e)) < 0)
        return rc;
    if (get_le(h + 328, 4) != crc32c(0, h, 328))
        rc = err_set(e, E_DATA, "header checksum does not match: the stream is damaged");
    else if (get_le(h + 12, 4) != HEADER_BYTES)
        rc = err_set(e, E_DATA, "header bytes %u, must be %d", (unsigned)get_le(h + 12, 4),
                     HEADER_BYTES);
    else if (get_le(h + 36, 4) != 0)
        rc = err_set(e, E_DATA, "block %u, must be 0 in a stream", (unsigned)get_le(h + 36, 4));
    else
        rc = info_parse(&r->info, h + 16, e);
    XXH3_64bits_update(r->hash, h, sizeof h);
    return rc < 0 ? err_within(e, "'%s': token stream header", r->name) : 0;
}

int stream_open(struct stream_reader **out, int fd, const char *name, struct err *e)
{
    struct stream_reader *r = calloc(1, sizeof *r);
    int rc;

    *out = NULL;
    if (!r || !(r->name = strdup(name)) || !(r->io = malloc(IO_BYTES)) ||
        !(r->hash = XXH3_createState())) {
        stream_close(r);
        return err_set(e, E_SYS, "out of memory");
    }
    r->fd = fd;
    r->state = 1;
    XXH3_64bits_reset(r->hash);
    widen_pipe(fd);
    if ((rc = read_header(r, e)) < 0) {
        stream_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

const struct token_info *stream_info(const struct stream_reader *r)
{
    return &r->info;
}

/* n bytes of payload and 4 of checksum, both left in payload; its memory grows with the bytes
 * that came, not with the claim. */
static int read_payload(struct stream_reader *r, size_t n, uint64_t at, struct err *e)
{
    int rc;

    r->payload.len = 0;
    n += 4;
    while (r->payload.len < n) {
        size_t step = r->payload.len > IO_BYTES ? r->payload.len : IO_BYTES;
        if (step > n - r->payload.len)
            step = n - r->payload.len;
        if ((rc = buf_reserve(&r->payload, step, e)) < 0 ||
            (rc = take(r, r->payload.p + r->payload.len, step, e)) < 0)
            return rc;
        r->payload.len += step;
    }
    if (get_le(r->payload.p + n - 4, 4) != crc32c(0, r->payload.p, n - 4)) {
        err_set(e, E_DATA, "checksum does not match: the stream is damaged");
        return at_frame(r, at, e);
    }
    return 0;
}

static int check_end(struct stream_reader *r, uint64_t at, struct err *e)
{
    const char *p = r->payload.p;
    int64_t more;
    int rc = 0;

    if (get_le(p, 8) != r->docs)
        rc = err_set(e, E_DATA, "END says %llu documents, %llu came",
                     (unsigned long long)get_le(p, 8), (unsigned long long)r->docs);
    else if (get_le(p + 8, 8) != r->tokens)
        rc = err_set(e, E_DATA, "END says %llu tokens, %llu came",
                     (unsigned long long)get_le(p + 8, 8), (unsigned long long)r->tokens);
    else if (get_le(p + 16, 8) != XXH3_64bits_digest(r->hash))
        rc = err_set(e, E_DATA, "END's hash does not match: frames are missing or out of order");
    if (rc < 0)
        return at_frame(r, at, e);
    if ((more = fill(r, e)) < 0)
        return (int)more;
    if (more > 0) {
        err_set(e, E_DATA, "'%s': bytes after END, at byte %llu", r->name,
                (unsigned long long)r->offset);
        return err_hint(e, "give lpack several streams as several files, not joined");
    }
    return 0;
}

static int read_frame(struct stream_reader *r, struct token_doc *doc, struct err *e)
{
    unsigned char pre[PREFIX_BYTES];
    uint64_t at = r->offset, n;
    bool end;
    int rc = take(r, pre, sizeof pre, e);

    if (rc < 0)
        return rc;
    if (get_le(pre + 12, 4) != crc32c(0, pre, 12)) {
        err_set(e, E_DATA, "checksum of kind and length does not match: the stream is damaged");
        return at_frame(r, at, e);
    }
    end = memcmp(pre, "END ", 4) == 0;
    n = get_le(pre + 4, 8);
    if (!end && memcmp(pre, "DOC ", 4) != 0)
        rc = err_set(e, E_DATA, "kind 0x%08x is neither DOC nor END", (unsigned)get_le(pre, 4));
    else if (end ? n != END_BYTES : n > DOC_BYTES_MAX)
        rc = err_set(e, E_DATA, "length %llu, must be %s", (unsigned long long)n,
                     end ? "24" : "at most 2 GiB");
    if (rc < 0)
        return at_frame(r, at, e);
    if ((rc = read_payload(r, n, at, e)) < 0)
        return rc;
    if (end)
        return check_end(r, at, e);
    if ((rc = doc_decode(&r->space, r->payload.p, n, &r->info, doc, e)) < 0)
        return rc == E_DATA ? at_frame(r, at, e) : rc;
    XXH3_64bits_update(r->hash, pre, sizeof pre);
    XXH3_64bits_update(r->hash, r->payload.p, r->payload.len);
    r->docs++;
    r->tokens += (uint64_t)doc->n_ids;
    return 1;
}

int stream_read(struct stream_reader *r, struct token_doc *doc, struct err *e)
{
    if (r->state == 1)
        r->state = read_frame(r, doc, &r->failure);
    if (r->state < 0 && e)
        *e = r->failure;
    return r->state;
}

void stream_close(struct stream_reader *r)
{
    if (!r)
        return;
    XXH3_freeState(r->hash);
    doc_space_free(&r->space);
    buf_free(&r->payload);
    free(r->io);
    free(r->name);
    free(r);
}
