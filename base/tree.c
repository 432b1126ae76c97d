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
    if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        return err_sys(e, E_IO, "cannot remove '%s'", path);
    return 0;
}
