/* gen/screen.c - see screen.h. */
#include "gen/screen.h"

#include "base/utf8.h"

#include <string.h>

/* Bytes of the well-formed character at s; 0: there is none. */
static size_t character(const char *s, size_t n)
{
    for (size_t k = 1; k <= 4 && k <= n; k++)
        if (utf8_valid(s, k, NULL))
            return k;
    return 0;
}

static bool obeyed(const unsigned char *s, size_t n)
{
    if (n == 1)
        return (s[0] < 0x20 && s[0] != '\n' && s[0] != '\t') || s[0] == 0x7f;
    if (n == 2)
        return s[0] == 0xc2 && s[1] < 0xa0;              /* C1 */
    return n == 3 && s[0] == 0xe2 &&
           ((s[1] == 0x80 && s[2] >= 0xaa && s[2] <= 0xae) || /* U+202A to U+202E */
            (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9));  /* U+2066 to U+2069 */
}

int screen_clean(const char *text, size_t n, struct buf *out, struct err *e)
{
    int rc = 0;

    for (size_t i = 0, k; i < n && rc == 0; i += k ? k : 1) {
        k = character(text + i, n - i);
        if (k == 0 || obeyed((const unsigned char *)text + i, k))
            rc = buf_add(out, "\xEF\xBF\xBD", 3, e);
        else
            rc = buf_add(out, text + i, k, e);
    }
    return rc;
}
