/* tests/killat.c - preloaded: SIGKILL before call number KILL_AT that changes files. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;

/* Counts, and ends the process at the one asked for. KILL_COUNT: a file for the sum. */
static void count(void)
{
    const char *at = getenv("KILL_AT");

    if (++calls == (at ? atol(at) : 0))
        raise(SIGKILL);
}

#define NEXT(name, type) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *p, size_t n)
{
    count();
    return NEXT("write", ssize_t (*)(int, const void *, size_t))(fd, p, n);
}
int fsync(int fd)
{
    count();
    return NEXT("fsync", int (*)(int))(fd);
}
int rename(const char *from, const char *to)
{
    count();
    return NEXT("rename", int (*)(const char *, const char *))(from, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    count();
    return NEXT("renameat2", int (*)(int, const char *, int, const char *,
                                     unsigned))(a, from, b, to, flags);
}
int unlink(const char *path)
{
    count();
    return NEXT("unlink", int (*)(const char *))(path);
}
int remove(const char *path)
{
    count();
    return NEXT("remove", int (*)(const char *))(path);
}
int mkdir(const char *path, mode_t mode)
{
    count();
    return NEXT("mkdir", int (*)(const char *, mode_t))(path, mode);
}
int ftruncate(int fd, off_t n)
{
    count();
    return NEXT("ftruncate", int (*)(int, off_t))(fd, n);
}

__attribute__((destructor)) static void tell(void)
{
    const char *to = getenv("KILL_COUNT");
    FILE *f = to ? fopen(to, "w") : NULL;

    if (f) {
        fprintf(f, "%ld\n", calls);
        fclose(f);
    }
}
