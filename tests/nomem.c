/* tests/nomem.c - preloaded: allocations fail.
 *
 * NOMEM_AT=N     allocation N of the process fails, counted from main on; NOMEM_ON=1: all after
 *                it too; NOMEM_TRAP=1: it stops there, for a debugger
 * NOMEM_COUNT=F  at the end the number of allocations goes to F
 *
 * Counted: malloc, calloc, realloc, posix_memalign, aligned_alloc, memalign, of every library. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static atomic_long calls;
static long at, always, trap;
static int counting;

static long number(const char *name)
{
    const char *s = getenv(name);

    return s ? atol(s) : 0;
}

static int fails(void)
{
    long k = counting ? ++calls : 0;

    if (at == 0 || k < at || (k > at && !always))
        return 0;
    if (trap)
        raise(SIGTRAP);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t each) { return fails() ? NULL : __libc_calloc(n, each); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
void *memalign(size_t align, size_t n) { return fails() ? NULL : __libc_memalign(align, n); }
void *aligned_alloc(size_t align, size_t n) { return memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n)
{
    void *q = memalign(align, n);

    if (!q)
        return ENOMEM;
    *p = q;
    return 0;
}

static int (*real_main)(int, char **, char **);

static void sum(void)
{
    const char *to = getenv("NOMEM_COUNT");
    FILE *f;

    counting = 0;
    if (to && (f = fopen(to, "w"))) {
        fprintf(f, "%ld\n", (long)calls);
        fclose(f);
    }
}

static int counted_main(int argc, char **argv, char **env)
{
    atexit(sum);
    at = number("NOMEM_AT");
    always = number("NOMEM_ON");
    trap = number("NOMEM_TRAP");
    counting = 1;
    return real_main(argc, argv, env);
}

typedef int start_fn(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                     void (*)(void), void *);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld)(void), void *stack)
{
    start_fn *start;
    void *p = dlsym(RTLD_NEXT, "__libc_start_main");

    memcpy(&start, &p, sizeof start);
    real_main = main;
    return start(counted_main, argc, argv, init, fini, rtld, stack);
}
