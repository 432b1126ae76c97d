/* base/tree.c - see tree.h. */
#include "base/tree.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *w)
{
    (void)st, (void)type, (void)w;
    return remove(path);
}

int dir_remove(const char *path, struct err *e)
{
    /* What is in a folder goes before it (FTW_DEPTH), and a link goes, not what it names
     * (FTW_PHYS). 32 descriptors at most. What is not there is removed already. */
    if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        return err_sys(e, E_IO, "cannot remove '%s'", path);
    return 0;
}
