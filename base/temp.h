/* base/temp.h - names for what is being written: nobody can guess them, nobody else's is opened. */
#ifndef BASE_TEMP_H
#define BASE_TEMP_H
#include "base/err.h"
#include <stdbool.h>
C_BEGIN

/*
 * The temporary of "adapter.bin" is "adapter.bin.tmp-0123456789abcdef" beside it; the sixteen
 * digits are random. It is made exclusively (O_EXCL, mkdir), so that a file, folder or link that
 * somebody put there is never written to. While its maker lives it is locked (flock): what is
 * not locked was left by a killed process, and temp_sweep removes it.
 */
enum { TEMP_PATH_MAX = 4096 };

/* A fresh name for path's temporary. E_CREATE where it would be too long. */
int temp_name(char out[TEMP_PATH_MAX], const char *path, struct err *e);
/* Makes and locks a file, or a folder: its name in out, its descriptor returned. Closing that
 * unlocks. E_CREATE. */
int temp_file(char out[TEMP_PATH_MAX], const char *path, struct err *e);
int temp_folder(char out[TEMP_PATH_MAX], const char *path, struct err *e);
/* "x.tmp-0123456789abcdef", or "x.tmp123" of versions before 2, is a temporary of "x". */
bool temp_is_of(const char *name, const char *of);
/* Removes the temporaries of path that no living process holds; those that cannot be removed
 * stay. Nothing depends on it. */
void temp_sweep(const char *path);

C_END
#endif
