/* base/spool.c - see spool.h. */
#include "base/spool.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPOOL_BUF_BYTES ((size_t)1 << 20)

struct spool {
    char *folder;
    int fd;          /* -1 until memory does not suffice */
    /* Bytes are in the order of adding: first the file's, then those of buf.
     * buf never wraps. */
    int64_t flushed; /* bytes in the file; the rest stands in buf */
    size_t len;
    unsigned char buf[SPOOL_BUF_BYTES];
};

int spool_open(struct spool **out, const char *folder, struct err *e)
{
    struct spool *s = malloc(sizeof *s);

    *out = NULL;
    /* An empty TMPDIR counts as unset. */
    if (!folder && !((folder = getenv("TMPDIR")) && *folder))
        folder = "/tmp";
    if (!s || !(s->folder = strdup(folder))) {
        free(s);
        return err_set(e, E_SYS, "out of memory");
    }
    s->fd = -1;
    s->flushed = 0;
    s->len = 0;
    *out = s;
    return 0;
}

/* For work that continues: what lies behind keep_bytes is added anew, so it is cut off. */
int spool_open_at(struct spool **out, const char *path, int64_t keep_bytes, struct err *e)
{
    struct stat st;
    struct spool *s;
    int rc = spool_open(out, path, e);

    if (rc < 0)
        return rc;
    /* *out stays NULL until all has worked. */
    s = *out;
    *out = NULL;
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (s->fd < 0 || fstat(s->fd, &st) < 0)
        rc = err_sys(e, E_CREATE, "cannot open '%s'", path);
    else if (st.st_size < keep_bytes)
        rc = err_set(e, E_DATA, "'%s' has %lld bytes, and must have %lld", path,
                     (long long)st.st_size, (long long)keep_bytes);
    else if (ftruncate(s->fd, keep_bytes) < 0 || lseek(s->fd, keep_bytes, SEEK_SET) < 0)
        rc = err_sys(e, E_IO, "cannot truncate '%s'", path);
    if (rc < 0) {
        spool_close(s);
        return rc;
    }
    s->flushed = keep_bytes;
    *out = s;
    return 0;
}

void spool_close(struct spool *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    free(s->folder);
    free(s);
}

/* A file without a name, or where the file system knows none, one that loses it at once. */
static int open_unnamed(const char *folder, struct err *e)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char *path;

    if (fd >= 0)
        return fd;
    path = path_join(folder, ".longlora-XXXXXX");
    if ((fd = mkostemp(path, O_CLOEXEC)) >= 0)
        unlink(path);
    else
        fd = err_sys(e, E_CREATE, "cannot create a temporary file in '%s'", folder);
    free(path);
    return fd;
}

/* Appends to the file, which is made at the first need. buf is the caller's to empty. */
static int flush(struct spool *s, const void *p, size_t nbytes, struct err *e)
{
    int rc;

    if (s->fd < 0) {
        if ((rc = open_unnamed(s->folder, e)) < 0)
            return rc;
        s->fd = rc;
    }
    if ((rc = file_write_all(s->fd, p, nbytes, s->folder, e)) < 0)
        return err_within(e, "a temporary file");
    s->flushed += (int64_t)nbytes;
    return 0;
}

int spool_add(struct spool *s, const void *p, size_t nbytes, struct err *e)
{
    int rc;

    if (nbytes > SPOOL_BUF_BYTES - s->len) {
        if (s->len && (rc = flush(s, s->buf, s->len, e)) < 0)
            return rc;
        s->len = 0;
        /* What is larger than the whole buffer goes straight to the file. */
        if (nbytes > SPOOL_BUF_BYTES)
            return flush(s, p, nbytes, e);
    }
    if (nbytes)
        memcpy(s->buf + s->len, p, nbytes);
    s->len += nbytes;
    return 0;
}

int spool_sync(struct spool *s, struct err *e)
{
    int rc = s->len ? flush(s, s->buf, s->len, e) : 0;

    if (rc < 0)
        return rc;
    s->len = 0;
    /* Without a file there is nothing on disk yet, nor anything that has to be. */
    if (s->fd >= 0 && fdatasync(s->fd) < 0)
        return err_sys(e, E_IO, "cannot sync a file in '%s'", s->folder);
    return 0;
}

int64_t spool_bytes(const struct spool *s)
{
    return s->flushed + (int64_t)s->len;
}

int spool_read(const struct spool *s, int64_t offset, void *p, size_t nbytes, struct err *e)
{
    char *to = p;

    if (offset < 0 || offset > spool_bytes(s) ||
        nbytes > (size_t)(spool_bytes(s) - offset))
        return err_set(e, E_BUG, "a read past the end of a temporary file");
    /* First what lies in the file; what is left over lies in buf. */
    while (nbytes > 0 && offset < s->flushed) {
        size_t left = (size_t)(s->flushed - offset);
        ssize_t k = pread(s->fd, to, nbytes < left ? nbytes : left, offset);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return err_sys(e, E_IO, "cannot read a temporary file in '%s'", s->folder);
        /* The end of the file before its known length: another program has cut it. */
        if (k == 0)
            return err_set(e, E_IO, "a temporary file in '%s' was cut", s->folder);
        to += k;
        offset += k;
        nbytes -= (size_t)k;
    }
    if (nbytes > 0)
        memcpy(to, s->buf + (offset - s->flushed), nbytes);
    return 0;
}
