/* formats/tokenizer/hft_decode.c - ids to text, by the decoder of a tokenizer.json. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

static int unknown(const struct hft_value *o, const char *what, struct err *e)
{
    return hft_bad(o->start, o->v.p, e, "field 'decoder': %s is not supported", what);
}

static bool says(const struct hft_value *o, const char *key, const char *word, struct err *e)
{
    struct hft_value f;

    return hft_field(o, key, &f, e) == 1 && f.v.type == JK_STRING && json_is(&f.v, word);
}

/* U+2581 becomes a space. */
static int read_replace(struct hft *t, const struct hft_value *o, struct err *e)
{
    struct hft_value pattern;
    int rc = hft_field(o, "pattern", &pattern, e);

    if (rc < 0)
        return rc;
    if (rc == 0 || !says(&pattern, "String", SPACE_MARK, e) || !says(o, "content", " ", e))
        return unknown(o, "a Replace that is not of U+2581 by a space", e);
    t->decode.marks = true;
    return 0;
}

static int read_strip(struct hft *t, const struct hft_value *o, struct err *e)
{
    struct hft_value start, stop;
    int rc = hft_field(o, "start", &start, e);

    if (rc == 1)
        rc = hft_field(o, "stop", &stop, e);
    if (rc < 0)
        return rc;
    if (rc == 0 || start.v.n != 1 || stop.v.n != 1 || *stop.v.p != '0' || *start.v.p < '0' ||
        *start.v.p > '9' || !says(o, "content", " ", e) || !t->decode.fuse)
        return unknown(o, "a Strip that is not of spaces before the whole text", e);
    t->decode.strip = *start.v.p - '0';
    return 0;
}

static int read_metaspace(struct hft *t, const struct hft_value *o, struct err *e)
{
    bool prefix;
    int rc = hft_bool(o, "add_prefix_space", true, &prefix, e);

    if (rc < 0)
        return rc;
    if (!says(o, "replacement", SPACE_MARK, e))
        return unknown(o, "a Metaspace that is not of U+2581", e);
    t->decode.marks = true;
    t->decode.first_mark = prefix && !says(o, "prepend_scheme", "never", e);
    return 0;
}

/* Steps in the order that they may have; each at most once. */
static int read_one(struct hft *t, const struct hft_value *o, int *stage, struct err *e)
{
    static const char *const names[] = { "ByteLevel", "Replace", "Metaspace", "ByteFallback",
                                         "Fuse", "Strip" };
    struct hft_value type;
    int rc = hft_field(o, "type", &type, e), k = 0;

    if (rc <= 0)
        return rc < 0 ? rc : unknown(o, "a step without a type", e);
    while (k < 6 && (type.v.type != JK_STRING || !json_is(&type.v, names[k])))
        k++;
    if (k == 6)
        return hft_bad(type.start, type.v.p, e, "field 'decoder.type': '%.*s' is not supported",
                       type.v.n < 40 ? (int)type.v.n : 40, type.v.p);
    if (k < *stage || t->decode.bytes)
        return unknown(o, "this order of steps", e);
    *stage = k + 1;
    switch (k) {
    case 0:
        t->decode.bytes = true;
        return 0;
    case 1:
        return read_replace(t, o, e);
    case 2:
        return read_metaspace(t, o, e);
    case 3:
        t->decode.fallback = true;
        return 0;
    case 4:
        t->decode.fuse = true;
        return 0;
    default:
        return read_strip(t, o, e);
    }
}

int hft_read_decoder(struct hft *t, const struct hft_value *decoder, struct err *e)
{
    struct hft_value list, item = { .start = decoder->start, .path = "decoder" };
    struct json_object scan;
    int rc, stage = 0;

    if (!decoder->v.p) {
        t->decode.join = true;
        return 0;
    }
    if (!says(decoder, "type", "Sequence", e))
        return read_one(t, decoder, &stage, e);
    if ((rc = hft_field(decoder, "decoders", &list, e)) < 0)
        return rc;
    if (rc == 0 || list.v.type != JK_ARRAY)
        return unknown(decoder, "a Sequence without 'decoders'", e);
    scan = json_scan(list.v.p, list.v.n);
    while ((rc = json_next_element(&scan, &item.v, e)) == 1)
        if ((rc = read_one(t, &item, &stage, e)) < 0)
            return rc;
    return rc;
}

/* What is not UTF-8 becomes U+FFFD, one for as much as could have begun a character: in place, so
 * that the text may become longer. */
static int mend(struct buf *out, size_t from, struct err *e)
{
    struct buf b = { 0 };
    size_t at = from, bad;
    int rc = 0;

    if (out->len == from || utf8_valid(out->p + from, out->len - from, NULL))
        return 0;
    while (rc == 0 && !utf8_valid(out->p + at, out->len - at, &bad)) {
        const unsigned char *p = (const unsigned char *)out->p + at + bad;
        size_t left = out->len - at - bad, k = 1, most;

        most = *p >= 0xC2 && *p < 0xE0 ? 2 : (*p & 0xF0) == 0xE0 ? 3 : *p >= 0xF0 && *p < 0xF5 ? 4 : 1;
        if (most > 1 && k < left && p[1] >= (*p == 0xE0 ? 0xA0 : *p == 0xF0 ? 0x90 : 0x80) &&
            p[1] <= (*p == 0xED ? 0x9F : *p == 0xF4 ? 0x8F : 0xBF))
            for (k = 2; k < most - 1 && k < left && (p[k] & 0xC0) == 0x80;)
                k++;
        if (most == 2)
            k = 1; /* its second byte would have made it whole */
        if ((rc = buf_add(&b, out->p + at, bad, e)) == 0)
            rc = buf_add(&b, REPLACEMENT, 3, e);
        at += bad + k;
    }
    if (rc == 0 && (rc = buf_add(&b, out->p + at, out->len - at, e)) == 0) {
        out->len = from;
        rc = buf_add(out, b.p, b.len, e);
    }
    buf_free(&b);
    return rc;
}

/* <0xHH>, in small or capital digits; -1 for any other. */
static int byte_token(const struct spm_string *s)
{
    unsigned v = 0;

    if (s->n != 6 || memcmp(s->p, "<0x", 3) != 0 || s->p[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s->p[i], d = (char)(c | 32);

        if (c >= '0' && c <= '9')
            v = v * 16 + (unsigned)(c - '0');
        else if (d >= 'a' && d <= 'f')
            v = v * 16 + (unsigned)(d - 'a' + 10);
        else
            return -1;
    }
    return (int)v;
}

/* A row of bytes that is no text as a whole becomes U+FFFD, one a byte. */
static int end_bytes(struct buf *out, size_t from, struct err *e)
{
    size_t n = out->len - from;
    int rc = 0;

    if (n == 0 || utf8_valid(out->p + from, n, NULL))
        return 0;
    out->len = from;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = buf_add(out, REPLACEMENT, 3, e);
    return rc;
}

static int put_marked(const struct hft *t, const struct spm_string *s, bool first, struct buf *out,
                      struct err *e)
{
    int rc = buf_reserve(out, s->n, e);

    for (size_t i = 0; i < s->n && rc == 0;) {
        bool mark = t->decode.marks && s->n - i >= 3 && memcmp(s->p + i, SPACE_MARK, 3) == 0;

        if (!mark)
            out->p[out->len++] = s->p[i];
        else if (!first || !t->decode.first_mark)
            out->p[out->len++] = ' ';
        i += mark ? 3 : 1;
    }
    return rc;
}

static int decode_pieces(const struct hft *t, const int32_t *ids, int64_t n, struct buf *out,
                         struct err *e)
{
    size_t start = out->len, bytes = out->len; /* bytes: where a row of byte tokens began */
    bool first = true, in_bytes = false;
    int rc = 0;

    for (int64_t i = 0; i < n && rc == 0; i++) {
        const struct spm_string *s = &t->raw[ids[i]];
        int b = t->decode.fallback ? byte_token(s) : -1;
        char c = (char)b;

        if (s->n == 0)
            continue;
        if (b < 0 && in_bytes)
            rc = end_bytes(out, bytes, e);
        if (b >= 0 && !in_bytes)
            bytes = out->len;
        in_bytes = b >= 0;
        if (rc == 0 && t->decode.join && !first)
            rc = buf_add(out, " ", 1, e);
        if (rc == 0)
            rc = b >= 0 ? buf_add(out, &c, 1, e) : put_marked(t, s, first, out, e);
        first = false;
    }
    if (rc == 0 && in_bytes)
        rc = end_bytes(out, bytes, e);
    for (int k = 0; k < t->decode.strip && rc == 0 && out->len > start && out->p[start] == ' '; k++)
        memmove(out->p + start, out->p + start + 1, --out->len - start);
    return rc;
}

int hft_decode(const struct hft *t, const int32_t *ids, int64_t n, struct buf *out, struct err *e)
{
    size_t from = out->len;
    int rc = 0;

    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->v->vocab)
            return err_set(e, E_DATA, "token id %d at %lld is outside the vocabulary of %lld",
                           (int)ids[i], (long long)i, (long long)t->v->vocab);
    if (!t->decode.bytes) {
        rc = decode_pieces(t, ids, n, out, e);
    } else {
        for (int64_t i = 0; i < n && rc == 0; i++)
            rc = buf_add(out, t->raw[ids[i]].p, t->raw[ids[i]].n, e);
        if (rc == 0)
            rc = mend(out, from, e);
    }
    if (rc < 0)
        out->len = from;
    return rc;
}
