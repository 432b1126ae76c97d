/* formats/tokens/mark.c - see mark.h; the layouts stand in stream.md. */
#include "formats/tokens/mark.h"
#include "formats/tokens/document.h"

#include <stdlib.h>
#include <string.h>

enum {
    /* Bytes before the first part of variable length. */
    RUN_FIXED = 24,
    MARK_FIXED_2 = 40, /* in version 2 of the stream */
    MARK_FIXED = 56,
    COUNTS = 5 + DROP_BAD - 1, /* of a source: what was kept, and the reasons below 'bad' */
    SOURCE_FIXED = 2 + 8 * COUNTS,
    INPUT_FIXED = 18,
    KEY_BYTES = 16
};

/* The low half stands first in the file, as in the struct. */
XXH128_hash_t mark_key(const struct stream_mark *m, int64_t i)
{
    const unsigned char *p = m->keys + i * KEY_BYTES;

    return (XXH128_hash_t){ get_le(p, 8), get_le(p + 8, 8) };
}

/* Appends v in n bytes, the lowest first. */
static int add_le(struct buf *b, uint64_t v, int n, struct err *e)
{
    unsigned char p[8];

    put_le(p, v, n);
    return buf_add(b, p, (size_t)n, e);
}

/* The recipe is the rest of the payload, so it needs no length. */
int run_encode(struct buf *b, const struct stream_run *r, struct err *e)
{
    int rc;

    if ((rc = add_le(b, (uint64_t)r->marks, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)r->docs, 8, e)) < 0 ||
        (rc = add_le(b, r->manifest, 8, e)) < 0)
        return rc;
    return buf_add(b, r->recipe, strlen(r->recipe), e);
}

/* The counts of a source in the order they are written in. */
static int64_t *count_of(struct tally_source *s, int i)
{
    int64_t *kept[] = { &s->docs, &s->tokens, &s->masked, &s->bytes, &s->words };

    return i < 5 ? kept[i] : &s->dropped[i - 4];
}

/* One source: its name with a length of 2 bytes, then its counts of 8 bytes each. s is a copy
 * because count_of wants to be able to write. */
static int encode_source(struct buf *b, struct tally_source s, struct err *e)
{
    char name[DOC_SOURCE_MAX + 1];
    int rc;

    label_clean(name, DOC_SOURCE_MAX, s.name);
    if ((rc = add_le(b, strlen(name), 2, e)) < 0 || (rc = buf_add(b, name, strlen(name), e)) < 0)
        return rc;
    for (int i = 0; i < COUNTS && rc == 0; i++)
        rc = add_le(b, (uint64_t)*count_of(&s, i), 8, e);
    return rc;
}

/* One input file: size, time of change, and its path with a length of 2 bytes. */
static int encode_input(struct buf *b, const struct stream_input *in, struct err *e)
{
    size_t n = strlen(in->path);
    int rc;

    if (n > UINT16_MAX)
        return err_set(e, E_DATA, "a path of %zu bytes is too long", n);
    if ((rc = add_le(b, (uint64_t)in->bytes, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)in->mtime_ns, 8, e)) < 0 || (rc = add_le(b, n, 2, e)) < 0)
        return rc;
    return buf_add(b, in->path, n, e);
}

/* Seven counts first, then the sources, the inputs and the keys that they count. */
int mark_encode(struct buf *b, const struct stream_mark *m, struct err *e)
{
    size_t before = b->len;
    int rc;

    if ((rc = add_le(b, (uint64_t)m->tally.n, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)m->n_inputs, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)m->n_keys, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)m->tally.bad_docs, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)m->tally.bad_files, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)m->tally.false_copies, 8, e)) < 0 ||
        (rc = add_le(b, (uint64_t)m->tally.false_copy_chance, 8, e)) < 0)
        return rc;
    for (int64_t i = 0; i < m->tally.n && rc == 0; i++)
        rc = encode_source(b, m->tally.v[i], e);
    for (int64_t i = 0; i < m->n_inputs && rc == 0; i++)
        rc = encode_input(b, &m->inputs[i], e);
    if (rc == 0 && m->n_keys)
        rc = buf_add(b, m->keys, (size_t)m->n_keys * KEY_BYTES, e);
    /* A reader would refuse a larger mark, so it is an error to write one. */
    if (rc == 0 && b->len - before > MARK_BYTES_MAX)
        rc = err_set(e, E_DATA, "a mark of %zu bytes is too long", b->len - before);
    return rc;
}

/* What is left of a payload. */
struct rest {
    const unsigned char *p;
    size_t n;
};

/* The next n bytes, or NULL where fewer are left. */
static const unsigned char *take(struct rest *r, size_t n)
{
    const unsigned char *p = r->p;

    if (n > r->n)
        return NULL;
    r->p += n;
    r->n -= n;
    return p;
}

/* The error for a payload that ends too early. */
static int cut(struct err *e, const char *what)
{
    return err_set(e, E_DATA, "its sizes do not add up: no room for %s", what);
}

/* A whole number from 0 to 2^63 - 1. */
static bool number(const unsigned char *p, int64_t *v)
{
    *v = (int64_t)get_le(p, 8);
    return *v >= 0;
}

/* The recipe is the rest of the payload. It gets its NUL in s->text, as the payload has
 * none. */
int run_decode(struct mark_space *s, const void *payload, size_t nbytes, struct stream_run *r,
               struct err *e)
{
    const unsigned char *p = payload;
    int rc;

    if (nbytes < RUN_FIXED)
        return cut(e, "its counts");
    if (!number(p, &r->marks) || !number(p + 8, &r->docs))
        return err_set(e, E_DATA, "marks or documents before it are above 2^63 - 1");
    r->manifest = get_le(p + 16, 8);
    if (!label_ok((const char *)p + RUN_FIXED, nbytes - RUN_FIXED, nbytes))
        return err_set(e, E_DATA, "its recipe is not UTF-8");
    s->text.len = 0;
    if ((rc = buf_add(&s->text, p + RUN_FIXED, nbytes - RUN_FIXED, e)) < 0 ||
        (rc = buf_add(&s->text, "", 1, e)) < 0)
        return rc;
    r->recipe = s->text.p;
    return 0;
}

/* A name that comes twice is added up. */
static int decode_source(struct rest *r, struct tally *t, struct err *e)
{
    const unsigned char *p = take(r, 2);
    size_t n = p ? (size_t)get_le(p, 2) : 0;
    const char *name = p ? (const char *)take(r, n) : NULL;
    struct tally_source counts = { .docs = 0 }, *s;
    int rc;

    if (!name || !(p = take(r, 8 * COUNTS)))
        return cut(e, "a source");
    if (n > DOC_SOURCE_MAX || !label_ok(name, n, DOC_SOURCE_MAX))
        return err_set(e, E_DATA, "the name of a source is not at most 255 bytes of UTF-8");
    memcpy(counts.name, name, n);
    /* dropped[0] is KEPT, which has no count, so the reasons begin at dropped[1]. */
    for (int i = 0; i < COUNTS; i++)
        if (!number(p + 8 * i, count_of(&counts, i)))
            return err_set(e, E_DATA, "a count of source '%s' is above 2^63 - 1", counts.name);
    rc = tally_of(t, counts.name, &s, e);
    return rc < 0 ? rc : tally_source_add(s, &counts, e);
}

/* Paths become strings in s->text; the list in s->inputs gets its pointers once text stays. */
static int decode_inputs(struct mark_space *s, struct rest *r, struct stream_mark *m,
                         struct err *e)
{
    struct stream_input *v;
    size_t at = 0;
    int rc = 0;

    s->text.len = s->inputs.len = 0;
    for (int64_t i = 0; i < m->n_inputs && rc == 0; i++) {
        const unsigned char *p = take(r, INPUT_FIXED), *path = NULL;
        size_t n = p ? (size_t)get_le(p + 16, 2) : 0;
        struct stream_input in = { NULL, 0, 0 };
        if (!p || !(path = take(r, n)))
            return cut(e, "an input");
        if (n == 0 || memchr(path, 0, n) || !number(p, &in.bytes))
            return err_set(e, E_DATA, "input %lld has no good path or size", (long long)i);
        in.mtime_ns = (int64_t)get_le(p + 8, 8);
        if ((rc = buf_add(&s->inputs, &in, sizeof in, e)) == 0 &&
            (rc = buf_add(&s->text, path, n, e)) == 0)
            rc = buf_add(&s->text, "", 1, e);
    }
    v = m->inputs = (struct stream_input *)(void *)s->inputs.p;
    /* The paths lie one after another in text, each with its NUL. */
    for (int64_t i = 0; i < m->n_inputs && rc == 0; i++) {
        v[i].path = s->text.p + at;
        at += strlen(v[i].path) + 1;
    }
    return rc;
}

int mark_decode(struct mark_space *s, int version, const void *payload, size_t nbytes,
                struct stream_mark *m, struct err *e)
{
    struct rest r = { payload, nbytes };
    /* Version 2 ends before the two numbers on false copies, which then stay 0. */
    const unsigned char *p = take(&r, version < 3 ? MARK_FIXED_2 : MARK_FIXED);
    int64_t sources;
    int rc = 0;

    *m = (struct stream_mark){ .n_inputs = 0 };
    tally_clear(&s->tally);
    if (!p)
        return cut(e, "its counts");
    if (!number(p, &sources) || !number(p + 8, &m->n_inputs) || !number(p + 16, &m->n_keys) ||
        !number(p + 24, &s->tally.bad_docs) || !number(p + 32, &s->tally.bad_files))
        return err_set(e, E_DATA, "one of its counts is above 2^63 - 1");
    if (version >= 3 && (!number(p + 40, &s->tally.false_copies) ||
                         !number(p + 48, &s->tally.false_copy_chance) ||
                         s->tally.false_copy_chance > (int64_t)TALLY_CHANCE))
        return err_set(e, E_DATA, "its false-duplicate probability is above 1");
    /* A false number of sources costs nothing: the payload ends and the loop with it. */
    for (int64_t i = 0; i < sources && rc == 0; i++)
        rc = decode_source(&r, &s->tally, e);
    if (rc == 0)
        rc = decode_inputs(s, &r, m, e);
    if (rc < 0)
        return rc;
    if (r.n % KEY_BYTES || r.n / KEY_BYTES != (uint64_t)m->n_keys)
        return cut(e, "its keys, or too much");
    /* The keys are not copied: they live as long as the payload. */
    m->keys = r.p;
    m->tally = s->tally;
    return 0;
}

void mark_space_free(struct mark_space *s)
{
    buf_free(&s->text);
    buf_free(&s->inputs);
    tally_free(&s->tally);
}
