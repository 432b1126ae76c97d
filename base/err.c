/* base/err.c - see err.h. */
#include "base/err.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What was formatted into room for so many bytes has no half character at its end, where it was cut. */
static void cut_half(char *s, size_t room)
{
    size_t n = strlen(s), k = 1;

    while (k < 4 && k < n && (s[n - k] & 0xC0) == 0x80)
        k++;
    /* The last character has k bytes; its first says how many it should have. */
    if (n + 1 == room && k <= n && (s[n - k] & 0xC0) == 0xC0 && !utf8_valid(s + n - k, k, NULL))
        s[n - k] = '\0';
}

/* Names from files may hold codes for the terminal, or line ends that look like a second message; all
 * messages pass here. */
static void settle(char *s, size_t room)
{
    cut_half(s, room);
    text_clean(s, false);
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return code;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    settle(e->msg, sizeof e->msg);
    return code;
}

/* Memory that is not there is never the file's fault. */
int err_sys(struct err *e, int code, const char *fmt, ...)
{
    /* Read first: what follows may change errno. */
    int sysno = errno;
    va_list ap;
    size_t n;

    if (sysno == ENOMEM)
        code = E_SYS;
    if (!e)
        return code;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", strerror(sysno));
    settle(e->msg, sizeof e->msg);
    return code;
}

int err_within(struct err *e, const char *fmt, ...)
{
    /* The new text goes in front, so the old one is set aside; what does not fit is cut. */
    char old[sizeof e->msg];
    va_list ap;
    size_t n;

    if (!e)
        return E_BUG;
    memcpy(old, e->msg, sizeof old);
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    settle(e->msg, sizeof e->msg);
    n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", old);
    cut_half(e->msg, sizeof e->msg);
    return e->code;
}

int err_hint(struct err *e, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    if (!e)
        return E_BUG;
    n = strlen(e->msg);
    /* Room for the line end and at least one character. */
    if (n + 2 < sizeof e->msg) {
        e->msg[n++] = '\n';
        va_start(ap, fmt);
        vsnprintf(e->msg + n, sizeof e->msg - n, fmt, ap);
        va_end(ap);
        settle(e->msg + n, sizeof e->msg - n);
    }
    return e->code;
}
