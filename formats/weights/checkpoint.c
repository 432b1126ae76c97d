/* formats/weights/checkpoint.c - see checkpoint.h.
 *
 * The state of a folder shows in its name and in its manifest: step-N.tmp is being written,
 * step-N with a manifest is a whole checkpoint, step-N without one is half removed, step-N.bad
 * has failed its check. A process can be killed between any two lines here, so each step leaves
 * one of these states. */
#include "formats/weights/checkpoint.h"
#include "base/bytes.h"
#include "base/hash.h"

#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void checkpoint_free(struct checkpoint *c)
{
    free(c->run);
    memset(c, 0, sizeof *c);
}

/* root/step-00000100 and a suffix: "" for a checkpoint, ".tmp" while it is written, ".bad" when
 * it has failed its check. malloc'ed. */
static char *step_path(const char *root, int64_t step, const char *suffix)
{
    char name[64];

    snprintf(name, sizeof name, "step-%08" PRId64 "%s", step, suffix);
    return path_join(root, name);
}

int64_t checkpoint_step(const char *name)
{
    int64_t step;
    char back[64];

    if (strncmp(name, "step-", 5) != 0 || !isdigit((unsigned char)name[5]) ||
        /* More than 18 digits could overflow an int64_t. */
        strlen(name) > 5 + 18 || strspn(name + 5, "0123456789") != strlen(name + 5))
        return -1;
    step = strtoll(name + 5, NULL, 10);
    /* Only the name that step_path would make is ours: "step-100" is not. */
    snprintf(back, sizeof back, "step-%08" PRId64, step);
    return strcmp(back, name) == 0 ? step : -1;
}

/* For qsort; a difference instead of comparisons could overflow. */
static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The steps that have a folder in root, newest first, malloc'ed; *n is 0 without a root. */
static int list_steps(const char *root, int64_t **steps, int64_t *n, struct err *e)
{
    DIR *d = opendir(root);
    struct dirent *f;
    size_t cap = 0;

    *steps = NULL, *n = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, E_IO, "cannot list '%s'", root);
    while ((f = readdir(d))) {
        int64_t step = checkpoint_step(f->d_name);
        if (step < 0)
            continue;
        if (array_grow(steps, &cap, (size_t)*n, sizeof **steps, 16, "checkpoints", e) < 0) {
            closedir(d);
            free(*steps);
            *steps = NULL;
            return E_SYS;
        }
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n)
        qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return 0;
}

/* The manifest is written last and removed first, so a folder with one is whole. */
static bool has_manifest(const char *folder)
{
    char *m = path_join(folder, CHECKPOINT_MANIFEST);
    bool yes = path_exists(m);

    free(m);
    return yes;
}

/* Manifest first: from then on nobody takes what is left for a checkpoint. */
static int remove_folder(const char *folder, struct err *e)
{
    char *m = path_join(folder, CHECKPOINT_MANIFEST);
    int rc = 0;

    if (unlink(m) == 0)
        rc = file_sync(folder, e);
    else if (errno != ENOENT && errno != ENOTDIR)
        rc = err_sys(e, E_IO, "cannot remove '%s'", m);
    free(m);
    return rc < 0 ? rc : dir_remove(folder, e);
}

/* A writer that was killed may have left a folder of this name, so it is removed first. */
int checkpoint_begin(const char *root, int64_t step, char **folder, struct err *e)
{
    int rc = dir_make(root, e);

    *folder = step_path(root, step, ".tmp");
    if (rc == 0)
        rc = dir_remove(*folder, e);
    if (rc == 0)
        rc = dir_make(*folder, e);
    if (rc < 0) {
        free(*folder);
        *folder = NULL;
    }
    return rc;
}

/* Read, not mapped: the pages of a large state would count as the process's memory. */
static int hash_fd(int fd, const char *path, XXH3_state_t *h, struct checkpoint_file *f,
                   struct err *e)
{
    static const size_t step = 1 << 20;
    char *buf = malloc(step);
    XXH128_hash_t sum;
    ssize_t k;

    if (!buf)
        return err_set(e, E_SYS, "out of memory");
    f->nbytes = 0;
    XXH3_128bits_reset(h);
    while ((k = read(fd, buf, step)) != 0) {
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            free(buf);
            return err_sys(e, E_IO, "cannot read '%s'", path);
        }
        XXH3_128bits_update(h, buf, (size_t)k);
        f->nbytes += k;
    }
    free(buf);
    sum = XXH3_128bits_digest(h);
    hash_hex(sum, f->xxh3);
    return 0;
}

/* O_NONBLOCK: a pipe under that name must not block the open. A regular file is read as
 * usual. */
static int hash_file(const char *folder, const char *name, struct checkpoint_file *f,
                     struct err *e)
{
    char *path = path_join(folder, name);
    XXH3_state_t *h = XXH3_createState();
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        rc = err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    else
        rc = h ? hash_fd(fd, path, h, f, e) : err_set(e, E_SYS, "out of memory");
    if (fd >= 0)
        close(fd);
    XXH3_freeState(h);
    free(path);
    return rc;
}

/* Size and hash of every file in the folder, into c->file. The manifest is not yet among
 * them. */
static int hash_all(const char *folder, struct checkpoint *c, struct err *e)
{
    DIR *d = opendir(folder);
    struct dirent *f;
    int rc = 0;

    if (!d)
        return err_sys(e, E_IO, "cannot list '%s'", folder);
    c->n_files = 0;
    while (rc == 0 && (f = readdir(d))) {
        struct checkpoint_file *to = &c->file[c->n_files];
        /* "." and "..", and hidden files, which are none of the checkpoint's. */
        if (f->d_name[0] == '.')
            continue;
        if (c->n_files == CHECKPOINT_MAX_FILES || strlen(f->d_name) >= sizeof to->name) {
            rc = err_set(e, E_BUG, "'%s' has more files than a checkpoint can have", folder);
            break;
        }
        memcpy(to->name, f->d_name, strlen(f->d_name) + 1);
        rc = hash_file(folder, to->name, to, e);
        c->n_files++;
    }
    closedir(d);
    return rc;
}

/* The order matters, since the process can be killed at any time: first the hashes, then the
 * manifest, then all of it on disk, and only then the final name. */
int checkpoint_commit(const char *root, struct checkpoint *c, struct err *e)
{
    char *tmp = step_path(root, c->step, ".tmp"), *final = step_path(root, c->step, "");
    char *manifest = path_join(tmp, CHECKPOINT_MANIFEST);
    struct buf text = { 0 };
    int rc = hash_all(tmp, c, e);

    if (rc == 0)
        rc = checkpoint_format(c, &text, e);
    if (rc == 0)
        rc = file_replace(manifest, text.p, text.len, e);
    if (rc == 0)
        rc = file_sync(tmp, e);
    if (rc == 0)
        rc = remove_folder(final, e); /* one of the same step, if any, says the same */
    if (rc == 0)
        rc = file_publish(tmp, final, e);
    if (rc < 0)
        dir_remove(tmp, NULL);
    buf_free(&text);
    free(manifest);
    free(final);
    free(tmp);
    return rc;
}

void checkpoint_abandon(const char *root, int64_t step)
{
    char *tmp = step_path(root, step, ".tmp");

    dir_remove(tmp, NULL);
    free(tmp);
}

int checkpoint_prune(const char *root, int64_t step, int64_t keep, struct err *e)
{
    int64_t *steps, n, kept = 0;
    int rc = list_steps(root, &steps, &n, e);

    for (int64_t i = 0; rc == 0 && i < n; i++) {
        char *folder = step_path(root, steps[i], "");
        /* Folders without a manifest are no checkpoints: neither kept nor counted, and left to
         * checkpoint_sweep. keep below 1 is taken as 1. */
        if (steps[i] <= step && has_manifest(folder) && ++kept > (keep < 1 ? 1 : keep))
            rc = remove_folder(folder, e);
        free(folder);
    }
    free(steps);
    return rc;
}

int checkpoint_sweep(const char *root, struct err *e)
{
    DIR *d = opendir(root);
    struct dirent *f;
    int rc = 0;

    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, E_IO, "cannot list '%s'", root);
    /* Removed: step-N.tmp, and step-N without a manifest. Anything else in root is left
     * alone. */
    while (rc == 0 && (f = readdir(d))) {
        char *path = path_join(root, f->d_name), name[64];
        size_t n = strlen(f->d_name);
        /* tmp: the name is one of ours and ".tmp", not just any file that ends so. */
        bool tmp = false;

        if (n > 4 && n < sizeof name && strcmp(f->d_name + n - 4, ".tmp") == 0) {
            snprintf(name, sizeof name, "%.*s", (int)(n - 4), f->d_name);
            tmp = checkpoint_step(name) >= 0;
        }
        if (tmp || (checkpoint_step(f->d_name) >= 0 && !has_manifest(path)))
            rc = dir_remove(path, e);
        free(path);
    }
    closedir(d);
    return rc;
}

/* On failure c is emptied, so the caller has nothing to free. */
static int read_manifest(const char *folder, struct checkpoint *c, struct err *e)
{
    char *path = path_join(folder, CHECKPOINT_MANIFEST), *text = NULL;
    size_t nbytes;
    int rc = file_read(path, CHECKPOINT_MAX_MANIFEST, &text, &nbytes, e);

    memset(c, 0, sizeof *c);
    if (rc == 0)
        rc = checkpoint_parse(c, text, nbytes, path, e);
    free(text);
    free(path);
    return rc;
}

int checkpoint_newest(const char *root, struct checkpoint *c, struct err *e)
{
    struct err why = { 0 };
    int64_t *steps = NULL, n = 0, i = 0;
    int rc = list_steps(root, &steps, &n, &why), found = 0;

    memset(c, 0, sizeof *c);
    for (; i < n && !found && rc != E_SYS; i++) {
        char *folder = step_path(root, steps[i], "");

        found = (rc = read_manifest(folder, c, &why)) == 0;
        free(folder);
    }
    free(steps);
    if (rc == E_SYS)
        *e = why;
    return rc == E_SYS ? rc : found;
}

int checkpoint_verify(const char *folder, struct checkpoint *c, struct err *e)
{
    int rc = read_manifest(folder, c, e);

    for (int i = 0; rc == 0 && i < c->n_files; i++) {
        struct checkpoint_file found = { 0 }, *want = &c->file[i];
        if ((rc = hash_file(folder, want->name, &found, e)) < 0)
            break;
        /* The size first, so that a cut file is named as such. */
        if (found.nbytes != want->nbytes)
            rc = err_set(e, E_DATA, "'%s/%s' has %" PRId64 " bytes, its manifest says %" PRId64,
                         folder, want->name, found.nbytes, want->nbytes);
        else if (strcmp(found.xxh3, want->xxh3) != 0)
            rc = err_set(e, E_DATA, "'%s/%s' was changed: XXH3-128 is %s, its manifest says %s",
                         folder, want->name, found.xxh3, want->xxh3);
    }
    if (rc < 0)
        checkpoint_free(c);
    return rc;
}

/* Out of the way, so that it is neither tried again nor counted among those kept. */
static int set_aside(const char *root, int64_t step, struct err *e)
{
    char *from = step_path(root, step, ""), *to = step_path(root, step, ".bad");
    int rc = dir_remove(to, e);

    if (rc == 0)
        rc = file_publish(from, to, e);
    free(from);
    free(to);
    return rc;
}

int checkpoint_find(const char *root, struct checkpoint *c, char **folder,
                    checkpoint_bad_fn *bad, void *ctx, struct err *e)
{
    int64_t *steps, n, tried = 0;
    int rc = list_steps(root, &steps, &n, e);
    /* Why the last one failed: for bad and, when none is whole, for the caller. */
    struct err why = { 0 };
    int64_t i;

    *folder = NULL;
    memset(c, 0, sizeof *c);
    for (i = 0; rc == 0 && i < n && !*folder; i++) {
        char *path = step_path(root, steps[i], "");
        if (!has_manifest(path)) {
            free(path);
            continue;
        }
        /* Only folders with a manifest count as checkpoints that failed. */
        tried++;
        rc = checkpoint_verify(path, c, &why);
        if (rc == 0 && c->step != steps[i]) {
            rc = err_set(&why, E_DATA, "'%s': its manifest says step %" PRId64, path, c->step);
            checkpoint_free(c);
        }
        if (rc == 0) {
            *folder = path;
            break;
        }
        if (rc != E_DATA && rc != E_NOINPUT) { /* the disk or memory failed, not the checkpoint */
            *e = why;
            free(path);
            break;
        }
        rc = 0;
        if (bad)
            bad(ctx, path, &why);
        free(path);
    }
    if (rc == 0 && tried && !*folder) {
        rc = err_set(e, E_DATA, "none of the %" PRId64 " checkpoints in '%s' is whole: %s",
                     tried, root, why.msg);
        err_hint(e, "start over with -f, or restore the folder from a copy");
    }
    /* i is the one found; all before it are newer and were passed over. */
    for (int64_t k = 0; rc == 0 && *folder && k < i; k++) {
        char *path = step_path(root, steps[k], "");
        if (has_manifest(path)) /* else it is no checkpoint that failed: checkpoint_sweep's */
            rc = set_aside(root, steps[k], e);
        free(path);
    }
    free(steps);
    if (rc < 0 && *folder) {
        checkpoint_free(c);
        free(*folder);
        *folder = NULL;
    }
    return rc < 0 ? rc : *folder != NULL;
}
