/* base/staging.c - see staging.h. */
#include "base/staging.h"

#include "base/file.h"

#include <string.h>
#include <unistd.h>

int staging_open(struct staging *s, const char *path, struct err *e)
{
    size_t n = strlen(path);

    s->lock = -1;
    /* The temporary name is the path with an ending, so a '/' must not stand between them. */
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n >= sizeof s->path)
        return err_set(e, E_CREATE, "path too long: '%.200s...'", path);
    memcpy(s->path, path, n);
    s->path[n] = '\0';
    /* First the remains of earlier runs, so that their room is free again. */
    temp_sweep(s->path);
    s->lock = temp_folder(s->tmp, s->path, e);
    return s->lock < 0 ? s->lock : 0;
}

static void unlock(struct staging *s)
{
    if (s->lock >= 0)
        close(s->lock);
    s->lock = -1;
}

int staging_publish(struct staging *s, struct err *e)
{
    int rc = file_sync(s->tmp, e);

    /* One rename where nothing is in the way. Else the two folders change places, so that the
     * path is never without one where the file system can exchange names. */
    if (rc == 0 && !path_exists(s->path))
        rc = file_publish(s->tmp, s->path, e);
    else if (rc == 0 && (rc = file_swap(s->tmp, s->path, e)) == 0)
        rc = dir_remove(s->tmp, e); /* what was at path */
    if (rc < 0)
        staging_abandon(s);
    unlock(s);
    return rc;
}

void staging_abandon(struct staging *s)
{
    dir_remove(s->tmp, NULL);
    unlock(s);
}
