/* formats/tokens/stream_read.c - reading a token stream; see stream.h. The layout stands in
 * stream.md.
 *
 * Bytes come through io, a buffer that one read fills at a time; take copies out of it. The
 * payload of a frame is gathered in one piece, checked, and then taken apart. Nothing is handed
 * out before its checksum matched, and only a good END tells that all of the stream came. */
#include "base/log.h"
#include "base/magic.h"
#include "formats/tokens/document.h"
#include "formats/tokens/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define IO_BYTES ((size_t)1 << 20)

struct stream_reader {
    int fd;
    char *name;
    struct token_info info;
    unsigned char *io; /* read ahead: io[pos .. len) */
    size_t pos, len;
    uint64_t offset; /* of io[pos] in the stream */
    struct buf payload;
    struct doc_space space;
    struct mark_space marks;
    struct tally tally; /* of the marks */
    XXH3_state_t *hash;
    uint64_t docs, tokens, frames;
    double waited_s; /* for its writer */
    int version;
    bool marked, cut; /* cut: the stream stopped without END */
    int state; /* 1 reading, 0 after END, or the code of the failure */
    struct err failure;
};

/* Bytes in io from pos, after at most one read; 0 at the end. E_IO. */
static int64_t fill(struct stream_reader *r, struct err *e)
{
    ssize_t k;
    double start;

    if (r->pos < r->len)
        return (int64_t)(r->len - r->pos);
    start = now_s();
    do
        k = read(r->fd, r->io, IO_BYTES);
    while (k < 0 && errno == EINTR);
    /* Time inside read is time that the writer was slower than the reader. */
    r->waited_s += now_s() - start;
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
            r->cut = true;
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

/* n bytes at h, which are its first. */
static int not_a_stream(struct stream_reader *r, const void *h, size_t n, struct err *e)
{
    const struct magic_form *m = magic_of(h, n, false);

    err_set(e, E_DATA, "'%s' is not a token stream%s%s", r->name, m ? " but " : "",
            m ? m->name : "");
    if (memcmp(h, "LLSHARD", 7) == 0)
        return err_hint(e, "it is a shard already: give it to ltrain or leval as it is");
    if (m && m->form == MAGIC_LFS)
        return err_hint(e, "%s", m->remedy);
    return err_hint(e, "lprep makes one: lprep FILE ... -t tokenizer.model | lpack -o shards/");
}

static int read_header(struct stream_reader *r, struct err *e)
{
    unsigned char h[STREAM_HEADER_BYTES];
    int64_t have = fill(r, e);
    int rc;

    if (have < 0)
        return (int)have;
    if (have == 0) {
        err_set(e, E_DATA, "'%s': no token stream: it is empty", r->name);
        return err_hint(e, "the program that should write it failed at once: see its message");
    }
    /* With 8 bytes at hand, all that was read helps to say what the file is instead. Fewer may
     * come from a slow pipe; these are looked at after take. */
    if (have >= 8 && memcmp(r->io, STREAM_MAGIC, 8) != 0)
        return not_a_stream(r, r->io, (size_t)have, e);
    if ((rc = take(r, h, 8, e)) < 0)
        return rc;
    if (memcmp(h, STREAM_MAGIC, 8) != 0)
        return not_a_stream(r, h, 8, e);
    if ((rc = take(r, h + 8, 4, e)) < 0)
        return rc;
    if (get_le(h + 8, 4) < 1 || get_le(h + 8, 4) > STREAM_VERSION)
        return err_set(e, E_DATA, "'%s': stream version %u, this reads 1 to %d", r->name,
                       (unsigned)get_le(h + 8, 4), STREAM_VERSION);
    /* The version decides what the rest means, so the rest is read only now. */
    r->version = (int)get_le(h + 8, 4);
    if ((rc = take(r, h + 12, sizeof h - 12, e)) < 0)
        return rc;
    if (get_le(h + 328, 4) != crc32c(0, h, 328))
        rc = err_set(e, E_DATA, "header checksum does not match: the stream is damaged");
    else if (get_le(h + 12, 4) != STREAM_HEADER_BYTES)
        rc = err_set(e, E_DATA, "header bytes %u, must be %d", (unsigned)get_le(h + 12, 4),
                     STREAM_HEADER_BYTES);
    else if (get_le(h + 36, 4) != 0)
        rc = err_set(e, E_DATA, "block %u, must be 0 in a stream", (unsigned)get_le(h + 36, 4));
    else
        rc = info_parse(&r->info, h + 16, e);
    XXH3_64bits_update(r->hash, h, sizeof h);
    return rc < 0 ? err_within(e, "'%s': token stream header", r->name) : 0;
}

/* Reads the header, so that it waits for the writer to begin. */
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
    /* A hint: a pipe that cannot be made larger works as well. */
    (void)fcntl(fd, F_SETPIPE_SZ, (int)IO_BYTES);
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

int stream_version(const struct stream_reader *r) { return r->version; }

/* n bytes of payload and 4 of checksum, both left in payload; its memory grows with the bytes
 * that came, not with the claim. */
static int read_payload(struct stream_reader *r, size_t n, uint64_t at, struct err *e)
{
    int rc;

    r->payload.len = 0;
    n += 4;
    while (r->payload.len < n) {
        /* As much again as has come, at least 1 MiB: a false length cannot ask for more than
         * twice the memory of the bytes that are really there. */
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

/* END's counts and hash against what was read, and the marks' sums too if there were any. Then
 * the stream must be over. */
static int check_end(struct stream_reader *r, uint64_t at, struct err *e)
{
    const char *p = r->payload.p;
    struct tally_source all;
    int64_t more;
    int rc = tally_sum(&r->tally, &all, e);

    if (rc < 0)
        return at_frame(r, at, e);
    if (get_le(p, 8) != r->docs)
        rc = err_set(e, E_DATA, "END counts %llu documents, but %llu were read",
                     (unsigned long long)get_le(p, 8), (unsigned long long)r->docs);
    else if (get_le(p + 8, 8) != r->tokens)
        rc = err_set(e, E_DATA, "END counts %llu tokens, but %llu were read",
                     (unsigned long long)get_le(p + 8, 8), (unsigned long long)r->tokens);
    else if (get_le(p + 16, 8) != XXH3_64bits_digest(r->hash))
        rc = err_set(e, E_DATA, "END's hash does not match: frames are missing or out of order");
    else if (r->marked && ((uint64_t)all.docs != r->docs || (uint64_t)all.tokens != r->tokens))
        rc = err_set(e, E_DATA, "its marks count %lld documents, but %llu were read",
                     (long long)all.docs, (unsigned long long)r->docs);
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

/* Which kind of frame begins with pre, whose n is then good; or E_DATA. */
static int frame_kind(const struct stream_reader *r, const unsigned char *pre, struct err *e)
{
    static const char *const name[] = { "END ", "DOC ", "MARK", "RUN " };
    static const uint64_t max[] = { STREAM_END_BYTES, DOC_BYTES_MAX, MARK_BYTES_MAX, MARK_BYTES_MAX };
    /* Version 1 has only END and DOC, the first two of the list. */
    int kind = STREAM_END, kinds = r->version == 1 ? STREAM_MARK : STREAM_RUN + 1;
    uint64_t n = get_le(pre + 4, 8);

    while (kind < kinds && memcmp(pre, name[kind], 4) != 0)
        kind++;
    if (kind == kinds)
        return err_set(e, E_DATA, "kind 0x%08x is neither DOC nor END%s",
                       (unsigned)get_le(pre, 4), r->version == 1 ? "" : ", MARK or RUN");
    if (kind == STREAM_END ? n != STREAM_END_BYTES : n > max[kind])
        return err_set(e, E_DATA, "length %llu, must be %s", (unsigned long long)n,
                       kind == STREAM_END ? "24" : kind == STREAM_DOC ? "at most 2 GiB"
                                                                    : "at most 64 MiB");
    if (kind == STREAM_RUN && r->frames > 0)
        return err_set(e, E_DATA, "RUN is not the first frame");
    return kind;
}

/* Takes the payload apart. What *it gets points into the reader, until the next frame. */
static int decode_frame(struct stream_reader *r, int kind, size_t n, struct stream_item *it,
                        struct err *e)
{
    int rc;

    if (kind == STREAM_RUN)
        return run_decode(&r->marks, r->payload.p, n, &it->run, e);
    if (kind == STREAM_MARK) {
        r->marked = true;
        rc = mark_decode(&r->marks, r->version, r->payload.p, n, &it->mark, e);
        return rc < 0 ? rc : tally_add(&r->tally, &it->mark.tally, e);
    }
    if ((rc = doc_decode(&r->space, r->payload.p, n, &r->info, &it->doc, e)) < 0)
        return rc;
    r->docs++;
    r->tokens += (uint64_t)it->doc.n_ids;
    return 0;
}

/* One frame: its kind, 0 after END, or an error. The prefix has its own checksum, so that a
 * damaged length is found before it is used. */
static int read_frame(struct stream_reader *r, struct stream_item *it, struct err *e)
{
    unsigned char pre[STREAM_PREFIX_BYTES];
    uint64_t at = r->offset, n;
    int kind, rc = take(r, pre, sizeof pre, e);

    if (rc < 0)
        return rc;
    if (get_le(pre + 12, 4) != crc32c(0, pre, 12)) {
        err_set(e, E_DATA, "checksum of kind and length does not match: the stream is damaged");
        return at_frame(r, at, e);
    }
    n = get_le(pre + 4, 8);
    if ((kind = frame_kind(r, pre, e)) < 0)
        return at_frame(r, at, e);
    if ((rc = read_payload(r, n, at, e)) < 0)
        return rc;
    if (kind == STREAM_END)
        return check_end(r, at, e);
    if ((rc = decode_frame(r, kind, n, it, e)) < 0)
        return rc == E_DATA ? at_frame(r, at, e) : rc;
    /* END does not reach this line, so the hash covers all frames before it. */
    XXH3_64bits_update(r->hash, pre, sizeof pre);
    XXH3_64bits_update(r->hash, r->payload.p, r->payload.len);
    r->frames++;
    return kind;
}

/* The state stays after END or a failure: later calls give the same answer again. */
int stream_next(struct stream_reader *r, struct stream_item *it, struct err *e)
{
    if (r->state > 0)
        r->state = read_frame(r, it, &r->failure);
    if (r->state < 0 && e)
        *e = r->failure;
    return r->state;
}

int stream_read(struct stream_reader *r, struct token_doc *doc, struct err *e)
{
    struct stream_item it;
    int rc;

    /* STREAM_MARK and STREAM_RUN are above STREAM_DOC and are passed over here. */
    while ((rc = stream_next(r, &it, e)) > STREAM_DOC)
        ;
    if (rc == STREAM_DOC)
        *doc = it.doc;
    return rc;
}

const struct tally *stream_tally(const struct stream_reader *r) { return &r->tally; }
bool stream_cut(const struct stream_reader *r) { return r->cut; }
double stream_waited_s(const struct stream_reader *r) { return r->waited_s; }
int64_t stream_offset(const struct stream_reader *r) { return (int64_t)r->offset; }

void stream_close(struct stream_reader *r)
{
    if (!r)
        return;
    XXH3_freeState(r->hash);
    doc_space_free(&r->space);
    mark_space_free(&r->marks);
    tally_free(&r->tally);
    buf_free(&r->payload);
    free(r->io);
    free(r->name);
    free(r);
}
