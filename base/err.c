/* base/err.c - see err.h. */
#include "base/err.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return code;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    /* Names from files may hold codes for the terminal, or line ends that look like a second
     * message; all messages pass here. */
    text_clean(e->msg, false);
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
    text_clean(e->msg, false);
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
    text_clean(e->msg, false);
    n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", old);
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
        text_clean(e->msg + n, false);
    }
    return e->code;
}
