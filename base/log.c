/* base/log.c - see log.h. */
#include "base/log.h"

#include "base/utf8.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* shown: a progress line stands on the terminal and must be wiped before other output. last_s:
 * when it was last drawn. */
static struct {
    const char *prog;
    int level;
    bool tty, shown;
    double last_s;
    pthread_mutex_t lock;
} lg = { "longlora", 0, false, false, 0, PTHREAD_MUTEX_INITIALIZER };

void log_init(const char *prog, int level)
{
    const char *term = getenv("TERM");

    /* -1: warnings alone; 0: what happens too; 1: details. A dumb terminal
     * cannot wipe a line. */
    lg.prog = prog;
    lg.level = level;
    lg.tty = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

void log_rank(int rank)
{
    static char name[64];

    if (lg.level < 1) {
        lg.level = -2;
        return;
    }
    snprintf(name, sizeof name, "%.40s[%d]", lg.prog, rank);
    lg.prog = name;
}

double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One line, one write: the parts are put together first. */
static void line(const char *fmt, va_list ap)
{
    char text[2048];
    /* Carriage return and "erase to the end of the line" remove the progress line first. */
    int n = snprintf(text, sizeof text, "%s%s: ", lg.shown ? "\r\033[K" : "", lg.prog);
    int k = vsnprintf(text + n, sizeof text - (size_t)n - 1, fmt, ap);
    size_t f = strlen(fmt);

    if (k >= 0)
        /* A message passed on whole, by "%s", may have a hint on a second line. */
        text_clean(text + n, f >= 2 && strcmp(fmt + f - 2, "%s") == 0);
    /* vsnprintf returns how long the text would have been; what was cut does not count. */
    n += k < 0 ? 0 : k < (int)sizeof text - n - 1 ? k : (int)sizeof text - n - 2;
    text[n++] = '\n';
    pthread_mutex_lock(&lg.lock);
    lg.shown = false;
    if (write(STDERR_FILENO, text, (size_t)n) < 0) { /* nowhere left to say so */ }
    pthread_mutex_unlock(&lg.lock);
}

#define LOG_AT(min)                 \
    do {                            \
        va_list ap;                 \
        if (lg.level < (min))       \
            return;                 \
        va_start(ap, fmt);          \
        line(fmt, ap);              \
        va_end(ap);                 \
    } while (0)

void log_warn(const char *fmt, ...) { LOG_AT(-1); }
void log_info(const char *fmt, ...) { LOG_AT(0); }
void log_debug(const char *fmt, ...) { LOG_AT(1); }

/* At most ten times a second, and only where somebody sees it. */
bool log_progress_due(void)
{
    return lg.tty && lg.level >= 0 && now_s() - lg.last_s >= 0.1;
}

/* Columns of the terminal; one less than there are, as some begin a new line after the last. */
static int width(void)
{
    struct winsize w;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 79;
}

void log_progress(const char *fmt, ...)
{
    static const char clear[] = "\r\033[K";
    enum { N = sizeof clear - 1 };
    char text[1024];
    va_list ap;
    size_t n;

    if (!log_progress_due())
        return;
    memcpy(text, clear, N);
    text[N] = '\0';
    va_start(ap, fmt);
    vsnprintf(text + N, sizeof text - N, fmt, ap);
    va_end(ap);
    text_clean(text + N, false);
    n = N + text_fit(text + N, width()); /* a longer one would scroll, a line every time */
    pthread_mutex_lock(&lg.lock);
    lg.last_s = now_s();
    lg.shown = true;
    if (write(STDERR_FILENO, text, n) < 0) { /* nowhere left to say so */ }
    pthread_mutex_unlock(&lg.lock);
}

void log_progress_end(void)
{
    pthread_mutex_lock(&lg.lock);
    if (lg.shown && write(STDERR_FILENO, "\n", 1) < 0) { /* nowhere left to say so */ }
    lg.shown = false;
    pthread_mutex_unlock(&lg.lock);
}

/* Colours on a terminal, unless NO_COLOR (no-color.org) or the terminal's type says no. */
bool log_colour(int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fd) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

const char *fmt_duration(double s, char *buf, int cap)
{
    /* Rounded to whole seconds; what makes no sense counts as 0, and 31 years are the most. */
    int64_t t = s < 0 || !isfinite(s) ? 0 : s > 1e9 ? 1000000000 : (int64_t)(s + 0.5);

    if (t >= 3600)
        snprintf(buf, (size_t)cap, "%dh%02dm", (int)(t / 3600), (int)(t / 60 % 60));
    else if (t >= 60)
        snprintf(buf, (size_t)cap, "%dm%02ds", (int)(t / 60), (int)(t % 60));
    else
        snprintf(buf, (size_t)cap, "%ds", (int)t);
    return buf;
}

const char *fmt_bytes(double n, char *buf, int cap)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    int u = 0;

    for (; n >= 1024 && u < 4; u++)
        n /= 1024;
    /* Three digits are enough: 1.23 GiB, 12.3 GiB, 123 GiB. */
    snprintf(buf, (size_t)cap, u && n < 10 ? "%.2f %s" : u && n < 100 ? "%.1f %s" : "%.0f %s", n,
             unit[u]);
    return buf;
}
