/* formats/tokens/document.c - see document.h; the layouts stand in stream.md. */
#include "formats/tokens/document.h"

#include <endian.h>
#include <limits.h>
#include <string.h>

/* The largest id is vocab - 1, so a vocabulary of 65536 still fits into 16 bits. */
uint32_t token_width(uint32_t vocab)
{
    return vocab <= 65536 ? 2 : 4;
}

/* Exactly n lower-case hex digits. */
static bool hex_ok(const char *s, size_t n)
{
    return strspn(s, "0123456789abcdef") == n && s[n] == '\0';
}

/* What a reader and a writer both refuse. An empty fingerprint is an unknown tokenizer. */
int info_check(const struct token_info *t, struct err *e)
{
    if (t->vocab < 1 || t->vocab > INT32_MAX)
        return err_set(e, E_DATA, "vocab %u, must be from 1 to %d", t->vocab, INT32_MAX);
    if (t->width != token_width(t->vocab))
        return err_set(e, E_DATA, "width %u, must be %u bytes for a vocab of %u", t->width,
                       token_width(t->vocab), t->vocab);
    if (t->bos < -1 || t->bos >= (int64_t)t->vocab)
        return err_set(e, E_DATA, "bos %d is not below vocab %u", t->bos, t->vocab);
    if (t->eos < -1 || t->eos >= (int64_t)t->vocab)
        return err_set(e, E_DATA, "eos %d is not below vocab %u", t->eos, t->vocab);
    if ((t->adds_bos && t->bos < 0) || (t->adds_eos && t->eos < 0))
        return err_set(e, E_DATA, "flags say that documents have a bos or eos, but there is none");
    if (t->fingerprint[0] && !hex_ok(t->fingerprint, FINGERPRINT_HEX))
        return err_set(e, E_DATA, "fingerprint is not %d lower-case hex digits",
                       FINGERPRINT_HEX);
    if (!label_ok(t->tokenizer, strnlen(t->tokenizer, sizeof t->tokenizer), 255))
        return err_set(e, E_DATA, "tokenizer name is not UTF-8 of at most 255 bytes");
    return 0;
}

void info_encode(const struct token_info *t, unsigned char out[INFO_BYTES])
{
    memset(out, 0, INFO_BYTES);
    put_le(out, t->width, 4);
    put_le(out + 4, t->vocab, 4);
    /* -1, for none, becomes 0xFFFFFFFF and comes back as -1. */
    put_le(out + 8, (uint32_t)t->bos, 4);
    put_le(out + 12, (uint32_t)t->eos, 4);
    put_le(out + 16, (t->adds_bos ? 1u : 0) | (t->adds_eos ? 2u : 0), 4);
    memcpy(out + 24, t->fingerprint, strnlen(t->fingerprint, FINGERPRINT_HEX));
    memcpy(out + 56, t->tokenizer, strnlen(t->tokenizer, 255));
}

int info_parse(struct token_info *t, const unsigned char in[INFO_BYTES], struct err *e)
{
    uint32_t flags = (uint32_t)get_le(in + 16, 4);

    *t = (struct token_info){
        .width = (uint32_t)get_le(in, 4),
        .vocab = (uint32_t)get_le(in + 4, 4),
        .bos = (int32_t)(uint32_t)get_le(in + 8, 4),
        .eos = (int32_t)(uint32_t)get_le(in + 12, 4),
        .adds_bos = flags & 1,
        .adds_eos = flags & 2,
    };
    /* Only the two lowest bits have a meaning. */
    if (flags > 3)
        return err_set(e, E_DATA, "flags 0x%x has bits that this version does not know", flags);
    memcpy(t->fingerprint, in + 24, FINGERPRINT_HEX);
    /* All zero means unknown. Digits behind a first zero byte would get lost in a C string. */
    for (int i = 0; i < FINGERPRINT_HEX; i++)
        if (!t->fingerprint[0] && t->fingerprint[i])
            return err_set(e, E_DATA, "fingerprint begins with a zero byte");
    if (label_field(in + 56, 256) < 0)
        return err_set(e, E_DATA, "tokenizer name is not UTF-8 filled up with zeros");
    memcpy(t->tokenizer, in + 56, 256);
    return info_check(t, e);
}

/* The tokenizer's name is not compared: the same tokenizer may be in files of other names. */
int info_agree(const struct token_info *a, const char *a_name, const struct token_info *b,
               const char *b_name, struct err *e)
{
    if (strcmp(a->fingerprint, b->fingerprint) != 0)
        return err_set(e, E_CONFIG,
                       "'%s' and '%s' were made with different tokenizers: '%s' (%s) and '%s' (%s)",
                       a_name, b_name, a->tokenizer, a->fingerprint, b->tokenizer,
                       b->fingerprint);
    if (a->vocab != b->vocab || a->width != b->width || a->bos != b->bos || a->eos != b->eos ||
        a->adds_bos != b->adds_bos || a->adds_eos != b->adds_eos)
        return err_set(e, E_CONFIG, "'%s' and '%s' do not agree: vocab %u and %u, width %u and %u, "
                       "bos %d%s and %d%s, eos %d%s and %d%s", a_name, b_name, a->vocab, b->vocab,
                       a->width, b->width, a->bos, a->adds_bos ? " added" : "", b->bos,
                       b->adds_bos ? " added" : "", a->eos, a->adds_eos ? " added" : "", b->eos,
                       b->adds_eos ? " added" : "");
    return 0;
}

bool label_ok(const char *s, size_t n, size_t max)
{
    return n <= max && !memchr(s, '\0', n) && utf8_valid(s, n, NULL);
}

/* There is room for at least one zero, so that the bytes in the file can be used as a C
 * string. */
int label_field(const unsigned char *p, size_t cap)
{
    size_t n = strnlen((const char *)p, cap);

    if (n == cap || !utf8_valid((const char *)p, n, NULL))
        return -1;
    for (size_t i = n; i < cap; i++)
        if (p[i])
            return -1;
    return (int)n;
}

void label_clean(char *out, size_t max, const char *in)
{
    size_t n = strnlen(in, max + 1), at;

    if (n > max) /* cut before the character that byte max belongs to */
        for (n = max; n > 0 && n > max - 4 && ((unsigned char)in[n] & 0xC0) == 0x80; n--)
            continue;
    memcpy(out, in, n);
    out[n] = '\0';
    /* utf8_valid gives the place of the first bad byte; the search goes on behind it. */
    for (char *p = out; !utf8_valid(p, n - (size_t)(p - out), &at); p += at + 1)
        p[at] = '?';
}

/* Two simple loops without an early exit, which the compiler can turn into vector code. */
uint32_t ids_top(const void *p, uint32_t width, int64_t n)
{
    const unsigned char *b = p;
    uint16_t top = 0, v;
    uint32_t wide_top = 0, w;

    for (int64_t i = 0; i < n && width == 2; i++) {
        memcpy(&v, b + 2 * i, 2);
        v = le16toh(v);
        top = v > top ? v : top;
    }
    for (int64_t i = 0; i < n && width == 4; i++) {
        memcpy(&w, b + 4 * i, 4);
        w = le32toh(w);
        wide_top = w > wide_top ? w : wide_top;
    }
    return width == 2 ? top : wide_top;
}

/* First the maximum in one fast pass; only if it is too large is the id looked for. */
int64_t ids_bad(const uint32_t *ids, int64_t n, uint32_t vocab)
{
    uint32_t top = 0;

    for (int64_t i = 0; i < n; i++)
        top = ids[i] > top ? ids[i] : top;
    if (top < vocab)
        return -1;
    /* There is one, as the maximum has shown: this loop ends. */
    for (int64_t i = 0;; i++)
        if (ids[i] >= vocab)
            return i;
}

/* memcpy instead of a pointer, as the bytes of a file need not be aligned. */
void ids_load(uint32_t *restrict ids, const void *restrict p, uint32_t width, int64_t n)
{
    const unsigned char *b = p;
    uint16_t v;

    if (width == 2) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(&v, b + 2 * i, 2);
            ids[i] = le16toh(v);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(&ids[i], b + 4 * i, 4);
        ids[i] = le32toh(ids[i]);
    }
}

/* The caller has checked the ids against the vocabulary, so the cut to 16 bits loses
 * nothing. */
void ids_store(void *restrict p, const uint32_t *restrict ids, uint32_t width, int64_t n)
{
    unsigned char *b = p;

    for (int64_t i = 0; i < n; i++) {
        uint16_t v = htole16((uint16_t)ids[i]);
        uint32_t w = htole32(ids[i]);
        if (width == 2)
            memcpy(b + 2 * i, &v, 2);
        else
            memcpy(b + 4 * i, &w, 4);
    }
}

int doc_check(const struct token_doc *d, const struct token_info *info, struct err *e)
{
    int64_t bad, end = -1;

    if (d->n_ids < 0 || d->n_runs < 0)
        return err_set(e, E_DATA, "a document with a negative count");
    if (d->text_bytes < 0 || d->text_bytes > DOC_TEXT_BYTES_MAX)
        return err_set(e, E_DATA, "text bytes %lld, must be at most 2^40",
                       (long long)d->text_bytes);
    if (d->text_words < 0 || d->text_words > d->text_bytes)
        return err_set(e, E_DATA, "text words %lld in %lld bytes", (long long)d->text_words,
                       (long long)d->text_bytes);
    /* end is where the run before ended; -1 lets the first run begin at token 0. "<=" refuses
     * runs that touch, since these must be written as one. */
    for (int64_t i = 0; i < d->n_runs; i++) {
        const struct mask_run *r = &d->runs[i];
        /* The last two conditions are start + count > n_ids, written so that no sum can
         * overflow. */
        if (r->start <= end || r->count < 1 || r->start > d->n_ids ||
            r->count > d->n_ids - r->start)
            return err_set(e, E_DATA, "mask run %lld (%lld tokens from %lld) does not ascend "
                           "inside %lld tokens", (long long)i, (long long)r->count,
                           (long long)r->start, (long long)d->n_ids);
        end = r->start + r->count;
    }
    if ((bad = ids_bad(d->ids, d->n_ids, info->vocab)) >= 0)
        return err_set(e, E_DATA, "token %lld is id %u, not below vocab %u", (long long)bad,
                       d->ids[bad], info->vocab);
    return 0;
}

/* Payload bytes, or 0 when they exceed the limit. */
static uint64_t doc_bytes(uint64_t ids, uint64_t runs, uint32_t width, size_t labels)
{
    if (ids > DOC_BYTES_MAX / width || runs > DOC_BYTES_MAX / 16)
        return 0;
    /* With both counts bounded above, this sum fits into 64 bits. Its value replaces the
     * count. */
    ids = DOC_FIXED_BYTES + labels + 16 * runs + width * ids;
    return ids > DOC_BYTES_MAX ? 0 : ids;
}

/* The payload: fixed part of 44 bytes, source, name, runs, ids. p walks through it. */
int doc_encode(struct buf *b, const struct token_doc *d, const struct token_info *info,
               struct err *e)
{
    char source[DOC_SOURCE_MAX + 1], name[DOC_NAME_MAX + 1];
    size_t s, m;
    uint64_t nbytes;
    unsigned char *p;
    int rc;

    label_clean(source, DOC_SOURCE_MAX, d->source ? d->source : "");
    label_clean(name, DOC_NAME_MAX, d->name ? d->name : "");
    s = strlen(source);
    m = strlen(name);
    if ((rc = doc_check(d, info, e)) < 0)
        return err_within(e, "'%.200s'", name);
    nbytes = doc_bytes((uint64_t)d->n_ids, (uint64_t)d->n_runs, info->width, s + m);
    if (!nbytes)
        return err_set(e, E_DATA, "'%.200s': a document of %lld tokens is over the limit of 2 GiB",
                       name, (long long)d->n_ids);
    if ((rc = buf_reserve(b, nbytes, e)) < 0)
        return rc;
    /* nbytes is the exact size, so nothing below can fail or leave half a document. */
    p = (unsigned char *)b->p + b->len;
    b->len += nbytes;
    put_le(p, (uint64_t)d->n_ids, 8);
    put_le(p + 8, (uint64_t)d->n_runs, 8);
    put_le(p + 16, d->text_hash, 8);
    put_le(p + 24, (uint64_t)d->text_bytes, 8);
    put_le(p + 32, (uint64_t)d->text_words, 8);
    put_le(p + 40, s, 2);
    put_le(p + 42, m, 2);
    memcpy(p + 44, source, s);
    memcpy(p + 44 + s, name, m);
    p += 44 + s + m;
    for (int64_t i = 0; i < d->n_runs; i++, p += 16) {
        put_le(p, (uint64_t)d->runs[i].start, 8);
        put_le(p + 8, (uint64_t)d->runs[i].count, 8);
    }
    ids_store(p, d->ids, info->width, d->n_ids);
    return 0;
}

int doc_decode(struct doc_space *sp, const void *payload, size_t nbytes,
               const struct token_info *info, struct token_doc *d, struct err *e)
{
    const unsigned char *p = payload;
    size_t s, m;
    uint64_t n_ids, n_runs;
    struct mask_run *runs;
    int rc;

    if (nbytes < DOC_FIXED_BYTES)
        return err_set(e, E_DATA, "a document of %zu bytes, at least %d are needed", nbytes,
                       DOC_FIXED_BYTES);
    n_ids = get_le(p, 8);
    n_runs = get_le(p + 8, 8);
    s = (size_t)get_le(p + 40, 2);
    m = (size_t)get_le(p + 42, 2);
    /* The one check that makes all places below safe: the parts fill the payload exactly. */
    if (doc_bytes(n_ids, n_runs, info->width, s + m) != nbytes)
        return err_set(e, E_DATA, "a document says %llu ids and %llu runs, which do not fit "
                       "its %zu bytes", (unsigned long long)n_ids, (unsigned long long)n_runs, nbytes);
    if (!label_ok((const char *)p + 44, s, DOC_SOURCE_MAX))
        return err_set(e, E_DATA, "source is not UTF-8 of at most %d bytes", DOC_SOURCE_MAX);
    if (!label_ok((const char *)p + 44 + s, m, DOC_NAME_MAX))
        return err_set(e, E_DATA, "name is not UTF-8 of at most %d bytes", DOC_NAME_MAX);
    sp->ids.len = sp->runs.len = 0;
    /* A little more than needed, so that a document without ids or runs has pointers too. */
    if ((rc = buf_reserve(&sp->ids, 4 * n_ids + 4, e)) < 0 ||
        (rc = buf_reserve(&sp->runs, sizeof *runs * n_runs + 1, e)) < 0)
        return rc;
    memcpy(sp->source, p + 44, s);
    memcpy(sp->name, p + 44 + s, m);
    sp->source[s] = sp->name[m] = '\0';
    runs = (struct mask_run *)sp->runs.p;
    *d = (struct token_doc){
        .ids = (uint32_t *)sp->ids.p, .n_ids = (int64_t)n_ids,
        .runs = runs, .n_runs = (int64_t)n_runs,
        .source = sp->source, .name = sp->name,
        .text_hash = get_le(p + 16, 8),
        .text_bytes = (int64_t)get_le(p + 24, 8),
        .text_words = (int64_t)get_le(p + 32, 8),
    };
    p += 44 + s + m;
    for (uint64_t i = 0; i < n_runs; i++, p += 16)
        runs[i] = (struct mask_run){ (int64_t)get_le(p, 8), (int64_t)get_le(p + 8, 8) };
    ids_load((uint32_t *)sp->ids.p, p, info->width, (int64_t)n_ids);
    return doc_check(d, info, e);
}

void doc_space_free(struct doc_space *s)
{
    buf_free(&s->ids);
    buf_free(&s->runs);
}
