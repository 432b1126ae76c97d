/* formats/tokenizer/spmodel.c - see spmodel.h. Field numbers: sentencepiece_model.proto. */
#include "formats/tokenizer/spmodel.h"

#include "base/bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEAVES 32 /* libsentencepiece's buffer for one prefix search */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* The file is protobuf: a row of fields, each a key (number * 8 + wire type) and a value.
 * Numbers are varints, 7 bits a byte, the lowest first, with the top bit set on all but the
 * last: 300 is AC 02. A part of type bytes may itself be a row of fields. Fields of unknown
 * number are passed over, as newer files may have more. */
struct field {
    uint32_t number;
    enum wire wire;
    uint64_t value;         /* WIRE_VARINT, WIRE_32 */
    const unsigned char *p; /* WIRE_BYTES */
    size_t n;
};

struct cursor {
    const unsigned char *start, *p, *end;
};

/* A varint of at most 64 bits; false where it is longer or cut short. */
static bool varint(struct cursor *c, uint64_t *v)
{
    *v = 0;
    for (int shift = 0; shift < 70 && c->p < c->end; shift += 7) {
        unsigned char b = *c->p++;
        if (shift == 63 && b > 1) /* the tenth byte has one bit of 64 */
            return false;
        *v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return true;
    }
    return false;
}

/* 1 and the next field, 0 at the end, or E_DATA. */
static int next_field(struct cursor *c, struct field *f, struct err *e)
{
    size_t at = (size_t)(c->p - c->start), fixed;
    uint64_t key;

    if (c->p == c->end)
        return 0;
    /* 536870911 is 2^29 - 1, protobuf's largest field number. */
    if (!varint(c, &key) || key >> 3 == 0 || key >> 3 > 536870911)
        goto bad;
    f->number = (uint32_t)(key >> 3);
    f->wire = (enum wire)(key & 7);
    switch (key & 7) {
    case WIRE_VARINT:
        if (!varint(c, &f->value))
            goto bad;
        return 1;
    case WIRE_64:
    case WIRE_32:
        fixed = (key & 7) == WIRE_32 ? 4 : 8;
        if ((size_t)(c->end - c->p) < fixed)
            goto bad;
        f->value = get_le(c->p, (int)fixed);
        c->p += fixed;
        return 1;
    case WIRE_BYTES:
        if (!varint(c, &f->value) || f->value > (uint64_t)(c->end - c->p))
            goto bad;
        f->p = c->p;
        f->n = (size_t)f->value;
        c->p += f->n;
        return 1;
    }
bad:
    return err_set(e, E_DATA, "not a SentencePiece model: bad field at byte %zu", at);
}

static struct cursor inside(const struct field *f)
{
    return (struct cursor){ f->p, f->p, f->p + f->n };
}

static int wrong(const char *what, struct err *e)
{
    return err_set(e, E_DATA, "not a SentencePiece model: %s", what);
}

struct visitor {
    spmodel_piece_fn *fn; /* NULL: nobody wants to see the pieces */
    void *ctx;
};

/* One piece: field 1 its text, 2 its score, 3 its type (1, normal, when it is not there).
 * Checks it, counts it, and hands it to whoever wants it. */
static int check_piece(struct spmodel *m, const struct field *outer, const struct visitor *v,
                       struct err *e)
{
    struct cursor c = inside(outer);
    struct field f, text = { 0 };
    uint64_t type = 1;
    uint32_t bits;
    float score = 0;
    int rc;

    while ((rc = next_field(&c, &f, e)) == 1) {
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            text = f;
        } else if (f.number == 2 && f.wire == WIRE_32) {
            bits = (uint32_t)f.value;
            memcpy(&score, &bits, 4);
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            type = f.value;
        } else if (f.number <= 3) {
            return wrong("a piece has a field of the wrong type", e);
        }
    }
    if (rc < 0)
        return rc;
    if (text.n == 0 || text.n > SPMODEL_MAX_PIECE_BYTES)
        return err_set(e, E_DATA, "not a SentencePiece model: piece %lld has %zu bytes",
                       (long long)m->pieces, text.n);
    if (type < 1 || type > 6 || !isfinite(score))
        return err_set(e, E_DATA, "not a SentencePiece model: piece %lld: type %llu, score %g",
                       (long long)m->pieces, (unsigned long long)type, (double)score);
    if (++m->pieces > SPMODEL_MAX_PIECES)
        return wrong("too many pieces", e);
    if (!v->fn)
        return 0;
    return v->fn(v->ctx, (const char *)text.p, text.n, score, (enum spmodel_type)type, e);
}

static struct spmodel_text text_of(const struct field *f)
{
    return (struct spmodel_text){ (const char *)f->p, f->n };
}

/* What of trainer_spec matters: 3 model_type, 24 treat_whitespace_as_suffix, 35
 * byte_fallback, 44 unk_surface, 45 to 48 the names of unk, bos, eos and pad. */
static int check_trainer(struct spmodel *m, const struct field *outer, struct err *e)
{
    struct cursor c = inside(outer);
    struct field f;
    int rc;

    while ((rc = next_field(&c, &f, e)) == 1) {
        bool flag = f.wire == WIRE_VARINT && f.value;
        if ((f.number == 3 || f.number == 24 || f.number == 35) && f.wire != WIRE_VARINT)
            return wrong("trainer_spec has a field of the wrong type", e);
        if (f.number == 3) {
            if (f.value < 1 || f.value > 4)
                return wrong("unknown model_type", e);
            m->type = (int)f.value;
        }
        if (f.number == 24)
            m->space_is_suffix = flag;
        if (f.number == 35)
            m->byte_fallback = flag;
        if (f.number == 44 && f.wire == WIRE_BYTES)
            m->unk_surface = text_of(&f);
        if (f.number >= 45 && f.number <= 48 && f.wire == WIRE_BYTES)
            m->names[f.number - 45] = text_of(&f);
    }
    return rc;
}

/* One unit of a Darts-clone double array. */
static uint32_t unit_at(const unsigned char *trie, size_t i)
{
    return (uint32_t)get_le(trie + 4 * i, 4);
}
/* The offset; bit 9 says that it is shifted by 8 more. The label has bit 31 to tell leaves. */
static size_t unit_offset(uint32_t u) { return (size_t)(u >> 10) << ((u & (1u << 9)) >> 6); }
static uint32_t unit_label(uint32_t u) { return u & 0x800000FFu; }

/* A leaf's value: an offset into the pool, of a string that ends and is short. */
static bool leaf_ok(uint32_t unit, const struct spmodel_norm *norm)
{
    size_t at = unit & 0x7FFFFFFFu, left;

    if (at >= norm->pool_bytes)
        return false;
    left = norm->pool_bytes - at;
    return memchr(norm->pool + at, 0,
                  left < SPMODEL_MAX_RULE_BYTES + 1 ? left : SPMODEL_MAX_RULE_BYTES + 1);
}

/* Visits every node that a search can reach from the root; most[i] is 1 + the largest number
 * of leaves passed on a way to node i, so that a cycle through a leaf is found as well. A trie
 * has one way to a node: one that keeps leading back to nodes already seen is none. */
static bool trie_ok(const struct spmodel_norm *norm, unsigned char *most, uint32_t *queue)
{
    size_t n = norm->units, head = 0, tail = 0; /* a node waits at most once: a ring of n + 1 */

    most[0] = 1;
    queue[tail++] = 0;
    for (size_t visits = 0; head != tail; visits++) {
        size_t at = queue[head], base;
        uint32_t u = unit_at(norm->trie, at);
        /* Bit 7 of most says that the node waits in the queue, the other 7 hold the count. */
        unsigned leaves = most[at] & 127u;

        head = head + 1 > n ? 0 : head + 1;
        most[at] &= 127u;
        base = at ^ unit_offset(u);
        if ((base | 255) >= n || visits > 2 * n) /* all 256 children are inside */
            return false;
        if ((u >> 8 & 1) &&
            (!leaf_ok(unit_at(norm->trie, base), norm) || ++leaves > MAX_LEAVES + 1))
            return false;
        for (unsigned c = 0; c < 256; c++) {
            size_t to = base ^ c;
            if (unit_label(unit_at(norm->trie, to)) != c || (most[to] & 127u) >= leaves)
                continue;
            if (!(most[to] & 128u)) {
                queue[tail] = (uint32_t)to;
                tail = tail + 1 > n ? 0 : tail + 1;
            }
            most[to] = (unsigned char)(leaves | 128u);
        }
    }
    return true;
}

/* The table: 4 bytes with the size of the trie, the trie, then the pool: strings that each
 * end in a NUL. So the pool must end in one. */
static int check_charsmap(struct spmodel_norm *norm, const struct field *f, struct err *e)
{
    size_t trie_bytes;
    unsigned char *most;
    uint32_t *queue;
    bool ok;

    norm->units = 0;
    if (f->n == 0)
        return 0;
    if (f->n < 8 || (trie_bytes = (size_t)get_le(f->p, 4)) >= f->n - 4 || trie_bytes % 4 ||
        trie_bytes == 0 || f->p[f->n - 1] != 0)
        return wrong("the normaliser's table is broken", e);
    if (f->n > SPMODEL_MAX_CHARSMAP_BYTES)
        return err_set(e, E_DATA, "not a SentencePiece model: the normaliser's table has %zu "
                       "bytes, at most %zu", f->n, SPMODEL_MAX_CHARSMAP_BYTES);
    norm->trie = f->p + 4;
    norm->pool = (const char *)f->p + 4 + trie_bytes;
    norm->pool_bytes = f->n - 4 - trie_bytes;
    norm->units = trie_bytes / 4;
    most = calloc(norm->units, 1);
    queue = malloc((norm->units + 1) * sizeof *queue);
    ok = most && queue;
    if (!ok) {
        free(most);
        free(queue);
        return err_set(e, E_SYS, "out of memory for a normaliser of %zu units", norm->units);
    }
    ok = trie_ok(norm, most, queue);
    free(most);
    free(queue);
    return ok ? 0 : wrong("the normaliser's trie points outside itself", e);
}

/* normalizer_spec: 2 the table, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5
 * escape_whitespaces. */
static int check_normalizer(struct spmodel_norm *norm, const struct field *outer, struct err *e)
{
    struct cursor c = inside(outer);
    struct field f;
    int rc;

    while ((rc = next_field(&c, &f, e)) == 1) {
        if (f.number == 2 && f.wire == WIRE_BYTES) {
            if ((rc = check_charsmap(norm, &f, e)) < 0)
                return rc;
        } else if (f.number >= 3 && f.number <= 5 && f.wire == WIRE_VARINT) {
            bool *flag[] = { &norm->dummy_prefix, &norm->strip_spaces, &norm->escape_spaces };
            *flag[f.number - 3] = f.value;
        } else if (f.number >= 2 && f.number <= 5) {
            return wrong("normalizer_spec has a field of the wrong type", e);
        }
    }
    return rc;
}

int spmodel_read(struct spmodel *m, const void *bytes, size_t n, spmodel_piece_fn *fn,
                 void *ctx, struct err *e)
{
    static const struct spmodel_norm defaults = { true, true, true, NULL, 0, NULL, 0 };
    struct cursor c = { bytes, bytes, (const unsigned char *)bytes + n };
    const struct visitor v = { fn, ctx };
    struct field f;
    int rc;

    /* Type 1 is protobuf's default here; so are the normaliser's flags. */
    *m = (struct spmodel){ .type = 1, .norm = { defaults, defaults } };
    if (n == 0 || n > SPMODEL_MAX_BYTES)
        return err_set(e, E_DATA, "not a SentencePiece model: %zu bytes, must be 1 to %zu", n,
                       SPMODEL_MAX_BYTES);
    /* Fields of a model: 1 a piece, 2 trainer_spec, 3 normalizer_spec, 5 denormalizer_spec;
     * 4 holds test samples and is not read. */
    while ((rc = next_field(&c, &f, e)) == 1) {
        if (f.number >= 1 && f.number <= 5 && f.wire != WIRE_BYTES)
            return wrong("a part has the wrong type", e);
        rc = f.number == 1   ? check_piece(m, &f, &v, e)
             : f.number == 2 ? check_trainer(m, &f, e)
             : f.number == 3 ? check_normalizer(&m->norm[SPMODEL_ENCODES], &f, e)
             : f.number == 5 ? check_normalizer(&m->norm[SPMODEL_DECODES], &f, e)
                             : 0;
        if (rc < 0)
            return rc;
    }
    if (rc == 0 && m->pieces == 0)
        return wrong("it has no pieces", e);
    return rc;
}

int spmodel_check(struct spmodel *m, const void *bytes, size_t n, struct err *e)
{
    return spmodel_read(m, bytes, n, NULL, NULL, e);
}
