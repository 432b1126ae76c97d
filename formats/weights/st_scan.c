/* formats/weights/st_scan.c - see st_scan.h. */
#include "formats/weights/st_scan.h"

#include <stddef.h>
#include <string.h>

int scan_bad(struct scan *s, const char *what)
{
    return err_set(s->e, E_DATA, "'%s': %s at byte %zu of the header", s->file, what,
                   /* The header begins at byte 8 of the file, behind its length. */
                   (size_t)(s->p - s->start) + 8);
}

void scan_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

bool scan_take(struct scan *s, char c)
{
    scan_space(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

/* The 4 hex digits after \u. */
static int hex4(struct scan *s, uint32_t *v)
{
    *v = 0;
    if (s->end - s->p < 4)
        return scan_bad(s, "unfinished \\u escape");
    for (int i = 0; i < 4; i++, s->p++) {
        /* The bit 32 turns 'A' to 'F' into 'a' to 'f'. */
        int c = *s->p, low = c | 32;
        if (c >= '0' && c <= '9')
            *v = *v * 16 + (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            *v = *v * 16 + (uint32_t)(low - 'a') + 10;
        else
            return scan_bad(s, "bad \\u escape");
    }
    return 0;
}

/* What stands behind "\u", written to out as UTF-8. Characters above U+FFFF come as two
 * escapes, a high and a low surrogate: "\ud83d\ude00" is U+1F600. One without the other is no
 * character. */
static int escape_u(struct scan *s)
{
    uint32_t v, low;
    int rc = hex4(s, &v);

    if (rc == 0 && v >= 0xD800 && v < 0xDC00) {
        if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
            return scan_bad(s, "lone surrogate");
        s->p += 2;
        if ((rc = hex4(s, &low)) == 0 && (low < 0xDC00 || low > 0xDFFF))
            return scan_bad(s, "lone surrogate");
        /* Each surrogate carries 10 bits. */
        v = 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
    } else if (rc == 0 && v >= 0xDC00 && v < 0xE000) {
        return scan_bad(s, "lone surrogate");
    }
    if (rc < 0)
        return rc;
    /* Strings are kept with a NUL at their end, so they cannot have one inside. */
    if (v == 0)
        return scan_bad(s, "NUL in a string");
    if (v < 0x80) {
        *s->out++ = (char)v;
        return 0;
    }
    /* The first byte says how many follow; each of those has 6 bits: 0x80 to 0xBF. */
    if (v < 0x800) {
        *s->out++ = (char)(0xC0 | v >> 6);
    } else {
        if (v < 0x10000) {
            *s->out++ = (char)(0xE0 | v >> 12);
        } else {
            *s->out++ = (char)(0xF0 | v >> 18);
            *s->out++ = (char)(0x80 | (v >> 12 & 63));
        }
        *s->out++ = (char)(0x80 | (v >> 6 & 63));
    }
    *s->out++ = (char)(0x80 | (v & 63));
    return 0;
}

int scan_string(struct scan *s, const char **v)
{
    /* The letter behind a backslash, and at the same place the byte that it stands for. */
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at;
    int rc;

    if (!scan_take(s, '"'))
        return scan_bad(s, "no string");
    /* The decoded string grows at s->out, behind the strings before it. */
    *v = s->out;
    while (s->p < s->end && *s->p != '"') {
        if ((unsigned char)*s->p < 0x20)
            return scan_bad(s, "control character in a string");
        if (*s->p != '\\') {
            *s->out++ = *s->p++;
            continue;
        }
        /* A backslash as the last byte: reported as an unfinished string below. */
        if (++s->p == s->end)
            break;
        if (*s->p == 'u') {
            s->p++;
            if ((rc = escape_u(s)) < 0)
                return rc;
        } else if (*s->p && (at = strchr(from, *s->p))) { /* strchr would find the NUL too */
            *s->out++ = to[at - from];
            s->p++;
        } else {
            return scan_bad(s, "unknown escape");
        }
    }
    if (s->p == s->end)
        return scan_bad(s, "unfinished string");
    s->p++;
    *s->out++ = '\0';
    return 0;
}

int scan_number(struct scan *s, uint64_t *v)
{
    const char *first;

    scan_space(s);
    first = s->p;
    for (*v = 0; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(*v, 10u, v) ||
            __builtin_add_overflow(*v, (uint64_t)(*s->p - '0'), v) || *v > INT64_MAX)
            return scan_bad(s, "number above 2^63");
    /* At least one digit, no leading zero (as in JSON), and no fraction or exponent behind
     * it. */
    if (s->p == first || (*first == '0' && s->p - first > 1) ||
        (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E')))
        return scan_bad(s, "not a whole number");
    return 0;
}

/* max bounds what is written to v, whatever the file says. */
int scan_numbers(struct scan *s, uint64_t *v, int max)
{
    int n = 0, rc;

    if (!scan_take(s, '['))
        return scan_bad(s, "no array");
    if (scan_take(s, ']'))
        return 0;
    do {
        if (n == max)
            return scan_bad(s, "too many numbers in an array");
        if ((rc = scan_number(s, &v[n++])) < 0)
            return rc;
    } while (scan_take(s, ','));
    return scan_take(s, ']') ? n : scan_bad(s, "no ']'");
}
