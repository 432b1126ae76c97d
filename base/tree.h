/* base/tree.h - a folder with all that is below it. */
#ifndef BASE_TREE_H
#define BASE_TREE_H
#include "base/err.h"
C_BEGIN

/* Removes a folder and all below it, never following links; an absent one is fine. E_IO. */
int dir_remove(const char *path, struct err *e);

C_END
#endif
