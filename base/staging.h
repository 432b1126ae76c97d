/* base/staging.h - a folder that is filled beside its place and appears there whole. */
#ifndef BASE_STAGING_H
#define BASE_STAGING_H
#include "base/temp.h"
C_BEGIN

/* Fill the folder named tmp, then publish it: one rename, so that a crash leaves what was at path
 * before, or the new folder. What killed writers left beside path is removed at the start. */
struct staging {
    char path[TEMP_PATH_MAX], tmp[TEMP_PATH_MAX]; /* slashes at the end of path are cut */
    int lock;
};
/* E_CREATE. */
int staging_open(struct staging *s, const char *path, struct err *e);
/* tmp takes the place of path; a folder that is there goes only after the new one stands. On
 * failure tmp is removed, and path is as it was, or (E_IO) new but perhaps not on disk. */
int staging_publish(struct staging *s, struct err *e);
/* Removes tmp. */
void staging_abandon(struct staging *s);

C_END
#endif
