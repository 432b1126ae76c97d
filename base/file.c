/* base/file.c - see file.h. */
#include "base/file.h"
#include "base/must.h"

#include "base/magic.h"
#include "base/mapped.h"
#include "base/temp.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the shell has opened for us. */
static bool is_handed_over(const char *path)
{
    return strncmp(path, "/dev/fd/", 8) == 0 || strncmp(path, "/proc/self/fd/", 14) == 0 ||
           strcmp(path, "/dev/stdin") == 0;
}

/* Opening a pipe would wait for its writer, and a device may do anything. */
static int open_input(const char *path)
{
    int how = is_handed_over(path) ? 0 : O_NONBLOCK;

    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | how);
}

/* The message for a pipe, device or socket where a file is needed. */
static int no_file(const char *path, struct err *e)
{
    err_set(e, E_DATA, "'%s' is not a regular file", path);
    return err_hint(e, "it must be a file on disk, not a pipe or a device");
}

int file_map(const char *path, const void **map, size_t *nbytes, struct err *e)
{
    struct stat st;
    int rc = 0, fd = open_input(path);
    void *p;

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    if (fstat(fd, &st) < 0) {
        rc = err_sys(e, E_NOINPUT, "cannot stat '%s'", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = no_file(path, e);
    } else if (st.st_size == 0) {
        rc = err_set(e, E_DATA, "'%s' is empty", path);
    } else {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = err_sys(e, E_SYS, "cannot map '%s'", path);
        /* The range is registered before the first byte is read: should the file be cut short
         * later, the error can then name it. */
        else if ((rc = mapped_add(p, (size_t)st.st_size, path, e)) < 0 ||
                 (rc = magic_refuse_lfs(path, p, (size_t)st.st_size, e)) < 0)
            file_unmap(p, (size_t)st.st_size);
        if (rc == 0) {
            *map = p;
            *nbytes = (size_t)st.st_size;
        }
    }
    close(fd); /* the mapping outlives it */
    return rc;
}

void file_unmap(const void *map, size_t nbytes)
{
    if (!map)
        return;
    mapped_remove(map);
    munmap((void *)(uintptr_t)map, nbytes);
}

int file_read(const char *path, size_t max_bytes, char **text, size_t *nbytes, struct err *e)
{
    size_t len = 0, cap = 65536;
    char *p = NULL, *q;
    struct stat st;
    int rc = 0, fd = open_input(path);

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    /* A folder goes on to 'read', whose error for it is the better message. */
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) &&
        !is_handed_over(path)) {
        close(fd);
        return no_file(path, e);
    }
    for (;;) {
        ssize_t k;
        /* Room for a byte more and the NUL that is put behind the text. */
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
        /* Asked after each read, so that a file that grows or a device cannot
         * fill the memory. */
        if (len > max_bytes) {
            rc = err_set(e, E_DATA, "'%s' is larger than the %zu bytes allowed", path,
                         max_bytes);
            break;
        }
    }
    close(fd);
    if (rc == 0)
        rc = magic_refuse_lfs(path, p, len, e);
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

/* at: a place of the file; -1: where it is at. */
static int write_all(int fd, int64_t at, const char *p, size_t nbytes, const char *name,
                     struct err *e)
{
    while (nbytes > 0) {
        ssize_t k = at < 0 ? write(fd, p, nbytes) : pwrite(fd, p, nbytes, at);
        if (k < 0 && errno == EINTR)
            continue;
        /* The bytes come from a mapped file that was cut meanwhile: the reading
         * failed, not the writing. */
        if (k < 0 && errno == EFAULT && mapped_path(p))
            return err_set(e, E_IO, "cannot read '%s'" MAPPED_CUT, mapped_path(p));
        if (k < 0)
            return err_sys(e, E_IO, "cannot write '%s'", name);
        p += k;
        nbytes -= (size_t)k;
        at += at < 0 ? 0 : k;
    }
    return 0;
}

int file_write_all(int fd, const void *buf, size_t nbytes, const char *name, struct err *e)
{
    return write_all(fd, -1, buf, nbytes, name, e);
}

int file_write_at(int fd, int64_t at, const void *buf, size_t nbytes, const char *name,
                  struct err *e)
{
    return write_all(fd, at, buf, nbytes, name, e);
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

/* A rename is on disk only when the folder that holds the name is. */
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
    char aside[TEMP_PATH_MAX];
    int rc = temp_name(aside, b, e);

    if (rc < 0)
        return rc;
    if (rename(b, aside) < 0)
        return err_sys(e, E_CREATE, "cannot rename '%s' to '%s'", b, aside);
    if (rename(a, b) < 0) {
        /* b goes back to its old place where it can; the first error is the one to report. */
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

    /* EINVAL and ENOSYS: a file system or a kernel that cannot exchange. */
    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) < 0)
        rc = errno == EINVAL || errno == ENOSYS
                 ? swap_slowly(a, b, e)
                 : err_sys(e, E_CREATE, "cannot swap '%s' and '%s'", a, b);
    return rc < 0 ? rc : sync_parent(b, e);
}

/* Room for the new content beside path: a file without a name, which vanishes with a process
 * that is killed, or where the file system knows none, one that has its name at once. */
static int open_beside(struct file_out *o, struct err *e)
{
    char copy[PATH_MAX];

    strcpy(copy, o->path);
    /* Without /proc a nameless file could not be given its name later, so this
     * counts as not supported. */
    errno = EOPNOTSUPP;
    if (path_exists("/proc/self/fd"))
        o->fd = open(dirname(copy), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (o->fd >= 0)
        return 0;
    /* Older kernels and file systems that know no nameless files answer with one of these
     * three; other errors are real. */
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)
        return err_sys(e, E_CREATE, "cannot create '%s'", o->path);
    temp_sweep(o->path);
    o->fd = temp_file(o->tmp, o->path, e);
    o->named = o->fd >= 0;
    return o->named ? 0 : E_CREATE;
}

/* New content is made beside the old, synced, and takes its place by one rename: a process that
 * dies leaves the old file as it was. Devices and pipes are written into as they are. */
int file_out_open(struct file_out *o, const char *path, struct err *e)
{
    struct stat st;
    bool there = stat(path, &st) == 0;

    /* fd -1 and named false are what file_out_abandon takes for "nothing to remove". */
    o->fd = -1;
    o->named = false;
    o->into = there && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
    if (strlen(path) >= sizeof o->path)
        return err_set(e, E_CREATE, "path too long: '%.200s...'", path);
    if (there && S_ISDIR(st.st_mode))
        return err_set(e, E_CREATE, "'%s' is a folder", path);
    if (o->into) { /* no old content to keep, and a rename would put a file in its place */
        strcpy(o->path, path);
        o->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return o->fd < 0 ? err_sys(e, E_CREATE, "cannot open '%s' for writing", path) : 0;
    }
    if (lstat(path, &st) != 0 || !S_ISLNK(st.st_mode) || !realpath(path, o->path))
        strcpy(o->path, path); /* what a link names is replaced, not the link */
    return open_beside(o, e);
}

/* A link never takes the place of what is there. */
static int name_it(struct file_out *o, struct err *e)
{
    char fd[32];
    int rc = temp_name(o->tmp, o->path, e);

    snprintf(fd, sizeof fd, "/proc/self/fd/%d", o->fd);
    if (rc < 0)
        return rc;
    if (linkat(AT_FDCWD, fd, AT_FDCWD, o->tmp, AT_SYMLINK_FOLLOW) < 0)
        return err_sys(e, E_CREATE, "cannot create '%s'", o->tmp);
    o->named = true;
    return 0;
}

int file_out_publish(struct file_out *o, struct err *e)
{
    int rc = 0, fd = o->fd;

    /* The order matters: content on disk, then a name, then the rename. After a power cut the
     * path holds the old content or the new, never half of it. */
    if (!o->into && fsync(fd) < 0)
        rc = err_sys(e, E_IO, "cannot sync '%s'", o->path);
    if (rc == 0 && !o->into && !o->named)
        rc = name_it(o, e);
    o->fd = -1;
    /* Some file systems report a failed write only at close. */
    if (close(fd) < 0 && rc == 0)
        rc = err_sys(e, E_IO, "cannot close '%s'", o->path);
    if (rc == 0 && !o->into)
        rc = file_publish(o->tmp, o->path, e);
    if (rc < 0)
        file_out_abandon(o);
    return rc;
}

void file_out_abandon(struct file_out *o)
{
    if (o->fd >= 0)
        close(o->fd);
    if (!o->into && o->named)
        unlink(o->tmp);
    o->fd = -1;
    o->named = false;
}

int file_replace(const char *path, const void *buf, size_t nbytes, struct err *e)
{
    struct file_out o;
    int rc = file_out_open(&o, path, e);

    if (rc < 0)
        return rc;
    if ((rc = file_write_all(o.fd, buf, nbytes, o.path, e)) == 0)
        return file_out_publish(&o, e);
    file_out_abandon(&o);
    return rc;
}

int file_copy(const char *from, const char *to, struct err *e)
{
    /* Pieces of 1 MiB: large enough that the calls cost nothing. */
    static const size_t step = 1 << 20;
    char *buf = malloc(step);
    struct file_out o;
    int rc = 0, in;
    ssize_t k;

    if (!buf)
        return err_set(e, E_SYS, "out of memory");
    if ((in = open(from, O_RDONLY | O_CLOEXEC)) < 0) {
        free(buf);
        return err_sys(e, E_NOINPUT, "cannot open '%s'", from);
    }
    if ((rc = file_out_open(&o, to, e)) == 0) {
        while (rc == 0 && (k = read(in, buf, step)) != 0) {
            if (k < 0 && errno == EINTR)
                continue;
            rc = k < 0 ? err_sys(e, E_IO, "cannot read '%s'", from)
                       : file_write_all(o.fd, buf, (size_t)k, to, e);
        }
        if (rc == 0)
            rc = file_out_publish(&o, e);
        else
            file_out_abandon(&o);
    }
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
    /* The path is cut at each '/' in turn, so that parents are made first. The first character
     * is left out: a leading '/' is no folder to make. */
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char was = *p;
        *p = '\0';
        /* What is there already is fine, also when another process made it just now. */
        if (mkdir(copy, 0777) < 0 && errno != EEXIST)
            return err_sys(e, E_CREATE, "cannot make the folder '%s'", copy);
        if (was == '\0')
            break;
        *p = was;
    }
    /* EEXIST was accepted for files too, which would surprise the caller here. */
    if (!path_is_dir(path))
        return err_set(e, E_CREATE, "'%s' is there and is not a folder", path);
    return 0;
}

int dir_check(const char *path, struct err *e)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    return S_ISDIR(st.st_mode) ? 0 : err_set(e, E_NOINPUT, "'%s' is not a folder", path);
}

bool path_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_is_file(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);

    return must_printf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}
