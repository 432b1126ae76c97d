/* formats/tokenizer/tokenizer_stream.c - ids to text as they come; see tokenizer.h. */
#include "formats/tokenizer/tokenizer.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define MAX_WAITING 256 /* ids without a whole character: no text, and not to be kept for ever */

/* What an id stands for may depend on those before it (a space at the start, bytes of a character), so
 * the ids of the last text that was given stay, and what is new is what their text grew by. */
struct tokenizer_stream {
    const struct tokenizer *t;
    int32_t *ids;
    size_t cap;
    int64_t n, given; /* given: of the n ids, those whose text is out */
    size_t given_bytes;    /* of the text of those */
};

int tokenizer_stream_open(struct tokenizer_stream **out, const struct tokenizer *t, struct err *e)
{
    struct tokenizer_stream *s = calloc(1, sizeof *s);

    *out = s;
    if (!s)
        return err_set(e, E_SYS, "out of memory");
    s->t = t;
    return 0;
}

void tokenizer_stream_close(struct tokenizer_stream *s)
{
    if (s)
        free(s->ids);
    free(s);
}

/* Half a character at the end decodes to U+FFFD, as yet. */
static bool is_whole(const char *text, size_t n)
{
    return n < 3 || memcmp(text + n - 3, "\xEF\xBF\xBD", 3) != 0;
}

/* Gives what the text grew by; the ids before the last given ones are forgotten. */
static int give(struct tokenizer_stream *s, const char *text, size_t n, struct buf *out,
                struct err *e)
{
    char *kept = NULL;
    int rc = buf_add(out, text + s->given_bytes, n - s->given_bytes, e);

    if (rc < 0)
        return rc;
    s->n -= s->given;
    memmove(s->ids, s->ids + s->given, (size_t)s->n * sizeof *s->ids);
    s->given = s->n;
    rc = tokenizer_decode(s->t, s->ids, s->n, &kept, &s->given_bytes, e);
    free(kept);
    return rc;
}

static int advance(struct tokenizer_stream *s, bool end, struct buf *out, struct err *e)
{
    char *text = NULL;
    size_t n;
    int rc = tokenizer_decode(s->t, s->ids, s->n, &text, &n, e);

    if (rc == 0 && n > s->given_bytes &&
        (end || is_whole(text, n) || s->n - s->given >= MAX_WAITING))
        rc = give(s, text, n, out, e);
    free(text);
    return rc;
}

int tokenizer_stream_next(struct tokenizer_stream *s, int32_t id, struct buf *out, struct err *e)
{
    int rc = array_grow(&s->ids, &s->cap, (size_t)s->n, sizeof *s->ids, 16, "ids", e);

    if (rc < 0)
        return rc;
    s->ids[s->n++] = id;
    if ((rc = advance(s, false, out, e)) < 0)
        s->n--; /* as if it had not come */
    return rc;
}

int tokenizer_stream_end(struct tokenizer_stream *s, struct buf *out, struct err *e)
{
    return s->n > s->given ? advance(s, true, out, e) : 0;
}
