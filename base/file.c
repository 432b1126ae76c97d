/* base/file.c - see file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_map(const char *path, const void **map, size_t *nbytes, struct err *e)
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    void *p;

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    if (fstat(fd, &st) < 0) {
        rc = err_sys(e, E_NOINPUT, "cannot stat '%s'", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = err_set(e, E_DATA, "'%s' is not a regular file", path);
    } else if (st.st_size == 0) {
        rc = err_set(e, E_DATA, "'%s' is empty", path);
    } else {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = err_sys(e, E_SYS, "cannot map '%s'", path);
        *map = p;
        *nbytes = (size_t)st.st_size;
    }
    close(fd); /* the mapping outlives it */
    return rc;
}

void file_unmap(const void *map, size_t nbytes)
{
    if (map)
        munmap((void *)(uintptr_t)map, nbytes);
}

int file_read(const char *path, size_t max_bytes, char **text, size_t *nbytes, struct err *e)
{
    size_t len = 0, cap = 65536;
    char *p = NULL, *q;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    for (;;) {
        ssize_t k;
        if (!p || cap - len < 2) {
            cap *= 2;
            if (!(q = realloc(p, cap))) {
                rc = err_set(e, E_SYS, "out of memory reading '%s'", path);
                break;
            }
            p = q;
        }
        k = read(fd, p + len, cap - len - 1);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            rc = err_sys(e, errno == EISDIR ? E_NOINPUT : E_IO, "cannot read '%s'", path);
        if (k <= 0)
            break;
        len += (size_t)k;
        if (len > max_bytes) {
            rc = err_set(e, E_DATA, "'%s' is larger than the %zu bytes allowed", path,
                         max_bytes);
            break;
        }
    }
    close(fd);
    if (rc < 0) {
        free(p);
        return rc;
    }
    p[len] = '\0';
    *text = p;
    if (nbytes)
        *nbytes = len;
    return 0;
}

int file_write_all(int fd, const void *buf, size_t nbytes, const char *name, struct err *e)
{
    const char *p = buf;

    while (nbytes > 0) {
        ssize_t k = write(fd, p, nbytes);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return err_sys(e, E_IO, "cannot write '%s'", name);
        p += k;
        nbytes -= (size_t)k;
    }
    return 0;
}

int file_sync(const char *path, struct err *e)
{
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, E_IO, "cannot open '%s' to sync it", path);
    if (fsync(fd) < 0)
        rc = err_sys(e, E_IO, "cannot sync '%s'", path);
    close(fd);
    return rc;
}

static int sync_parent(const char *path, struct err *e)
{
    char copy[PATH_MAX];

    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy)
        return err_set(e, E_CREATE, "path too long: '%s'", path);
    return file_sync(dirname(copy), e);
}

int file_publish(const char *from, const char *to, struct err *e)
{
    if (rename(from, to) < 0)
        return err_sys(e, E_CREATE, "cannot rename '%s' to '%s'", from, to);
    return sync_parent(to, e);
}

/* Three renames, where there is no exchange. */
static int swap_slowly(const char *a, const char *b, struct err *e)
{
    char aside[PATH_MAX];
    int rc = 0;

    if (snprintf(aside, sizeof aside, "%s.old%ld", b, (long)getpid()) >= (int)sizeof aside)
        return err_set(e, E_CREATE, "path too long: '%s'", b);
    if (rename(b, aside) < 0)
        return err_sys(e, E_CREATE, "cannot rename '%s' to '%s'", b, aside);
    if (rename(a, b) < 0) {
        rc = err_sys(e, E_CREATE, "cannot rename '%s' to '%s'", a, b);
        rename(aside, b);
    } else if (rename(aside, a) < 0) {
        rc = err_sys(e, E_IO, "cannot rename '%s' to '%s'", aside, a);
    }
    return rc;
}

int file_swap(const char *a, const char *b, struct err *e)
{
    int rc = 0;

    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) < 0)
        rc = errno == EINVAL || errno == ENOSYS
                 ? swap_slowly(a, b, e)
                 : err_sys(e, E_CREATE, "cannot swap '%s' and '%s'", a, b);
    return rc < 0 ? rc : sync_parent(b, e);
}

/* A device or a pipe has no old content to keep, and a rename would put a file in its place. */
static int write_into(const char *path, const void *buf, size_t nbytes, struct err *e)
{
    int rc, fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return err_sys(e, E_CREATE, "cannot open '%s' for writing", path);
    rc = file_write_all(fd, buf, nbytes, path, e);
    if (close(fd) < 0 && rc == 0)
        rc = err_sys(e, E_IO, "cannot close '%s'", path);
    return rc;
}

int file_replace(const char *path, const void *buf, size_t nbytes, struct err *e)
{
    char tmp[PATH_MAX], real[PATH_MAX];
    struct stat st;
    int fd, rc;

    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return write_into(path, buf, nbytes, e);
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && realpath(path, real))
        path = real; /* what the link names is replaced, not the link */
    if (snprintf(tmp, sizeof tmp, "%s.tmp%ld", path, (long)getpid()) >= (int)sizeof tmp)
        return err_set(e, E_CREATE, "path too long: '%s'", path);
    if ((fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        return err_sys(e, E_CREATE, "cannot create '%s'", tmp);
    rc = file_write_all(fd, buf, nbytes, tmp, e);
    if (rc == 0 && fsync(fd) < 0)
        rc = err_sys(e, E_IO, "cannot sync '%s'", tmp);
    if (close(fd) < 0 && rc == 0)
        rc = err_sys(e, E_IO, "cannot close '%s'", tmp);
    if (rc == 0)
        rc = file_publish(tmp, path, e);
    if (rc < 0)
        unlink(tmp);
    return rc;
}

int file_copy(const char *from, const char *to, struct err *e)
{
    static const size_t step = 1 << 20;
    char *buf = malloc(step);
    int rc = 0, in, out = -1;
    ssize_t k;

    if (!buf)
        return err_set(e, E_SYS, "out of memory");
    if ((in = open(from, O_RDONLY | O_CLOEXEC)) < 0)
        rc = err_sys(e, E_NOINPUT, "cannot open '%s'", from);
    else if ((out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        rc = err_sys(e, E_CREATE, "cannot create '%s'", to);
    while (rc == 0 && (k = read(in, buf, step)) != 0) {
        if (k < 0 && errno == EINTR)
            continue;
        rc = k < 0 ? err_sys(e, E_IO, "cannot read '%s'", from)
                   : file_write_all(out, buf, (size_t)k, to, e);
    }
    if (rc == 0 && fsync(out) < 0)
        rc = err_sys(e, E_IO, "cannot sync '%s'", to);
    if (out >= 0 && close(out) < 0 && rc == 0)
        rc = err_sys(e, E_IO, "cannot close '%s'", to);
    if (in >= 0)
        close(in);
    free(buf);
    return rc;
}

int dir_make(const char *path, struct err *e)
{
    char copy[PATH_MAX];
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof copy)
        return err_set(e, E_CREATE, "cannot make a folder named '%.200s'", path);
    memcpy(copy, path, n + 1);
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char was = *p;
        *p = '\0';
        if (mkdir(copy, 0777) < 0 && errno != EEXIST)
            return err_sys(e, E_CREATE, "cannot make the folder '%s'", copy);
        if (was == '\0')
            break;
        *p = was;
    }
    if (!path_is_dir(path))
        return err_set(e, E_CREATE, "'%s' is there and is not a folder", path);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *w)
{
    (void)st, (void)type, (void)w;
    return remove(path);
}

int dir_remove(const char *path, struct err *e)
{
    if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        return err_sys(e, E_IO, "cannot remove '%s'", path);
    return 0;
}

bool path_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    char *s;

    if (asprintf(&s, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name) < 0)
        abort();
    return s;
}
