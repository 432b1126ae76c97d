/* probes/ruler_text.c - text as a haystack: words of it, cut into sentences. */
#include "probes/ruler_text.h"

#include "formats/tokenizer/unicode.h"

#include <inttypes.h>
#include <string.h>

/* A token has 4 bytes or so of prose, and the search tries three times what it expects. */
enum { BYTES_EACH = 64, LEAST_BYTES = 1 << 16 };

/* White space of any length becomes one space, at either end too, as re.sub(r'\s+', " ", text) has it.
 * Ends where there is more than any haystack may have. */
static int flatten(struct buf *flat, size_t most, const char *text, size_t nbytes, struct err *e)
{
    const char *p = text, *const end = text + nbytes;
    size_t n;
    int rc = 0;

    while (p < end && flat->len <= most && rc == 0) {
        const char *from = p;

        while (p < end && space_at(p, end) == 0)
            p++;
        rc = buf_add(flat, from, (size_t)(p - from), e);
        if (p < end && rc == 0) {
            rc = buf_add(flat, " ", 1, e);
            while (p < end && (n = space_at(p, end)) > 0)
                p += n;
        }
    }
    return rc;
}

int ruler_text_open(struct ruler_text *t, const struct probe_ask *a, struct err *e)
{
    const struct probe_source *s = &a->source;
    size_t at;
    int rc;

    *t = (struct ruler_text){ .n = 1 };
    if (!utf8_valid(s->text, s->nbytes, &at))
        return err_set(e, E_DATA, "the text is not UTF-8 at byte %zu", at);
    t->most = a->length > (int64_t)(SIZE_MAX / 4 / BYTES_EACH) ? SIZE_MAX / 4
                                                               : (size_t)a->length * BYTES_EACH;
    if (t->most < LEAST_BYTES)
        t->most = LEAST_BYTES;
    if ((rc = unicode_open(e)) < 0 || (rc = flatten(&t->flat, t->most, s->text, s->nbytes, e)) < 0)
        return rc;
    if (t->flat.len == 0 || (t->flat.len == 1 && *t->flat.p == ' '))
        return err_set(e, E_DATA, "the text has no words");
    for (const char *p = t->flat.p; (p = memchr(p, ' ', t->flat.len - (size_t)(p - t->flat.p))); p++)
        t->n++;
    return 0;
}

/* Bytes of the first n words, n below all of them. */
static size_t bytes_of(const struct ruler_text *t, int64_t n)
{
    const char *p = t->flat.p;

    for (; n > 0; n--)
        p = (const char *)memchr(p, ' ', t->flat.len - (size_t)(p - t->flat.p)) + 1;
    return (size_t)(p - t->flat.p);
}

int ruler_text_take(struct ruler_text *t, int64_t n, bool *fits, struct err *e)
{
    const int64_t rounds = n / t->n;
    const size_t part = bytes_of(t, n % t->n);
    const char *from, *to;
    int rc = 0;

    *fits = rounds <= (int64_t)(t->most / (t->flat.len + 1)) &&
            (size_t)rounds * (t->flat.len + 1) + part <= t->most;
    if (!*fits)
        return 0;
    t->now.len = 0;
    for (int64_t i = 0; i < rounds && rc == 0; i++)
        if ((rc = buf_add(&t->now, t->flat.p, t->flat.len, e)) == 0)
            rc = buf_add(&t->now, " ", 1, e);
    if (rc == 0 && (rc = buf_add(&t->now, t->flat.p, part, e)) == 0)
        rc = buf_add(&t->now, "", 1, e); /* not empty, so that p is not NULL */
    if (rc < 0)
        return rc;
    for (from = t->now.p, to = from + t->now.len - 1; to > from && to[-1] == ' ';)
        to--;
    while (from < to && *from == ' ')
        from++;
    memmove(t->now.p, from, (size_t)(to - from));
    t->now.len = (size_t)(to - from);
    return sentences_cut(&t->sentences, SENTENCES_ENGLISH, t->now.p, t->now.len, e);
}

void ruler_text_free(struct ruler_text *t)
{
    buf_free(&t->flat);
    buf_free(&t->now);
    sentences_free(&t->sentences);
    *t = (struct ruler_text){ 0 };
}
