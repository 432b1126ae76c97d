/* prep/publish.h - a data set folder being written: temporaries, lock, all or nothing. */
#ifndef PREP_PUBLISH_H
#define PREP_PUBLISH_H
#include "base/err.h"
#include "formats/tokens/manifest.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* Temporaries are .lpack-N.tmp, N counted from 0. */
struct folder;
/* Makes the folder where it is missing, locks it against another lpack, removes temporaries
 * that a killed run left. E_CREATE when it holds a manifest and force is not set. */
int folder_open(struct folder **f, const char *path, bool force, struct err *e);
/* Opens the next temporary for writing; *number is its N. Returns the descriptor, or E_CREATE. */
int folder_temp(struct folder *f, int64_t *number, struct err *e);
/* Makes 'path' the next temporary: a link to it where the file system can, else a copy. On
 * disk when it returns. E_NOINPUT, E_CREATE, E_IO. */
int folder_take(struct folder *f, const char *path, int64_t *number, struct err *e);
/* The path of temporary 'number'; malloc'ed. */
char *folder_temp_path(const struct folder *f, int64_t number);
/* Puts a finished temporary on disk. E_IO. */
int folder_sync_temp(struct folder *f, int fd, struct err *e);
/* Says what temporary 'number' will be called. E_SYS. */
int folder_name_temp(struct folder *f, int64_t number, const char *name, struct err *e);
/* Renames the temporaries, replaces the manifest, removes shards that it does not list. On
 * failure what was published before is intact. A signal must not end it half-way. E_CREATE,
 * E_IO. */
int folder_publish(struct folder *f, const struct manifest *m, struct err *e);
/* Removes temporaries that were not published, the folder too if it was made here and nothing
 * was; unlocks; frees. NULL is fine. */
void folder_close(struct folder *f);
void folder_remove_temporaries(const struct folder *f); /* async-signal-safe */

C_END
#endif
