/* formats/tokenizer/pattern_class.c - the classes of a pattern: read as Oniguruma does, with sets in
 * sets and &&, worked out to the character, and written as ranges that any library reads alike. */
#include "formats/tokenizer/pattern_impl.h"
#include "formats/tokenizer/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS ((UNICODE_MAX + 1) / 64)
#define MAX_NESTED 16
#define MAX_WORK (UINT64_C(1) << 29) /* some 500 looks at all characters; patterns in use take 40 */

struct set {
    uint64_t w[WORDS];
};

/* Before a look at n characters. */
static int spend(struct reading *r, uint64_t n)
{
    *r->work += n;
    return *r->work > MAX_WORK ? pattern_bad(r, "so much work for classes") : 0;
}

static void add(struct set *s, uint32_t from, uint32_t to)
{
    for (uint32_t c = from; c <= to; c++)
        s->w[c / 64] |= UINT64_C(1) << c % 64;
}

static void add_bits(struct set *s, uint64_t bits, bool inverted)
{
    for (uint32_t c = 0; c <= UNICODE_MAX; c++)
        if (!(unicode_bits(c) & bits) == inverted)
            s->w[c / 64] |= UINT64_C(1) << c % 64;
}

/* Oniguruma has two tables of what a word's characters are: these numbers are of the one for \w and \b,
 * and not of the one for [\w]. */
static bool is_half_word(uint32_t c)
{
    return c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE);
}

/* What stands in a class. */
static void add_item(struct set *s, const struct pattern_item *a)
{
    bool had[0xC0 - 0xB0];

    for (uint32_t c = 0xB0; c < 0xC0; c++)
        had[c - 0xB0] = s->w[c / 64] >> c % 64 & 1;
    add_bits(s, a->bits, a->inverted);
    for (uint32_t c = 0xB0; c < 0xC0 && a->bits == UNI_WORD; c++)
        if (is_half_word(c) && !had[c - 0xB0])
            s->w[c / 64] = (s->w[c / 64] & ~(UINT64_C(1) << c % 64)) |
                           (uint64_t)a->inverted << c % 64;
}

static void invert(struct set *s)
{
    for (size_t i = 0; i < WORDS; i++)
        s->w[i] = ~s->w[i];
}

static bool has(const struct set *s, uint32_t c) { return s->w[c / 64] >> c % 64 & 1; }

static int write_range(struct buf *out, uint32_t from, uint32_t to, struct err *e)
{
    char text[40];
    int n = from == to ? snprintf(text, sizeof text, "\\x{%X}", from)
                       : snprintf(text, sizeof text, "\\x{%X}-\\x{%X}", from, to);

    return buf_add(out, text, (size_t)n, e);
}

/* Surrogates are no characters, and belong to either side. */
static int write_set(const struct set *s, struct buf *out, struct err *e)
{
    size_t len = out->len;
    int rc = buf_add(out, "[", 1, e);

    for (uint32_t c = 0; c <= UNICODE_MAX && rc == 0; c++) {
        uint32_t from = c;

        if ((c >= 0xD800 && c < 0xE000) || !has(s, c))
            continue;
        while (c < UNICODE_MAX && c + 1 != 0xD800 && has(s, c + 1))
            c++;
        rc = write_range(out, from, c, e);
    }
    if (rc == 0 && out->len == len + 1) { /* nothing: no character matches */
        out->len = len;
        return buf_add(out, "(?!)", 4, e);
    }
    return rc < 0 ? rc : buf_add(out, "]", 1, e);
}

int pattern_bits(struct reading *r, uint64_t bits, bool inverted, struct buf *out)
{
    struct set *s = calloc(1, sizeof *s);
    int rc = spend(r, UNICODE_MAX);

    if (!s)
        return err_set(r->e, E_SYS, "out of memory for a class");
    if (rc < 0) {
        free(s);
        return rc;
    }
    add_bits(s, bits, inverted);
    rc = write_set(s, out, r->e);
    free(s);
    return rc;
}

/* One character or escape inside brackets. */
static int one(struct reading *r, struct pattern_item *item)
{
    size_t n;

    if (*r->p == '\\')
        return pattern_escape(r, item);
    *item = (struct pattern_item){ unicode_at(r->p, &n), 0, false };
    r->p += n;
    return 0;
}

static bool range_follows(const struct reading *r)
{
    return r->end - r->p >= 2 && r->p[0] == '-' && r->p[1] != ']';
}

/* What stands between brackets, up to ']' or "&&", added to s. */
static int read_items(struct reading *r, struct set *s, int depth);

static int read_nested(struct reading *r, struct set *to, int depth)
{
    struct set *s = calloc(1, sizeof *s), *and = NULL;
    bool inverted;
    int rc = s ? spend(r, UNICODE_MAX / 16) : err_set(r->e, E_SYS, "out of memory for a class");

    if (rc == 0 && depth > MAX_NESTED)
        rc = pattern_bad(r, "classes nested deeper than 16");
    r->p++;
    if ((inverted = r->p < r->end && *r->p == '^'))
        r->p++;
    if (rc == 0)
        rc = read_items(r, s, depth);
    while (rc == 0 && r->end - r->p >= 2 && *r->p == '&') {
        r->p += 2;
        if (!and && !(and = malloc(sizeof *and))) {
            rc = err_set(r->e, E_SYS, "out of memory for a class");
            break;
        }
        memset(and, 0, sizeof *and);
        if ((rc = spend(r, UNICODE_MAX / 16)) == 0)
            rc = read_items(r, and, depth);
        for (size_t i = 0; i < WORDS; i++)
            s->w[i] &= and->w[i];
    }
    if (rc == 0 && r->p == r->end)
        rc = pattern_bad(r, "a class without an end");
    if (rc == 0) {
        r->p++;
        if (inverted)
            invert(s);
        for (size_t i = 0; i < WORDS; i++)
            to->w[i] |= s->w[i];
    }
    free(s);
    free(and);
    return rc;
}

static int read_items(struct reading *r, struct set *s, int depth)
{
    bool first = true;
    int rc = 0;

    for (; rc == 0 && r->p < r->end; first = false) {
        struct pattern_item a, b;

        if (*r->p == ']' && !first)
            return 0;
        if (*r->p == ']')
            return pattern_bad(r, "an empty class");
        if (r->end - r->p >= 2 && memcmp(r->p, "&&", 2) == 0)
            return 0;
        if (*r->p == '[') {
            if (r->end - r->p >= 2 && r->p[1] == ':')
                return pattern_bad(r, "a class by name such as [:alpha:]");
            rc = read_nested(r, s, depth + 1);
            continue;
        }
        if ((rc = one(r, &a)) < 0)
            return rc;
        if (a.bits) {
            if ((rc = spend(r, UNICODE_MAX)) == 0)
                add_item(s, &a);
            continue;
        }
        b = a;
        if (range_follows(r)) {
            r->p++;
            if (*r->p == '[')
                return pattern_bad(r, "a range that ends in a class");
            rc = one(r, &b);
            if (rc == 0 && (b.bits || b.c < a.c))
                return pattern_bad(r, "a range that is none");
        }
        if (rc == 0 && (rc = spend(r, b.c - a.c)) == 0)
            add(s, a.c, b.c);
    }
    return rc;
}

bool pattern_is_many(uint32_t c)
{
    static const uint16_t ranges[][2] = { /* U+FB00 and the like */
        { 0xDF, 0xDF },     { 0x130, 0x130 },   { 0x149, 0x149 },   { 0x1F0, 0x1F0 },   { 0x390, 0x390 },
        { 0x3B0, 0x3B0 },   { 0x587, 0x587 },   { 0x1E96, 0x1E9A }, { 0x1E9E, 0x1E9E }, { 0x1F50, 0x1F50 },
        { 0x1F52, 0x1F52 }, { 0x1F54, 0x1F54 }, { 0x1F56, 0x1F56 }, { 0x1F80, 0x1FAF }, { 0x1FB2, 0x1FB4 },
        { 0x1FB6, 0x1FB7 }, { 0x1FBC, 0x1FBC }, { 0x1FC2, 0x1FC4 }, { 0x1FC6, 0x1FC7 }, { 0x1FCC, 0x1FCC },
        { 0x1FD2, 0x1FD3 }, { 0x1FD6, 0x1FD7 }, { 0x1FE2, 0x1FE4 }, { 0x1FE6, 0x1FE7 }, { 0x1FF2, 0x1FF4 },
        { 0x1FF6, 0x1FF7 }, { 0x1FFC, 0x1FFC }, { 0xFB00, 0xFB06 }, { 0xFB13, 0xFB17 }
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

/* Case aside, a class is of what its characters are in other cases too; "[^" is of what is none of these. */
static int caseless(struct reading *r, const struct set *s, bool inverted, struct buf *out)
{
    int rc = 0;

    for (uint32_t c = 0; c < 0x10000 && !inverted; c++)
        if (has(s, c) && pattern_is_many(c))
            return pattern_bad(r, "a class with a letter that is several in another case (U+00DF is ss), under "
                               "(?i),");
    if (inverted)
        rc = buf_add(out, "(?:(?!", 6, r->e);
    if (rc == 0)
        rc = write_set(s, out, r->e);
    return rc < 0 || !inverted ? rc : buf_add(out, ")(?s:.))", 8, r->e);
}

int pattern_class(struct reading *r, struct buf *out)
{
    struct set *s = calloc(1, sizeof *s);
    bool inverted = pattern_caseless(r) && r->end - r->p >= 2 && r->p[1] == '^';
    int rc = s ? read_nested(r, s, 0) : err_set(r->e, E_SYS, "out of memory for a class");

    if (rc == 0 && inverted)
        invert(s); /* back to what stands behind the '^' */
    if (rc == 0)
        rc = pattern_caseless(r) ? caseless(r, s, inverted, out) : write_set(s, out, r->e);
    free(s);
    return rc;
}
