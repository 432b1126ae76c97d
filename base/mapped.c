/* base/mapped.c - see mapped.h. */
#include "base/mapped.h"

#include "base/must.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A list that only grows, so that a handler may walk it at any time: a range that goes is marked
 * by 'end' 0, and its place is taken by the next one whose path fits. */
struct range {
    struct range *next;
    uintptr_t at;
    _Atomic uintptr_t end;
    size_t cap;
    char path[];
};
static struct range *_Atomic ranges;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A range that has gone and whose room fits the path; NULL: a new one must be made. */
static struct range *unused(size_t cap)
{
    struct range *r = atomic_load(&ranges);

    while (r && (atomic_load(&r->end) || r->cap < cap))
        r = r->next;
    return r;
}

int mapped_add(const void *map, size_t nbytes, const char *path, struct err *e)
{
    size_t cap = strlen(path) + 1;
    struct range *r;
    bool fresh;

    pthread_mutex_lock(&lock);
    fresh = !(r = unused(cap));
    if (fresh && (r = calloc(1, sizeof *r + cap)))
        r->cap = cap;
    if (r) {
        memcpy(r->path, path, cap);
        r->at = (uintptr_t)map;
        /* The path and the start first, 'end' last: until then the handler
         * passes the range over. */
        atomic_store(&r->end, (uintptr_t)map + nbytes);
    }
    if (r && fresh) {
        /* Linked in only when it is complete. */
        r->next = atomic_load(&ranges);
        atomic_store(&ranges, r);
    }
    pthread_mutex_unlock(&lock);
    return r ? 0 : err_set(e, E_SYS, "out of memory mapping '%s'", path);
}

void mapped_remove(const void *map)
{
    pthread_mutex_lock(&lock);
    for (struct range *r = atomic_load(&ranges); r; r = r->next)
        if (r->at == (uintptr_t)map && atomic_load(&r->end)) {
            atomic_store(&r->end, 0);
            break;
        }
    pthread_mutex_unlock(&lock);
}

const char *mapped_path(const void *p)
{
    for (const struct range *r = atomic_load(&ranges); r; r = r->next)
        if ((uintptr_t)p < atomic_load(&r->end) && (uintptr_t)p >= r->at)
            return r->path;
    return NULL;
}

/* Raised by our own reading of the page, so that no lock of the C library is held by this thread:
 * what must_end_with names may allocate. */
static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    /* si_code above 0: the kernel raised it, and si_addr is the byte that was read. */
    const char *path = info->si_code > 0 ? mapped_path(info->si_addr) : NULL;

    (void)context;
    if (path)
        must_end(E_IO, "cannot read '", path, "'" MAPPED_CUT);
    signal(sig, SIG_DFL); /* not of ours: it is raised again, and ends the process */
}

void mapped_begin(void)
{
    struct sigaction a;

    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_bus_error;
    a.sa_flags = SA_SIGINFO;
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}
