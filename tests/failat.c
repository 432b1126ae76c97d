/* tests/failat.c - preloaded: calls that change files fail, write less than asked, are told.
 *
 * FAIL_AT=N      call number N fails with FAIL_ERRNO (default ENOSPC); FAIL_ON=1: all after it too
 * FAIL_SHORT=1   every write of more than a byte writes about half, every seventh is EINTR
 * FAIL_COUNT=F   at the end the number of calls goes to F
 * FAIL_LOG=F     a line "call path" for each, appended to F
 *
 * Counted: write, writev, pwrite, fsync, fdatasync, rename, link, mkdir, ftruncate, open to write.
 * What goes to standard error is let through, for the message. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name, type) ((type)dlsym(RTLD_NEXT, name))

static atomic_long calls, writes;

static long number(const char *name)
{
    const char *s = getenv(name);

    return s ? atol(s) : 0;
}

static void put(int fd, const char *p, size_t n)
{
    if (NEXT("write", ssize_t (*)(int, const void *, size_t))(fd, p, n) < 0)
        abort();
}

static void tell(const char *call, const char *path)
{
    const char *to = getenv("FAIL_LOG");
    char line[4200];
    int fd, n;

    if (!to)
        return;
    n = snprintf(line, sizeof line, "%s %.4096s\n", call, path);
    fd = NEXT("open", int (*)(const char *, int, ...))(to, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (fd >= 0) {
        put(fd, line, (size_t)n);
        close(fd);
    }
}

/* True, with errno set, when this call is to fail. */
static int fails(const char *call, const char *path)
{
    long at = number("FAIL_AT"), k = ++calls;

    if (path)
        tell(call, path);
    if (at == 0 || k < at || (k > at && !number("FAIL_ON")))
        return 0;
    errno = number("FAIL_ERRNO") ? (int)number("FAIL_ERRNO") : ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *p, size_t n)
{
    if (fd != STDERR_FILENO) {
        if (fails("write", NULL))
            return -1;
        if (number("FAIL_SHORT") && ++writes % 7 == 0) {
            errno = EINTR;
            return -1;
        }
        if (number("FAIL_SHORT") && n > 1)
            n = n / 2;
    }
    return NEXT("write", ssize_t (*)(int, const void *, size_t))(fd, p, n);
}
ssize_t writev(int fd, const struct iovec *v, int n)
{
    if (fd != STDERR_FILENO && fails("writev", NULL))
        return -1;
    if (fd != STDERR_FILENO && number("FAIL_SHORT") && n > 0 && v[0].iov_len > 1)
        return NEXT("write", ssize_t (*)(int, const void *, size_t))(fd, v[0].iov_base,
                                                                     v[0].iov_len / 2);
    return NEXT("writev", ssize_t (*)(int, const struct iovec *, int))(fd, v, n);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (fails("pwrite", NULL))
        return -1;
    if (number("FAIL_SHORT") && n > 1)
        n = n / 2;
    return NEXT("pwrite", ssize_t (*)(int, const void *, size_t, off_t))(fd, p, n, at);
}
int fsync(int fd)
{
    return fails("fsync", NULL) ? -1 : NEXT("fsync", int (*)(int))(fd);
}
int fdatasync(int fd)
{
    return fails("fdatasync", NULL) ? -1 : NEXT("fdatasync", int (*)(int))(fd);
}
int ftruncate(int fd, off_t n)
{
    return fails("ftruncate", NULL) ? -1 : NEXT("ftruncate", int (*)(int, off_t))(fd, n);
}
int rename(const char *from, const char *to)
{
    tell("rename", from);
    return fails("rename", to) ? -1
                               : NEXT("rename", int (*)(const char *, const char *))(from, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    tell("rename", from);
    return fails("rename", to) ? -1
                               : NEXT("renameat2", int (*)(int, const char *, int, const char *,
                                                           unsigned))(a, from, b, to, flags);
}
/* path as seen from the folder dir. */
static const char *seen_from(int dir, const char *path, char *out, size_t cap)
{
    char fd[64];
    ssize_t n;

    if (dir == AT_FDCWD || path[0] == '/')
        return path;
    snprintf(fd, sizeof fd, "/proc/self/fd/%d", dir);
    if ((n = readlink(fd, out, cap - 1)) < 0)
        return path;
    snprintf(out + n, cap - (size_t)n, "/%s", path);
    return out;
}

int renameat(int a, const char *from, int b, const char *to)
{
    char f[8192], t[8192];

    tell("rename", seen_from(a, from, f, sizeof f));
    if (fails("rename", seen_from(b, to, t, sizeof t)))
        return -1;
    return NEXT("renameat", int (*)(int, const char *, int, const char *))(a, from, b, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags)
{
    char t[8192];

    if (fails("link", seen_from(b, to, t, sizeof t)))
        return -1;
    return NEXT("linkat", int (*)(int, const char *, int, const char *, int))(a, from, b, to,
                                                                             flags);
}
int unlinkat(int dir, const char *path, int flags)
{
    char t[8192];

    tell("unlink", seen_from(dir, path, t, sizeof t));
    return NEXT("unlinkat", int (*)(int, const char *, int))(dir, path, flags);
}
int link(const char *from, const char *to)
{
    return fails("link", to) ? -1 : NEXT("link", int (*)(const char *, const char *))(from, to);
}
int mkdir(const char *path, mode_t mode)
{
    return fails("mkdir", path) ? -1 : NEXT("mkdir", int (*)(const char *, mode_t))(path, mode);
}
/* Never made to fail: what cleans up. */
int unlink(const char *path)
{
    tell("unlink", path);
    return NEXT("unlink", int (*)(const char *))(path);
}
int remove(const char *path)
{
    tell("remove", path);
    return NEXT("remove", int (*)(const char *))(path);
}

/* What a file without a name goes by: its path is the folder. */
static const char *opening(int flags)
{
    return (flags & O_TMPFILE) == O_TMPFILE ? "tmpfile" : "open";
}

static int opens(const char *name, const char *path, int flags, mode_t mode)
{
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && fails(opening(flags), path))
        return -1;
    return NEXT(name, int (*)(const char *, int, ...))(path, flags, mode);
}
int open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return opens("open", path, flags, mode);
}
int open64(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return opens("open64", path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...)
{
    char t[8192];
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) &&
        fails(opening(flags), seen_from(dir, path, t, sizeof t)))
        return -1;
    return NEXT("openat", int (*)(int, const char *, int, ...))(dir, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode)
{
    if (strpbrk(mode, "wa+") && fails("fopen", path))
        return NULL;
    return NEXT("fopen", FILE *(*)(const char *, const char *))(path, mode);
}

__attribute__((destructor)) static void sum(void)
{
    const char *to = getenv("FAIL_COUNT");
    FILE *f = to ? NEXT("fopen", FILE *(*)(const char *, const char *))(to, "w") : NULL;

    if (f) {
        fprintf(f, "%ld\n", (long)calls);
        fclose(f);
    }
}
