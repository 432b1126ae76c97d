/* formats/tokenizer/unicode.c - see unicode.h. The tables are strings of numbers, five bits a digit,
 * the lowest first, a digit of 32 or more where another follows; with a sign as twice the value, or
 * for -v as 2v - 1. */
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/unicode_data.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const char unicode_category_names[UNI_CATEGORIES][3] = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cn"
};

const char unicode_script_names[UNI_SCRIPTS][9] = { "Han",      "Hiragana", "Katakana", "Hangul",
                                                    "Latin",    "Greek",    "Cyrillic", "Arabic",
                                                    "Hebrew",   "Thai" };

#define HANGUL 0xAC00u
#define HANGUL_N 11172u

/* How one character is written in another form: length characters from chars[at] on. */
struct change {
    uint32_t from, at;
    unsigned char length;
    bool one_way; /* composing never gives it */
};
struct changes {
    struct change *v;
    size_t n;
};
struct pair { /* a and b are composed to c */
    uint32_t a, b, c;
};

static struct {
    unsigned char *kind; /* of each character */
    unsigned char *mark; /* its combining class */
    unsigned char *begins; /* 1: may be changed by, or join in, NFC */
    uint32_t *chars;
    size_t n_chars, n_pairs;
    struct changes canonical, compatible, lower;
    struct pair *pairs;
} u;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool made;

static uint32_t number(const char **p)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-+";
    uint32_t v = 0, d;
    int shift = 0;

    do {
        d = (uint32_t)(strchr(digits, *(*p)++) - digits);
        v |= (d & 31) << shift;
        shift += 5;
    } while (d & 32);
    return v;
}

static uint32_t step(uint32_t from, const char **p)
{
    uint32_t v = number(p);

    return v & 1 ? from - (v + 1) / 2 : from + v / 2;
}

/* Lengths in the tables of normal forms are doubled, with one_way in the low bit. */
static bool read_changes(struct changes *c, const char *text, int low_bit)
{
    uint32_t from = 0;
    size_t cap = strlen(text) / 3 + 1;

    if (!(c->v = malloc(cap * sizeof *c->v)))
        return false;
    while (*text) {
        struct change *x = &c->v[c->n++];
        uint32_t n, at;

        from += number(&text);
        n = number(&text);
        *x = (struct change){ from, (uint32_t)u.n_chars, (unsigned char)(n >> low_bit),
                              low_bit && n & 1 };
        at = from;
        for (int i = 0; i < x->length; i++)
            u.chars[u.n_chars++] = at = step(at, &text);
    }
    return true;
}

static const struct change *find(const struct changes *c, uint32_t from)
{
    size_t lo = 0, hi = c->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (c->v[mid].from < from)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->n && c->v[lo].from == from ? &c->v[lo] : NULL;
}

static int by_parts(const void *x, const void *y)
{
    const struct pair *a = x, *b = y;

    if (a->a != b->a)
        return a->a < b->a ? -1 : 1;
    return a->b < b->b ? -1 : a->b > b->b;
}

/* What the characters before the last compose to: themselves, or a character that becomes them. */
static uint32_t prefix_of(const struct change *x)
{
    if (x->length == 2)
        return u.chars[x->at];
    for (size_t i = 0; i < u.canonical.n; i++) {
        const struct change *y = &u.canonical.v[i];

        if (y->length == x->length - 1 && !y->one_way &&
            memcmp(u.chars + y->at, u.chars + x->at, y->length * sizeof *u.chars) == 0)
            return y->from;
    }
    return 0;
}

static bool make_pairs(void)
{
    if (!(u.pairs = malloc(u.canonical.n * sizeof *u.pairs)))
        return false;
    for (size_t i = 0; i < u.canonical.n; i++) {
        const struct change *x = &u.canonical.v[i];

        u.begins[x->from] = (unsigned char)(u.begins[x->from] | x->one_way);
        if (x->one_way || x->length < 2)
            continue;
        u.pairs[u.n_pairs++] = (struct pair){ prefix_of(x), u.chars[x->at + x->length - 1u],
                                              x->from };
        u.begins[u.chars[x->at + x->length - 1u]] = 1;
    }
    qsort(u.pairs, u.n_pairs, sizeof *u.pairs, by_parts);
    return true;
}

static void make(void)
{
    const char *p = unicode_runs, *q = unicode_marks;
    uint32_t c = 0;

    u.kind = malloc(UNICODE_MAX + 1);
    u.mark = calloc(UNICODE_MAX + 1, 1);
    u.begins = calloc(UNICODE_MAX + 1, 1);
    u.chars = malloc((strlen(unicode_canonical) + strlen(unicode_compatible) +
                      strlen(unicode_lower)) * sizeof *u.chars);
    if (!u.kind || !u.mark || !u.begins || !u.chars)
        return;
    while (*p) {
        uint32_t n = number(&p), kind = number(&p);

        memset(u.kind + c, (int)kind, n);
        c += n;
    }
    for (c = 0; *q;) {
        c += number(&q);
        u.mark[c] = (unsigned char)number(&q);
        u.begins[c] = 1;
    }
    for (c = 0x1161; c < 0x11C3; c++)
        u.begins[c] = 1; /* the parts of Hangul that come second */
    made = read_changes(&u.canonical, unicode_canonical, 1) &&
           read_changes(&u.compatible, unicode_compatible, 1) &&
           read_changes(&u.lower, unicode_lower, 0) && make_pairs();
}

int unicode_open(struct err *e)
{
    pthread_once(&once, make);
    return made ? 0 : err_set(e, E_SYS, "out of memory for Unicode's tables");
}

uint64_t unicode_bits(uint32_t c) { return unicode_kinds[u.kind[c]]; }

size_t unicode_put(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xC0 | c >> 6);
        to[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xE0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 63));
        to[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    to[0] = (char)(0xF0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 63));
    to[2] = (char)(0x80 | (c >> 6 & 63));
    to[3] = (char)(0x80 | (c & 63));
    return 4;
}

bool unicode_is_nfc(const char *p, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        uint64_t w;

        /* Below U+0300 nothing changes: its first byte would be 0xCC or more. */
        for (; i + 8 <= n; i += 8) {
            memcpy(&w, p + i, 8);
            if (w & 0x8080808080808080u)
                break;
        }
        if (i >= n)
            return true;
        if ((unsigned char)p[i] < 0xCC)
            k = (unsigned char)p[i] < 0x80 ? 1 : 2;
        else if (u.begins[unicode_at(p + i, &k)])
            return false;
    }
    return true;
}

/* Characters of a text as numbers. */
struct line {
    uint32_t *v;
    size_t n, cap;
};

static int put(struct line *l, uint32_t c, struct err *e)
{
    int rc = array_grow(&l->v, &l->cap, l->n, sizeof *l->v, 256, "characters", e);

    if (rc == 0)
        l->v[l->n++] = c;
    return rc;
}

static int put_change(struct line *l, const struct change *x, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < x->length && rc == 0; i++)
        rc = put(l, u.chars[x->at + (uint32_t)i], e);
    return rc;
}

/* Hangul is composed of 19 first parts, 21 second and 27 third, in this order. */
static int put_decomposed(struct line *l, uint32_t c, bool compatible, struct err *e)
{
    const struct change *x = NULL;
    uint32_t i = c - HANGUL;
    int rc;

    if (c < 0x80)
        return put(l, c, e);
    if (i < HANGUL_N) {
        if ((rc = put(l, 0x1100 + i / 588, e)) == 0)
            rc = put(l, 0x1161 + i % 588 / 28, e);
        return rc == 0 && i % 28 ? put(l, 0x11A7 + i % 28, e) : rc;
    }
    if (compatible)
        x = find(&u.compatible, c);
    if (!x)
        x = find(&u.canonical, c);
    return x ? put_change(l, x, e) : put(l, c, e);
}

/* Marks in a row stand in the order of their classes: by insertion, as rows are short; a long row,
 * which is no language, by counting. */
static void order_marks(uint32_t *v, size_t n)
{
    uint32_t *copy;
    size_t count[257] = { 0 };

    if (n > 32 && (copy = malloc(n * sizeof *copy))) {
        memcpy(copy, v, n * sizeof *copy);
        for (size_t i = 0; i < n; i++)
            count[u.mark[v[i]] + 1]++;
        for (int k = 1; k < 257; k++)
            count[k] += count[k - 1];
        for (size_t i = 0; i < n; i++)
            v[count[u.mark[copy[i]]]++] = copy[i];
        free(copy);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        uint32_t c = v[i];
        size_t k = i;

        for (; k > 0 && u.mark[v[k - 1]] > u.mark[c]; k--)
            v[k] = v[k - 1];
        v[k] = c;
    }
}

static void order(struct line *l)
{
    for (size_t i = 0, k; i < l->n; i = k) {
        k = i + 1;
        if (l->v[i] < 0x300 || !u.mark[l->v[i]])
            continue;
        while (k < l->n && u.mark[l->v[k]])
            k++;
        order_marks(l->v + i, k - i);
    }
}

/* What a and b compose to, or 0. */
static uint32_t composed(uint32_t a, uint32_t b)
{
    struct pair key = { a, b, 0 }, *p;

    if (a - 0x1100 < 19 && b - 0x1161 < 21)
        return HANGUL + ((a - 0x1100) * 21 + (b - 0x1161)) * 28;
    if (a - HANGUL < HANGUL_N && (a - HANGUL) % 28 == 0 && b - 0x11A8 < 27)
        return a + (b - 0x11A7);
    p = bsearch(&key, u.pairs, u.n_pairs, sizeof *p, by_parts);
    return p ? p->c : 0;
}

/* In place: each character joins the last starter, unless a mark of its class or a higher one, or
 * another starter, stands between. */
static void compose(struct line *l)
{
    size_t n = 0, starter = SIZE_MAX;
    unsigned last = 0; /* class of the character before; 256: none yet */

    for (size_t i = 0; i < l->n; i++) {
        uint32_t c = l->v[i], joined = 0;
        unsigned k = c < 0x300 ? 0 : u.mark[c];

        if (starter != SIZE_MAX && (n == starter + 1 || (last < k && last != 0)))
            joined = u.begins[c] ? composed(l->v[starter], c) : 0;
        if (joined) {
            l->v[starter] = joined;
            continue;
        }
        if (k == 0)
            starter = n;
        last = k;
        l->v[n++] = c;
    }
    l->n = n;
}

static int to_text(const struct line *l, struct buf *out, struct err *e)
{
    int rc = buf_reserve(out, 4 * l->n, e);

    for (size_t i = 0; i < l->n && rc == 0; i++)
        out->len += unicode_put(out->p + out->len, l->v[i]);
    return rc;
}

int unicode_form(enum unicode_form form, const char *p, size_t n, struct buf *out, struct err *e)
{
    bool compatible = form == UNICODE_NFKC || form == UNICODE_NFKD;
    struct line l = { 0 };
    int rc = 0;

    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        uint32_t c = unicode_at(p + i, &k);
        const struct change *x = form == UNICODE_LOWER ? find(&u.lower, c) : NULL;

        rc = x ? put_change(&l, x, e)
               : form == UNICODE_LOWER ? put(&l, c, e) : put_decomposed(&l, c, compatible, e);
    }
    if (rc == 0 && form != UNICODE_LOWER)
        order(&l);
    if (rc == 0 && (form == UNICODE_NFC || form == UNICODE_NFKC))
        compose(&l);
    if (rc == 0)
        rc = to_text(&l, out, e);
    free(l.v);
    return rc;
}
