/* base/utf8.c - see utf8.h. */
#include "base/utf8.h"

#include <string.h>

/* Bytes of the well-formed sequence at s, 0 when there is none (Unicode 15, table 3-7). */
static size_t utf8_len(const unsigned char *s, size_t n)
{
    unsigned char lo = 0x80, hi = 0xBF;
    /* By the first byte: C0 and C1 would only encode ASCII again, and F5 on lies
     * above U+10FFFF. */
    size_t k = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 :
               s[0] < 0xF5 ? 4 : 0;

    if (k > n)
        return 0;
    /* The second byte has a narrower range after these four: no longer forms than needed after
     * E0 and F0, no surrogates after ED, nothing above U+10FFFF after F4. */
    if (s[0] == 0xE0) lo = 0xA0;
    if (s[0] == 0xED) hi = 0x9F;
    if (s[0] == 0xF0) lo = 0x90;
    if (s[0] == 0xF4) hi = 0x8F;
    for (size_t i = 1; i < k; i++, lo = 0x80, hi = 0xBF)
        if (s[i] < lo || s[i] > hi)
            return 0;
    return k;
}

int64_t utf8_chars(const char *s, size_t n)
{
    int64_t chars = 0;

    for (size_t i = 0; i < n; i++)
        /* All bytes of a character but its first are 10xxxxxx in binary. */
        chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

bool utf8_valid(const char *s, size_t n, size_t *at)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0, k;
    uint64_t w;

    while (i < n) {
        /* Eight bytes at once while all are ASCII; then the first other character alone. */
        for (; i + 8 <= n; i += 8) {
            memcpy(&w, p + i, 8);
            if (w & 0x8080808080808080u)
                break;
        }
        if (i >= n)
            break;
        if (!(k = utf8_len(p + i, n - i))) {
            if (at)
                *at = i;
            return false;
        }
        i += k;
    }
    return true;
}

/* C0 and C1 controls (below 0x20, 0x7F, U+0080 to U+009F) become '?', as terminals obey them.
 * Bytes that are no UTF-8 stay unless some terminal may take them for a C1 control. */
void text_clean(char *s, bool keep_line_ends)
{
    unsigned char *p = (unsigned char *)s;
    size_t left = strlen(s), k;

    for (; left > 0; p += k, left -= k) {
        k = utf8_len(p, left);
        if (k == 2 && p[0] == 0xC2 && p[1] < 0xA0)
            p[0] = p[1] = '?';
        else if (k == 1 ? (*p < 0x20 && !(keep_line_ends && *p == '\n')) || *p == 0x7F
                        : k == 0 && *p < 0xA0)
            *p = '?';
        k = k ? k : 1;
    }
}

struct wide { uint32_t first, last; };

static bool within(const struct wide *r, int n, uint32_t c)
{
    for (int i = 0; i < n; i++)
        if (c >= r[i].first && c <= r[i].last)
            return true;
    return false;
}

/* Columns of a terminal that c takes: marks upon others none, East Asian characters and emoji two. */
static int columns(uint32_t c)
{
    static const struct wide none[] = { { 0x300, 0x36F }, { 0x591, 0x5BD }, { 0x610, 0x61A },
        { 0x64B, 0x65F }, { 0x1AB0, 0x1AFF }, { 0x200B, 0x200F }, { 0x20D0, 0x20FF },
        { 0xFE00, 0xFE0F }, { 0xFE20, 0xFE2F } };
    static const struct wide two[] = { { 0x1100, 0x115F }, { 0x2E80, 0x303E }, { 0x3041, 0xA4CF },
        { 0xA960, 0xA97F }, { 0xAC00, 0xD7A3 }, { 0xF900, 0xFAFF }, { 0xFE30, 0xFE6F },
        { 0xFF00, 0xFF60 }, { 0xFFE0, 0xFFE6 }, { 0x1F300, 0x1F64F }, { 0x1F680, 0x1F6FF },
        { 0x1F900, 0x1F9FF }, { 0x20000, 0x3FFFD } };

    /* Everything below the first combining mark has one column. */
    if (c < 0x300)
        return 1;
    return within(none, sizeof none / sizeof *none, c) ? 0
           : within(two, sizeof two / sizeof *two, c)  ? 2 : 1;
}

size_t text_fit(const char *s, int width)
{
    /* The bits of the first byte that belong to the character, by the sequence's length. */
    static const unsigned char lead[] = { 0, 0x7F, 0x1F, 0x0F, 0x07 };
    const unsigned char *p = (const unsigned char *)s;
    size_t left = strlen(s), k;

    for (; left > 0; p += k, left -= k) {
        uint32_t c = '?';
        if ((k = utf8_len(p, left)) > 0) {
            c = p[0] & lead[k];
            for (size_t i = 1; i < k; i++)
                c = c << 6 | (p[i] & 0x3F);
        }
        /* A byte that is no UTF-8 counts as one character of one column. */
        k = k ? k : 1;
        if ((width -= columns(c)) < 0)
            break;
    }
    return (size_t)(p - (const unsigned char *)s);
}
