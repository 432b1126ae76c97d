/* base/must.c - see must.h. */
#include "base/must.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Known in advance: must_end itself allocates nothing, as there may be no memory left. */
static const char *name = "longlora";
static void (*_Atomic at_end)(void);
static bool (*_Atomic tell)(int code, const char *a, const char *b, const char *c);

static atomic_flag ending = ATOMIC_FLAG_INIT;
static _Thread_local bool ends; /* this thread does: what it removes may fail too */

void must_end(int code, const char *a, const char *b, const char *c)
{
    /* Taken out, so that it runs once even where two threads end at the same time. */
    void (*fn)(void) = atomic_exchange(&at_end, NULL);
    bool (*first)(int, const char *, const char *, const char *);
    const char *const text[] = { name, ": ", a, b, c, "\n" };
    bool say = a;

    if (atomic_flag_test_and_set(&ending) && !ends)
        for (;;)
            pause(); /* another thread is at it */
    ends = true;
    first = atomic_exchange(&tell, NULL);
    if (first && !first(code, a, b, c))
        say = false;
    for (size_t i = 0; i < sizeof text / sizeof *text && say; i++)
        if (write(STDERR_FILENO, text[i], strlen(text[i])) < 0)
            break; /* nobody listens */
    if (fn)
        fn();
    _exit(-code);
}

void must_fail(void) { must_end(E_SYS, "out of memory", "", ""); }

void *must_malloc(size_t nbytes)
{
    /* malloc(0) may return NULL, which would look like a failure. */
    void *p = malloc(nbytes ? nbytes : 1);

    if (!p)
        must_fail();
    return p;
}

void *must_calloc(size_t n, size_t each)
{
    void *p = calloc(n ? n : 1, each ? each : 1);

    if (!p)
        must_fail();
    return p;
}

char *must_printf(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0)
        must_fail();
    return s;
}

static atomic_bool left;

void must_leave(void) { atomic_store(&left, true); }

/* A library has called exit. After must_leave it is main itself that returns. */
static void ended_by_others(void)
{
    void (*fn)(void) = atomic_exchange(&at_end, NULL);

    if (atomic_load(&left))
        return;
    if (fn)
        fn();
    _exit(-E_SYS);
}

void must_begin(const char *program)
{
    name = program;
    /* jansson's failed allocations end the process instead of losing a key. */
    json_set_alloc_funcs(must_malloc, free);
    if (strcmp(program, program_invocation_short_name) == 0) /* not in a unit test */
        atexit(ended_by_others);
}

void must_end_with(void (*fn)(void)) { atomic_store(&at_end, fn); }

void must_tell_with(bool (*fn)(int code, const char *a, const char *b, const char *c))
{
    atomic_store(&tell, fn);
}
