/* prep/output.c - see output.h. */
#include "prep/output.h"

#include "base/file.h"
#include "formats/text/source_list.h"

#define LINES_BYTES ((size_t)256 << 10) /* of JSON are written at once */
#define MARK_BYTES ((int64_t)64 << 10)  /* between marks, at least */
#define KEYS_BYTES ((size_t)1 << 20)    /* of keys wait, at most */
#define INPUT_BYTES 64                  /* of a mark, about, for each input */

int output_open(struct output *out, const struct token_info *info, const struct stream_run *run,
                struct err *e)
{
    int rc;

    out->done = out->marked;
    if (!info)
        return 0;
    if ((rc = stream_create(&out->stream, out->fd, out->name, info, e)) < 0 || !run)
        return rc;
    out->resumable = true;
    if ((rc = stream_run(out->stream, run, e)) == 0)
        rc = stream_flush(out->stream, e); /* lpack learns at once what it is to do */
    out->marked_at = stream_written(out->stream);
    return rc;
}

/* JSON lines wait in memory and are written many at a time. */
static int flush_lines(struct output *out, struct err *e)
{
    int rc = file_write_all(out->fd, out->lines.p, out->lines.len, out->name, e);

    out->lines.len = 0;
    return rc;
}

int output_add(struct output *out, const void *p, size_t nbytes, int64_t docs, int64_t tokens,
               struct err *e)
{
    int rc;

    if (nbytes == 0)
        return 0;
    if (out->stream)
        return stream_add(out->stream, p, nbytes, docs, tokens, e);
    rc = buf_add(&out->lines, p, nbytes, e);
    return rc == 0 && out->lines.len >= LINES_BYTES ? flush_lines(out, e) : rc;
}

int output_flush(struct output *out, struct err *e)
{
    return out->stream ? stream_flush(out->stream, e) : flush_lines(out, e);
}

/* With inputs: the run can go on from here. */
static int put_mark(struct output *out, bool inputs, struct err *e)
{
    struct stream_mark m = { .tally = out->since,
                             .keys = (const unsigned char *)out->keys.p,
                             .n_keys = (int64_t)(out->keys.len / 16) };
    int rc = 0;

    out->inputs.len = 0;
    /* The inputs that have ended since the last mark that named some. */
    for (int64_t i = out->marked; i < out->done && inputs && rc == 0; i++) {
        const struct source_item *f = source_file(out->source, i);
        struct stream_input in = { f->path, f->bytes, f->mtime_ns };
        rc = buf_add(&out->inputs, &in, sizeof in, e);
        m.n_inputs++;
    }
    m.inputs = (struct stream_input *)(void *)out->inputs.p;
    if (rc < 0 || (rc = stream_mark(out->stream, &m, e)) < 0)
        return rc;
    if (inputs)
        out->marked = out->done;
    out->marked_at = stream_written(out->stream);
    out->keys.len = 0;
    tally_clear(&out->since);
    return 0;
}

int output_done(struct output *out, int64_t at, struct err *e)
{
    int64_t bytes;

    if (!out->resumable || at == out->done)
        return 0;
    out->done = at;
    /* A mark also comes where there is much for it to say, not only after much text: many
     * small or empty inputs, many keys. */
    bytes = stream_written(out->stream) - out->marked_at + (int64_t)out->keys.len +
            INPUT_BYTES * (out->done - out->marked);
    return bytes >= MARK_BYTES ? put_mark(out, true, e) : 0;
}

int output_key(struct output *out, XXH128_hash_t key, struct err *e)
{
    unsigned char p[16];
    int rc;

    if (!out->resumable)
        return 0;
    put_le(p, key.low64, 8);
    put_le(p + 8, key.high64, 8);
    if ((rc = buf_add(&out->keys, p, sizeof p, e)) < 0)
        return rc;
    return out->keys.len >= KEYS_BYTES ? put_mark(out, false, e) : 0;
}

/* After the last file no batch follows that would say it has ended: "all" says it. */
int output_close(struct output *out, bool all, int rc, struct err *e)
{
    if (rc == 0 && out->stream && out->resumable && all)
        out->done = source_files(out->source);
    if (rc == 0 && out->stream)
        rc = put_mark(out, out->resumable && all, e);
    if (rc == 0)
        rc = out->stream ? stream_finish(out->stream, e) : flush_lines(out, e);
    else if (out->stream) {
        if (out->resumable) /* as much as there is, for the next run */
            stream_flush(out->stream, NULL);
        stream_abandon(out->stream);
    }
    buf_free(&out->lines);
    buf_free(&out->keys);
    buf_free(&out->inputs);
    tally_free(&out->since);
    return rc;
}
