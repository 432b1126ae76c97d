/* formats/text/records.c - see records.h. */
#include "formats/text/records.h"

#include <string.h>

#define BLOCK_BYTES ((size_t)256 << 10)
#define PEEK_BYTES ((size_t)64 << 10) /* how far to look for the end of the first line */

/* One struct serves many streams: the buffer's memory is kept, all else begins anew. */
void records_start(struct records *r, enum record_mode mode, size_t max_bytes,
                   record_read_fn *read, void *ctx)
{
    struct buf keep = r->b;

    keep.len = 0;
    *r = (struct records){ .longer = r->longer, .b = keep, .max_bytes = max_bytes, .line = 1, .mode = mode,
                           .read = read, .ctx = ctx };
}

void records_free(struct records *r) { buf_free(&r->b); }
void records_swap(struct records *r, struct buf *b)
{
    struct buf text = r->b;

    r->b = *b;
    r->b.len = 0;
    *b = text;
}

enum record_mode records_mode(const struct records *r) { return r->mode; }

static int too_long(const struct records *r, struct err *e)
{
    if (r->mode == RECORDS_TEXT) {
        err_set(e, E_DATA, "a text of more than %zu bytes", r->max_bytes);
        return r->longer ? err_hint(e, "%s if it is one document, else split it", r->longer)
                         : err_hint(e, "split it");
    }
    err_set(e, E_DATA, "line %lld, byte %lld: a record of more than %zu bytes",
            (long long)r->line, (long long)r->offset, r->max_bytes);
    return r->longer ? err_hint(e, "%s to read it", r->longer) : err_hint(e, "leave it out, or split it");
}

/* Reads one more block behind what is unread. That moves to the front only when at least as
 * many bytes were handed out, so that all moves together cost no more than reading. */
static int fill(struct records *r, struct err *e)
{
    size_t unread = r->b.len - r->at;
    int64_t n;
    int rc;

    if (r->at && unread <= r->at) {
        memmove(r->b.p, r->b.p + r->at, unread);
        r->seen -= r->at;
        r->b.len = unread;
        r->at = 0;
    }
    if ((rc = buf_reserve(&r->b, BLOCK_BYTES, e)) < 0)
        return rc;
    if ((n = r->read(r->ctx, r->b.p + r->b.len, BLOCK_BYTES, e)) < 0)
        return (int)n;
    r->b.len += (size_t)n;
    /* Only a read of 0 bytes is the end; a short one may come of a pipe. */
    r->eof = n == 0;
    return 0;
}

/* Passes over n bytes, counting their lines. */
static void pass(struct records *r, size_t n)
{
    const char *p = r->b.p + r->at;
    int64_t lines = 0;

    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    r->line += lines;
    r->offset += (int64_t)n;
    r->at += n;
    if (r->seen < r->at)
        r->seen = r->at;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* The next byte that is no white space, passed up to; -1 at the end of the stream. Errors
 * are below -1 here, so that both can be told apart. */
static int next_byte(struct records *r, struct err *e)
{
    size_t i;
    int rc;

    for (;;) {
        for (i = r->at; i < r->b.len && is_space(r->b.p[i]); i++)
            ;
        pass(r, i - r->at);
        if (r->at < r->b.len)
            return (unsigned char)r->b.p[r->at];
        if (r->eof)
            return -1;
        if ((rc = fill(r, e)) < 0)
            return rc;
    }
}

/* The next n bytes as a record. Line and offset are those of its first byte, so they are
 * taken before pass counts on. */
static struct record hand_out(struct records *r, size_t n)
{
    struct record rec = { r->b.p + r->at, n, r->line, r->offset };

    pass(r, n);
    return rec;
}

static bool is_mark(const char *p, const char *end)
{
    return end - p >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0;
}

/* JSON lines if the first line is an object to itself, else values over several lines. */
static enum record_mode lines_or_values(const char *p, const char *end)
{
    const char *nl = memchr(p, '\n', (size_t)(end - p));

    /* No line end in what was read so far (64 KiB, or the whole stream): it is taken as one
     * line. */
    if (!nl)
        return RECORDS_LINES;
    /* The '\r' of a DOS line end and blanks before it do not count. */
    while (nl > p && is_space(nl[-1]))
        nl--;
    return nl > p && nl[-1] == '}' ? RECORDS_LINES : RECORDS_VALUES;
}

/* Decides the mode by the first 64 KiB: text, JSON lines, or values (an array, or objects
 * that go over several lines). AUTO takes a stream for JSON only if its first two
 * characters that are no white space can begin objects or an array of them: {" or {} or [{
 * or []. So a text that begins with "[1]" or "{see" is text. */
static int settle_mode(struct records *r, struct err *e)
{
    const char *p, *end, *next;
    int rc = 0;

    while (rc == 0 && !r->eof && r->b.len < PEEK_BYTES)
        rc = fill(r, e);
    if (rc < 0 || r->mode == RECORDS_TEXT)
        return rc;
    p = r->b.p;
    end = p + r->b.len;
    if (is_mark(p, end))
        p += 3;
    next = p;
    while (next < end && (is_space(*next) || is_mark(next, end))) /* a second mark is told later */
        next += is_space(*next) ? 1 : 3;
    if (r->mode == RECORDS_AUTO) {
        const char *then = next < end ? next + 1 : end;
        while (then < end && is_space(*then))
            then++;
        bool row = next < end && then < end &&
                   ((*next == '{' && (*then == '"' || *then == '}')) ||
                    (*next == '[' && (*then == '{' || *then == ']')));
        if (!row) {
            r->mode = RECORDS_TEXT;
            return 0;
        }
    }
    if (next < end && *next == '[')
        r->mode = RECORDS_VALUES;
    else if (r->mode != RECORDS_LINES)
        r->mode = next < end && *next == '{' ? lines_or_values(next, end) : RECORDS_LINES;
    pass(r, (size_t)(p - r->b.p)); /* a byte order mark before JSON says nothing */
    return 0;
}

/* The whole stream as one record. It is read to its end first, and refused as soon as it is
 * too long, so that a huge file does not fill the memory. */
static int next_text(struct records *r, struct record *rec, struct err *e)
{
    int rc = 0;

    while (rc == 0 && !r->eof)
        rc = r->b.len > r->max_bytes ? too_long(r, e) : fill(r, e);
    if (rc < 0)
        return rc;
    r->done = true;
    *rec = (struct record){ r->b.p, r->b.len, 1, 0 };
    return 1;
}

static int misplaced(const struct records *r, const char *why, struct err *e)
{
    return err_set(e, E_DATA, "line %lld, byte %lld: %s", (long long)r->line,
                   (long long)r->offset, why);
}

/* The mark that some editors put before a text, where it is before another row. */
static int second_mark(const struct records *r, struct err *e)
{
    misplaced(r, "a byte order mark (U+FEFF) before a row", e);
    return err_hint(e, "only the first may have one: sed 's/\\xEF\\xBB\\xBF//' FILE removes them");
}

static bool at_mark(const struct records *r) { return is_mark(r->b.p + r->at, r->b.p + r->b.len); }

/* The next line that is not blank. Its '\n' stays unread: next_byte passes over it at the
 * next call. seen is how far the line was searched, so that a long one is not searched
 * again from its start after each block. */
static int next_line(struct records *r, struct record *rec, struct err *e)
{
    const char *nl;
    int c, rc;

    if ((c = next_byte(r, e)) == -1)
        return 0;
    if (c < 0)
        return c;
    if (c == 0xEF && at_mark(r))
        return second_mark(r, e);
    for (;;) {
        nl = memchr(r->b.p + r->seen, '\n', r->b.len - r->seen);
        r->seen = nl ? (size_t)(nl - r->b.p) : r->b.len;
        if (r->seen - r->at > r->max_bytes)
            return too_long(r, e);
        if (nl || r->eof)
            break;
        if ((rc = fill(r, e)) < 0)
            return rc;
    }
    *rec = (struct record){ r->b.p + r->at, r->seen - r->at, r->line, r->offset };
    r->offset += (int64_t)rec->n; /* there is no line end in it to be counted */
    r->at = r->seen;
    return 1;
}

/* Moves past '[', ',' and ']' to the next row: 1, or 0 at the end. */
static int seek_row(struct records *r, struct err *e)
{
    int c;

    for (;;) {
        if ((c = next_byte(r, e)) < -1)
            return c;
        if (c == -1)
            return r->in_array ? misplaced(r, "the array is cut short: no ']' at its end", e)
                               : 0;
        if (!r->in_array && !r->after_row && c == '[') {
            r->in_array = true;
            pass(r, 1);
            continue;
        }
        if (r->in_array && c == ']') {
            /* Only white space may follow the array's ']'. */
            pass(r, 1);
            r->in_array = r->after_row = false;
            r->done = true;
            c = next_byte(r, e);
            return c < -1 ? c : c == -1 ? 0 : misplaced(r, "something follows the array", e);
        }
        /* A comma is asked for between rows; one before ']' is let through. */
        if (r->in_array && r->after_row) {
            if (c != ',')
                return misplaced(r, "',' is missing after a row", e);
            pass(r, 1);
            r->after_row = false;
            continue;
        }
        if (c == 0xEF && at_mark(r))
            return second_mark(r, e);
        return c == '{' ? 1 : misplaced(r, "a row is not an object", e);
    }
}

/* The next object, cut by its braces. json_ending remembers its state (depth, inside a
 * string or not) in end, so each block is looked at once. */
static int next_value(struct records *r, struct record *rec, struct err *e)
{
    struct json_ending end = { 0 };
    size_t n;
    int rc;

    if ((rc = seek_row(r, e)) <= 0)
        return rc;
    for (r->seen = r->at;;) {
        if ((n = json_ending(&end, r->b.p + r->seen, r->b.len - r->seen)) > 0)
            break;
        r->seen = r->b.len;
        if (r->seen - r->at > r->max_bytes)
            return too_long(r, e);
        if (r->eof)
            return misplaced(r, "the object that begins here is cut short", e);
        if ((rc = fill(r, e)) < 0)
            return rc;
    }
    r->seen += n;
    if (r->seen - r->at > r->max_bytes)
        return too_long(r, e);
    *rec = hand_out(r, r->seen - r->at);
    r->after_row = true;
    return 1;
}

int records_next(struct records *r, struct record *rec, struct err *e)
{
    int rc;

    if (r->done)
        return 0;
    /* Nothing was read yet: the first call settles the mode. */
    if (r->offset == 0 && r->b.len == 0 && (rc = settle_mode(r, e)) < 0)
        return rc;
    return r->mode == RECORDS_TEXT    ? next_text(r, rec, e)
           : r->mode == RECORDS_LINES ? next_line(r, rec, e)
                                      : next_value(r, rec, e);
}
