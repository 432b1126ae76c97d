/* formats/tokenizer/pattern.c - see pattern.h. */
#include "formats/tokenizer/pattern.h"

#include "formats/tokenizer/pattern_impl.h"
#include "formats/tokenizer/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BYTES ((size_t)1 << 16) /* of a pattern; the longest in use has 1200 */
/* Steps of one match: what backtracks may take this many, and 16 a byte of text. */
#define STEPS 10000000u
/* All matches of a text: this long and so long a byte of it, which is some 25 times what patterns in use take.
 * The time is looked at after so many matches, or places where none begins. */
#define SECONDS 1
#define NS_A_BYTE 5000
#define LOOKS 512
#define STARTS ((size_t)4096)

struct pattern {
    pcre2_code *code;
};

int pattern_bad(const struct reading *r, const char *what)
{
    return err_set(r->e, E_DATA, "at byte %zu of the pattern: %s is not supported",
                   (size_t)(r->p - r->start), what);
}

/* \p{NAME}: a category, the first letter of some, or a script. */
static uint64_t property(const char *name, size_t n)
{
    uint64_t bits = 0;

    for (int i = 0; i < UNI_CATEGORIES && n <= 2; i++)
        if (strncmp(unicode_category_names[i], name, n) == 0)
            bits |= UINT64_C(1) << i;
    for (int i = 0; i < UNI_SCRIPTS; i++)
        if (strlen(unicode_script_names[i]) == n && memcmp(unicode_script_names[i], name, n) == 0)
            bits = UNI_SCRIPT(i);
    return bits;
}

/* r->p stands behind \p or \P. */
static int read_property(struct reading *r, struct pattern_item *item)
{
    const char *name, *close = r->p < r->end && *r->p == '{'
                                   ? memchr(r->p, '}', (size_t)(r->end - r->p)) : NULL;

    if (!close)
        return pattern_bad(r, "\\p without {NAME}");
    name = r->p + 1;
    if (*name == '^') {
        item->inverted = !item->inverted;
        name++;
    }
    if (close == name || !(item->bits = property(name, (size_t)(close - name))))
        return pattern_bad(r, "this property");
    r->p = close + 1;
    return 0;
}

/* Hexadecimal digits at r->p, at most max; -1 for none. */
static int64_t hex(struct reading *r, int max)
{
    int64_t v = 0;
    int n = 0;

    for (; n < max && r->p < r->end; n++, r->p++) {
        char c = *r->p, d = (char)(c | 32);

        if (c >= '0' && c <= '9')
            v = v * 16 + (c - '0');
        else if (d >= 'a' && d <= 'f')
            v = v * 16 + (d - 'a' + 10);
        else
            break;
    }
    return n ? v : -1;
}

/* r->p stands behind \x or \u. */
static int read_hex(struct reading *r, bool is_u, struct pattern_item *item)
{
    bool braces = !is_u && r->p < r->end && *r->p == '{';
    const char *from = r->p;
    int64_t v;

    r->p += braces;
    v = hex(r, braces ? 6 : is_u ? 4 : 2);
    if (v < 0 || v > UNICODE_MAX || (is_u && r->p - from != 4) || (!braces && !is_u && v > 127) ||
        (braces && (r->p == r->end || *r->p++ != '}')))
        return pattern_bad(r, "this number of a character");
    item->c = (uint32_t)v;
    return 0;
}

static bool is_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

int pattern_escape(struct reading *r, struct pattern_item *item)
{
    static const char named[] = "n\nr\rt\tf\fv\va\ae\033";
    char c;

    *item = (struct pattern_item){ 0 };
    if (++r->p == r->end)
        return pattern_bad(r, "a backslash at the end");
    c = *r->p++;
    for (const char *p = named; *p; p += 2)
        if (c == *p) {
            item->c = (unsigned char)p[1];
            return 0;
        }
    item->inverted = c == 'P' || c == 'S' || c == 'D' || c == 'W';
    switch (c) {
    case 'p':
    case 'P':
        return read_property(r, item);
    case 's':
    case 'S':
        item->bits = UNI_SPACE;
        return 0;
    case 'd':
    case 'D':
        item->bits = UINT64_C(1) << UNI_ND;
        return 0;
    case 'w':
    case 'W':
        item->bits = UNI_WORD;
        return 0;
    case 'x':
    case 'u':
        return read_hex(r, c == 'u', item);
    default:
        r->p--;
        if ((c >= '0' && c <= '9') || is_letter(c) || (c & 0x80))
            return pattern_bad(r, "this escape");
        item->c = (unsigned char)c;
        r->p++;
        return 0;
    }
}

static bool one_of(char c, const char *set) { return c && strchr(set, c); }

static int put(struct reading *r, struct buf *out, const char *text)
{
    return buf_add(out, text, strlen(text), r->e);
}

/* A character that stands for itself. */
static int put_char(struct reading *r, struct buf *out, uint32_t c)
{
    char text[16];

    snprintf(text, sizeof text, "\\x{%X}", c);
    return put(r, out, text);
}

/* Two characters side by side that, case aside, may begin one: Oniguruma matches that too, PCRE2 does not. */
static bool may_be_one(uint32_t a, uint32_t b)
{
    static const uint16_t second[] = { 0x307, 0x308, 0x30A, 0x30C, 0x313, 0x331, 0x342, 0x345, 0x2BE, 0x399, 0x3B9,
                                       0x1FBE, 0x535, 0x53B, 0x53D, 0x546, 0x552, 0x565, 0x56B, 0x56D, 0x576,
                                       0x582 };
    uint32_t x = a == 0x17F ? 's' : a | 32, y = b == 0x17F ? 's' : b | 32;

    for (size_t i = 0; i < sizeof second / sizeof *second; i++)
        if (b == second[i])
            return true;
    return a == 0x2BC || (x == 's' && (y == 's' || y == 't')) ||
           (x == 'f' && (y == 'f' || y == 'i' || y == 'l'));
}

/* A character of the pattern. */
static int literal(struct reading *r, struct buf *out, uint32_t c)
{
    uint32_t before = r->last;

    r->last = pattern_caseless(r) ? c : 0;
    if (r->last && (pattern_is_many(c) || (before && may_be_one(before, c))))
        return pattern_bad(r, "a letter that is several in another case (U+00DF is ss), under (?i),");
    return put_char(r, out, c);
}

/* Behind '(': ?<name> or ?'name', if that is what stands there. */
static bool pass_name(struct reading *r)
{
    const char *p = r->p + 1, *from;
    char close;

    if (p == r->end || (*p != '<' && *p != '\''))
        return false;
    close = *p == '<' ? '>' : '\'';
    from = ++p;
    while (p < r->end && (is_letter(*p) || *p == '_' || (p > from && *p >= '0' && *p <= '9')))
        p++;
    if (p == from || p == r->end || *p != close)
        return false;
    r->p = p + 1;
    return true;
}

/* Behind '(': what kind of group it is. */
static int open_group(struct reading *r, struct buf *out)
{
    static const char *const kinds[] = { "?:", "?i:", "?-i:", "?=", "?!", "?<=", "?<!", "?>" };
    size_t left = (size_t)(r->end - r->p), n;

    if (left == 0 || *r->p != '?' || pass_name(r))
        return put(r, out, "(?:"); /* nothing asks for the groups, by number or by name */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if ((n = strlen(kinds[i])) <= left && memcmp(r->p, kinds[i], n) == 0) {
            int rc = put(r, out, "(");
            r->p += n;
            if (i == 1 || i == 2)
                r->group[r->depth].caseless = i == 1;
            return rc < 0 ? rc : put(r, out, kinds[i]);
        }
    if (left >= 3 && memcmp(r->p, "?i)", 3) == 0 && r->p == r->start + 1) {
        r->p += 3;
        r->group[0].caseless = r->group[r->depth].caseless = true;
        return put(r, out, "(?i)");
    }
    return pattern_bad(r, "this kind of group");
}

/* A group around what is written from at on. */
static int put_around(struct reading *r, struct buf *out, size_t at)
{
    int rc = put(r, out, "(?:)");

    if (rc == 0) {
        memmove(out->p + at + 3, out->p + at, out->len - 4 - at);
        memcpy(out->p + at, "(?:", 3);
        out->p[out->len - 1] = ')';
    }
    return rc;
}

/* *, +, ? and {n,m}, and how greedy: as both read it. It is of what is written from atom on. */
static int quantifier(struct reading *r, struct buf *out, size_t atom)
{
    const char *from = r->p, *p = r->p + 1;
    bool counted = *from == '{';
    int rc;

    r->last = 0;
    if (counted) {
        const char *digits = p;

        while (p < r->end && *p >= '0' && *p <= '9')
            p++;
        if (p < r->end && *p == ',' && p > digits)
            for (p++; p < r->end && *p >= '0' && *p <= '9';)
                p++;
        if (p == r->end || *p != '}' || p == digits) /* {,3} too is read in two ways */
            return pattern_bad(r, "this brace");
        p++;
    }
    rc = buf_add(out, from, (size_t)(p - from), r->e);
    r->p = p;
    if (rc == 0 && p < r->end && (*p == '?' || *p == '+')) {
        if (counted && *p == '?')
            return pattern_bad(r, "'?' behind a number of times");
        if (counted) /* as often as that, once or more */
            rc = put_around(r, out, atom);
        if (rc == 0)
            rc = buf_add(out, p, 1, r->e);
        r->p++;
    }
    if (rc == 0 && r->p < r->end && one_of(*r->p, "*+?{"))
        return pattern_bad(r, "a repetition of a repetition");
    return rc;
}

/* \b or \B: whether the characters on both sides are one of a word and one of none. Group 1 is the class
 * of the former: each copy of it would take a tenth of what PCRE2 allows a pattern. */
static int word_edge(struct reading *r, bool inverted, struct buf *out)
{
    r->p += 2;
    r->edges = true;
    return put(r, out, inverted ? "(?:(?<=(?1))(?=(?1))|(?<!(?1))(?!(?1)))"
                                : "(?:(?<=(?1))(?!(?1))|(?<!(?1))(?=(?1)))");
}

/* The pattern, behind what it refers to. */
static int put_edges(struct reading *r, const struct buf *pattern, struct buf *to)
{
    int rc = 0;

    if (r->edges && (rc = put(r, to, "(?(DEFINE)(")) == 0 &&
        (rc = pattern_bits(r, UNI_WORD, false, to)) == 0)
        rc = put(r, to, "))");
    return rc < 0 ? rc : buf_add(to, pattern->p ? pattern->p : "", pattern->len, r->e);
}

static int escape(struct reading *r, struct buf *out)
{
    struct pattern_item item;
    int rc;

    if (r->end - r->p >= 2 && (r->p[1] | 32) == 'b')
        return word_edge(r, r->p[1] == 'B', out);

    if (r->end - r->p >= 2 && one_of(r->p[1], "AzZ")) {
        rc = buf_add(out, r->p, 2, r->e);
        r->p += 2;
        return rc;
    }
    if ((rc = pattern_escape(r, &item)) < 0)
        return rc;
    if (!item.bits)
        return literal(r, out, item.c);
    /* Oniguruma: such a class is of characters as they stand, whatever is said of case. */
    if (pattern_caseless(r) && (rc = put(r, out, "(?-i:")) < 0)
        return rc;
    rc = pattern_bits(r, item.bits, item.inverted, out);
    return rc < 0 || !pattern_caseless(r) ? rc : put(r, out, ")");
}

static int begin_group(struct reading *r, struct buf *out)
{
    struct pattern_group *g;

    r->p++;
    if (r->depth == PATTERN_DEPTH)
        return pattern_bad(r, "a group in 64 others");
    g = &r->group[++r->depth];
    *g = (struct pattern_group){ g[-1].caseless, out->len };
    return open_group(r, out);
}

static int end_group(struct reading *r, struct buf *out, size_t *atom)
{
    r->p++;
    if (r->depth == 0)
        return pattern_bad(r, "')' without '('");
    *atom = r->group[r->depth--].at;
    return put(r, out, ")");
}

/* Characters that are not themselves. */
static int special(struct reading *r, struct buf *out)
{
    char c = *r->p;

    r->last = 0;
    if (c == '[')
        return pattern_class(r, out);
    r->p++;
    return put(r, out, c == '|' ? "|" : c == '.' ? "[^\\n]"
               : c == '^' ? "(?m:^)" : "(?m:$)"); /* both at every line, as in Ruby */
}

/* One part of the pattern; *atom: where it begins in what is written. */
static int translate_one(struct reading *r, struct buf *out, size_t *atom)
{
    size_t n, before = *atom;
    char c = *r->p;
    uint32_t u;

    *atom = out->len;
    if (c == '\\')
        return escape(r, out);
    if (c == '(')
        return begin_group(r, out);
    if (c == ')')
        return end_group(r, out, atom);
    if (one_of(c, "[|.^$"))
        return special(r, out);
    if (one_of(c, "*+?{")) {
        *atom = before;
        return quantifier(r, out, before);
    }
    u = unicode_at(r->p, &n);
    r->p += n;
    return literal(r, out, u);
}

static int compile(struct pattern *p, const struct buf *b, struct err *e)
{
    PCRE2_SIZE at;
    char why[256];
    int code;

    p->code = pcre2_compile((PCRE2_SPTR)(b->p ? b->p : ""), b->len, PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_USE_OFFSET_LIMIT,
                            &code, &at, NULL);
    if (!p->code) {
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_set(e, E_DATA, "the pattern cannot be compiled: %s", why);
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* where it fails, matching is slower */
    return 0;
}

int pattern_make(struct pattern **out, const char *regex, size_t n, uint64_t *work, struct err *e)
{
    uint64_t own = 0;
    struct reading r = { .start = regex, .p = regex, .end = regex + n, .work = work ? work : &own, .e = e };
    struct pattern *p = NULL;
    struct buf b = { 0 }, whole = { 0 };
    size_t atom = 0;
    int rc = unicode_open(e);

    *out = NULL;
    if (rc == 0 && (n > MAX_BYTES || !utf8_valid(regex, n, NULL)))
        rc = err_set(e, E_DATA, "a pattern of %zu bytes, not valid UTF-8 of at most %zu", n,
                     MAX_BYTES);
    while (rc == 0 && r.p < r.end) {
        rc = translate_one(&r, &b, &atom);
        if (rc == 0 && b.len > 16 * MAX_BYTES)
            rc = pattern_bad(&r, "so large a pattern");
    }
    if (rc == 0 && !(p = calloc(1, sizeof *p)))
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0 && (rc = put_edges(&r, &b, &whole)) == 0)
        rc = compile(p, &whole, e);
    buf_free(&b);
    buf_free(&whole);
    if (rc < 0)
        free(p);
    else
        *out = p;
    return rc;
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    free(p);
}

struct work {
    pcre2_match_data *data;
    pcre2_match_context *context;
    int64_t began;      /* this thread's time then, ns */
    size_t bytes;       /* of the texts since */
    size_t n;           /* of the text that the bound on steps is for */
    unsigned countdown; /* matches until the time is looked at */
};

static int64_t thread_time(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct work *new_work(const struct pattern *p)
{
    struct work *w = calloc(1, sizeof *w);

    if (!w)
        return NULL;
    w->data = pcre2_match_data_create_from_pattern(p->code, NULL);
    w->context = pcre2_match_context_create(NULL);
    w->began = thread_time();
    w->countdown = LOOKS;
    if (w->data && w->context)
        return w;
    pcre2_match_data_free(w->data);
    pcre2_match_context_free(w->context);
    free(w);
    return NULL;
}

void pattern_done(struct pattern_at *at)
{
    struct work *w = at->work;

    if (!w)
        return;
    pcre2_match_data_free(w->data);
    pcre2_match_context_free(w->context);
    free(w);
    at->work = NULL;
}

static int match_from(const struct pattern *p, const struct work *w, const char *text, size_t n, size_t from)
{
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, w->data, w->context);

    return rc != PCRE2_ERROR_JIT_STACKLIMIT
               ? rc : pcre2_match(p->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                                  w->data, w->context);
}

/* PCRE2 bounds what one match may go back, but not what many do, nor loops of one character. */
static bool took_too_long(struct work *w, unsigned matches)
{
    if (w->countdown > matches) {
        w->countdown -= matches;
        return false;
    }
    w->countdown = LOOKS;
    return thread_time() - w->began > SECONDS * INT64_C(1000000000) + NS_A_BYTE * (int64_t)w->bytes;
}

static int match(const struct pattern *p, struct work *w, const char *text, size_t n, size_t from, struct err *e)
{
    int rc = PCRE2_ERROR_NOMATCH;
    bool late = false;

    for (size_t at = from, last; at <= n && rc == PCRE2_ERROR_NOMATCH; at = last + 1) {
        last = n - at > STARTS ? at + STARTS : n;
        while (last + 1 < n && ((unsigned char)text[last + 1] & 0xC0) == 0x80)
            last++;
        pcre2_set_offset_limit(w->context, last);
        rc = match_from(p, w, text, n, at);
        if ((late = took_too_long(w, rc == PCRE2_ERROR_NOMATCH ? 1 + (unsigned)((last - at) * LOOKS / STARTS) : 1)))
            break;
    }
    if (rc >= 0 && !late)
        return 1;
    if (rc == PCRE2_ERROR_NOMATCH && !late)
        return 0;
    if (rc == PCRE2_ERROR_NOMEMORY)
        return err_set(e, E_SYS, "out of memory for a pattern's match");
    return err_set(e, E_DATA, "the tokenizer's pattern %s at byte %zu of the text",
                   late ? "takes too long" : "backtracks too often", from);
}

void pattern_begin(struct pattern_at *at, size_t n)
{
    struct work *w = at->work;

    at->from = at->last_end = 0;
    at->begun = 0;
    if (w)
        w->bytes += n;
}

/* As Oniguruma's iterator: an empty match right behind the last one does not count. */
int pattern_next(const struct pattern *p, struct pattern_at *at, const char *text, size_t n,
                 size_t *start, size_t *end, struct err *e)
{
    struct work *w = at->work;
    size_t k, steps = STEPS + 16 * n;
    int rc;

    if (!w) {
        if (!(at->work = w = new_work(p)))
            return err_set(e, E_SYS, "out of memory for a pattern's match");
        w->bytes = n;
    }
    if (w->n != n) {
        w->n = n;
        pcre2_set_match_limit(w->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    }
    while (at->from <= n) {
        const PCRE2_SIZE *place;

        if ((rc = match(p, w, text, n, at->from, e)) <= 0)
            return rc;
        place = pcre2_get_ovector_pointer(w->data);
        *start = place[0];
        *end = place[1];
        if (*start == *end && at->begun && at->last_end == *end) {
            k = 1;
            if (at->from < n)
                unicode_at(text + at->from, &k);
            at->from += k;
            continue;
        }
        at->from = at->last_end = *end;
        at->begun = 1;
        return 1;
    }
    return 0;
}
