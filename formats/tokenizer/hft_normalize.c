/* formats/tokenizer/hft_normalize.c - a text by the steps of a normaliser. */
#include "formats/tokenizer/hft_impl.h"

#include <string.h>

static int replace_text(const struct hft_step *s, const char *p, size_t n, struct buf *out,
                        struct err *e)
{
    const char *end = p + n, *found;
    int rc = 0;

    while (rc == 0 && (found = memmem(p, (size_t)(end - p), s->text, s->text_len))) {
        if ((rc = buf_add(out, p, (size_t)(found - p), e)) == 0)
            rc = buf_add(out, s->to, s->to_len, e);
        p = found + s->text_len;
    }
    return rc < 0 ? rc : buf_add(out, p, (size_t)(end - p), e);
}

static int replace_words(const struct hft_step *s, const char *p, size_t n, struct buf *out,
                         struct err *e)
{
    int rc = 0;

    for (size_t at = 0; at < n && rc == 0; at = words_next(s->words, p, n, at))
        rc = buf_add(out, s->to, s->to_len, e); /* a known pattern matches everything */
    return rc;
}

static int replace_pattern(const struct hft_step *s, const char *p, size_t n, struct buf *out,
                           struct err *e)
{
    struct pattern_at at = { 0 };
    size_t from = 0, start, end;
    int rc;

    while ((rc = pattern_next(s->pattern, &at, p, n, &start, &end, e)) == 1) {
        if ((rc = buf_add(out, p + from, start - from, e)) < 0 ||
            (rc = buf_add(out, s->to, s->to_len, e)) < 0)
            break;
        from = end;
    }
    pattern_done(&at);
    return rc < 0 ? rc : buf_add(out, p + from, n - from, e);
}

static int strip(const struct hft_step *s, const char *p, size_t n, struct buf *out, struct err *e)
{
    size_t k;

    while (s->left && n > 0 && unicode_bits(unicode_at(p, &k)) & UNI_SPACE) {
        p += k;
        n -= k;
    }
    while (s->right && n > 0 && unicode_bits(unicode_before(p, n, &k)) & UNI_SPACE)
        n -= k;
    return buf_add(out, p, n, e);
}

static int one(const struct hft_step *s, const char *p, size_t n, struct buf *out, struct err *e)
{
    int rc = 0;

    switch (s->kind) {
    case NORM_FORM:
        if (s->form == UNICODE_NFC && unicode_is_nfc(p, n))
            return buf_add(out, p, n, e);
        return unicode_form(s->form, p, n, out, e);
    case NORM_PREPEND:
        if (n > 0)
            rc = buf_add(out, s->to, s->to_len, e);
        return rc < 0 ? rc : buf_add(out, p, n, e);
    case NORM_REPLACE:
        if (n == 0)
            return 0;
        return s->text    ? replace_text(s, p, n, out, e)
               : s->words ? replace_words(s, p, n, out, e)
                          : replace_pattern(s, p, n, out, e);
    default:
        return strip(s, p, n, out, e);
    }
}

int hft_normalize(const struct hft *t, const char *p, size_t n, struct buf *out, struct err *e)
{
    struct buf b = { 0 };
    int rc = buf_add(out, p, n, e);

    for (int i = 0; i < t->n_norm && rc == 0; i++) {
        struct buf was = *out;

        b.len = 0;
        rc = one(&t->norm[i], was.p, was.len, &b, e);
        /* Replacing makes a text longer, and another replacing that one: not without end. */
        if (rc == 0 && b.len > 2 * SPM_MAX_TEXT_BYTES)
            rc = err_set(e, E_DATA, "the normal form of a text of %zu bytes is too long", n);
        *out = b;
        b = was;
    }
    buf_free(&b);
    return rc;
}
