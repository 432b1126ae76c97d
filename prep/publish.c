/* prep/publish.c - see publish.h.
 *
 * Everything is written under temporary names, .lpack-0.tmp, .lpack-1.tmp and so on, so that a
 * signal handler can remove it by counting alone. What each will be called is kept in memory.
 */
#include "prep/publish.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/temp.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
    char *path;
    int dir; /* holds the lock */
    bool made;
    volatile bool published;
    volatile int64_t n_temps;
    char (*names)[256]; /* by temporary: what it will be called */
    size_t cap;
};

/* ".lpack-N.tmp" without stdio, as a signal handler needs it; buf has 40 bytes. */
static void spare_name(char *buf, int64_t n)
{
    char digits[24];
    int k = 0, at = 7;

    memcpy(buf, ".lpack-", 7);
    /* Digits come out last first: 120 is "0", "2", "1". */
    do
        digits[k++] = (char)('0' + n % 10);
    while (n /= 10);
    while (k > 0)
        buf[at++] = digits[--k];
    memcpy(buf + at, ".tmp", 5);
}

static const char *skip_digits(const char *s)
{
    while (isdigit((unsigned char)*s))
        s++;
    return s;
}

/* What a killed run may have left: our temporaries, and file_replace's of the manifest. */
static bool is_leftover(const char *s)
{
    static const char ours[] = ".lpack-";

    if (strncmp(s, ours, sizeof ours - 1) == 0 && isdigit((unsigned char)s[sizeof ours - 1]))
        return strcmp(skip_digits(s + sizeof ours - 1), ".tmp") == 0;
    return temp_is_of(s, MANIFEST_FILE);
}

/* NAME-NNNNN-HHHHHHHHHHHHHHHH.shard, as lpack and nobody else calls a file. */
static bool is_shard_name(const char *s)
{
    size_t n = strlen(s);
    const char *hex, *num;
    char split[64];

    /* 22: 16 hexadecimal digits and ".shard"; 8: at least "x-00000-". */
    if (n < 22 + 8 || n > 128)
        return false;
    hex = s + n - 22;
    if (strcmp(hex + 16, ".shard") != 0 || hex[-1] != '-' ||
        strspn(hex, "0123456789abcdef") != 16)
        return false;
    /* Back from the last '-' over the digits; num is then the first of them. */
    for (num = hex - 1; num > s && isdigit((unsigned char)num[-1]); num--)
        continue;
    if (hex - 1 - num < 5 || num - s < 2 || num - s > 64 || num[-1] != '-')
        return false;
    snprintf(split, sizeof split, "%.*s", (int)(num - 1 - s), s);
    return split_name_ok(split);
}

static bool is_listed(const struct manifest *m, const char *file)
{
    for (int i = 0; i < m->n_splits; i++)
        for (int64_t k = 0; k < m->splits[i].n_shards; k++)
            if (strcmp(m->splits[i].shards[k].file, file) == 0)
                return true;
    return false;
}

/* Removes leftovers, or with m the shards that m does not list. Nothing depends on it. */
static void clean(const struct folder *f, const struct manifest *m)
{
    DIR *d = opendir(f->path);
    struct dirent *entry;

    while (d && (entry = readdir(d)))
        if (m ? is_shard_name(entry->d_name) && !is_listed(m, entry->d_name)
              : is_leftover(entry->d_name))
            unlinkat(f->dir, entry->d_name, 0);
    if (d)
        closedir(d);
}

static int refuse_manifest(const char *path, struct err *e)
{
    err_set(e, E_CREATE, "'%s' holds a data set already", path);
    return err_hint(e, "name another folder, or replace it with -f");
}

int folder_open(struct folder **out, const char *path, bool force, struct err *e)
{
    struct folder *f = calloc(1, sizeof *f);
    bool was = path_exists(path);
    int rc;

    *out = NULL;
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return err_set(e, E_SYS, "out of memory");
    }
    f->dir = -1;
    if ((rc = dir_make(path, e)) == 0) {
        f->made = !was;
        /* The lock goes with the descriptor, so that a killed run leaves none. File systems
         * without locks (any errno but EWOULDBLOCK) do without. */
        f->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (f->dir < 0)
            rc = err_sys(e, E_CREATE, "cannot open the folder '%s'", path);
        else if (flock(f->dir, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
            rc = err_set(e, E_CREATE, "another lpack is writing to '%s'", path);
        else if (!force && faccessat(f->dir, MANIFEST_FILE, F_OK, 0) == 0)
            rc = refuse_manifest(path, e);
    }
    if (rc < 0) {
        folder_close(f);
        return rc;
    }
    /* Only now, with the lock: leftovers are no running lpack's. */
    clean(f, NULL);
    *out = f;
    return 0;
}

/* Counts another temporary and writes its name to name[40]. */
static int next_temp(struct folder *f, int64_t *number, char *name, struct err *e)
{
    if (array_grow(&f->names, &f->cap, (size_t)f->n_temps, sizeof *f->names, 16, "files", e) < 0)
        return E_SYS;
    f->names[*number = f->n_temps][0] = '\0';
    spare_name(name, f->n_temps);
    f->n_temps++; /* before the file is there, so that no signal finds one uncounted */
    return 0;
}

int folder_temp(struct folder *f, int64_t *number, struct err *e)
{
    char name[40];
    int fd = next_temp(f, number, name, e);

    if (fd < 0)
        return fd;
    fd = openat(f->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd < 0 ? err_sys(e, E_CREATE, "cannot create '%s/%s'", f->path, name) : fd;
}

char *folder_temp_path(const struct folder *f, int64_t number)
{
    char name[40];

    spare_name(name, number);
    return path_join(f->path, name);
}

int folder_take(struct folder *f, const char *path, int64_t *number, struct err *e)
{
    char name[40], *temp;
    int rc = next_temp(f, number, name, e);

    if (rc < 0)
        return rc;
    temp = folder_temp_path(f, *number);
    /* A link costs no space and no time; shards are
     * never changed once they have their names. */
    if (linkat(AT_FDCWD, path, f->dir, name, AT_SYMLINK_FOLLOW) == 0)
        rc = file_sync(temp, e); /* who wrote it may not have */
    else
        rc = file_copy(path, temp, e); /* another file system, or one without links */
    free(temp);
    return rc;
}

int folder_sync_temp(struct folder *f, int fd, struct err *e)
{
    return fsync(fd) < 0 ? err_sys(e, E_IO, "cannot sync a shard in '%s'", f->path) : 0;
}

int folder_name_temp(struct folder *f, int64_t number, const char *name, struct err *e)
{
    if (number < 0 || number >= f->n_temps || strlen(name) >= sizeof f->names[number])
        return err_set(e, E_BUG, "no temporary %lld for '%s'", (long long)number, name);
    snprintf(f->names[number], sizeof f->names[number], "%s", name);
    return 0;
}

/* Temporaries to their names. *done counts those renamed, for the way back. */
static int rename_all(struct folder *f, int64_t *done, struct err *e)
{
    char name[40];

    for (*done = 0; *done < f->n_temps; ++*done) {
        spare_name(name, *done);
        if (renameat(f->dir, name, f->dir, f->names[*done]) < 0)
            return err_sys(e, E_CREATE, "cannot rename '%s/%s' to '%s'", f->path, name,
                           f->names[*done]);
        unlinkat(f->dir, name, 0); /* stays where both names were links to one file */
    }
    return fsync(f->dir) < 0 ? err_sys(e, E_IO, "cannot sync the folder '%s'", f->path) : 0;
}

/* The new shards get their names beside the old ones, then the manifest is replaced, then
 * the shards that it does not list are removed: at every moment one whole data set is there. */
int folder_publish(struct folder *f, const struct manifest *m, struct err *e)
{
    struct manifest *there = NULL;
    int64_t done = 0;
    char *text = manifest_text(m);
    int rc = text ? rename_all(f, &done, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0)
        rc = manifest_put(text, f->path, e);
    free(text);
    if (rc == 0) {
        f->published = true;
        clean(f, m);
    }
    if (rc < 0) /* a shard that the manifest in force lists stays, whoever wrote it */
        manifest_read(&there, f->path, NULL);
    for (int64_t i = 0; i < done && rc < 0; i++)
        if (!there || !is_listed(there, f->names[i]))
            unlinkat(f->dir, f->names[i], 0);
    manifest_free(there);
    return rc;
}

void folder_remove_temporaries(const struct folder *f)
{
    char name[40];

    /* One that has its name already, or was never made, is not there to be removed: no harm. */
    for (int64_t i = 0; i < f->n_temps && !f->published; i++) {
        spare_name(name, i);
        unlinkat(f->dir, name, 0);
    }
    if (f->made && !f->published)
        rmdir(f->path); /* fails, as it should, if something else is in it */
}

void folder_close(struct folder *f)
{
    if (!f)
        return;
    folder_remove_temporaries(f);
    if (f->dir >= 0)
        close(f->dir);
    free(f->names);
    free(f->path);
    free(f);
}
