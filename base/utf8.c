/* base/utf8.c - see utf8.h. */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the well-formed sequence at s, 0 when there is none (Unicode 15, table 3-7). */
static size_t utf8_len(const unsigned char *s, size_t n)
{
    unsigned char lo = 0x80, hi = 0xBF;
    size_t k = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 :
               s[0] < 0xF5 ? 4 : 0;

    if (k > n)
        return 0;
    if (s[0] == 0xE0) lo = 0xA0;
    if (s[0] == 0xED) hi = 0x9F;
    if (s[0] == 0xF0) lo = 0x90;
    if (s[0] == 0xF4) hi = 0x8F;
    for (size_t i = 1; i < k; i++, lo = 0x80, hi = 0xBF)
        if (s[i] < lo || s[i] > hi)
            return 0;
    return k;
}

bool utf8_valid(const char *s, size_t n, size_t *at)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0, k;
    uint64_t w;

    while (i < n) {
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
