/* base/bytes.c - see bytes.h. */
#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int buf_reserve(struct buf *b, size_t extra_bytes, struct err *e)
{
    size_t need, cap = b->cap ? b->cap : 256;
    char *p;

    /* Half of what size_t holds, so that growing below cannot overflow. */
    if (!add_ok(b->len, extra_bytes, &need) || need > SIZE_MAX / 2)
        return err_set(e, E_SYS, "a buffer of %zu + %zu bytes is too large", b->len,
                       extra_bytes);
    if (need <= b->cap)
        return 0;
    while (cap < need)
        /* Half as much again each time: n additions copy each byte only a few times. */
        cap += cap / 2 + 64;
    if (!(p = realloc(b->p, cap)))
        return err_set(e, E_SYS, "out of memory for a buffer of %zu bytes", cap);
    b->p = p;
    b->cap = cap;
    return 0;
}

int array_grow(void *at, size_t *cap, size_t n, size_t each, size_t first, const char *what,
               struct err *e)
{
    size_t bigger = *cap ? 2 * *cap : first, bytes;
    void *p;

    if (n < *cap)
        return 0;
    memcpy(&p, at, sizeof p); /* a pointer of any type */
    if (__builtin_mul_overflow(bigger, each, &bytes) || !(p = realloc(p, bytes)))
        return err_set(e, E_SYS, "out of memory for %zu %s", bigger, what);
    memcpy(at, &p, sizeof p);
    *cap = bigger;
    return 0;
}

int buf_add(struct buf *b, const void *p, size_t nbytes, struct err *e)
{
    int rc = buf_reserve(b, nbytes, e);

    if (rc == 0 && nbytes) {
        memcpy(b->p + b->len, p, nbytes);
        b->len += nbytes;
    }
    return rc;
}

/* The text is formatted twice: for its length, then into its place. */
int buf_printf(struct buf *b, struct err *e, const char *fmt, ...)
{
    va_list ap;
    int n, rc;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_set(e, E_BUG, "cannot format '%s'", fmt);
    /* vsnprintf's NUL needs room, but is no part of the buffer's content. */
    if ((rc = buf_reserve(b, (size_t)n + 1, e)) < 0)
        return rc;
    va_start(ap, fmt);
    vsnprintf(b->p + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

/* Space and the five characters from tab to carriage return. '|' and no branch, for vectors. */
static unsigned char is_space(char c)
{
    return (c == ' ') | ((unsigned char)(c - '\t') <= '\r' - '\t');
}

int64_t text_words(const char *s, size_t n)
{
    /* A word begins at the start of the text or after space. */
    int64_t words = n > 0 && !is_space(s[0]);

    for (size_t i = 1; i < n;) { /* ends of space, few enough for a byte: this vectorises */
        size_t end = n - i > 255 ? i + 255 : n;
        unsigned char here = 0;
        for (; i < end; i++)
            here = (unsigned char)(here + (is_space(s[i - 1]) & !is_space(s[i])));
        words += here;
    }
    return words;
}
