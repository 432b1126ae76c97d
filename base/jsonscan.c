/* base/jsonscan.c - see jsonscan.h. */
#include "base/jsonscan.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && is_space(*p))
        p++;
    return p;
}

const char *json_type_name(enum json_kind t)
{
    static const char *const name[] = { "null", "false", "true", "a number", "a string",
                                        "an array", "an object" };
    return name[t];
}

/* What each letter behind a backslash says; 0: nothing. 'u' is for itself. */
static const char escaped_char[256] = { ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',
                                        ['b'] = '\b', ['f'] = '\f',  ['n'] = '\n',
                                        ['r'] = '\r', ['t'] = '\t',  ['u'] = 'u' };

/* The first '"', '\' or control character at or after p; sixteen or eight bytes at a time. A
 * borrow can mark a byte too many above a true one, never below, so the lowest mark is right. */
static const char *string_stop(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;

#ifdef __SSE2__
    /* Three tests at once, byte by byte. There is no unsigned "less than" in SSE2, so a control
     * character is found by min(x, 0x1F) == x. */
    const __m128i quotes = _mm_set1_epi8('"'), slashes = _mm_set1_epi8('\\'),
                  controls = _mm_set1_epi8(0x1F);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(x, quotes),
                                                _mm_cmpeq_epi8(x, slashes)),
                                   _mm_cmpeq_epi8(_mm_min_epu8(x, controls), x));
        int mask = _mm_movemask_epi8(hit);
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    for (; end - p >= 8; p += 8) {
        /* A byte that equals '"' becomes 0 after the xor, and 0 - 1 borrows into the top bit of
         * its byte, as does any byte below 0x20 minus 0x20. The "& ~w" terms take out bytes
         * whose top bit was set before (those of UTF-8 sequences). */
        uint64_t w = get_le(p, 8), quote = w ^ ones * '"', slash = w ^ ones * '\\';
        uint64_t hit = ((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
                       ((w - ones * 0x20) & ~w);
        if (hit & high)
            return p + __builtin_ctzll(hit & high) / 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    return p;
}

/* Copies ASCII up to a backslash or the end of n bytes; how many. to has room for n. */
static size_t copy_ascii(char *to, const char *p, size_t n)
{
    size_t i = 0;

#ifdef __SSE2__
    for (; n - i >= 16; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i slash = _mm_cmpeq_epi8(x, _mm_set1_epi8('\\'));
        /* The mask takes each byte's top bit, which is set in what is not ASCII and, by the
         * comparison, in a backslash. */
        int mask = _mm_movemask_epi8(_mm_or_si128(x, slash));
        /* All 16 bytes are stored before the mask is looked at: to has room for them, and what
         * lies behind the stop is written over later, or stays unused. */
        _mm_storeu_si128((__m128i *)(void *)(to + i), x);
        if (mask)
            return i + (size_t)__builtin_ctz((unsigned)mask);
    }
#endif
    for (; i < n && p[i] != '\\' && !(p[i] & 0x80); i++)
        to[i] = p[i];
    return i;
}

/* The value of four hexadecimal digits; false where there are fewer before end. */
static bool hex4(const char *p, const char *end, unsigned *v)
{
    *v = 0;
    if (end - p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        /* With bit 5 set, 'A' to 'F' become 'a' to 'f'; a digit is looked at as it was. */
        unsigned char c = (unsigned char)p[i], d = (unsigned char)(c | 32);
        if (c >= '0' && c <= '9')
            *v = *v << 4 | (unsigned)(c - '0');
        else if (d >= 'a' && d <= 'f')
            *v = *v << 4 | (unsigned)(d - 'a' + 10);
        else
            return false;
    }
    return true;
}

/* The position that a scan stopped at, and why, for one message made in one place. */
struct stop {
    const char *at, *why;
};

static bool fail(struct stop *s, const char *at, const char *why)
{
    s->at = at;
    s->why = why;
    return false;
}

/* *p stands after an opening quote; moves it after the closing one. */
static bool scan_string(const char **p, const char *end, bool *escaped, struct stop *s)
{
    const char *q = *p;
    unsigned unit;

    for (*escaped = false;; q++) {
        q = string_stop(q, end);
        if (q == end)
            return fail(s, q, "a string has no end");
        if (*q == '"')
            break;
        if (*q != '\\')
            return fail(s, q, "a control character in a string");
        *escaped = true;
        if (++q == end || !escaped_char[(unsigned char)*q])
            return fail(s, q, "an unknown escape");
        if (*q == 'u') {
            if (!hex4(q + 1, end, &unit))
                return fail(s, q, "\\u without four hexadecimal digits");
            q += 4;
        }
    }
    *p = q + 1;
    return true;
}

/* Moves *p past digits; false where there is none. */
static bool scan_digits(const char **p, const char *end)
{
    const char *q = *p;

    while (*p < end && **p >= '0' && **p <= '9')
        (*p)++;
    return *p > q;
}

static bool scan_word(const char **p, const char *end, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(end - *p) < n || memcmp(*p, word, n) != 0)
        return false;
    *p += n;
    return true;
}

/* RFC 8259's number, or Infinity with or without a sign: Python's json writes that. */
static bool scan_number(const char **p, const char *end, struct stop *s)
{
    const char *start = *p, *q;

    if (*p < end && **p == '-')
        (*p)++;
    if (scan_word(p, end, "Infinity"))
        return true;
    q = *p;
    /* A number does not begin with 0, apart from 0 itself: 007 is refused. */
    if (!scan_digits(p, end) || (*q == '0' && *p - q > 1))
        return fail(s, start, "not a value");
    if (*p < end && **p == '.' && (++*p, !scan_digits(p, end)))
        return fail(s, start, "a bad number");
    if (*p < end && (**p | 32) == 'e') {
        ++*p;
        if (*p < end && (**p == '+' || **p == '-'))
            ++*p;
        if (!scan_digits(p, end))
            return fail(s, start, "a bad number");
    }
    return true;
}

/* A string, a number or one of the words; *p moves behind it. The first character decides. */
static bool scan_scalar(const char **p, const char *end, struct json_value *v, struct stop *s)
{
    const char *start = *p;
    bool ok;

    v->escaped = false;
    if (start == end)
        return fail(s, start, "the value is cut short");
    switch (*start) {
    case '"':
        v->type = JK_STRING;
        v->p = ++*p;
        if (!scan_string(p, end, &v->escaped, s))
            return false;
        /* *p stands after the closing quote, so the text ends one byte earlier. */
        v->n = (size_t)(*p - 1 - v->p);
        return true;
    case 't': v->type = JK_TRUE; ok = scan_word(p, end, "true"); break;
    case 'f': v->type = JK_FALSE; ok = scan_word(p, end, "false"); break;
    case 'n': v->type = JK_NULL; ok = scan_word(p, end, "null"); break;
    case 'N': v->type = JK_NUMBER; ok = scan_word(p, end, "NaN"); break;
    default:
        v->type = JK_NUMBER;
        if (!scan_number(p, end, s))
            return false;
        ok = true;
    }
    v->p = start;
    v->n = (size_t)(*p - start);
    return ok ? true : fail(s, start, "not a value");
}

/* A key and its colon. */
static bool scan_key(const char **p, const char *end, struct json_value *key, struct stop *s)
{
    if (*p == end || **p != '"')
        return fail(s, *p, "a key is missing");
    if (!scan_scalar(p, end, key, s))
        return false;
    *p = skip_space(*p, end);
    if (*p == end || **p != ':')
        return fail(s, *p, "':' is missing after a key");
    *p = skip_space(*p + 1, end);
    return true;
}

/* *p stands at '{' or '['; checks all inside. One bit a level says which bracket is open. */
static bool scan_nested(const char **p, const char *end, struct stop *s)
{
    bool is_object[JSON_MAX_DEPTH];
    struct json_value v;
    int depth = 0;

    for (;;) {
        /* Here a value is due. */
        if (*p < end && (**p == '{' || **p == '[')) {
            if (depth == JSON_MAX_DEPTH)
                return fail(s, *p, "nested deeper than 128 levels");
            is_object[depth++] = **p == '{';
            *p = skip_space(*p + 1, end);
            /* Not empty: the next round reads its first value, behind the key
             * if it has keys. */
            if (*p == end || **p != (is_object[depth - 1] ? '}' : ']')) {
                if (is_object[depth - 1] && !scan_key(p, end, &v, s))
                    return false;
                continue;
            }
        } else {
            if (!scan_scalar(p, end, &v, s))
                return false;
            *p = skip_space(*p, end);
        }
        /* Here a value, or an empty bracket, has ended. */
        while (*p < end && **p == (is_object[depth - 1] ? '}' : ']')) {
            /* A closing bracket ends a value of the level above, which may be the
             * last one there too. */
            ++*p;
            if (--depth == 0)
                return true;
            *p = skip_space(*p, end);
        }
        if (*p == end || **p != ',')
            return fail(s, *p, *p == end ? "the value is cut short" : "',' is missing");
        *p = skip_space(*p + 1, end);
        if (is_object[depth - 1] && !scan_key(p, end, &v, s))
            return false;
    }
}

/* Any value; of a nested one the extent and the kind are kept, its members are only checked. */
static bool scan_value(const char **p, const char *end, struct json_value *v, struct stop *s)
{
    const char *start = *p;

    if (start == end || (*start != '{' && *start != '['))
        return scan_scalar(p, end, v, s);
    if (!scan_nested(p, end, s))
        return false;
    *v = (struct json_value){ *start == '{' ? JK_OBJECT : JK_ARRAY, false, start,
                              (size_t)(*p - start) };
    return true;
}

struct json_object json_scan(const char *p, size_t n)
{
    return (struct json_object){ p, p, p + n, false };
}

/* The next member of an object or, where key is NULL, element of an array. Each call stands at
 * the opening bracket, at a ',' or at the closing one, since a value leaves o->p right behind
 * it. */
static int next_inside(struct json_object *o, struct json_value *key, struct json_value *v,
                       struct err *e)
{
    const char *p = skip_space(o->p, o->end), *end = o->end;
    const char open = key ? '{' : '[', close = key ? '}' : ']';
    struct stop s = { p, "" };
    bool first = !o->begun;

    if (first) {
        if (p == end || *p != open) {
            fail(&s, p, key ? "not an object" : "not an array");
            goto bad;
        }
        p = skip_space(p + 1, end);
        o->begun = true;
    }
    if (p < end && *p == close) {
        p = skip_space(p + 1, end);
        if (p != end) {
            fail(&s, p, key ? "something follows the object" : "something follows the array");
            goto bad;
        }
        o->p = p - 1; /* white space or the bracket itself: asking again finds the end again */
        while (*o->p != close)
            o->p--;
        return 0;
    }
    if (!first) {
        if (p == end || *p != ',') {
            fail(&s, p, p == end ? "the value is cut short" : "',' is missing");
            goto bad;
        }
        p = skip_space(p + 1, end);
    }
    if ((key && !scan_key(&p, end, key, &s)) || !scan_value(&p, end, v, &s))
        goto bad;
    o->p = p;
    return 1;
bad:
    return err_set(e, E_DATA, "bad JSON at byte %lld: %s", (long long)(s.at - o->start), s.why);
}

int json_next(struct json_object *o, struct json_value *key, struct json_value *v,
              struct err *e)
{
    return next_inside(o, key, v, e);
}

int json_next_element(struct json_object *o, struct json_value *v, struct err *e)
{
    return next_inside(o, NULL, v, e);
}

bool json_is(const struct json_value *v, const char *name)
{
    struct buf b = { 0 };
    bool same;

    /* The usual key has no backslash and is compared in place, without a buffer. */
    if (!v->escaped)
        return v->n == strlen(name) && memcmp(v->p, name, v->n) == 0;
    same = json_text(v, true, &b, NULL) == 0 && b.len == strlen(name) &&
           memcmp(b.p, name, b.len) == 0;
    buf_free(&b);
    return same;
}

/* Writes the code point c as one to four bytes of UTF-8; returns how many. */
static size_t put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Bytes between escapes, which must be UTF-8 by themselves: an escape is ASCII. */
static int add_plain(const struct json_value *v, const char *p, size_t n, bool replace,
                     struct buf *out, struct err *e)
{
    size_t bad;
    int rc = 0;

    while (rc == 0 && !utf8_valid(p, n, &bad)) {
        if (!replace)
            return err_set(e, E_DATA, "invalid UTF-8 (byte 0x%02X) at byte %lld of the string",
                           (unsigned char)p[bad], (long long)(p + bad - v->p));
        /* The good bytes before, then U+FFFD in place of the one bad byte. */
        if ((rc = buf_add(out, p, bad, e)) == 0)
            rc = buf_add(out, "\xEF\xBF\xBD", 3, e);
        p += bad + 1;
        n -= bad + 1;
    }
    return rc < 0 ? rc : buf_add(out, p, n, e);
}

/* The \u escape at *p of a scanned string; *p moves behind it. */
static int add_unit(const struct json_value *v, const char **p, bool replace, struct buf *out,
                    struct err *e)
{
    const char *at = *p, *end = v->p + v->n;
    unsigned c = 0, low;
    char text[4];

    hex4(at + 2, end, &c);
    *p += 6;
    if (c >= 0xD800 && c < 0xE000) {
        /* A high surrogate stands for something only with a low one right behind it. Each holds
         * ten bits: D83D DE00 is 0x10000 + (0x3D << 10) + 0x200 = U+1F600. */
        if (c < 0xDC00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u' &&
            hex4(*p + 2, end, &low) && low >= 0xDC00 && low < 0xE000) {
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            *p += 6;
        } else if (replace) {
            c = 0xFFFD;
        } else {
            return err_set(e, E_DATA, "lone surrogate \\u%04X at byte %lld of the string", c,
                           (long long)(at - v->p));
        }
    }
    return buf_add(out, text, put_utf8(text, c), e);
}

int json_text(const struct json_value *v, bool replace, struct buf *out, struct err *e)
{
    const char *p = v->p, *end = v->p + v->n, *q;
    int rc = 0;

    while (rc == 0 && p < end) {
        /* The inner loop writes into reserved room, without asking for each byte: ASCII and
         * two-letter escapes. Only \u and what is not ASCII leave it. */
        size_t left = (size_t)(end - p), n; /* an escape is never shorter than what it says */
        if ((rc = buf_reserve(out, left, e)) < 0)
            break;
        for (char *to = out->p + out->len;; *to++ = escaped_char[(unsigned char)p[1]], p += 2) {
            n = copy_ascii(to, p, (size_t)(end - p));
            p += n;
            to += n;
            out->len = (size_t)(to - out->p);
            if (p == end || *p != '\\' || p[1] == 'u')
                break;
        }
        if (p == end)
            break;
        if (*p == '\\') {
            rc = add_unit(v, &p, replace, out, e);
        } else {
            /* Up to the next backslash, as UTF-8 is checked in long pieces. */
            q = v->escaped ? memchr(p, '\\', (size_t)(end - p)) : NULL;
            rc = add_plain(v, p, (size_t)((q ? q : end) - p), replace, out, e);
            p = q ? q : end;
        }
    }
    return rc;
}

int json_quote(struct buf *out, const char *p, size_t n, struct err *e)
{
    /* from and to belong together by place: a line feed, from[4], is written as a backslash and
     * to[4], an 'n'. Other control characters become \u00XX. */
    static const char hex[] = "0123456789abcdef", from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *end, *q;
    int rc = buf_reserve(out, n + 2, e);

    p = n ? p : ""; /* an empty text may have no bytes at all */
    end = p + n;

    if (rc == 0)
        rc = buf_add(out, "\"", 1, e);
    while (rc == 0 && p < end) {
        q = string_stop(p, end);
        if ((rc = buf_add(out, p, (size_t)(q - p), e)) < 0 || (p = q) == end)
            break;
        /* strchr would find the end of 'from' for a NUL. */
        const char *named = *p ? strchr(from, *p) : NULL;
        char esc[6] = { '\\', 'u', '0', '0', hex[(unsigned char)*p >> 4], hex[*p & 15] };
        if (named)
            esc[1] = to[named - from];
        rc = buf_add(out, esc, named ? 2 : 6, e);
        p++;
    }
    return rc < 0 ? rc : buf_add(out, "\"", 1, e);
}

size_t json_ending(struct json_ending *s, const char *p, size_t n)
{
    const char *start = p, *end = p + n;

    while (p < end) {
        if (s->after_backslash) {
            s->after_backslash = false;
            p++;
        /* Inside a string only a quote or a backslash counts. A control character, at which
         * string_stop stops too, changes nothing here. */
        } else if (s->in_string) {
            p = string_stop(p, end);
            if (p == end)
                return 0;
            s->after_backslash = *p == '\\';
            s->in_string = *p != '"';
            p++;
        } else {
            char c = *p++;
            s->in_string = c == '"';
            s->depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            /* The value begins with a bracket, so depth 0 after a byte means
             * that it was closed. */
            if (s->depth <= 0 && !s->in_string)
                return (size_t)(p - start);
        }
    }
    return 0;
}
