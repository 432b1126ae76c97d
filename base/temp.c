/* base/temp.c - see temp.h. */
#include "base/temp.h"

#include "base/tree.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Tries: a name that exists already is as good as impossible, so eight are plenty. */
enum { DIGITS = 16, TRIES = 8 };
static const char mark[] = ".tmp-", old_mark[] = ".tmp";

static uint64_t random_bits(void)
{
    struct timespec t;
    uint64_t r;

    if (getrandom(&r, sizeof r, GRND_NONBLOCK) == (ssize_t)sizeof r)
        return r;
    clock_gettime(CLOCK_MONOTONIC, &t); /* at boot: exclusive creation still protects */
    return (uint64_t)t.tv_nsec * 0x9E3779B97F4A7C15u ^ (uint64_t)getpid() << 40;
}

int temp_name(char out[TEMP_PATH_MAX], const char *path, struct err *e)
{
    if (snprintf(out, TEMP_PATH_MAX, "%s%s%0*" PRIx64, path, mark, DIGITS, random_bits()) >=
        TEMP_PATH_MAX)
        return err_set(e, E_CREATE, "path too long: '%.200s...'", path);
    return 0;
}

/* Locks what was just made. Where the file system has no locks, nobody sweeps either. */
static int locked(int fd)
{
    flock(fd, LOCK_EX | LOCK_NB);
    return fd;
}

int temp_file(char out[TEMP_PATH_MAX], const char *path, struct err *e)
{
    for (int i = 0; i < TRIES; i++) {
        int fd, rc = temp_name(out, path, e);

        if (rc < 0)
            return rc;
        if ((fd = open(out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) >= 0)
            return locked(fd);
        if (errno != EEXIST)
            break;
    }
    return err_sys(e, E_CREATE, "cannot create '%s'", out);
}

int temp_folder(char out[TEMP_PATH_MAX], const char *path, struct err *e)
{
    for (int i = 0; i < TRIES; i++) {
        int fd, rc = temp_name(out, path, e);

        if (rc < 0)
            return rc;
        if (mkdir(out, 0777) == 0) {
            /* The descriptor is for the lock; the folder itself is used by its name. */
            if ((fd = open(out, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) >= 0)
                return locked(fd);
            break;
        }
        if (errno != EEXIST)
            break;
    }
    return err_sys(e, E_CREATE, "cannot make the folder '%s'", out);
}

/* What follows the name must be the whole mark with its digits: "x.tmp-notes" is not ours. */
bool temp_is_of(const char *name, const char *of)
{
    size_t n = strlen(of);
    const char *rest = name + n;

    if (strncmp(name, of, n) != 0)
        return false;
    if (strncmp(rest, mark, sizeof mark - 1) == 0) {
        rest += sizeof mark - 1;
        return strlen(rest) == DIGITS && strspn(rest, "0123456789abcdef") == DIGITS;
    }
    if (strncmp(rest, old_mark, sizeof old_mark - 1) != 0)
        return false;
    rest += sizeof old_mark - 1;
    return isdigit((unsigned char)*rest) && strspn(rest, "0123456789") == strlen(rest);
}

/* Removes dir/name, unless its maker lives or it is no file or folder. */
static void sweep_one(int dir, const char *folder, const char *name)
{
    char path[TEMP_PATH_MAX];
    /* O_NOFOLLOW: a link of that name is left alone. O_NONBLOCK: nor does a
     * pipe make it wait. */
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return;
    /* The lock is the proof: the maker holds it until it ends, and the kernel frees it then. */
    if (fstat(fd, &st) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path) {
        if (S_ISREG(st.st_mode))
            unlinkat(dir, name, 0);
        else if (S_ISDIR(st.st_mode))
            dir_remove(path, NULL);
    }
    close(fd);
}

void temp_sweep(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char folder[TEMP_PATH_MAX];
    struct dirent *f;
    DIR *d;

    if (snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 0, path) >=
        (int)sizeof folder)
        return;
    if (!*folder)
        /* "/x" is in the folder "/", and "x" in the current one. */
        strcpy(folder, slash ? "/" : ".");
    if (!(d = opendir(folder)))
        return;
    while ((f = readdir(d))) /* of the older form a person may have made one: not ours to remove */
        if (temp_is_of(f->d_name, name) && strchr(f->d_name + strlen(name), '-'))
            sweep_one(dirfd(d), folder, f->d_name);
    closedir(d);
}
